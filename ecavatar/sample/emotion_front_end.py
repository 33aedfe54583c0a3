"""The front end of the small emotion2vec: a bank of band filters and convolutions that hear pitch and timbre.

emotion2vec's convolutions see the bare sound. Learned from minutes of speech alone they never hear pitch, and emotions
that differ in pitch are then guessed. So the first convolution is fixed: narrow bands, each in four phases a quarter
apart. What a GELU leaves of four such phases adds up to the band's strength whatever its phase, and the second
convolution starts as such sums. It and the third then learn to tell F0 and spectrum, both known for every sample voice.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ecavatar.config import SpeechModelsSettings
from ecavatar.emotion import Emotion
from ecavatar.errors import DataError
from ecavatar.sample.speech_corpus import BANDS, HOP, SpokenClip
from ecavatar.sample.speech_recognisers import optimise
from ecavatar.seeding import stream
from ecavatar.speech.audio import SPEECH_RATE

_TAPS: Final = 1024  # 64 ms: harmonics of a deep voice, 95 Hz apart, are told from one another
_WIDE_TAPS: Final = 400  # 25 ms: formants and rhythm
_FIRST_HOP: Final = 160
_LOW: Final = np.arange(60.0, 1100.0, 20.0)  # hertz
_WIDE_BANDS: Final = 40  # from 180 to 7400 Hz, equally far apart in mel
_PHASES: Final = 4
_GAIN: Final = 0.03  # keeps pauses below the norm's epsilon, so that they stay silent
_LATER: Final = 2  # steps by which this front end's first step lies behind HuBERT's, whose steps carry the labels
_NEAR: Final = 4  # a batch is drawn from this many times its size of clips of similar length
_TUNED_ON: Final = 100  # clips that tell how strong each band is on average
_F0_BINS: Final = 56
_F0_RANGE: Final = (55.0, 560.0)  # hertz
_F0_WIDTH: Final = 0.05  # octaves, of the target around the true F0
_F0_WEIGHT: Final = 0.5


class ActedSound(Protocol):
    """Sound whose emotion is known."""

    @property
    def samples(self) -> Float[Tensor, " samples"]:
        """16 kHz, mean 0, variance 1."""
        ...

    @property
    def emotion(self) -> Emotion:
        """What was acted."""
        ...


@dataclass(frozen=True, slots=True)
class HeardClip:
    """What the finished front end answers for an utterance, and its emotion."""

    emotion: Emotion
    values: Float[Tensor, "channels steps"]


def front_end_layers(settings: SpeechModelsSettings) -> list[tuple[int, int, int]]:
    """Channels, width and stride of each convolution, as emotion2vec's config spells them; 50 steps per second."""
    channels = settings.hidden
    return [(len(filter_bank()), _TAPS, _FIRST_HOP), (channels, 3, 2), (channels, 3, 1)]


def filter_bank() -> Float[Tensor, "filters 1 taps"]:
    """Band filters, four phases of a band after one another: narrow ones for harmonics, wide ones for formants."""
    low, high = (2595.0 * np.log10(1.0 + hertz / 700.0) for hertz in (180.0, 7400.0))
    wide = 700.0 * (10.0 ** (np.linspace(low, high, _WIDE_BANDS) / 2595.0) - 1.0)
    bank = [
        _filter(centre, taps, np.pi / 2 * phase)
        for centres, taps in ((_LOW, _TAPS), (wide, _WIDE_TAPS))
        for centre in centres
        for phase in range(_PHASES)
    ]
    return torch.tensor(np.stack(bank), dtype=torch.float32)[:, None]


def _filter(centre: float, taps: int, phase: float) -> Float[np.ndarray, " taps"]:
    times = (np.arange(_TAPS) - (_TAPS - 1) / 2) / SPEECH_RATE
    window = np.zeros(_TAPS)
    window[(_TAPS - taps) // 2 : (_TAPS + taps) // 2] = np.hanning(taps) / np.hanning(taps).sum()
    return window * np.cos(2 * np.pi * centre * times + phase)


def train_emotion_front_end(
    local_encoder: nn.Module, clips: Sequence[SpokenClip], settings: SpeechModelsSettings, seed: int
) -> None:
    """Fill `local_encoder` (built with `front_end_layers`) with the bank and train the rest in place; then it is fixed.

    Draws its heads from torch's global generator, so call it within `seeded_torch`.

    Raises:
        DataError: `emotion_samples` or a clip is too short to be heard.
        TrainingError: a loss is not finite.
    """
    _fill(local_encoder, clips)
    channels = settings.hidden
    heads = nn.ModuleDict({"f0": nn.Linear(channels, _F0_BINS + 1), "spectrum": nn.Linear(channels, BANDS)})
    batches = _pieces(clips, settings, stream(seed, "emotion front end", "pieces"))

    def loss() -> Tensor:
        samples, pitch, spectrum = next(batches)
        heard = local_encoder(samples).transpose(1, 2)
        of_pitch = functional.cross_entropy(heads["f0"](heard).flatten(0, 1), pitch_target(pitch).flatten(0, 1))
        return _F0_WEIGHT * of_pitch + functional.mse_loss(heads["spectrum"](heard), spectrum)

    trained = [weight for weight in local_encoder.parameters() if weight.requires_grad]
    optimise(
        [*trained, *heads.parameters()],
        loss,
        max(1, settings.front_end_steps // 2),
        settings.front_end_rate,
        "emotion front end",
    )
    local_encoder.requires_grad_(requires_grad=False)


@torch.no_grad()
def hear(local_encoder: nn.Module, clips: Iterable[ActedSound]) -> list[HeardClip]:
    """What the finished front end answers for each utterance."""
    return [HeardClip(clip.emotion, local_encoder(clip.samples[None])[0]) for clip in clips]


@torch.no_grad()
def _fill(local_encoder: nn.Module, clips: Sequence[SpokenClip]) -> None:
    """Set the first layer to the bank, all bands equally strong on average, and the second to sums over phases."""
    bank = filter_bank()
    powers = [
        functional.conv1d(c.samples[None, None], bank, stride=_FIRST_HOP).square().mean((0, 2))
        for c in clips[:_TUNED_ON]
    ]
    strength = torch.stack(powers).mean(dim=0).sqrt()
    first, second = local_encoder.conv_layers[0], local_encoder.conv_layers[1][0].weight  # pyright: ignore
    first[0].weight.copy_(_GAIN * bank / strength[:, None, None])
    first.requires_grad_(requires_grad=False)
    bands = second.shape[1] // _PHASES
    sums = torch.randn(second.shape[0], bands, second.shape[2]) / (2 * bands * second.shape[2]) ** 0.5
    second.copy_(sums.repeat_interleave(_PHASES, dim=1))


def pitch_target(pitch: Float[Tensor, "clips steps"]) -> Float[Tensor, "clips steps bins"]:
    """F0 (hertz, 0 unvoiced) as shares of bins an equal part of an octave apart; the last bin is `unvoiced`."""
    low, high = (float(np.log2(hertz)) for hertz in _F0_RANGE)
    octaves = torch.log2(pitch.clamp(min=_F0_RANGE[0], max=_F0_RANGE[1]))[..., None]
    near = torch.exp(-0.5 * ((octaves - torch.linspace(low, high, _F0_BINS)) / _F0_WIDTH) ** 2)
    is_voiced = (pitch > 0)[..., None]
    return torch.cat([near / near.sum(dim=-1, keepdim=True) * is_voiced, (~is_voiced).to(near)], dim=-1)


def _pieces(
    clips: Sequence[SpokenClip], settings: SpeechModelsSettings, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Endless batches of equally long pieces: samples, F0 and standardised spectrum at the steps of this front end."""
    everything = torch.cat([clip.spectrum for clip in clips])
    mean, deviation = everything.mean(dim=0), everything.std(dim=0)
    batches = similar_lengths([len(clip.samples) for clip in clips], settings.batch, rng)
    for batch in batches:
        chosen = [clips[index] for index in batch]
        length = min(settings.emotion_samples, *(len(clip.samples) for clip in chosen))
        starts = [int(rng.integers((len(clip.samples) - length) // HOP + 1)) for clip in chosen]
        pieces = list(zip(chosen, starts, strict=True))
        steps = count_heard(length)
        yield (
            torch.stack([c.samples[s * HOP : s * HOP + length] for c, s in pieces]),
            torch.stack([c.pitch[s + _LATER : s + _LATER + steps] for c, s in pieces]),
            (torch.stack([c.spectrum[s + _LATER : s + _LATER + steps] for c, s in pieces]) - mean) / deviation,
        )


def count_heard(n_samples: int) -> int:
    """Steps that this front end answers for `n_samples`.

    Raises:
        DataError: fewer samples than one step needs.
    """
    steps = ((n_samples - _TAPS) // _FIRST_HOP + 1 - 3) // 2 + 1 - 2
    if steps < 1:
        raise DataError(
            f"expected pieces of at least {_TAPS + 6 * _FIRST_HOP} samples, got {n_samples}. "
            "Raise `emotion_samples` in params.yaml."
        )
    return steps


def similar_lengths(lengths: Sequence[int], size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Endless batches of up to `size` different indices of items of similar length."""
    by_length = np.argsort(lengths, kind="stable")
    size = min(size, len(by_length))
    near = min(_NEAR * size, len(by_length))
    while True:
        first = int(rng.integers(len(by_length) - near + 1))
        yield [int(by_length[first + index]) for index in rng.permutation(near)[:size]]
