"""Confidence intervals that respect that clips of one subject are alike."""

import numpy as np
import pandas as pd

from ecavatar.errors import ShapeError
from ecavatar.seeding import stream


def subject_bootstrap(
    clips: pd.DataFrame, value: str, *, samples: int, seed: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the frame-weighted mean of `value`, resampling whole subjects.

    Args:
        clips: one row per clip with columns `subject`, `frames` and `value`.
        value: column of per-clip means.
        samples: bootstrap repetitions.
        seed: seed of the resampling stream.
        confidence: mass of the interval.

    Returns:
        Lower and upper end. With a single subject both equal the mean: nothing can be said about other people.

    Raises:
        ShapeError: no clips.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile interval).
    """
    if clips.empty:
        raise ShapeError("a confidence interval needs at least one clip.")
    weighted = clips.assign(total=clips[value] * clips["frames"])
    subjects = weighted.groupby("subject", sort=True)[["total", "frames"]].sum().to_numpy(dtype=np.float64)
    drawn = stream(seed, "bootstrap", value).integers(len(subjects), size=(samples, len(subjects)))
    sums = subjects[drawn].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [tail, 1 - tail])
    return float(low), float(high)
