"""Three intensity levels from arousal (section 3.3 of the paper)."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from ecavatar.emotion import LEVELS, Emotion
from ecavatar.errors import DataError

NOT_ANNOTATED = -2.0
"""What AffectNet's lists say where nobody gave an arousal; a reader may have turned it into NaN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelBounds:
    """Where one category's arousal is cut.

    Level 1 is [lowest, first_cut), level 2 is [first_cut, second_cut), level 3 is [second_cut, highest]: a value on a
    cut belongs to the level above it. Where all values are equal, or so near that no cuts fit between them, all are
    level 1.
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
        if not self.lowest < self.first_cut < self.second_cut < self.highest:
            return np.ones(arousal.shape, np.int8)
        return (1 + (arousal >= self.first_cut) + (arousal >= self.second_cut)).astype(np.int8)


def equal_thirds(arousal: Float[np.ndarray, " values"]) -> LevelBounds:
    """The paper's rule: cut [lowest, highest] into three intervals of equal width.

    Raises:
        DataError: no values, or values that are not in [-1, 1].
    """
    arousal = np.asarray(arousal, np.float64)
    if arousal.size == 0 or not ((arousal >= -1) & (arousal <= 1)).all():
        raise DataError("levels need at least one arousal value, all in [-1, 1]; drop -2 (not annotated) first.")
    lowest, highest = float(arousal.min()), float(arousal.max())
    width = (highest - lowest) / len(LEVELS)
    return LevelBounds(lowest=lowest, first_cut=lowest + width, second_cut=lowest + 2 * width, highest=highest)


def is_usable(annotations: pd.DataFrame) -> Bool[np.ndarray, " rows"]:
    """Which rows have one of the eight categories and an annotated arousal.

    Codes 8 (none), 9 (uncertain) and 10 (non-face), and arousal -2, never reach the minimum and maximum.
    """
    codes, arousal = annotations["emotion_code"].to_numpy(), annotations["arousal"].to_numpy(np.float64)
    return np.isin(codes, [int(e) for e in Emotion]) & ~np.isnan(arousal) & (arousal != NOT_ANNOTATED)


def arousal_levels(annotations: pd.DataFrame) -> tuple[Int[np.ndarray, " rows"], dict[Emotion, LevelBounds]]:
    """The level of each row, and where each category's arousal was cut.

    Args:
        annotations: columns `emotion_code` and `arousal`; usable rows only (`is_usable`).

    Raises:
        DataError: a row that is not usable.
    """
    if not is_usable(annotations).all():
        raise DataError("rows without category or arousal have no level; keep the rows for which `is_usable` is true.")
    codes, arousal = annotations["emotion_code"].to_numpy(), annotations["arousal"].to_numpy(np.float64)
    bounds = {Emotion(code): equal_thirds(arousal[codes == code]) for code in np.unique(codes).tolist()}
    levels = np.zeros(len(annotations), np.int8)
    for emotion, cut in bounds.items():
        levels[codes == emotion] = cut.level(arousal[codes == emotion])
    return levels, bounds
