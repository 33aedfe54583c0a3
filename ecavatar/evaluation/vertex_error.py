"""How far predicted vertices lie from the true ones.

Both errors are *squared* metres, the mean over frames of the largest squared distance in a region: what CodeTalker's
script computes and what the field's tables print as "x 10^-5 mm". See docs of each function for who uses it.
"""

import numpy as np
from jaxtyping import Float, Int

from ecavatar.errors import ShapeError

Frames = Float[np.ndarray, "frames vertices 3"]


def trim_to_shorter(predicted: Frames, truth: Frames) -> tuple[Frames, Frames, int]:
    """Both clips cut to the shorter one, and how many frames were dropped.

    Published scripts cut one side only, or crash; here the cut is made on purpose and counted.
    """
    frames = min(len(predicted), len(truth))
    return predicted[:frames], truth[:frames], max(len(predicted), len(truth)) - frames


def largest_squared_distance(predicted: Frames, truth: Frames, region: Int[np.ndarray, "k"]) -> Float[np.ndarray, "t"]:
    """Largest squared vertex distance inside `region`, per frame, m^2.

    Args:
        predicted: vertices or displacements in metres.
        truth: same shape as `predicted`.
        region: vertex indices, at least one.

    Raises:
        ShapeError: shapes differ (cut frames on purpose with `trim_to_shorter`), or the region or clip is empty.
    """
    if predicted.shape != truth.shape or predicted.ndim != 3 or predicted.shape[-1] != 3:
        raise ShapeError(
            f"predicted and truth must both be (T, V, 3); got {predicted.shape} and {truth.shape}. "
            "Cut to the shorter clip with trim_to_shorter if only the frame counts differ."
        )
    if len(region) == 0 or len(predicted) == 0:
        raise ShapeError(f"needs at least one frame and one vertex; got {len(predicted)} and {len(region)}.")
    difference = predicted[:, region].astype(np.float64) - truth[:, region].astype(np.float64)
    return (difference**2).sum(-1).max(-1)


def lip_vertex_error(predicted: Frames, truth: Frames, lips: Int[np.ndarray, "k"]) -> Float[np.ndarray, "t"]:
    """LVE of each frame, m^2: the largest squared lip vertex distance.

    A table's LVE is the mean of this over the frames of all clips, pooled.

    Source: MeshTalk (Richard et al., ICCV 2021) as CodeTalker's script computes it; metric name `lve.codetalker`.
    """
    return largest_squared_distance(predicted, truth, lips)


def emotional_vertex_error(
    predicted: Frames,
    predicted_neutral: Float[np.ndarray, "vertices 3"],
    truth: Frames,
    true_neutral: Float[np.ndarray, "vertices 3"],
    upper_face: Int[np.ndarray, "k"],
) -> Float[np.ndarray, "t"]:
    """EVE of each frame, m^2: the largest squared difference of upper-face displacements.

    A displacement is a vertex minus the same vertex of that side's own neutral face, so a wrong identity alone costs
    nothing. `upper_face` is forehead and eye region.

    Source: EmoTalk (Peng et al., ICCV 2023), by its author's description; metric name `eve.emotalk`.
    """
    return largest_squared_distance(predicted - predicted_neutral, truth - true_neutral, upper_face)
