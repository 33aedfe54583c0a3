"""Emotion and intensity along a clip: recogniser scores -> label pairs per time window."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ecavatar.emotion import EMOTION2VEC_EMOTIONS, EMOTION2VEC_LABELS, LEVELS, Emotion
from ecavatar.errors import DataError, ShapeError

RECOGNISED: Final[tuple[Emotion, ...]] = tuple(EMOTION2VEC_EMOTIONS.values())
"""The seven emotions that speech can tell, in emotion2vec's order; contempt is not among them."""

_COLUMNS: Final = [EMOTION2VEC_LABELS.index(label) for label in EMOTION2VEC_EMOTIONS]
_FORMAT: Final = "ecavatar-emotion-track-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmotionWindow:
    """What is felt between two moments of a clip."""

    start: float
    end: float
    emotion: Emotion
    level: int
    probabilities: tuple[
        float, ...
    ]  # of the seven in `RECOGNISED`, sum 1; empty when the label was given, not recognised


@dataclass(frozen=True, slots=True)
class EmotionTrack:
    """Windows in order and without gaps, from 0 to the end of the clip."""

    windows: tuple[EmotionWindow, ...]

    def __post_init__(self) -> None:
        problems = [
            *(["no window"] if not self.windows else []),
            *(f"level {w.level} at {w.start} s is not 1, 2 or 3" for w in self.windows if w.level not in LEVELS),
            *(f"window at {w.start} s ends at {w.end} s" for w in self.windows if w.end <= w.start),
            *(f"gap or overlap at {b.start} s" for a, b in pairwise(self.windows) if abs(a.end - b.start) > 1e-6),
        ]
        if problems:
            raise DataError(f"emotion track: {'; '.join(problems)}. Give ordered windows that touch, levels 1 to 3.")


def level_of(probability: float) -> int:
    """The intensity level of an emotion recognised with `probability`.

    The paper maps probability linearly to intensity and does not say how. Our reading: the least probability with
    which one of seven can win, 1/7, is the bottom of level 1, certainty the top of level 3, and the levels are equal
    thirds between.

    Raises:
        DataError: outside 0..1.
    """
    if not 0.0 <= probability <= 1.0 + 1e-9:
        raise DataError(f"a probability lies in 0..1, got {probability}.")
    chance = 1 / len(RECOGNISED)
    position = (probability - chance) / (1 - chance)
    return LEVELS[min(max(int(position * len(LEVELS)), 0), len(LEVELS) - 1)]


def track_from_scores(scores: NDArray[np.floating], times: Sequence[tuple[float, float]]) -> EmotionTrack:
    """The track of windows `times` (start, end) with recogniser `scores` (W, 9) in `EMOTION2VEC_LABELS` order.

    `other` and `<unk>` are dropped and the remaining seven divided by their sum; the most probable one is the emotion.

    Raises:
        ShapeError: not one row of nine scores per window.
        DataError: scores are negative, not finite, or all on the dropped classes; windows leave gaps.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (len(times), len(EMOTION2VEC_LABELS)):
        raise ShapeError(f"expected scores ({len(times)}, {len(EMOTION2VEC_LABELS)}), got {values.shape}.")
    kept = values[:, _COLUMNS]
    totals = kept.sum(axis=1, keepdims=True)
    if not np.isfinite(values).all() or (values < 0).any() or (totals <= 0).any():
        raise DataError("scores must be finite, not negative, and positive on at least one of the seven emotions.")
    return EmotionTrack(
        tuple(_window(row, float(start), float(end)) for row, (start, end) in zip(kept / totals, times, strict=True))
    )


def _window(probabilities: NDArray[np.float64], start: float, end: float) -> EmotionWindow:
    best = int(probabilities.argmax())
    return EmotionWindow(
        start=start,
        end=end,
        emotion=RECOGNISED[best],
        level=level_of(float(probabilities[best])),
        probabilities=tuple(map(float, probabilities)),
    )


def to_json(track: EmotionTrack) -> dict[str, Any]:
    """`track` as plain values for a json file."""
    return {
        "format": _FORMAT,
        "windows": [
            {
                "start": window.start,
                "end": window.end,
                "emotion": window.emotion.label,
                "level": window.level,
                "probabilities": {
                    emotion.label: value for emotion, value in zip(RECOGNISED, window.probabilities, strict=False)
                },
            }
            for window in track.windows
        ],
    }


def from_json(value: Mapping[str, Any]) -> EmotionTrack:
    """The track in `value`, as `to_json` wrote it or a user did; `format` and `probabilities` may be left out.

    Raises:
        DataError: another format, a key is missing or of the wrong kind, an unknown emotion, or windows leave gaps.
    """
    if value.get("format", _FORMAT) != _FORMAT or not isinstance(value.get("windows"), list):
        raise DataError(
            f"expected an emotion track: {{'format': '{_FORMAT}', 'windows': [...]}}, got keys {sorted(value)}."
        )
    return EmotionTrack(tuple(_window_from_json(entry, index) for index, entry in enumerate(value["windows"])))


def _window_from_json(entry: Mapping[str, Any], index: int) -> EmotionWindow:
    try:
        given = entry.get("probabilities") or {}
        return EmotionWindow(
            start=float(entry["start"]),
            end=float(entry["end"]),
            emotion=Emotion.from_label(entry["emotion"]),
            level=int(entry["level"]),
            probabilities=tuple(float(given[emotion.label]) for emotion in RECOGNISED) if given else (),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"window {index} of the emotion track is wrong ({type(error).__name__}: {error}). "
            "Expected start, end (seconds), emotion (name) and level (1, 2 or 3)."
        ) from None
