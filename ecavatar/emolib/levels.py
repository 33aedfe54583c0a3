"""Three intensity levels from arousal: the paper's equal thirds (section 3.3), and two rules beyond it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from ecavatar.emotion import LEVELS, Emotion
from ecavatar.errors import ConfigError, DataError

NOT_ANNOTATED = -2.0
"""What AffectNet's lists say where nobody gave an arousal; a reader may have turned it into NaN."""
PER_LEVEL = 500
"""Images that the paper draws per category and level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelBounds:
    """Where one category's arousal is cut.

    Level 1 is [lowest, first_cut), level 2 is [first_cut, second_cut), level 3 is [second_cut, highest]: a value on a
    cut belongs to the level above it. A cut that no value reaches lies just above `highest`. Where all values are
    equal, or so near that no cuts fit between them, all are level 1.
    """

    lowest: float
    first_cut: float
    second_cut: float
    highest: float

    def level(self, arousal: Float[np.ndarray, " values"]) -> Int[np.ndarray, " values"]:
        """Level 1, 2 or 3 of each value.

        Raises:
            DataError: a value outside [lowest, highest], or not a number.
        """
        arousal = np.asarray(arousal, np.float64)
        if not ((arousal >= self.lowest) & (arousal <= self.highest)).all():
            raise DataError(f"arousal outside [{self.lowest:g}, {self.highest:g}], the range its levels were cut from.")
        return (1 + (arousal >= self.first_cut).astype(np.int8) + (arousal >= self.second_cut)).astype(np.int8)


def equal_thirds(arousal: Float[np.ndarray, " values"]) -> LevelBounds:
    """The paper's rule: cut [lowest, highest] into three intervals of equal width.

    Raises:
        DataError: no values, or values that are not in [-1, 1].
    """
    arousal = _checked(arousal)
    lowest, highest = float(arousal.min()), float(arousal.max())
    width = (highest - lowest) / len(LEVELS)
    first, second = lowest + width, lowest + 2 * width
    if not lowest < first < second < highest:
        first = second = _just_above(highest)
    return LevelBounds(lowest=lowest, first_cut=first, second_cut=second, highest=highest)


def quantile_thirds(arousal: Float[np.ndarray, " values"]) -> LevelBounds:
    """Thirds by rank: a cut is the smallest value that at least one third (two thirds) of the values lie below.

    Equal values always share a level, the one that the lowest of their ranks falls into. So without ties the levels
    differ by one image at most, many ties make the lower level larger, and a level may stay empty; equal values only
    are level 1. Moving every value by an increasing function changes no level.

    Raises:
        DataError: no values, or values that are not in [-1, 1].
    """
    arousal = _checked(arousal)
    values, below = _distinct(arousal)
    # below[i] counts the values less than values[i]; the products are exact integers, so ranks never round
    first, second = (int(np.searchsorted(len(LEVELS) * below[:-1], third * arousal.size)) for third in (1, 2))
    return _cut(values, first, second)


def balanced_cuts(arousal: Float[np.ndarray, " values"], wanted: int = PER_LEVEL) -> LevelBounds:
    """Equal thirds, moved as little as is needed to give every level enough images.

    Enough is `wanted`, or where the category has too few for that, the most that its smallest level can have (equal
    values share a level). A cut stays at its equal third or moves to an observed value. Of all pairs of cuts that leave
    enough in every level, the one with the smallest sum of the two distances to the equal thirds is taken; of equally
    near ones, that with the lowest first cut. With fewer than three distinct values, equal thirds as they are.

    For categories whose equal thirds are nearly empty at one end: surprise, fear, disgust and contempt have 262, 108,
    205 and 378 images of level 1 in the paper, sad and disgust 359 and 424 of level 3. Levels that have enough
    keep the paper's meaning.

    Args:
        arousal: one category's values.
        wanted: images to be drawn per level.

    Raises:
        DataError: no values, or values that are not in [-1, 1].
    """
    arousal = _checked(arousal)
    values, below = _distinct(arousal)
    thirds = equal_thirds(arousal)
    enough = _largest_minimum(below, wanted)
    if enough == 0:
        return thirds
    cuts = (thirds.first_cut, thirds.second_cut)
    nearest = [int(np.searchsorted(values, cut)) for cut in cuts]  # the cut at this value is the third itself
    moves = [np.abs(values - cut) for cut in cuts]
    for move, index in zip(moves, nearest, strict=True):
        move[index : index + 1] = 0.0
    last = int(np.searchsorted(below, arousal.size - enough, side="right")) - 1
    firsts = np.arange(np.searchsorted(below, enough), len(values))
    seconds_from = np.searchsorted(below, below[firsts] + enough)
    firsts, seconds_from = firsts[seconds_from <= last], seconds_from[seconds_from <= last]
    seconds = np.clip(nearest[1], seconds_from, last)  # distances fall up to the third's place and rise after it
    best = int(np.argmin(moves[0][firsts] + moves[1][seconds]))
    chosen = (int(firsts[best]), int(seconds[best]))
    first, second = (
        cut if index == third else float(values[index]) for cut, index, third in zip(cuts, chosen, nearest, strict=True)
    )
    return LevelBounds(lowest=thirds.lowest, first_cut=first, second_cut=second, highest=thirds.highest)


def is_usable(annotations: pd.DataFrame) -> Bool[np.ndarray, " rows"]:
    """Which rows have one of the eight categories and an annotated arousal.

    Codes 8 (none), 9 (uncertain) and 10 (non-face), and arousal -2, never reach the minimum and maximum.
    """
    codes, arousal = annotations["emotion_code"].to_numpy(), annotations["arousal"].to_numpy(np.float64)
    in_category = (codes >= min(Emotion)) & (codes <= max(Emotion))
    return in_category & ~np.isnan(arousal) & (arousal != NOT_ANNOTATED)


def arousal_levels(
    annotations: pd.DataFrame, rule: str = "equal", wanted: int = PER_LEVEL
) -> tuple[Int[np.ndarray, " rows"], dict[Emotion, LevelBounds]]:
    """The level of each row, and where each category's arousal was cut.

    Args:
        annotations: columns `emotion_code` and `arousal`; usable rows only (`is_usable`).
        rule: `equal` (`equal_thirds`, the paper), `quantile` (`quantile_thirds`) or `balanced` (`balanced_cuts`).
        wanted: images to be drawn per category and level; only `balanced` looks at it.

    Raises:
        ConfigError: no such rule.
        DataError: a row that is not usable.
    """
    rules: dict[str, Callable[[np.ndarray], LevelBounds]] = {
        "equal": equal_thirds,
        "quantile": quantile_thirds,
        "balanced": lambda arousal: balanced_cuts(arousal, wanted),
    }
    if rule not in rules:
        raise ConfigError(f"unknown level rule {rule!r}; expected one of: {', '.join(rules)}.")
    if not is_usable(annotations).all():
        raise DataError("rows without category or arousal have no level; keep the rows for which `is_usable` is true.")
    codes, arousal = annotations["emotion_code"].to_numpy(), annotations["arousal"].to_numpy(np.float64)
    levels, bounds = np.zeros(len(annotations), np.int8), {}
    for emotion in Emotion:
        rows = np.flatnonzero(codes == emotion)
        if len(rows):
            bounds[emotion] = rules[rule](arousal[rows])
            levels[rows] = bounds[emotion].level(arousal[rows])
    return levels, bounds


def _checked(arousal: Float[np.ndarray, " values"]) -> Float[np.ndarray, " values"]:
    arousal = np.asarray(arousal, np.float64)
    if arousal.size == 0 or not ((arousal >= -1) & (arousal <= 1)).all():
        raise DataError("levels need at least one arousal value, all in [-1, 1]; drop -2 (not annotated) first.")
    return arousal


def _distinct(arousal: Float[np.ndarray, " values"]) -> tuple[Float[np.ndarray, " d"], Int[np.ndarray, " d+1"]]:
    """The distinct values, ascending, and how many values lie below each of them (at the end: how many there are)."""
    values, counts = np.unique(arousal, return_counts=True)
    return values, np.concatenate([[0], np.cumsum(counts)])


def _cut(values: Float[np.ndarray, " d"], first: int, second: int) -> LevelBounds:
    """Levels 2 and 3 begin at these places of the distinct values."""
    lowest, highest = float(values[0]), float(values[-1])
    first_cut, second_cut = (float(values[i]) if i < len(values) else _just_above(highest) for i in (first, second))
    return LevelBounds(lowest=lowest, first_cut=first_cut, second_cut=second_cut, highest=highest)


def _largest_minimum(below: Int[np.ndarray, " d+1"], wanted: int) -> int:
    """How many values the smallest of three levels can have, at most `wanted`; 0 when one must be empty."""
    total = int(below[-1])

    def fits(size: int) -> bool:
        first = below[np.searchsorted(below, size)]  # the smallest level 1 and then the smallest level 2 leave the most
        return bool(first + size <= total and total - below[np.searchsorted(below, first + size)] >= size)

    low, high = 0, min(wanted, total // len(LEVELS))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _just_above(value: float) -> float:
    return float(np.nextafter(value, np.inf))
