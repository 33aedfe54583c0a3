"""The encoder answers at the motion rate, and a clip never notices the batch it is in."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    HubertConfig,
    HubertForCTC,
    HubertModel,
    PreTrainedModel,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
)

from ecavatar.errors import AssetMissingError, DataError, ShapeError
from ecavatar.speech.encoder import SpeechEncoder, shortest_clip
from ecavatar.speech.recogniser import CtcRecogniser

TINY = {
    "vocab_size": 32,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
}


def tiny(kind: str, norm: str = "group") -> PreTrainedModel:
    torch.manual_seed(3)
    stable = norm == "layer"
    if kind == "hubert":
        return HubertModel(HubertConfig(**TINY, feat_extract_norm=norm, do_stable_layer_norm=stable))
    return Wav2Vec2Model(Wav2Vec2Config(**TINY, feat_extract_norm=norm, do_stable_layer_norm=stable))


def speechlike(n: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(n).astype(np.float32))


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_a_padded_batch_agrees_with_single_clips(kind: str, norm: str) -> None:
    encoder = SpeechEncoder(tiny(kind, norm)).eval()
    lengths, frames = [9000, 16000, 5200], [17, 30, 10]
    clips = [speechlike(n, n) for n in lengths]
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=0.7)
    together = encoder(batch, lengths, frames)
    assert together.shape == (3, 30, encoder.width)
    for row, clip, count in zip(together, clips, frames, strict=True):
        alone = encoder(clip[None], None, count)[0]
        torch.testing.assert_close(row[:count], alone, atol=2e-5, rtol=1e-4)
        assert not row[count:].any()


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
def test_at_its_own_rate_it_is_the_transformers_model(kind: str) -> None:
    model = tiny(kind).eval()
    samples = speechlike(8000, 0)[None]
    expected = model(samples).last_hidden_state
    torch.testing.assert_close(SpeechEncoder(model).eval()(samples, None, expected.shape[1]), expected)


def test_only_the_frozen_part_gets_no_gradient() -> None:
    for frozen, moving in (("none", {"feature_extractor", "encoder"}), ("conv", {"encoder"}), ("all", set())):
        encoder = SpeechEncoder(tiny("hubert"), frozen).train()
        out = encoder(speechlike(6000, 0)[None], None, 12)
        if moving:
            out.sum().backward()
        assert out.requires_grad == bool(moving)
        parts = {"feature_extractor", "encoder"}
        seen = {part for part in parts if any(p.grad is not None for p in getattr(encoder.model, part).parameters())}
        assert seen == moving


def test_spec_augment_hides_time_while_training_only_and_follows_torchs_seed() -> None:
    model = tiny("hubert")
    model.config.mask_time_prob, model.config.mask_time_length = 0.5, 4
    encoder, samples = SpeechEncoder(model), speechlike(16000, 0)[None]
    plain = encoder.eval()(samples, None, 40)
    torch.testing.assert_close(encoder(samples, None, 40), plain, rtol=0, atol=0)
    encoder.train()
    torch.manual_seed(0)
    first = encoder(samples, None, 40)
    torch.manual_seed(0)
    torch.testing.assert_close(encoder(samples, None, 40), first, rtol=0, atol=0)
    assert not torch.allclose(first, plain)


def test_wrong_counts_are_refused() -> None:
    encoder = SpeechEncoder(tiny("hubert"))
    assert shortest_clip(encoder.model.config.conv_kernel, encoder.model.config.conv_stride) == 400
    for samples, lengths, frames in [
        (torch.zeros(16000), None, 10),
        (torch.zeros(2, 16000), [16000], 10),
        (torch.zeros(1, 399), None, 1),
        (torch.zeros(1, 16000), [17000], 10),
        (torch.zeros(1, 16000), None, 0),
    ]:
        with pytest.raises(ShapeError):
            encoder(samples, lengths, frames)


def test_a_ctc_checkpoint_opens_as_encoder_with_the_same_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = HubertForCTC(HubertConfig(**TINY)).eval()
    model.save_pretrained(tmp_path)
    samples = speechlike(8000, 1)[None]
    encoder = SpeechEncoder.load(tmp_path).eval()
    expected = model.hubert(samples).last_hidden_state
    torch.testing.assert_close(encoder(samples, None, expected.shape[1]), expected)


@pytest.mark.parametrize("source", ["no/such/directory", Path("nowhere"), "./here"])
def test_a_missing_directory_is_named(source: str | Path) -> None:
    with pytest.raises(AssetMissingError, match=str(source)):
        SpeechEncoder.load(source)


def test_a_directory_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssetMissingError, match=tmp_path.name):
        CtcRecogniser.load(tmp_path)


def test_another_kind_of_model_is_refused() -> None:
    with pytest.raises(DataError, match="Linear"):
        SpeechEncoder(torch.nn.Linear(2, 2))


def write_recogniser(directory: Path, model: PreTrainedModel) -> None:
    from ecavatar.sample.speech_recognisers import write_tokenizer  # the files the sample profile writes

    model.save_pretrained(directory)
    write_tokenizer(directory)


@pytest.mark.parametrize("network", [HubertForCTC, Wav2Vec2ForCTC])
def test_a_recogniser_reads_its_letters_and_stays_in_evaluation(tmp_path: Path, network: type) -> None:
    torch.manual_seed(0)
    config = (HubertConfig if network is HubertForCTC else Wav2Vec2Config)(**TINY, pad_token_id=0)
    model = network(config).eval()
    write_recogniser(tmp_path, model)
    recogniser = CtcRecogniser.load(tmp_path)
    assert recogniser.blank == 0
    assert recogniser.vocabulary_size == 32
    torch.nn.ModuleDict({"teacher": recogniser}).train()
    assert not recogniser.model.training
    samples = speechlike(8000, 2)[None]
    hidden, logits = recogniser.hidden_and_logits(samples)
    torch.testing.assert_close(logits, model(samples).logits)
    assert hidden.shape == (1, 24, 16)
    assert not hidden.requires_grad


def test_greedy_text_merges_repeats_and_drops_blanks(tmp_path: Path) -> None:
    write_recogniser(tmp_path, HubertForCTC(HubertConfig(**TINY, pad_token_id=0)))
    recogniser = CtcRecogniser.load(tmp_path)
    ids = recogniser.tokens("Look up, Bob!".replace(",", "").replace("!", "")).tolist()
    path = []
    for token in ids:
        path += [token, token, recogniser.blank]
    logits = torch.nn.functional.one_hot(torch.tensor([path]), 32).float()
    assert recogniser.greedy_text(logits) == "LOOK UP BOB"
    assert recogniser.greedy_text(torch.nn.functional.one_hot(torch.zeros(1, 9, dtype=torch.long), 32).float()) == ""
