"""A small emotion2vec: the class that funasr runs, trained on acted utterances, written as a funasr directory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from ecavatar.config import SpeechModelsSettings
from ecavatar.emotion import EMOTION2VEC_EMOTIONS, EMOTION2VEC_LABELS, LEVELS, Emotion
from ecavatar.errors import DataError, MissingDependencyError
from ecavatar.sample.speech_corpus import SpokenClip
from ecavatar.sample.speech_recognisers import optimise
from ecavatar.seeding import stream
from ecavatar.speech.audio import SPEECH_RATE
from ecavatar.speech.emotion import contained_funasr, recognise_emotions
from ecavatar.speech.track import RECOGNISED
from ecavatar.storage.files import atomic_path
from ecavatar.training.loop import seeded_torch

_CHINESE: Final = ("生气", "厌恶", "恐惧", "开心", "中立", "其他", "难过", "吃惊")  # the published labels are bilingual
_KERNELS: Final = (10, 3, 3, 3, 3, 2, 2)
_STRIDES: Final = (5, 2, 2, 2, 2, 2, 2)

CLASS_OF: Final = {emotion: EMOTION2VEC_LABELS.index(label) for label, emotion in EMOTION2VEC_EMOTIONS.items()}
"""Output index of each emotion that emotion2vec knows; contempt is missing."""


def train_emotion_recogniser(
    extractor: nn.Module, clips: Sequence[SpokenClip], settings: SpeechModelsSettings, seed: int
) -> nn.Module:
    """An `Emotion2vec` of funasr with nine outputs, trained on the utterances whose emotion it knows.

    Its convolutional front end is HuBERT's, layer for layer, so it starts from the weights of `extractor`; it goes on
    learning, since letters need no pitch and emotions do.

    Raises:
        MissingDependencyError: funasr is not installed.
        DataError: no utterance in an emotion it knows.
    """
    known = [clip for clip in clips if clip.emotion in CLASS_OF]
    if not known:
        raise DataError("no training utterance in an emotion that emotion2vec knows; raise `clips` in params.yaml.")
    network = _emotion2vec_class()
    with seeded_torch(seed, "speech emotions"):
        model = network(model_conf=model_settings(settings), vocab_size=len(EMOTION2VEC_LABELS))
        model.modality_encoders["AUDIO"].local_encoder.load_state_dict(_renamed(extractor.state_dict()))
        batches = _pieces(known, settings, stream(seed, "speech emotions", "pieces"))

        def loss() -> Tensor:
            samples, classes = next(batches)
            answer = model.extract_features(samples, padding_mask=None)["x"]
            return functional.cross_entropy(model.proj(answer.mean(dim=1)), classes)

        model.train()
        optimise(list(model.parameters()), loss, settings.emotion_steps, settings.rate / 2, "emotions")
    return model.eval()


def _emotion2vec_class() -> Any:  # funasr is untyped
    try:
        with contained_funasr():
            from funasr.models.emotion2vec.model import Emotion2vec
    except ImportError as error:
        raise MissingDependencyError(f"emotion2vec needs funasr ({error}). Run `make setup`.") from None
    return Emotion2vec


def _pieces(
    clips: Sequence[SpokenClip], settings: SpeechModelsSettings, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches (clips, samples) of equally long pieces, emotions in equal shares, with their classes."""
    of_emotion = {emotion: [clip for clip in clips if clip.emotion is emotion] for emotion in CLASS_OF}
    groups = [members for members in of_emotion.values() if members]
    while True:
        picked = [groups[int(g)] for g in rng.integers(len(groups), size=settings.batch)]
        chosen = [members[int(rng.integers(len(members)))] for members in picked]
        length = min(settings.emotion_samples, *(len(clip.samples) for clip in chosen))
        starts = [int(rng.integers(len(clip.samples) - length + 1)) for clip in chosen]
        pieces = [clip.samples[start : start + length] for clip, start in zip(chosen, starts, strict=True)]
        yield torch.stack(pieces), torch.tensor([CLASS_OF[clip.emotion] for clip in chosen])


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of transformers' feature extractor -> names of fairseq's, which funasr uses."""
    renamed = {}
    for name, value in state.items():
        _, layer, part, kind = name.split(".")
        renamed[f"conv_layers.{layer}.{'0' if part == 'conv' else '2'}.{kind}"] = value
    return renamed


def model_settings(settings: SpeechModelsSettings) -> dict[str, Any]:
    """`model_conf` of a funasr emotion2vec: the keys of the published one, smaller numbers."""
    spec = list(zip(settings.channels, _KERNELS, _STRIDES, strict=True))
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
        "extractor_mode": "default",
        "feature_encoder_spec": repr(spec),
        "conv_pos_width": 9,
        "conv_pos_groups": 8,
        "conv_pos_depth": 1,
        "conv_pos_pre_ln": False,
    }
    return {
        "loss_beta": 0.0,
        "loss_scale": None,
        "num_heads": settings.heads,
        "depth": max(1, settings.layers - 1),
        "embed_dim": settings.hidden,
        "mlp_ratio": 2.0,
        "encoder_dropout": settings.dropout,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "post_mlp_drop": settings.dropout,
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
    """How often the model in `directory` names the emotion of `clips`, run by funasr exactly as a published one is."""
    known = [clip for clip in clips if clip.emotion in CLASS_OF]
    scores = recognise_emotions(directory, [(clip.samples.numpy(), SPEECH_RATE) for clip in known])
    columns = [CLASS_OF[emotion] for emotion in RECOGNISED]
    guesses = [RECOGNISED[int(index)] for index in scores[:, columns].argmax(axis=1)]
    is_right = np.array([guess is clip.emotion for guess, clip in zip(guesses, known, strict=True)])
    levels = np.array([clip.level for clip in known])
    return {
        "accuracy": float(is_right.mean()),
        "chance": 1 / len(RECOGNISED),
        "accuracy_of_level": {str(level): _mean(is_right[levels == level]) for level in LEVELS},
        "accuracy_of_emotion": {
            e.label: _mean(is_right[[clip.emotion is e for clip in known]]) for e in Emotion if e in CLASS_OF
        },
        "clips": len(known),
    }


def _mean(values: np.ndarray) -> float | None:
    """Mean, or None (json has no nan) where nothing was counted."""
    return float(values.mean()) if len(values) else None
