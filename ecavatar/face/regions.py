"""Named sets of vertices, and the partition of the face that fusion and metrics use.

The paper's Figure 5 cuts the head into L (lips), C (chin: the skin around the mouth from below the nose over the chin
to under-jaw and jaw line), F (rest of the face: forehead, eye region, cheeks) and O (outside: nose, ears, scalp, neck,
eyeballs, inner mouth). The four partition all vertices.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from ecavatar.errors import DataError
from ecavatar.face.model import FaceAsset


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionRegions:
    """The paper's partition as sorted vertex indices."""

    lips: Int[np.ndarray, " L"]
    chin: Int[np.ndarray, " C"]
    face: Int[np.ndarray, " F"]
    outside: Int[np.ndarray, " O"]


def fusion_regions(asset: FaceAsset) -> FusionRegions:
    """L, C, F and O of an asset; together every vertex once (`FaceAsset` checks it)."""
    regions = asset.regions
    return FusionRegions(lips=regions["L"], chin=regions["C"], face=regions["F"], outside=regions["O"])


def region(asset: FaceAsset, name: str) -> Int[np.ndarray, " n"]:
    """Sorted vertex indices of the region called `name`.

    Raises:
        DataError: the asset has no such region; the message lists its regions.
    """
    if name not in asset.regions:
        raise DataError(f"{asset.topology} has no region {name!r}; it has {', '.join(asset.regions)}.")
    return asset.regions[name]


def fingerprint(indices: Int[np.ndarray, " n"]) -> str:
    """Short name of a vertex set, the same for any order and repetition: 16 hexadecimal digits of its SHA-256."""
    unique = np.unique(np.asarray(indices, dtype=np.int64)).astype("<i4")
    return hashlib.sha256(unique.tobytes()).hexdigest()[:16]
