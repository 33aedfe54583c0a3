"""Metres as 16-bit steps of 10 micrometres and back."""

import numpy as np
from jaxtyping import Float, Int16

from ecavatar.errors import DataError

STEP_M = 1e-5
MAX_ERROR_M = STEP_M / 2
"""Of a value that went to steps and back, apart from float32's own rounding."""
_LIMIT = np.iinfo(np.int16).max


def to_steps(metres: Float[np.ndarray, "*shape"]) -> Int16[np.ndarray, "*shape"]:
    """Whole steps of 10 micrometres, rounded to the nearest.

    Raises:
        DataError: a value is not finite, or further from 0 than 32767 steps (0.32767 m).
    """
    steps = np.rint(np.asarray(metres, np.float64) / STEP_M)
    if not (np.abs(steps) <= _LIMIT).all():  # a NaN is not
        raise DataError(
            f"vertices must lie within {_LIMIT * STEP_M:g} m of the origin to be stored as int16, the furthest is "
            f"{np.abs(metres).max():g} m away. Export with vertices: float32, or check the coefficients."
        )
    return steps.astype(np.int16)


def from_steps(steps: Int16[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Metres, float32."""
    return (steps.astype(np.float64) * STEP_M).astype(np.float32)
