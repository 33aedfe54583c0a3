"""VOCASET's meshes: arrays mapped from npy files, and the pickle of neutral ones."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.storage.unpickle import array_of, load_pickle

_HEADERS: Mapping[tuple[int, int], Callable] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_BYTES = (4, 8)
"""Of a number: half precision would round a face by 0.06 mm, which is seen at closing lips."""


def map_floats(path: Path) -> np.ndarray:
    """The numbers of an npy file, mapped from disk read-only: float32 or float64, any byte order.

    Raises:
        AssetMissingError: the file is not there.
        DataError: it is no npy file, holds objects (which are never unpickled) or numbers of another kind, or its size
            is not what its header says.
    """
    if not path.is_file():
        raise AssetMissingError(f"{path} not found. Check the path, or unpack VOCASET again.")
    try:
        with path.open("rb") as file:
            shape, is_fortran, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
            start = file.tell()
    except Exception as error:  # noqa: BLE001 - a damaged header raises whatever numpy's parser raises
        raise DataError(f"{path} is not a NumPy array file ({type(error).__name__}: {error}). Copy it again.") from None
    if dtype.kind != "f" or dtype.itemsize not in _BYTES:
        raise DataError(
            f"{path}: expected float32 or float64, got {dtype}. Copy it again, or write it with numpy.save."
        )
    _check_size(path, shape, dtype, start)
    if 0 in shape:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", start, shape, order="F" if is_fortran else "C")


def read_templates(path: Path, n_vertices: int | None = None) -> dict[str, Float[np.ndarray, "vertices 3"]]:
    """The neutral mesh of every subject, float32 metres, sorted by subject.

    Args:
        path: templates.pkl.
        n_vertices: how many each must have; None: as many as the first.

    Raises:
        AssetMissingError: the file is not there.
        DataError: it is no dictionary of finite meshes of one size; all wrong ones are named.
    """
    meshes = read_mapping(path)
    templates, problems = {}, []
    for subject in sorted(meshes):
        try:
            templates[subject] = _template(meshes[subject], n_vertices)
            n_vertices = len(templates[subject])
        except DataError as error:
            problems.append(f"{subject}: {error}")
    if problems or not templates:
        raise DataError(
            f"{path}: expected (vertices, 3) finite metres for each subject, got\n  "
            + ("\n  ".join(problems) or "no subject at all")
            + "\nUnpack VOCASET again."
        )
    return templates


def read_mapping(path: Path) -> dict:
    """The dictionary by subject in one of VOCASET's pickles, read without running anything it says.

    Raises:
        AssetMissingError: the file is not there.
        DataError: it is no pickle of a dictionary whose keys are text, or wants something that is not allowed.
    """
    value = load_pickle(path)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        seen = "other keys" if isinstance(value, dict) else type(value).__name__
        raise DataError(f"{path} must hold a dictionary by subject, got {seen}. Unpack VOCASET again.")
    return value


def _check_size(path: Path, shape: tuple[int, ...], dtype: np.dtype, start: int) -> None:
    expected, actual = start + math.prod(shape) * dtype.itemsize, path.stat().st_size
    if min(shape, default=0) < 0 or actual != expected:
        short = "is cut short" if actual < expected else "is longer than it says"
        raise DataError(
            f"{path} {short}: for {shape} numbers of {dtype} expected {expected} bytes, got {actual}. Copy it again."
        )


def _template(value: object, n_vertices: int | None) -> np.ndarray:
    mesh = array_of(value)
    if mesh.dtype.kind != "f" or mesh.dtype.itemsize not in _BYTES:
        raise DataError(f"{mesh.dtype} instead of float32 or float64")
    if mesh.ndim != 2 or mesh.shape[1] != 3 or len(mesh) != (n_vertices or len(mesh)) or not len(mesh):
        raise DataError(f"shape {mesh.shape} instead of ({n_vertices or 'vertices'}, 3)")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is found
        mesh = mesh.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(mesh).all(axis=1))
    if len(bad):
        raise DataError(f"{len(bad)} vertices are not finite, the first is {bad[0]}")
    return mesh
