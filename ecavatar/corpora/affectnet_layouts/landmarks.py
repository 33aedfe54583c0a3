"""The 68 landmarks that AffectNet gives: 136 numbers, x and y in turn."""

from typing import Any

import numpy as np
from jaxtyping import Float

COUNT = 68


def landmarks_of(numbers: Any) -> Float[np.ndarray, "68 2"] | None:  # whatever a file holds
    """The landmarks in pixels, or None where `numbers` (numbers or texts, nested or not) are not 136 finite ones."""
    try:
        flat = np.asarray(numbers).reshape(-1).astype(np.float64)
    except (TypeError, ValueError):
        return None
    return flat.reshape(COUNT, 2) if flat.size == 2 * COUNT and np.isfinite(flat).all() else None
