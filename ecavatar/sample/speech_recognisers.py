"""Small HuBERT and wav2vec2 letter recognisers, trained in a minute on speech whose letters are known in time.

CTC alone learns nothing but silence from a few minutes of speech. So: the convolutional front end learns first to
tell spectrum, phone and emotion; then, with the front end fixed, the transformer learns the letter of every step;
only then CTC takes over and the letters may move.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from ecavatar.config import SpeechModelsSettings
from ecavatar.emotion import Emotion
from ecavatar.errors import DataError, TrainingError
from ecavatar.sample.speech_corpus import BANDS, HOP, LETTERS, PHONES, SpokenClip, count_steps
from ecavatar.seeding import stream
from ecavatar.speech.pretrained import quiet_transformers
from ecavatar.speech.recogniser import CtcRecogniser
from ecavatar.storage.files import atomic_path, write_json
from ecavatar.training.loop import seeded_torch

logger = logging.getLogger(__name__)

_CONTEXT: Final = 7  # steps that the front end's throw-away phone head sees
_IGNORED: Final = -100  # label of a step that does not exist
_WARM_UP: Final = 0.08  # share of steps in which the learning rate rises
_LAST_RATE: Final = 0.05  # last learning rate over the highest


@dataclass(frozen=True, slots=True)
class Features:
    """A clip beside what the fixed front end answers for it."""

    clip: SpokenClip
    values: Float[Tensor, "steps channels"]


def network_settings(settings: SpeechModelsSettings) -> dict[str, Any]:
    """Arguments of `HubertConfig` and `Wav2Vec2Config` alike: the published architecture, narrower and shallower."""
    return {
        "vocab_size": len(LETTERS),
        "hidden_size": settings.hidden,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "intermediate_size": 2 * settings.hidden,
        "conv_dim": list(settings.channels),
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 8,
        "hidden_dropout": settings.dropout,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "feat_proj_dropout": 0.0,
        "final_dropout": 0.0,
        "layerdrop": 0.0,
        "pad_token_id": LETTERS.index("<pad>"),
        "bos_token_id": LETTERS.index("<s>"),
        "eos_token_id": LETTERS.index("</s>"),
        "ctc_loss_reduction": "mean",
        "ctc_zero_infinity": True,
    }


# --- the front end ----------------------------------------------------------------------------------------------------


def train_front_end(clips: Sequence[SpokenClip], settings: SpeechModelsSettings, seed: int) -> nn.Module:
    """A HuBERT feature extractor whose channels tell spectrum, phone and emotion; ready to be frozen."""
    from transformers import HubertConfig, HubertModel  # seconds to import

    width = settings.channels[-1]
    with seeded_torch(seed, "speech front end"):
        extractor = HubertModel(HubertConfig(**network_settings(settings))).feature_extractor
        heads = nn.ModuleDict(
            {
                "norm": nn.LayerNorm(width),
                "spectrum": nn.Linear(width, BANDS),
                "phone": nn.Sequential(
                    nn.Conv1d(width, 2 * width, _CONTEXT, padding=_CONTEXT // 2),
                    nn.GELU(),
                    nn.Conv1d(2 * width, len(PHONES), 1),
                ),
                "emotion": nn.Sequential(
                    nn.Conv1d(width, width, _CONTEXT, padding=_CONTEXT // 2),
                    nn.GELU(),
                    nn.Conv1d(width, len(Emotion), 1),
                ),
            }
        )
        batches = _crops(clips, settings, stream(seed, "speech front end", "crops"))
        optimise(
            [*extractor.parameters(), *heads.parameters()],
            lambda: _front_end_loss(extractor, heads, next(batches)),
            settings.front_end_steps,
            settings.front_end_rate,
            "front end",
        )
    return extractor.eval().requires_grad_(requires_grad=False)


def _front_end_loss(extractor: nn.Module, heads: nn.ModuleDict, batch: Mapping[str, Tensor]) -> Tensor:
    normed = heads["norm"](extractor(batch["samples"]).transpose(1, 2))
    channels_first = normed.transpose(1, 2)
    spectrum = functional.mse_loss(heads["spectrum"](normed), batch["spectrum"])
    phone = functional.cross_entropy(heads["phone"](channels_first), batch["phones"])
    emotion = functional.cross_entropy(heads["emotion"](channels_first).mean(dim=-1), batch["emotion"])
    return spectrum + phone + 0.5 * emotion


def _crops(
    clips: Sequence[SpokenClip], settings: SpeechModelsSettings, rng: np.random.Generator
) -> Iterator[Mapping[str, Tensor]]:
    """Endless batches of equally long pieces."""
    everything = torch.cat([clip.spectrum for clip in clips])
    mean, deviation = everything.mean(dim=0), everything.std(dim=0)
    long_enough = [clip for clip in clips if len(clip.samples) >= settings.crop_samples]
    if not long_enough:
        raise DataError(f"no utterance has {settings.crop_samples} samples; lower `crop_samples` in params.yaml.")
    steps = count_steps(settings.crop_samples)
    while True:
        chosen = [long_enough[int(index)] for index in rng.integers(len(long_enough), size=settings.batch)]
        starts = [int(rng.integers((len(clip.samples) - settings.crop_samples) // HOP + 1)) for clip in chosen]
        pieces = list(zip(chosen, starts, strict=True))
        yield {
            "samples": torch.stack([c.samples[s * HOP : s * HOP + settings.crop_samples] for c, s in pieces]),
            "spectrum": (torch.stack([c.spectrum[s : s + steps] for c, s in pieces]) - mean) / deviation,
            "phones": torch.stack([c.phones[s : s + steps] for c, s in pieces]),
            "emotion": torch.tensor([int(c.emotion) for c in chosen]),
        }


@torch.no_grad()
def extract_features(extractor: nn.Module, clips: Sequence[SpokenClip]) -> list[Features]:
    """What the frozen front end answers for each clip."""
    return [Features(clip, extractor(clip.samples[None])[0].T.contiguous()) for clip in clips]


# --- letters ----------------------------------------------------------------------------------------------------------


def train_recognisers(
    extractor: nn.Module, features: Sequence[Features], settings: SpeechModelsSettings, seed: int
) -> tuple[nn.Module, nn.Module]:
    """A `HubertForCTC` and a `Wav2Vec2ForCTC` on the same front end.

    Both start from one frame by frame training: the two classes share every weight's name and shape, so wav2vec2 takes
    HuBERT's weights there. Each then has a CTC training of its own.
    """
    from transformers import HubertConfig, HubertForCTC, Wav2Vec2Config, Wav2Vec2ForCTC  # seconds to import

    arguments = network_settings(settings)
    with seeded_torch(seed, "speech recognisers"):
        hubert = HubertForCTC(HubertConfig(**arguments))
        hubert.hubert.feature_extractor.load_state_dict(extractor.state_dict())
        wav2vec2 = Wav2Vec2ForCTC(Wav2Vec2Config(**arguments))
        _train_letters_by_step(hubert, features, settings, seed)
        wav2vec2.base_model.load_state_dict(hubert.base_model.state_dict())
        wav2vec2.lm_head.load_state_dict(hubert.lm_head.state_dict())
        for name, model in (("hubert", hubert), ("wav2vec2", wav2vec2)):
            _train_ctc(name, model, features, settings, seed)
    return hubert.eval(), wav2vec2.eval()


def _train_letters_by_step(
    model: nn.Module, features: Sequence[Features], settings: SpeechModelsSettings, seed: int
) -> None:
    phone_head = nn.Linear(settings.hidden, len(PHONES))
    batches = _batches(features, settings, stream(seed, "speech recognisers", "steps"))

    def loss() -> Tensor:
        batch = next(batches)
        hidden = _hidden(model, batch)
        letters = _labels(batch, lambda clip: clip.letters)
        phones = _labels(batch, lambda clip: clip.phones)
        by_letter = functional.cross_entropy(model.lm_head(hidden).transpose(1, 2), letters, ignore_index=_IGNORED)
        by_phone = functional.cross_entropy(phone_head(hidden).transpose(1, 2), phones, ignore_index=_IGNORED)
        return by_letter + by_phone

    trained = [*_trained(model), *phone_head.parameters()]
    model.train()
    optimise(trained, loss, settings.step_steps, settings.rate, "letters step by step")


def _train_ctc(
    name: str, model: nn.Module, features: Sequence[Features], settings: SpeechModelsSettings, seed: int
) -> None:
    batches = _batches(features, settings, stream(seed, "speech recognisers", "ctc", name))
    blank = LETTERS.index("<pad>")

    def loss() -> Tensor:
        batch = next(batches)
        scores = model.lm_head(_hidden(model, batch)).log_softmax(dim=-1).transpose(0, 1)
        return functional.ctc_loss(
            scores,
            torch.cat([item.clip.tokens for item in batch]),
            torch.tensor([item.clip.steps for item in batch]),
            torch.tensor([len(item.clip.tokens) for item in batch]),
            blank=blank,
            zero_infinity=True,
        )

    model.train()
    optimise(_trained(model), loss, settings.ctc_steps, settings.rate / 2, f"{name} CTC")


def _trained(model: nn.Module) -> list[nn.Parameter]:
    """Every parameter behind the front end."""
    base = model.base_model
    return [*base.feature_projection.parameters(), *base.encoder.parameters(), *model.lm_head.parameters()]


def _hidden(model: nn.Module, batch: Sequence[Features]) -> Tensor:
    values = pad_sequence([item.values for item in batch], batch_first=True)
    projected = model.base_model.feature_projection(values)
    hidden = projected[0] if isinstance(projected, tuple) else projected
    counts = torch.tensor([item.clip.steps for item in batch])
    mask = torch.arange(values.shape[1])[None] < counts[:, None]
    return model.base_model.encoder(hidden, attention_mask=mask).last_hidden_state


def _labels(batch: Sequence[Features], of: Callable[[SpokenClip], Tensor]) -> Tensor:
    return pad_sequence([of(item.clip) for item in batch], batch_first=True, padding_value=_IGNORED)


def _batches(
    features: Sequence[Features], settings: SpeechModelsSettings, rng: np.random.Generator
) -> Iterator[Sequence[Features]]:
    """Endless batches of clips of similar length."""
    by_length = sorted(features, key=lambda item: item.clip.steps)
    size = min(settings.batch, len(by_length))
    while True:
        first = int(rng.integers(len(by_length) - size + 1))
        yield by_length[first : first + size]


# --- the optimiser's loop ---------------------------------------------------------------------------------------------


def optimise(
    parameters: Sequence[nn.Parameter], loss_of_step: Callable[[], Tensor], steps: int, rate: float, name: str
) -> None:
    """Minimises with AdamW, a short warm-up, a cosine schedule and clipped gradients; logs four times.

    Raises:
        TrainingError: a loss is not finite.
    """
    optimiser = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    warm_up = max(1, round(_WARM_UP * steps))
    recent: list[float] = []
    for step in range(steps):
        cosine = 0.5 * (1 + np.cos(np.pi * step / steps))
        factor = min(1.0, (step + 1) / warm_up) * (_LAST_RATE + (1 - _LAST_RATE) * cosine)
        for group in optimiser.param_groups:
            group["lr"] = rate * factor
        loss = loss_of_step()
        if not torch.isfinite(loss):
            raise TrainingError(
                f"{name}: loss is {loss.item()} at step {step}. Lower the learning rate in params.yaml."
            )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        recent.append(loss.item())
        if (step + 1) % max(1, steps // 4) == 0:
            logger.info("%s: step %d of %d, loss %.3f", name, step + 1, steps, float(np.mean(recent)))
            recent.clear()


# --- files and figures ------------------------------------------------------------------------------------------------


def write_recogniser(directory: Path, model: nn.Module) -> None:
    """Write `model` as a transformers directory: config, weights, letters, preprocessor; whole or not at all."""
    with atomic_path(directory) as temporary:
        temporary.mkdir()
        with quiet_transformers():
            model.save_pretrained(temporary)
        write_tokenizer(temporary)


def write_tokenizer(directory: Path) -> None:
    """Write the letter vocabulary and the preprocessor settings that recognisers are published with."""
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor  # seconds to import

    write_json(directory / "vocab.json", {letter: index for index, letter in enumerate(LETTERS)})
    tokenizer = Wav2Vec2CTCTokenizer(
        str(directory / "vocab.json"), unk_token="<unk>", pad_token="<pad>", word_delimiter_token="|"
    )
    tokenizer.save_pretrained(directory)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False).save_pretrained(directory)


def recogniser_figures(directory: Path, clips: Sequence[SpokenClip]) -> dict[str, Any]:
    """How well the recogniser in `directory` writes `clips` down, opened exactly as a published one is."""
    recogniser = CtcRecogniser.load(directory)
    heard = [recogniser.transcribe(clip.samples.numpy()) for clip in clips]
    errors = sum(edit_distance(text, clip.text) for text, clip in zip(heard, clips, strict=True))
    return {
        "character_error_rate": errors / sum(len(clip.text) for clip in clips),
        "empty_transcripts": sum(not text for text in heard),
        "clips": len(clips),
        "parameters": sum(parameter.numel() for parameter in recogniser.model.parameters()),
        "examples": [{"said": c.text, "heard": text} for c, text in list(zip(clips, heard, strict=True))[:3]],
    }


def edit_distance(first: str, second: str) -> int:
    """Least number of characters to insert, delete or replace to turn one text into the other."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, start=1):
        before, row[0] = row[0], i
        for j, b in enumerate(second, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]
