"""FLAME's vertex masks, and the regions of the face asset cut from them.

FLAME's masks overlap, leave 200 vertices (inner mouth, eye sockets, nostrils) in none, and know no chin.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from ecavatar.errors import DataError
from ecavatar.face.flame.model_file import N_VERTICES, FlameModel
from ecavatar.storage.unpickle import array_of, load_pickle

Masks = Mapping[str, Int[np.ndarray, " _"]]
"""Sorted, unique vertex indices by FLAME's name of the region."""

_NEEDED = (
    "face", "neck", "scalp", "forehead", "nose", "lips", "eye_region", "left_ear", "right_ear", "left_eyeball",
    "right_eyeball",
)  # fmt: skip
_SUBNASALE, _LOWER_LIP, _JAW_ANGLES = 33, 57, (4, 12)  # iBUG landmarks
_PHILTRUM_M = 0.0015  # the chin begins this far below the point where nose and upper lip meet
_LEVEL_M = 0.03  # and level, as far as this to both sides
_JAW_DEPTH_M = 0.004  # it ends this far behind the jaw's angle
_UNDER_JAW = 0.3  # skinning weight of the jaw from which the neck below the lower lip is under-jaw
_JAW = 2


def read_flame_masks(path: Path) -> dict[str, Int[np.ndarray, " _"]]:
    """The regions of FLAME_masks.pkl by name, each sorted and without the duplicates that the file has.

    Raises:
        AssetMissingError: no such file.
        DataError: the file is damaged, hostile, or no such masks.
    """
    content = load_pickle(path)
    if not isinstance(content, dict) or (lacking := [name for name in _NEEDED if name not in content]):
        lacks = ", ".join(lacking) if isinstance(content, dict) else "regions by name"
        raise DataError(f"{path} is not FLAME_masks.pkl: it lacks {lacks}. Get it from flame.is.tue.mpg.de.")
    masks, problems = {}, []
    for name, indices in content.items():
        array = _array(path, indices)
        if array.dtype.kind not in "iu" or array.ndim != 1 or len(array) == 0:
            problems.append(f"{name} is no list of vertex indices")
        elif array.min() < 0 or array.max() >= N_VERTICES:
            problems.append(f"{name} names vertices outside 0..{N_VERTICES - 1}")
        else:
            masks[str(name)] = np.unique(array).astype(np.int32)
    if problems:
        raise DataError(f"{path}: {'; '.join(problems)}. Get FLAME_masks.pkl from flame.is.tue.mpg.de.")
    return masks


def _array(path: Path, value: object) -> np.ndarray:
    try:
        return array_of(value)
    except DataError as error:
        raise DataError(f"{path}: {error} Get FLAME_masks.pkl from flame.is.tue.mpg.de.") from None


def flame_regions(
    masks: Masks, model: FlameModel, ibug68: Float[np.ndarray, "68 3"]
) -> dict[str, Int[np.ndarray, " _"]]:
    """All regions of the face asset: FLAME's own by name, `upper_face`, and the partition L, C, F, O.

    The open head is cut by the same rule. Seen from the front a line runs level from 1.5 mm below the point where
    nose and upper lip meet, 3 cm to both sides, then down to the jaw's angles. C is what lies below it of the face
    mask outside lips, nose, eye region and forehead, no farther back than the jaw's angles, and the part of the neck
    below the lower lip that follows the jaw. L is the lips, O nose, ears, eyeballs, neck and all that is not in the
    face mask, F the rest of the face mask: forehead, eye region and cheeks.

    Args:
        masks: as `read_flame_masks` gives them.
        model: its template gives the places, its skinning the under-jaw.
        ibug68: landmarks on the template, metres.
    """
    is_in = {name: np.isin(np.arange(N_VERTICES), indices) for name, indices in masks.items()}
    x, y, z = np.abs(model.template[:, 0]), model.template[:, 1], model.template[:, 2]
    angle = ibug68[list(_JAW_ANGLES)].mean(axis=0)
    side = np.abs(ibug68[list(_JAW_ANGLES), 0]).mean()
    line = np.interp(x, [_LEVEL_M, side], [ibug68[_SUBNASALE, 1] - _PHILTRUM_M, angle[1]])
    lips, upper_face = is_in["lips"], is_in["forehead"] | is_in["eye_region"]
    never = lips | is_in["nose"] | is_in["left_ear"] | is_in["right_ear"] | is_in["left_eyeball"]
    never |= is_in["right_eyeball"]
    chin = is_in["face"] & ~never & ~upper_face & (y < line) & (z > angle[2] - _JAW_DEPTH_M)
    chin |= is_in["neck"] & ~never & (model.skinning[:, _JAW] > _UNDER_JAW) & (y < ibug68[_LOWER_LIP, 1])
    rest = (is_in["face"] | upper_face) & ~never & ~chin
    cut = {"upper_face": upper_face, "L": lips, "C": chin, "F": rest, "O": ~(lips | chin | rest)}
    return dict(masks) | {name: np.flatnonzero(region).astype(np.int32) for name, region in cut.items()}
