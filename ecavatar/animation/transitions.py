"""How strongly each emotion window counts in each frame (section 4.1 of the paper)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ecavatar.errors import ConfigError, ShapeError


def transition_weights(
    starts: Sequence[float], duration: float, frames: int, fps: float, transition: float
) -> Float[np.ndarray, "frames windows"]:
    """Mixing weights of consecutive windows; every row sums to 1.

    One linear blend runs over the 2*transition seconds across each border: fn = round(2*transition*fps) frames with
    weights j/fn, j = 1..fn, for the later window. The paper's wording, a full blend in the last and another one in the
    first `transition` seconds at a border, would jump back at the border; this is the continuous reading of it.
    The first window before its border and the last one after it are constant.

    Args:
        starts: start of each window in seconds, ascending, the first at 0.
        duration: end of the last window, seconds.
        frames: number of frames of the motion.
        fps: frames per second.
        transition: the paper's t_trans, seconds.

    Raises:
        ConfigError: a window is shorter than 2*transition, so two blends would overlap.
        ShapeError: no window, or starts do not ascend from 0.
    """
    borders = np.asarray(starts, dtype=np.float64)
    if len(borders) == 0 or borders[0] != 0 or np.any(np.diff(borders) <= 0):
        raise ShapeError(f"window starts must ascend from 0, got {list(starts)}.")
    lengths = np.diff(np.append(borders, duration))
    if len(borders) > 1 and lengths.min() < 2 * transition - 1e-9:
        raise ConfigError(
            f"a window of {lengths.min():.3f} s is shorter than two transitions of {transition} s: "
            "use longer windows or a shorter transition."
        )
    blend = round(2 * transition * fps)
    frame = np.arange(frames)
    reached = np.ones((frames, len(borders)))  # how far the blend into each window has come
    for window, border in enumerate(borders[1:], start=1):
        first = round(border * fps) - blend // 2
        step = (frame - first + 1) / max(blend, 1)
        reached[:, window] = np.clip(step, 0, 1) if blend else frame >= first
    left = np.concatenate([reached[:, 1:], np.zeros((frames, 1))], axis=1)
    return reached - left
