"""Emotion and intensity along a clip: recogniser scores -> label pairs per time window."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ecavatar.config import EmotionSettings
from ecavatar.emotion import EMOTION2VEC_EMOTIONS, EMOTION2VEC_LABELS, LEVELS, Emotion
from ecavatar.errors import ConfigError, DataError, ShapeError
from ecavatar.storage.files import read_json, write_json

RECOGNISED: Final[tuple[Emotion, ...]] = tuple(EMOTION2VEC_EMOTIONS.values())
"""The seven emotions that speech can tell, in emotion2vec's order; contempt is not among them."""

_COLUMNS: Final = [EMOTION2VEC_LABELS.index(label) for label in EMOTION2VEC_EMOTIONS]
_FORMAT: Final = "ecavatar-emotion-track-1"
_KEYS: Final = ("start", "end", "emotion", "level", "probabilities")
_TICK: Final = 1e-6  # seconds; two moments nearer than this are one
_END_TOLERANCE: Final = 0.1  # seconds by which a track written by hand may miss the end of its speech


@dataclass(frozen=True, slots=True, kw_only=True)
class EmotionWindow:
    """What is felt between two moments of a clip."""

    start: float
    end: float
    emotion: Emotion
    level: int
    probabilities: tuple[
        float, ...
    ]  # of the seven in `RECOGNISED`, sum 1 unless not renormalised; empty when the label was given, not recognised


@dataclass(frozen=True, slots=True)
class EmotionTrack:
    """Windows in order and without gaps, from 0 to the end of the clip."""

    windows: tuple[EmotionWindow, ...]

    def __post_init__(self) -> None:
        problems = [
            *(["no window"] if not self.windows else []),
            *(f"the first window starts at {w.start:g} s, not at 0" for w in self.windows[:1] if abs(w.start) > _TICK),
            *(f"level {w.level} at {w.start:g} s is not 1, 2 or 3" for w in self.windows if w.level not in LEVELS),
            *(
                f"the window from {w.start:g} s ends at {w.end:g} s"
                for w in self.windows
                if not w.start < w.end < math.inf
            ),
            *(_misfit(a, b) for a, b in pairwise(self.windows) if not abs(a.end - b.start) <= _TICK),
        ]
        if problems:
            raise DataError(f"emotion track: {'; '.join(problems)}. Give ordered windows that touch, levels 1 to 3.")

    @property
    def duration(self) -> float:
        """Seconds from 0 to the end of the last window."""
        return self.windows[-1].end


def _misfit(before: EmotionWindow, after: EmotionWindow) -> str:
    kind = "gap" if after.start > before.end else "overlap"
    return f"{kind} between {before.end:g} s, where a window ends, and {after.start:g} s, where the next one starts"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRule:
    """How nine scores become a category and a level.

    The paper keeps seven of nine classes, takes the most probable one and maps its probability linearly to intensity.
    It does not say whether the seven are made to sum to 1 again, nor where the line begins and ends. Our reading of the
    latter: from 1/7, the least probability with which one of seven can win, to certainty.
    """

    renormalise: bool = True  # divide the seven by their sum; else `other` and `<unk>` weaken the level
    lowest: float = 1 / 7  # probability at the bottom of level 1; below it is level 1, too
    highest: float = 1.0  # probability at the top of level 3; above it is level 3, too

    def __post_init__(self) -> None:
        if not 0.0 <= self.lowest < self.highest <= 1.0:
            raise ConfigError(
                f"emotion levels: expected 0 <= lowest < highest <= 1, got {self.lowest} and {self.highest}. Give the "
                "probabilities at which level 1 begins and level 3 ends."
            )

    @classmethod
    def of(cls, settings: EmotionSettings) -> "LabelRule":
        """The rule that settings name.

        Raises:
            ConfigError: the levels end before they begin.
        """
        return cls(renormalise=settings.renormalise, lowest=settings.level_lowest, highest=settings.level_highest)


DEFAULT_RULE: Final = LabelRule()


def level_of(probability: float, rule: LabelRule = DEFAULT_RULE) -> int:
    """The intensity level of an emotion recognised with `probability`: equal thirds of the rule's line.

    Raises:
        DataError: outside 0..1.
    """
    if not 0.0 <= probability <= 1.0 + 1e-9:
        raise DataError(f"a probability lies in 0..1, got {probability}. Divide the scores by their sum.")
    position = (probability - rule.lowest) / (rule.highest - rule.lowest)
    return LEVELS[min(max(int(position * len(LEVELS)), 0), len(LEVELS) - 1)]


def track_from_scores(
    scores: NDArray[np.floating], times: Sequence[tuple[float, float]], rule: LabelRule = DEFAULT_RULE
) -> EmotionTrack:
    """The track of windows `times` (start, end) with recogniser `scores` (W, 9) in `EMOTION2VEC_LABELS` order.

    `other` and `<unk>` are dropped; the most probable of the remaining seven is the emotion.

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
    rows = kept / totals if rule.renormalise else kept
    return EmotionTrack(
        tuple(_window(row, float(start), float(end), rule) for row, (start, end) in zip(rows, times, strict=True))
    )


def _window(probabilities: NDArray[np.float64], start: float, end: float, rule: LabelRule) -> EmotionWindow:
    best = int(probabilities.argmax())
    return EmotionWindow(
        start=start,
        end=end,
        emotion=RECOGNISED[best],
        level=level_of(float(probabilities[best]), rule),
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


def from_json(value: Any) -> EmotionTrack:  # whatever a json file holds
    """The track in `value`, as `to_json` wrote it or a user did; `format` and `probabilities` may be left out.

    Raises:
        DataError: another format, a key is missing, unknown or of the wrong kind, an unknown emotion, a level that does
            not exist, or windows overlap or leave gaps; all problems of the windows' entries are listed.
    """
    if not isinstance(value, dict) or value.get("format", _FORMAT) != _FORMAT or not _is_list(value.get("windows")):
        seen = f"keys {sorted(map(str, value))}" if isinstance(value, dict) else f"a {type(value).__name__}"
        raise DataError(
            f"expected an emotion track: {{'format': '{_FORMAT}', 'windows': [...]}}, got {seen}. "
            "`ecavatar emotion` writes one to start from."
        )
    problems = [
        f"window {index}: {problem}" for index, entry in enumerate(value["windows"]) for problem in _problems(entry)
    ]
    if problems:
        raise DataError(
            f"emotion track: {'; '.join(problems)}. Expected start and end (seconds), emotion "
            f"({', '.join(e.label for e in Emotion)}) and level (1, 2 or 3)."
        )
    return EmotionTrack(tuple(_window_from_json(entry) for entry in value["windows"]))


def write_track(path: Path, track: EmotionTrack) -> None:
    """Write `track` as a json file that a person can read and edit."""
    write_json(path, to_json(track))


def read_track(path: Path, duration: float | None = None) -> EmotionTrack:
    """The track in a json file, as `write_track` wrote it or a user did.

    Args:
        path: the file.
        duration: seconds of the speech that it is for; None does not check. An end up to 0.1 s off is moved there.

    Raises:
        AssetMissingError: the file is not there.
        DataError: it is not json, not a track (see `from_json`), or ends elsewhere than the speech.
    """
    try:
        track = from_json(read_json(path))
    except DataError as error:
        raise DataError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    if duration is None:
        return track
    if abs(track.duration - duration) > _END_TOLERANCE or track.windows[-1].start >= duration:
        raise DataError(
            f"{path}: the emotion track ends at {track.duration:g} s and the speech at {duration:g} s. "
            "Move the end of its last window there."
        )
    return EmotionTrack((*track.windows[:-1], replace(track.windows[-1], end=duration)))


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _problems(entry: object) -> list[str]:
    """What is wrong with one window of a json file, taken by itself."""
    if not isinstance(entry, dict):
        return [f"expected keys and values, got {entry!r}"]
    problems = [f"unknown key {key!r}" for key in entry if key not in _KEYS]
    problems += [f"{key} is missing" for key in _KEYS[:4] if key not in entry]
    problems += [
        f"{key} must be a finite number, got {entry[key]!r}"
        for key in ("start", "end")
        if key in entry and not _is_number(entry[key])
    ]
    if "emotion" in entry and entry["emotion"] not in [emotion.label for emotion in Emotion]:
        problems.append(f"unknown emotion {entry['emotion']!r}")
    if "level" in entry and (isinstance(entry["level"], bool) or entry["level"] not in LEVELS):
        problems.append(f"level {entry['level']!r} is not 1, 2 or 3")
    given = entry.get("probabilities")
    if given and not (
        isinstance(given, dict)
        and set(given) == {emotion.label for emotion in RECOGNISED}
        and all(_is_number(share) and 0 <= share <= 1 for share in given.values())
    ):
        problems.append("probabilities must give a share of 0 to 1 to each of the seven, or be left out")
    return problems


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _window_from_json(entry: Mapping[str, Any]) -> EmotionWindow:
    given = entry.get("probabilities") or {}
    return EmotionWindow(
        start=float(entry["start"]),
        end=float(entry["end"]),
        emotion=Emotion.from_label(entry["emotion"]),
        level=int(entry["level"]),
        probabilities=tuple(float(given[emotion.label]) for emotion in RECOGNISED) if given else (),
    )
