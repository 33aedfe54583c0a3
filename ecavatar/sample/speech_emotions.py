"""A small emotion2vec: the class that funasr runs, trained on acted utterances, written as a funasr directory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import yaml
from jaxtyping import Float
from scipy.fft import next_fast_len
from torch import Tensor, nn
from torch.nn import functional

from ecavatar.config import SpeechModelsSettings
from ecavatar.emotion import EMOTION2VEC_EMOTIONS, EMOTION2VEC_LABELS, Emotion
from ecavatar.errors import DataError, MissingDependencyError
from ecavatar.evaluation.emotion_accuracy import EmotionAccuracy, LabelledSpeech, score_recogniser
from ecavatar.sample.emotion_front_end import (
    HeardClip,
    count_heard,
    front_end_layers,
    hear,
    similar_lengths,
    train_emotion_front_end,
)
from ecavatar.sample.speech_corpus import SpokenClip
from ecavatar.sample.speech_recognisers import optimise
from ecavatar.seeding import stream
from ecavatar.speech.audio import SPEECH_RATE, normalise
from ecavatar.speech.emotion import contained_funasr
from ecavatar.storage.files import atomic_path
from ecavatar.training.loop import seeded_torch

_CHINESE: Final = ("生气", "厌恶", "恐惧", "开心", "中立", "其他", "难过", "吃惊")  # the published labels are bilingual
_BATCHES: Final = 2  # one emotion per utterance tells less than many letters: larger batches
_DROPOUT: Final = 0.2  # emotions are learned by heart sooner than letters
_SMOOTHING: Final = 0.1
_AVERAGED: Final = 0.01  # share of the newest weights in the average, at every step
_VOICE: Final = 0.12  # largest change of voice, natural logarithm
_OCTAVES: Final = (-4.1, 3.1)  # around 1 kHz, of the random equaliser
_BENDS: Final = 7
_BEND_DB: Final = 2.0
_TILT_DB: Final = 0.8  # per octave
_NOISE_DB: Final = (15.0, 60.0)  # signal over noise

CLASS_OF: Final = {emotion: EMOTION2VEC_LABELS.index(label) for label, emotion in EMOTION2VEC_EMOTIONS.items()}
"""Output index of each emotion that emotion2vec knows; contempt is missing."""


def train_emotion_recogniser(clips: Sequence[SpokenClip], settings: SpeechModelsSettings, seed: int) -> nn.Module:
    """An `Emotion2vec` of funasr with nine outputs, trained on the utterances whose emotion it knows.

    Its front end learns to hear pitch and timbre first and is then fixed; the transformer learns emotions from what the
    front end answers. Every utterance comes through a microphone of its own, so that the recogniser does not take the
    sound of the recording for an emotion, and once more in a somewhat larger or smaller voice. The weights are averages
    over the last hundred steps or so, which keeps the last steps' chance out.

    Raises:
        MissingDependencyError: funasr is not installed.
        DataError: no utterance in an emotion it knows.
        TrainingError: a loss is not finite.
    """
    known = [clip for clip in clips if clip.emotion in CLASS_OF]
    if not known:
        raise DataError("no training utterance in an emotion that emotion2vec knows; raise `clips` in params.yaml.")
    recorded = [through_a_channel(clip, stream(seed, "speech emotions", "channel", i)) for i, clip in enumerate(known)]
    network = _emotion2vec_class()
    with seeded_torch(seed, "speech emotions"):
        model = network(model_conf=model_settings(settings), vocab_size=len(EMOTION2VEC_LABELS))
        local_encoder = model.modality_encoders["AUDIO"].local_encoder
        train_emotion_front_end(local_encoder, recorded, settings, seed)
        others = (another_voice(clip, stream(seed, "speech emotions", "voice", i)) for i, clip in enumerate(known))
        heard = [*hear(local_encoder, recorded), *hear(local_encoder, others)]
        _train_transformer(model, heard, settings, seed)
    return model.eval()


def _train_transformer(model: nn.Module, heard: Sequence[HeardClip], settings: SpeechModelsSettings, seed: int) -> None:
    """Train all behind the front end in place on what the front end answers, and leave the averaged weights there."""
    batches = _pieces(heard, settings, stream(seed, "speech emotions", "pieces"))
    averaged: dict[str, Tensor] = {}

    def loss() -> Tensor:
        for name, value in model.state_dict().items():
            averaged[name].lerp_(value, _AVERAGED)
        values, classes = next(batches)
        answer = model.extract_features(values, padding_mask=None)["x"]  # pyright: ignore[reportCallIssue]
        return functional.cross_entropy(model.proj(answer.mean(dim=1)), classes, label_smoothing=_SMOOTHING)  # pyright: ignore

    encoder = model.modality_encoders["AUDIO"]  # pyright: ignore
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    local_encoder, encoder.local_encoder = encoder.local_encoder, nn.Identity()
    try:
        model.train()
        averaged.update({name: value.clone() for name, value in model.state_dict().items()})
        optimise(trained, loss, settings.emotion_steps, settings.rate, "emotions")
        model.load_state_dict(averaged)
    finally:
        encoder.local_encoder = local_encoder


def through_a_channel(clip: SpokenClip, rng: np.random.Generator) -> SpokenClip:
    """`clip` as another microphone would record it: a smooth random equaliser and some noise."""
    return replace(clip, samples=_through_a_channel(clip.samples.numpy(), rng))


def _through_a_channel(samples: Float[np.ndarray, " samples"], rng: np.random.Generator) -> Float[Tensor, " samples"]:
    size = next_fast_len(len(samples), real=True)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / SPEECH_RATE), 60.0) / 1000.0)
    bends = np.interp(octaves, np.linspace(*_OCTAVES, _BENDS), rng.normal(0.0, _BEND_DB, _BENDS))
    gain_db = bends + rng.normal(0.0, _TILT_DB) * octaves
    changed = np.fft.irfft(np.fft.rfft(samples, size) * 10 ** (gain_db / 20), size)[: len(samples)]
    noise = rng.standard_normal(len(samples)) * 10 ** (-rng.uniform(*_NOISE_DB) / 20)
    return torch.from_numpy(normalise((changed / changed.std() + noise).astype(np.float32)))


@dataclass(frozen=True, slots=True)
class OtherVoice:
    """An utterance said by a voice that is larger or smaller by some factor; only its emotion is still known."""

    samples: Float[Tensor, " samples"]
    emotion: Emotion


def another_voice(clip: SpokenClip, rng: np.random.Generator) -> OtherVoice:
    """`clip` played a little faster or slower, which moves pitch, formants and tempo alike, through another channel."""
    factor = float(np.exp(rng.uniform(-_VOICE, _VOICE)))
    at = np.arange(0.0, len(clip.samples) - 1, factor)
    moved = np.interp(at, np.arange(len(clip.samples)), clip.samples.numpy()).astype(np.float32)
    return OtherVoice(_through_a_channel(moved, rng), clip.emotion)


def _emotion2vec_class() -> Any:  # funasr is untyped
    try:
        with contained_funasr():
            from funasr.models.emotion2vec.model import Emotion2vec
    except ImportError as error:
        raise MissingDependencyError(f"emotion2vec needs funasr ({error}). Run `make setup`.") from None
    return Emotion2vec


def _pieces(
    heard: Sequence[HeardClip], settings: SpeechModelsSettings, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches (clips, channels, steps) of equally long pieces of clips of similar length, and their classes."""
    longest = count_heard(settings.emotion_samples)
    for batch in similar_lengths([item.values.shape[1] for item in heard], _BATCHES * settings.batch, rng):
        chosen = [heard[index] for index in batch]
        length = min(longest, *(item.values.shape[1] for item in chosen))
        starts = [int(rng.integers(item.values.shape[1] - length + 1)) for item in chosen]
        pieces = [item.values[:, start : start + length] for item, start in zip(chosen, starts, strict=True)]
        yield torch.stack(pieces), torch.tensor([CLASS_OF[item.emotion] for item in chosen])


def model_settings(settings: SpeechModelsSettings) -> dict[str, Any]:
    """`model_conf` of a funasr emotion2vec: the keys of the published one, smaller numbers."""
    audio = {
        "type": "AUDIO",
        "prenet_depth": 1,
        "prenet_layerdrop": 0.0,
        "prenet_dropout": 0.0,
        "start_drop_path_rate": 0.0,
        "end_drop_path_rate": 0.0,
        "num_extra_tokens": 0,
        "init_extra_token_zero": True,
        "mask_noise_std": 0.01,
        "mask_prob_min": None,
        "mask_prob": 0.0,
        "inverse_mask": False,
        "mask_prob_adjust": 0.0,
        "keep_masked_pct": 0.0,
        "mask_length": 5,
        "add_masks": False,
        "remove_masks": False,
        "mask_dropout": 0.0,
        "encoder_zero_mask": True,
        "mask_channel_prob": 0.0,
        "mask_channel_length": 64,
        "ema_local_encoder": False,
        "local_grad_mult": 1.0,
        "use_alibi_encoder": False,
        "alibi_scale": 1.0,
        "learned_alibi": False,
        "alibi_max_pos": None,
        "learned_alibi_scale": False,
        "learned_alibi_scale_per_head": False,
        "learned_alibi_scale_per_layer": False,
        "num_alibi_heads": settings.heads,
        "model_depth": settings.layers,
        "decoder": None,
        "extractor_mode": "layer_norm",
        "feature_encoder_spec": repr(front_end_layers(settings)),
        "conv_pos_width": 9,
        "conv_pos_groups": 8,
        "conv_pos_depth": 1,
        "conv_pos_pre_ln": False,
    }
    return {
        "loss_beta": 0.0,
        "loss_scale": None,
        "num_heads": settings.heads,
        "depth": max(1, settings.layers - 2),
        "embed_dim": settings.hidden,
        "mlp_ratio": 2.0,
        "encoder_dropout": _DROPOUT,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "post_mlp_drop": _DROPOUT,
        "norm_eps": 1e-5,
        "norm_affine": True,
        "start_drop_path_rate": 0.0,
        "end_drop_path_rate": 0.0,
        "layerdrop": 0.0,
        "dropout_input": 0.0,
        "layer_norm_first": True,
        "end_of_block_targets": False,
        "average_top_k_layers": 1,
        "clone_batch": 1,
        "normalize": True,
        "modalities": {"audio": audio},
    }


def write_emotion_recogniser(directory: Path, model: nn.Module, settings: SpeechModelsSettings) -> None:
    """Write `model` as a funasr directory (config.yaml, model.pt, tokens.txt), whole or not at all."""
    config = {
        "model": "Emotion2vec",
        "model_conf": model_settings(settings),
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
        "scope_map": ["d2v_model.", "none"],
    }
    tokens = [f"{chinese}/{label}" for chinese, label in zip(_CHINESE, EMOTION2VEC_LABELS, strict=False)]
    with atomic_path(directory) as temporary:
        temporary.mkdir()
        (temporary / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        (temporary / "tokens.txt").write_text("\n".join([*tokens, EMOTION2VEC_LABELS[-1]]) + "\n", encoding="utf-8")
        torch.save(dict(model.state_dict()), temporary / "model.pt")


def emotion_figures(directory: Path, clips: Sequence[SpokenClip]) -> dict[str, Any]:
    """How well the model in `directory` names the emotion of `clips`, run by funasr exactly as a published one is.

    `clips` that are an emotion it does not know are left out and counted; see `EmotionAccuracy.to_json` for the keys.
    """
    return sample_accuracy(directory, clips).to_json()


def sample_accuracy(directory: Path, clips: Sequence[SpokenClip]) -> EmotionAccuracy:
    """The accuracy of the model in `directory` on `clips`."""
    return score_recogniser(
        directory,
        [
            LabelledSpeech(
                clip_id=str(index),
                subject=clip.text,
                emotion=clip.emotion,
                level=clip.level,
                read=partial(clip.samples.numpy),
            )
            for index, clip in enumerate(clips)
        ],
    )
