"""Utterances with all that the stand-in speech models learn from: letter and phone of each step, spectrum, emotion."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ecavatar.emotion import LEVELS, Emotion
from ecavatar.errors import ShapeError
from ecavatar.sample.letters import Letter, Phone
from ecavatar.sample.voices import F0_RATE, SILENCE, SpeakerVoice, Utterance, speak
from ecavatar.seeding import derived_seed, stream
from ecavatar.speech.audio import SPEECH_RATE, normalise, resample

LETTERS: Final[tuple[str, ...]] = (
    *("<pad>", "<s>", "</s>", "<unk>", "|"),
    *"ETAONIHSRDLUMWCFGYPBVK'XJQZ",
)
"""Vocabulary of the published LibriSpeech recognisers, in their order; `<pad>` is CTC's blank."""

PHONES: Final[tuple[str, ...]] = (SILENCE, *"AIOTWYbdfhijklmnpstuvwzæðŋɐɑɔəɛɜɡɪɹʃʊʌʒʤʧθᵊᵻ")
"""Phones that the voices use."""

WINDOW: Final = 400
"""Samples that one step of HuBERT's front end sees."""

HOP: Final = 320
"""Samples from step to step (20 ms)."""

BANDS: Final = 40
"""Bands of the log-mel spectrum."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpokenClip:
    """One utterance at 16 kHz with labels for each of its T steps of 20 ms."""

    text: str  # letters and spaces as the recogniser should write them
    samples: Float[Tensor, " samples"]  # mean 0, variance 1
    letters: Int[Tensor, " steps"]  # index into LETTERS; the blank in pauses and between doubled letters
    phones: Int[Tensor, " steps"]  # index into PHONES
    spectrum: Float[Tensor, "steps bands"]  # log-mel
    tokens: Int[Tensor, " tokens"]  # the transcript, index into LETTERS
    pitch: Float[Tensor, " steps"]  # hertz, 0 where nothing is voiced
    emotion: Emotion
    level: int

    @property
    def steps(self) -> int:
        """Number of 20 ms steps."""
        return len(self.letters)


def speak_clips(
    name: str,
    count: int,
    sentences: Sequence[str],
    speakers: Sequence[SpeakerVoice],
    seed: int,
    workers: int,
    *,
    emotions: Sequence[Emotion] = tuple(Emotion),
) -> list[SpokenClip]:
    """`count` utterances of `sentences` in turn, each by a random speaker in a random emotion and level.

    The result depends on the other arguments only, not on `workers`.

    Args:
        name: of the collection; another name gives other speakers and emotions.
        count: number of utterances.
        sentences: what is said, repeated in order.
        speakers: who may say it.
        seed: of the run.
        workers: threads.
        emotions: what may be drawn, with equal chances.
    """

    def one(index: int) -> SpokenClip:
        rng = stream(seed, "speech clips", name, index)
        speaker = speakers[int(rng.integers(len(speakers)))]
        emotion, level = emotions[int(rng.integers(len(emotions)))], int(rng.choice(LEVELS))
        text = sentences[index % len(sentences)]
        utterance = speak(text, speaker, emotion, level, derived_seed(seed, "speech clips", name, index))
        samples = normalise(resample(utterance.samples, utterance.rate, SPEECH_RATE))
        return _labelled(samples, utterance, emotion, level)

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, range(count)))


def count_steps(n_samples: int) -> int:
    """Steps that HuBERT's front end answers for `n_samples`.

    Raises:
        ShapeError: fewer samples than one step needs.
    """
    if n_samples < WINDOW:
        raise ShapeError(f"at least {WINDOW} samples are needed for one step, got {n_samples}.")
    return (n_samples - WINDOW) // HOP + 1


def _labelled(samples: np.ndarray, utterance: Utterance, emotion: Emotion, level: int) -> SpokenClip:
    steps = count_steps(len(samples))
    symbols = [letter.symbol for letter in utterance.letters]
    return SpokenClip(
        text="".join(symbols).replace("|", " "),
        samples=torch.from_numpy(samples),
        letters=torch.from_numpy(letter_labels(utterance.letters, steps)),
        phones=torch.from_numpy(phone_labels(utterance.phones, steps)),
        spectrum=torch.from_numpy(log_mel(samples)),
        tokens=torch.tensor([LETTERS.index(symbol) for symbol in symbols]),
        pitch=torch.from_numpy(pitch_labels(utterance.f0, steps)),
        emotion=emotion,
        level=level,
    )


def pitch_labels(f0: Float[np.ndarray, " frames"], steps: int) -> Float[np.ndarray, " steps"]:
    """F0 in hertz at the middle of each step, 0 where nothing is voiced; `f0` is given every 12.5 ms."""
    frames = np.round((np.arange(steps) * HOP + WINDOW / 2) / SPEECH_RATE * F0_RATE).astype(int)
    return f0[np.minimum(frames, len(f0) - 1)]


def phone_labels(phones: Sequence[Phone], steps: int) -> Int[np.ndarray, " steps"]:
    """Index into `PHONES` of the phone at the middle of each step."""
    middles = (np.arange(steps) * HOP + WINDOW / 2) / SPEECH_RATE
    ends = np.array([phone.end for phone in phones])
    at = np.minimum(np.searchsorted(ends, middles, side="right"), len(phones) - 1)
    return np.array([PHONES.index(phones[index].symbol) for index in at])


def letter_labels(letters: Sequence[Letter], steps: int) -> Int[np.ndarray, " steps"]:
    """Index into `LETTERS` for each step, so that reading the steps with CTC's rules gives the letters back.

    Every letter gets at least one step near its middle, even where several share 20 ms; steps between two letters go to
    the nearer one; the second of a doubled letter is set off by a blank.

    Raises:
        ShapeError: fewer steps than the letters need.
    """
    symbols = [letter.symbol for letter in letters]
    spacing = np.array([0, *(2 if a == b else 1 for a, b in pairwise(symbols))])
    offsets = np.cumsum(spacing)
    if offsets[-1] + 1 > steps:
        raise ShapeError(f"{len(letters)} letters need {offsets[-1] + 1} steps, the clip has {steps}.")
    middles = np.array([(letter.start + letter.end) / 2 for letter in letters])
    wanted = np.round((middles * SPEECH_RATE - WINDOW / 2) / HOP).astype(int)
    # Positions less the room that earlier letters need must never fall, nor end beyond what is left.
    places = np.clip(np.maximum.accumulate(wanted - offsets), 0, steps - 1 - offsets[-1]) + offsets
    borders = (places[:-1] + places[1:] + 1) // 2
    first = max(round(letters[0].start * SPEECH_RATE / HOP), 0)
    last = min(round(letters[-1].end * SPEECH_RATE / HOP), steps)
    starts = [min(first, places[0]), *borders]
    ends = [*borders, max(last, places[-1] + 1)]
    labels = np.zeros(steps, dtype=np.int64)
    for symbol, start, end, gap in zip(symbols, starts, ends, spacing, strict=True):
        labels[start:end] = LETTERS.index(symbol)
        if gap == 2:
            labels[start] = 0
    return labels


def log_mel(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "steps bands"]:
    """Log-mel spectrum of each step's window, 50 to 7800 Hz."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(windows * np.hanning(WINDOW), axis=1)) ** 2
    return np.log(power @ _mel_bands().T + 1e-2).astype(np.float32)


def _mel_bands() -> Float[np.ndarray, "bands bins"]:
    def mel(hertz: np.ndarray) -> np.ndarray:
        return 2595.0 * np.log10(1.0 + hertz / 700.0)

    bins = np.linspace(0.0, SPEECH_RATE / 2, WINDOW // 2 + 1)
    low, high = mel(np.array([50.0, 7800.0]))
    edges = 700.0 * (10.0 ** (np.linspace(low, high, BANDS + 2) / 2595.0) - 1.0)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0.0, np.minimum(rising, falling))
