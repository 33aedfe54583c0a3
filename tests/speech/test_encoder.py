"""The encoder answers at the motion rate, and a clip never notices the batch it is in."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from ecavatar.errors import DataError, ShapeError
from ecavatar.speech.encoder import FrozenPart, ResampleSite, SpeechEncoder, count_steps, shortest_clip
from ecavatar.speech.precision import multiplies_bfloat16
from ecavatar.speech.sound_facts import measure_sound
from tests.fabricate_speech import FAMILIES, Norm, speechlike, tiny

SITES: tuple[ResampleSite, ...] = ("before_projection", "after_encoder")
EVERY_KIND = pytest.mark.parametrize(
    ("family", "norm"), [(family, norm) for family in FAMILIES for norm in ("group", "layer")]
)


# --- batches ----------------------------------------------------------------------------------------------------------


@EVERY_KIND
@pytest.mark.parametrize("site", SITES)
def test_a_padded_batch_agrees_with_single_clips(family: str, norm: Norm, site: ResampleSite) -> None:
    encoder = SpeechEncoder(tiny(family, norm), resample=site).eval()
    lengths, frames = [9000, 16000, 400, 5200], [17, 30, 1, 10]
    clips = [speechlike(n, n) for n in lengths]
    batch = pad_sequence(clips, batch_first=True, padding_value=0.7)
    together = encoder(batch, lengths, frames)
    assert together.shape == (4, 30, encoder.width)
    for row, clip, count in zip(together, clips, frames, strict=True):
        alone = encoder(clip[None], None, count)[0]
        torch.testing.assert_close(row[:count], alone, atol=2e-5, rtol=1e-4)
        assert not row[count:].any()


@EVERY_KIND
def test_unresampled_features_come_50_a_second_for_each_clip(family: str, norm: Norm) -> None:
    encoder = SpeechEncoder(tiny(family, norm), resample="after_encoder").eval()
    lengths = [8000, 16000, 719, 720]
    counts = [encoder.steps(n) for n in lengths]
    assert counts == [24, 49, 1, 2]
    clips = [speechlike(n, n) for n in lengths]
    together = encoder(pad_sequence(clips, batch_first=True), lengths, None)
    for row, clip, count in zip(together, clips, counts, strict=True):
        torch.testing.assert_close(row[:count], encoder.model(clip[None]).last_hidden_state[0], atol=2e-5, rtol=1e-4)
        assert not row[count:].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_norm_front_ends_agree_when_convolved_together(family: str) -> None:
    encoder = SpeechEncoder(tiny(family, "layer")).eval()
    lengths = [9000, 16000, 5200]
    batch = pad_sequence([speechlike(n, n) for n in lengths], batch_first=True, padding_value=0.7)
    together, alone = encoder._convolved_together(batch, lengths), encoder._convolved(batch, lengths)
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("site", SITES)
def test_gradients_of_a_padded_batch_are_those_of_its_clips(site: ResampleSite) -> None:
    encoder = SpeechEncoder(tiny("hubert", "layer"), "none", resample=site).eval()
    lengths, frames = [9000, 5200], [17, 10]
    clips = [speechlike(n, n) for n in lengths]

    def gradient(total: torch.Tensor) -> torch.Tensor:
        encoder.zero_grad()
        total.backward()
        return torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None])

    together = gradient(encoder(pad_sequence(clips, batch_first=True), lengths, frames).square().sum())
    apart = [encoder(clip[None], None, n).square().sum() for clip, n in zip(clips, frames, strict=True)]
    torch.testing.assert_close(together, gradient(apart[0] + apart[1]), atol=1e-3, rtol=1e-3)


# --- one clip ---------------------------------------------------------------------------------------------------------


@EVERY_KIND
@pytest.mark.parametrize("site", SITES)
def test_at_its_own_rate_it_is_the_transformers_model(family: str, norm: Norm, site: ResampleSite) -> None:
    model = tiny(family, norm)
    samples = speechlike(8000, 0)[None]
    expected = model(samples).last_hidden_state
    encoder = SpeechEncoder(model, resample=site).eval()
    torch.testing.assert_close(encoder(samples, None, expected.shape[1]), expected, rtol=0, atol=0)
    torch.testing.assert_close(encoder(samples, None, None), expected, rtol=0, atol=0)


def test_the_two_sites_interpolate_where_they_say() -> None:
    model, samples = tiny("wav2vec2", "layer"), speechlike(16000, 0)[None]

    def resized(features: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(features.transpose(1, 2), size=30, mode="linear", align_corners=True).mT

    local = model.feature_extractor(samples).transpose(1, 2)
    before = model.encoder(model.feature_projection(resized(local))[0]).last_hidden_state
    after = resized(model(samples).last_hidden_state)
    for site, expected in zip(SITES, (before, after), strict=True):
        torch.testing.assert_close(SpeechEncoder(model, resample=site).eval()(samples, None, 30), expected)
    assert not torch.allclose(before, after, atol=1e-3)


@pytest.mark.parametrize("samples", [400, 401, 719, 720, 16000, 54321])
def test_counted_steps_are_the_network_s(samples: int) -> None:
    encoder = SpeechEncoder(tiny("hubert"))
    assert encoder.steps(samples) == encoder.model.feature_extractor(torch.zeros(1, samples)).shape[-1]
    assert encoder.steps(399) == encoder.steps(3) == count_steps(0, [10], [5]) == 0


def test_silence_and_clipped_noise_give_finite_features() -> None:
    for norm in ("group", "layer"):
        encoder = SpeechEncoder(tiny("hubert", norm)).eval()
        for samples in (np.zeros(8000), np.sign(speechlike(8000, 0).numpy()), np.full(8000, 0.3)):
            assert encoder(encoder.prepare(samples)[None], None, 15).isfinite().all()


# --- preparing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 100, 399, 400, 401])
def test_short_clips_are_padded_with_silence_to_one_feature(count: int) -> None:
    encoder = SpeechEncoder(tiny("hubert")).eval()
    clip = 0.1 * speechlike(count, 0) + 0.2
    prepared = encoder.prepare(clip)
    assert len(prepared) == max(count, encoder.shortest) == max(count, 400)
    assert not prepared[count:].any()
    assert abs(float(prepared[:count].mean())) < 1e-5
    assert encoder(prepared[None], None, 1).shape == (1, 1, encoder.width)


def test_preparing_follows_the_processor() -> None:
    clip = 0.1 * speechlike(4000, 0).numpy() + 0.2
    levelled = SpeechEncoder(tiny("hubert"), normalises=True).prepare(clip)
    torch.testing.assert_close(levelled.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(levelled.var(), torch.tensor(1.0), atol=1e-3, rtol=0)
    raw = SpeechEncoder(tiny("hubert"), normalises=False).prepare(clip)
    np.testing.assert_array_equal(raw.numpy(), clip)


def test_blocks_prepared_with_the_whole_s_level_are_pieces_of_the_whole() -> None:
    encoder, clip = SpeechEncoder(tiny("hubert")), 0.1 * speechlike(9000, 0).numpy() + 0.2
    blocks = np.split(clip, [3000, 6000])
    level = measure_sound(blocks, 16000).level
    pieces = torch.cat([encoder.prepare(block, level) for block in blocks])
    torch.testing.assert_close(pieces, encoder.prepare(clip), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", [(0,), (1, 400), ()])
def test_what_is_no_clip_is_not_prepared(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="one clip"):
        SpeechEncoder(tiny("hubert")).prepare(np.zeros(shape))


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(
    ("frozen", "moving"), [("none", {"feature_extractor", "encoder"}), ("conv", {"encoder"}), ("all", set())]
)
def test_only_the_frozen_part_gets_no_gradient(frozen: FrozenPart, moving: set[str], site: ResampleSite) -> None:
    encoder = SpeechEncoder(tiny("hubert"), frozen, resample=site).train()
    out = encoder(speechlike(6000, 0)[None], None, 12)
    if moving:
        out.sum().backward()
    assert out.requires_grad == bool(moving)
    parts = {"feature_extractor", "encoder"}
    seen = {part for part in parts if any(p.grad is not None for p in getattr(encoder.model, part).parameters())}
    assert seen == moving


def test_a_wholly_frozen_encoder_never_trains() -> None:
    model = tiny("hubert")
    model.config.hidden_dropout = model.encoder.dropout.p = 0.5
    frozen, samples = SpeechEncoder(model, "all"), speechlike(6000, 0)[None]
    torch.nn.ModuleDict({"encoder": frozen}).train()
    assert not any(part.training for part in frozen.modules())
    torch.testing.assert_close(frozen(samples, None, 12), frozen(samples, None, 12), rtol=0, atol=0)


@pytest.mark.parametrize("site", SITES)
def test_spec_augment_hides_time_while_training_only_and_follows_torchs_seed(site: ResampleSite) -> None:
    model = tiny("hubert")
    model.config.mask_time_prob, model.config.mask_time_length = 0.5, 4
    encoder, samples = SpeechEncoder(model, resample=site), speechlike(16000, 0)[None]
    plain = encoder.eval()(samples, None, 40)
    torch.testing.assert_close(encoder(samples, None, 40), plain, rtol=0, atol=0)
    encoder.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = encoder(samples, None, 40)
        torch.manual_seed(0)
        torch.testing.assert_close(encoder(samples, None, 40), first, rtol=0, atol=0)
    assert not torch.allclose(first, plain)


# --- bfloat16 ---------------------------------------------------------------------------------------------------------


@EVERY_KIND
def test_bfloat16_predicts_nearly_the_same_from_half_the_memory(family: str, norm: Norm) -> None:
    encoder = SpeechEncoder(tiny(family, norm)).eval()
    lengths, frames = [9000, 16000], [17, 30]
    batch = pad_sequence([speechlike(n, n) for n in lengths], batch_first=True)
    expected = encoder(batch, lengths, frames).detach()
    rounded = encoder.to_bfloat16()(batch, lengths, frames)
    linear = [part for part in encoder.modules() if isinstance(part, torch.nn.Linear | torch.nn.Conv1d)]
    assert rounded.dtype == torch.float32
    assert all(part.weight.dtype == torch.bfloat16 for part in linear)
    assert not rounded.requires_grad
    assert float((rounded - expected).norm() / expected.norm()) < 0.03
    assert not torch.equal(rounded, expected)


def test_a_copy_in_bfloat16_leaves_the_original_as_it_was() -> None:
    encoder, samples = SpeechEncoder(tiny("hubert", "layer")), speechlike(8000, 0)[None]
    expected = encoder(samples, None, 15)
    copy.deepcopy(encoder).to_bfloat16()
    torch.testing.assert_close(encoder(samples, None, 15), expected, rtol=0, atol=0)


def test_bfloat16_hardware_is_a_fact_of_the_device() -> None:
    assert isinstance(multiplies_bfloat16(torch.device("cpu")), bool)
    assert not multiplies_bfloat16(torch.device("meta"))


# --- bad input --------------------------------------------------------------------------------------------------------


def test_wrong_counts_are_refused() -> None:
    encoder = SpeechEncoder(tiny("hubert"))
    assert shortest_clip(encoder.model.config.conv_kernel, encoder.model.config.conv_stride) == 400
    for samples, lengths, frames in [
        (torch.zeros(16000), None, 10),
        (torch.zeros(0, 16000), None, 10),
        (torch.zeros(2, 16000), [16000], 10),
        (torch.zeros(2, 16000), None, [10]),
        (torch.zeros(1, 399), None, 1),
        (torch.zeros(1, 16000), [17000], 10),
        (torch.zeros(1, 16000), None, 0),
    ]:
        with pytest.raises(ShapeError):
            encoder(samples, lengths, frames)


def test_another_kind_of_model_is_refused() -> None:
    with pytest.raises(DataError, match="Linear"):
        SpeechEncoder(torch.nn.Linear(2, 2))
    with pytest.raises(DataError, match="adapter"):
        model = tiny("wav2vec2")
        model.adapter = torch.nn.Identity()
        SpeechEncoder(model)


def test_unknown_words_are_refused() -> None:
    for options in ({"frozen": "frozen"}, {"resample": "nowhere"}):
        with pytest.raises(DataError, match=next(iter(options.values()))):
            SpeechEncoder(tiny("hubert"), **options)
