"""Speech of the sample world: English sentences spoken by many voices in eight emotions, with known phone timings.

One neural voice (PyPI `hibari-tts`, Apache-2.0) predicts, per 12.5 ms frame, a fundamental frequency and the spectra of
a harmonic and a noise branch; we change those before the waveform is synthesised: another F0 and stretched formants
make another speaker, another melody, tempo, loudness, spectral tilt, tremor and breath make an emotion.
"""

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ecavatar.emotion import LEVELS, Emotion
from ecavatar.errors import DataError, MissingDependencyError
from ecavatar.sample.letters import Letter, Phone, Word, letter_timings
from ecavatar.sample.sentences import (
    HELD_OUT_SENTENCES,
    MEAD_SENTENCES,
    RAVDESS_SENTENCES,
    TRAINING_SENTENCES,
    VOCASET_SENTENCES,
)
from ecavatar.seeding import stream

__all__ = [
    "HELD_OUT_SENTENCES",
    "HELD_OUT_SPEAKERS",
    "MEAD_SENTENCES",
    "RAVDESS_SENTENCES",
    "SILENCE",
    "SPEAKERS",
    "TRAINING_SENTENCES",
    "VOCASET_SENTENCES",
    "Letter",
    "Phone",
    "SpeakerVoice",
    "Utterance",
    "speak",
]

SILENCE: Final = "sil"
"""Symbol of a `Phone` that is a pause."""

RATE: Final = 24000
"""Samples per second that `speak` returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerVoice:
    """How one speaker differs from the voice in the package (a woman of about 200 Hz)."""

    name: str
    f0_scale: float  # factor on the fundamental frequency
    formant_scale: float  # factor on every formant; below 1 is a longer vocal tract
    tempo: float  # factor on speaking speed
    melody: float  # factor on the F0 range
    tilt_db: float  # brightness, dB per octave
    breath: float  # aspiration noise relative to the harmonics, 0..1


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One spoken sentence."""

    text: str
    samples: NDArray[np.float32]  # mono, about -1..1
    rate: int  # samples per second
    phones: tuple[Phone, ...]  # cover [0, duration] without gaps, pauses included
    letters: tuple[Letter, ...]  # upper-case letters, "'" and "|" between words, in order

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate


def _voice(
    name: str, f0: float, formants: float, tempo: float, melody: float, tilt_db: float, breath: float
) -> SpeakerVoice:
    return SpeakerVoice(
        name=name, f0_scale=f0, formant_scale=formants, tempo=tempo, melody=melody, tilt_db=tilt_db, breath=breath
    )


SPEAKERS: Final[tuple[SpeakerVoice, ...]] = (
    _voice("voice00", 1.00, 1.00, 1.00, 1.00, 0.0, 0.00),
    _voice("voice01", 0.56, 0.85, 0.98, 1.10, 0.0, 0.05),
    _voice("voice02", 1.14, 1.05, 1.06, 1.15, 0.5, 0.02),
    _voice("voice03", 0.50, 0.82, 0.94, 0.90, -1.0, 0.08),
    _voice("voice04", 0.88, 0.97, 0.95, 0.85, -1.0, 0.15),
    _voice("voice05", 0.63, 0.89, 1.07, 1.20, 1.0, 0.03),
    _voice("voice06", 1.22, 1.09, 1.02, 1.05, 0.8, 0.10),
    _voice("voice07", 0.59, 0.87, 1.02, 0.80, 0.6, 0.12),
    _voice("voice08", 0.94, 1.02, 1.10, 1.10, 1.2, 0.00),
    _voice("voice09", 0.53, 0.84, 1.05, 1.05, -0.5, 0.02),
    _voice("voice10", 1.07, 1.03, 0.92, 0.90, -0.6, 0.06),
    _voice("voice11", 0.66, 0.91, 0.96, 1.00, -1.2, 0.10),
    _voice("voice12", 0.82, 0.95, 1.03, 1.20, 0.3, 0.04),
    _voice("voice13", 0.48, 0.80, 1.00, 1.00, 0.2, 0.06),
    _voice("voice14", 1.30, 1.12, 1.00, 1.00, -0.3, 0.03),
    _voice("voice15", 0.61, 0.86, 0.90, 1.15, 0.9, 0.00),
)
"""The speakers of the sample corpora: even numbers sound female, odd ones male."""

HELD_OUT_SPEAKERS: Final[tuple[SpeakerVoice, ...]] = (
    _voice("voice16", 1.10, 1.01, 0.97, 1.08, 0.4, 0.07),
    _voice("voice17", 0.57, 0.88, 1.01, 0.92, -0.4, 0.04),
    _voice("voice18", 0.91, 0.99, 1.04, 0.95, 0.7, 0.01),
    _voice("voice19", 0.51, 0.83, 0.96, 1.12, -0.8, 0.09),
)
"""Speakers that nothing is trained on; they score the stand-in speech models."""


def speak(text: str, speaker: SpeakerVoice, emotion: Emotion, level: int, seed: int) -> Utterance:
    """The sentence `text` as `speaker` says it in `emotion` at intensity `level`; equal arguments give equal bytes.

    Args:
        text: one English sentence of words and punctuation, no digits.
        level: 1, 2 or 3; without effect on the neutral voice.
        seed: draws the noise and small variations of the delivery.

    Returns:
        24 kHz mono with about 0.15 s of silence at both ends.

    Raises:
        DataError: no word in `text`, a digit in it, more than 400 phonemes, or a level that does not exist.
        MissingDependencyError: `hibari-tts` is not installed.
    """
    raise NotImplementedError
