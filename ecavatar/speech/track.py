"""Emotion and intensity along a clip: recogniser scores -> label pairs per time window."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecavatar.emotion import Emotion


@dataclass(frozen=True, slots=True, kw_only=True)
class EmotionWindow:
    """What is felt between two moments of a clip."""

    start: float
    end: float
    emotion: Emotion
    level: int
    probabilities: tuple[float, ...]  # of the seven recognised emotions, in RECOGNISED order, sum 1


@dataclass(frozen=True, slots=True)
class EmotionTrack:
    """Windows in order, without gaps, from 0 to the end of the clip."""

    windows: tuple[EmotionWindow, ...]


def track_from_scores(scores: NDArray[np.floating], times: Sequence[tuple[float, float]]) -> EmotionTrack:
    """The track of windows `times` with recogniser `scores` (W, 9)."""
    raise NotImplementedError


def to_json(track: EmotionTrack) -> dict[str, Any]:
    """`track` as plain values for a json file."""
    raise NotImplementedError


def from_json(value: Mapping[str, Any]) -> EmotionTrack:
    """The track in `value`, as `to_json` wrote it or a user did."""
    raise NotImplementedError
