"""Regions of the open head from the sources' masks, the nose targets' reach and the landmarks.

A part of `sample.import_head`. Every rule is symmetric. The fusion partition follows the paper's Figure 5: C is the
skin around the mouth from below the nose over the chin to under-jaw and jaw line; F is forehead, eye region and cheeks;
O is the nose, ears, scalp, neck, eyeballs, eye sockets and inner mouth.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int
from matplotlib.path import Path as Outline

from ecavatar.sample.import_landmarks import BROWS

_NOSE_REACH = 0.85  # share of the nose targets' largest motion that belongs to the nose
_BROW_MARGIN = 0.003  # forehead begins this far above the brows, metres
_EYE_BAG = 0.013  # eye region ends this far below the lower lid
_EYE_SIDE = 0.014  # and this far to the side of the eye's outer corner
_UNDER_JAW = 0.3  # skinning weight of the jaw from which the skin below the face's mask is under-jaw


def brow_vertices(
    vertices: Float[np.ndarray, "V 3"], landmarks: Float[np.ndarray, "478 3"], skin: Int[np.ndarray, " n"]
) -> dict[str, Int[np.ndarray, " k"]]:
    """Vertices of both brows, by name: skin within the landmarks' outline as seen from the front."""
    return {
        name: skin[Outline(landmarks[list(outline), :2]).contains_points(vertices[skin, :2], radius=0)]
        for name, outline in BROWS.items()
    }


def head_regions(
    vertices: Float[np.ndarray, "V 3"],
    landmarks: Float[np.ndarray, "478 3"],
    masks: Mapping[str, Int[np.ndarray, " _"]],
    nose_reach: Float[np.ndarray, " V"],
    jaw_weights: Float[np.ndarray, " V"],
    root_weights: Float[np.ndarray, " V"],
) -> dict[str, Int[np.ndarray, " _"]]:
    """All regions by name.

    Args:
        vertices: the mean head at rest, eye level as in the finished asset.
        landmarks: MediaPipe's landmarks on it.
        masks: `face`, `lips`, `ears`, `eyelids`, `inner_mouth`, `sockets`, `left_eyeball`, `right_eyeball`.
        nose_reach: largest motion of each vertex by any nose target, relative to that target's largest.
        jaw_weights: skinning weights of the jaw.
        root_weights: skinning weights of the root.
    """
    is_in = {name: _mask(len(vertices), indices) for name, indices in masks.items()}
    x, y, z = np.abs(vertices[:, 0]), vertices[:, 1], vertices[:, 2]
    hidden = is_in["inner_mouth"] | is_in["sockets"] | is_in["left_eyeball"] | is_in["right_eyeball"]
    skin = ~hidden & ~is_in["ears"]
    lips = is_in["lips"] & ~is_in["inner_mouth"]
    nose = skin & ~lips & (nose_reach > _NOSE_REACH) & (y > landmarks[2, 1] - 0.0015)
    nose &= x < np.abs(landmarks[64, 0]) + 0.006  # the targets reach a spot of the laugh lines too
    face = skin & (is_in["face"] | is_in["eyelids"]) & ~lips & ~nose
    gonion = landmarks[58]
    line = np.interp(x, [0.03, abs(gonion[0])], [landmarks[2, 1] - 0.0015, gonion[1]])
    under_jaw = skin & ~face & ~lips & ~nose & (jaw_weights > _UNDER_JAW) & (y < landmarks[17, 1])
    chin = (face & (y < line) & (z > gonion[2] - 0.004)) | under_jaw
    upper = face & ~chin
    brow_line = np.interp(x, *_brow_line(landmarks))
    forehead = upper & (y > brow_line)
    outer = np.abs(landmarks[33, 0]) + _EYE_SIDE
    eye_region = upper & ~forehead & (y > landmarks[145, 1] - _EYE_BAG) & (x < outer)
    body = skin & ~upper & ~chin & ~lips & ~nose
    neck = body & ((root_weights > 0.12) | (y < gonion[1]))
    left = vertices[:, 0] > 0
    regions = {
        "lips": lips, "nose": nose, "forehead": forehead, "eye_region": eye_region, "left_ear": is_in["ears"] & left,
        "right_ear": is_in["ears"] & ~left, "neck": neck, "scalp": body & ~neck, "left_eyeball": is_in["left_eyeball"],
        "right_eyeball": is_in["right_eyeball"], "face": lips | nose | upper | (chin & is_in["face"]),
        "upper_face": forehead | eye_region, "eyelids": is_in["eyelids"] & skin,
        "inner_mouth": is_in["inner_mouth"] & ~lips,
        "sockets": is_in["sockets"], "L": lips, "C": chin, "F": upper, "O": ~(lips | chin | upper),
    }  # fmt: skip
    return {name: np.flatnonzero(region) for name, region in regions.items()}


def _mask(count: int, indices: np.ndarray) -> np.ndarray:
    result = np.zeros(count, bool)
    result[indices] = True
    return result


def _brow_line(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Knots (|x|, y) of the forehead's lower edge: over the brows, level to the middle, down to the temples."""
    brow = landmarks[[107, 66, 105, 63, 70]]
    across = np.concatenate([[0.0], np.abs(brow[:, 0]), [np.abs(brow[-1, 0]) + 0.014]])
    up = np.concatenate([[brow[0, 1]], brow[:, 1], [landmarks[33, 1]]]) + _BROW_MARGIN
    return across, up
