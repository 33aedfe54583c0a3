"""SelfTalk's modules and losses on tiny random weights."""

import math

import pytest
import torch

from ecavatar.errors import DataError, ShapeError
from ecavatar.models.selftalk import (
    LipMotion,
    LipReadingInterpreter,
    SelfTalk,
    Teacher,
    motion_losses,
    padding_mask,
    reading_losses,
)

V = 11
ENCODER = {
    "model_type": "hubert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 24, "conv_dim": [8, 8], "conv_kernel": [10, 8], "conv_stride": [10, 32],
    "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


def network(**changes):
    torch.manual_seed(0)
    sizes = {
        "encoder": ENCODER,
        "frozen": "all",
        "n_vertices": V,
        "feature_dim": 8,
        "heads": 2,
        "dropout": 0.1,
        "output_scale_m": 0.01,
    }
    return SelfTalk(**(sizes | changes))


def trained(model):
    """The same network with output layers that are not zero."""
    with torch.no_grad():
        for layer in filter(None, (model.vertex_map, model.angle_map)):
            layer.weight.normal_(generator=torch.Generator().manual_seed(1))
    return model


def test_an_untrained_network_gives_the_template_and_a_closed_mouth():
    template = torch.randn(V, 3)
    motion = network().predict(torch.randn(4000), template, frames=7)
    torch.testing.assert_close(motion.vertices, template.expand(7, V, 3))
    assert motion.angles is not None
    assert motion.angles.tolist() == [0.0] * 7


def test_prediction_ignores_loudness_and_repeats_itself():
    model, samples, template = trained(network()).train(), torch.randn(4000), torch.zeros(V, 3)
    first = model.predict(samples, template, 6)
    second = model.predict(0.1 * samples + 0.02, template, 6)
    torch.testing.assert_close(first.vertices, second.vertices, atol=1e-6, rtol=1e-3)
    assert torch.equal(first.vertices, model.predict(samples, template, 6).vertices)
    assert model.training, "prediction must leave the mode as it was"


def test_output_scale_only_scales():
    one, ten = trained(network(output_scale_m=1.0)), trained(network(output_scale_m=10.0))
    samples, template = torch.randn(4000), torch.zeros(V, 3)
    torch.testing.assert_close(
        10 * one.predict(samples, template, 5).vertices, ten.predict(samples, template, 5).vertices
    )


def test_a_clip_in_a_padded_batch_moves_as_it_does_alone():
    model = trained(network()).eval()
    features = torch.randn(1, 9, 16)
    padded = torch.cat([torch.cat([features[:, :6], torch.randn(1, 3, 16)], dim=1), features])
    together = model.animate(padded, padding_mask([6, 9], padded.device))
    alone = model.animate(features[:, :6])
    torch.testing.assert_close(together.vertices[0, :6], alone.vertices[0], atol=1e-5, rtol=1e-4)


def interpreter(**changes):
    torch.manual_seed(2)
    sizes = {
        "n_lips": 4,
        "width": 8,
        "vocabulary": 6,
        "layers": 1,
        "heads": 2,
        "ffn": 12,
        "dropout": 0.1,
        "scale_m": 0.01,
    }
    return LipReadingInterpreter(**(sizes | changes))


def test_the_interpreter_answers_at_the_recognisers_rate_and_ignores_padding():
    model, lips = interpreter().eval(), 0.01 * torch.randn(2, 9, 4, 3)
    hidden, logits = model(lips, [6, 9], [10, 15])
    assert hidden.shape == (2, 15, 8)
    assert logits.shape == (2, 15, 6)
    alone, _ = model(lips[:1, :6], [6], [10])
    torch.testing.assert_close(hidden[0, :10], alone[0], atol=1e-5, rtol=1e-4)


def test_motion_losses_by_hand_and_blind_to_padding():
    truth = LipMotion(vertices=torch.zeros(2, 3, 1, 3), angles=torch.zeros(2, 3))
    vertices = torch.zeros(2, 3, 1, 3)
    vertices[0, :, 0, 0] = torch.tensor([0.0, 3.0, 3.0])  # squared error 9 twice, over 3 coordinates
    vertices[1, 1:] = 1e6  # padding
    angles = torch.tensor([[0.0, 0.0, 2.0], [0.0, 9.0, 9.0]])
    losses = motion_losses(LipMotion(vertices=vertices, angles=angles), truth, [3, 1])
    assert losses["reconstruction"].item() == pytest.approx((3 + 3) / 4)
    assert losses["velocity"].item() == pytest.approx(3 / 2)
    assert losses["angle"].item() == pytest.approx(4 / 4)


def teacher(token_counts, steps=(5, 7)):
    tokens = torch.ones(sum(token_counts), dtype=torch.long)
    return Teacher(
        hidden=torch.zeros(2, 7, 8), steps=steps, tokens=tokens, token_counts=torch.tensor(token_counts), blank=0
    )


def test_text_loss_by_hand():
    logits = torch.zeros(2, 7, 6)  # every letter 1/6: one letter in n steps has n (n + 1) / 2 alignments
    losses = reading_losses(torch.ones(2, 7, 8), logits, teacher([1, 1]))
    expected = [n * math.log(6) - math.log(n * (n + 1) / 2) for n in (5, 7)]
    assert losses["text"].item() == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert losses["latent"].item() == pytest.approx(1.0)


def test_an_empty_transcript_gives_no_text_loss_and_finite_gradients():
    logits = torch.randn(2, 7, 6, requires_grad=True)
    assert reading_losses(torch.zeros(2, 7, 8), logits, teacher([0, 0]))["text"].item() == 0
    some = reading_losses(torch.zeros(2, 7, 8), logits, teacher([0, 2]))["text"]
    some.backward()
    assert some > 0
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[0].abs().max() == 0


def motion_of(vertices, *, angles=True):
    return LipMotion(vertices=torch.zeros(1, 3, vertices, 3), angles=torch.zeros(1, 3) if angles else None)


def test_a_regressed_mouth_follows_the_face_and_has_no_angle():
    model = trained(network(mouth="regressed", n_mouth=4))
    head = torch.randn(V + 4, 3)
    motion = model.predict(torch.randn(4000), head, frames=3)
    assert motion.vertices.shape == (3, V + 4, 3)
    assert motion.angles is None
    torch.manual_seed(5)
    samples = torch.randn(4000)
    whole, face = model.predict(samples, head, 7), model.predict(samples, head[:V], 7)
    torch.testing.assert_close(whole.vertices[:, :V], face.vertices, atol=1e-7, rtol=0)
    losses = motion_losses(LipMotion(vertices=motion.vertices[None], angles=None), motion_of(V + 4), [3])
    assert set(losses) == {"reconstruction", "velocity"}


def test_flames_face_with_the_papers_mouth_has_15051_vertices_and_starts_at_the_template():
    model, head = network(n_vertices=5023, mouth="regressed", n_mouth=10028), torch.randn(15051, 3)
    motion = model.predict(torch.randn(4000), head, frames=2)
    assert torch.equal(motion.vertices, head.expand(2, 15051, 3))
    assert sum(p.numel() for p in model.vertex_map.parameters()) == 3 * 15051 * (8 + 1)


def test_a_clip_too_short_for_one_feature_is_padded_with_silence():
    motion = trained(network()).predict(torch.randn(20), torch.zeros(V, 3), 1)
    assert motion.vertices.isfinite().all()


def test_where_the_encoder_is_resampled_is_an_argument_that_is_kept():
    early, late = (trained(network(resample=site)) for site in ("before_projection", "after_encoder"))
    samples, template = torch.randn(8000), torch.zeros(V, 3)
    assert not torch.allclose(early.predict(samples, template, 9).vertices, late.predict(samples, template, 9).vertices)
    again = SelfTalk(**late.arguments())
    assert again.encoder.resample == "after_encoder"


def test_an_encoder_that_does_not_normalise_hears_loudness():
    model, samples, template = trained(network(normalises=False)), torch.randn(4000), torch.zeros(V, 3)
    quiet, loud = (model.predict(gain * samples, template, 6).vertices for gain in (0.1, 1.0))
    assert not torch.allclose(quiet, loud, rtol=1e-3)


def test_bfloat16_moves_vertices_a_little_and_keeps_float32_results():
    samples, template = torch.randn(16000), torch.zeros(V, 3)
    exact = trained(network()).predict(samples, template, 30).vertices
    rough = trained(network()).to_bfloat16().predict(samples, template, 30).vertices
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).norm(dim=-1).max() < 0.1 * exact.norm(dim=-1).max()


def test_only_the_encoder_can_be_frozen():
    frozen, front = network(), network(frozen="conv")
    assert not any(parameter.requires_grad for parameter in frozen.encoder.parameters())
    assert all(parameter.requires_grad for parameter in front.encoder.model.encoder.parameters())
    assert not any(parameter.requires_grad for parameter in front.encoder.model.feature_extractor.parameters())


def test_wrong_input_is_refused():
    with pytest.raises(ShapeError, match="template"):
        network().predict(torch.randn(4000), torch.zeros(V + 1, 3), 5)
    with pytest.raises(ShapeError):
        network().predict(torch.zeros(0), torch.zeros(V, 3), 5)
    with pytest.raises(ShapeError):
        network().predict(torch.randn(4000), torch.zeros(V, 3), 0)
    with pytest.raises(DataError, match="rigged"):
        network(n_mouth=4)
    with pytest.raises(ShapeError, match="angles"):
        motion_losses(motion_of(2, angles=True), motion_of(2, angles=False), [3])
    with pytest.raises(ShapeError, match="Join"):
        motion_losses(motion_of(3), motion_of(2), [3])
    with pytest.raises(DataError, match="heads"):
        network(heads=3)
    with pytest.raises(DataError, match="HuBERT"):
        network(encoder={"model_type": "bert"})
    with pytest.raises(DataError, match="interpreter_heads"):
        interpreter(heads=3)
