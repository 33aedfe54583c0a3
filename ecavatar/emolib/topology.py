"""What vertex indices mean, without anything licensed: triangles, regions and, where free, texture coordinates."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ecavatar.errors import AssetMissingError
from ecavatar.face.model import FaceAsset
from ecavatar.storage.arrays import read_arrays, write_arrays

FREE_TOPOLOGIES = ("open-head",)
"""Heads whose texture coordinates may be passed on."""


def topology_arrays(asset: FaceAsset) -> dict[str, np.ndarray]:
    """`faces` (F, 3), a `region:NAME` of vertex indices each, and for free heads `uv` (T, 2) and `uv_faces` (F, 3).

    Neither template nor bases nor skinning: those are what a face model's licence protects.
    """
    arrays = {"faces": asset.faces} | {f"region:{name}": indices for name, indices in asset.regions.items()}
    if asset.topology in FREE_TOPOLOGIES and len(asset.uv):
        arrays |= {"uv": asset.uv, "uv_faces": asset.uv_faces}
    return arrays


def topology_sha256(arrays: Mapping[str, np.ndarray]) -> str:
    """Hexadecimal SHA-256 over names, kinds, shapes and values; how they are packed into a file does not matter."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{name} {little.dtype.str} {little.shape}\n".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def write_topology(path: Path, arrays: Mapping[str, np.ndarray], topology: str) -> None:
    """Write an npz without objects, whole or not at all; equal arrays give equal bytes."""
    write_arrays(path, arrays, {"topology": topology, "sha256": topology_sha256(arrays)})


def read_topology(path: Path) -> dict[str, np.ndarray]:
    """The arrays that `write_topology` wrote.

    Raises:
        AssetMissingError: the file is not there.
        DataError: it is damaged or not of this form.
    """
    if not path.is_file():
        raise AssetMissingError(f"{path} not found. Export the release again, or check the path.")
    return read_arrays(path)[0]
