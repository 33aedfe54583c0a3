"""Other people's pickles, read without running anything they say.

Only the globals that the field's data files are known to use are built: numpy arrays and scalars, plain containers,
scipy's csc matrix and chumpy's Ch (both as small records of ours, so neither package is needed). All else is refused.
"""

import codecs
import collections
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ecavatar.errors import AssetMissingError, DataError


@dataclass(slots=True)
class CscMatrix:
    """A pickled `scipy.sparse.csc_matrix`, kept as its parts."""

    data: np.ndarray = field(default_factory=lambda: np.zeros(0))
    indices: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    indptr: np.ndarray = field(default_factory=lambda: np.zeros(1, dtype=np.int32))
    shape: tuple[int, int] = (0, 0)

    def __setstate__(self, state: Mapping[str, Any]) -> None:  # Any: whatever the file holds; used below only as arrays
        self.data = np.asarray(state["data"])
        self.indices = np.asarray(state["indices"])
        self.indptr = np.asarray(state["indptr"])
        rows, columns = state.get("_shape", state.get("shape", (0, 0)))
        self.shape = (int(rows), int(columns))

    def to_dense(self) -> np.ndarray:
        """The matrix as an ordinary array of `shape`.

        Raises:
            DataError: the parts do not describe a matrix of that shape.
        """
        rows, columns = self.shape
        counts = np.diff(self.indptr)
        fits = len(self.indptr) == columns + 1 and counts.size == columns and bool((counts >= 0).all())
        if not fits or counts.sum() != len(self.data) or len(self.indices) != len(self.data):
            raise DataError(f"sparse matrix of shape {self.shape} is inconsistent; the file is damaged.")
        if len(self.indices) and (self.indices.min() < 0 or self.indices.max() >= rows):
            raise DataError(f"sparse matrix of shape {self.shape} has row indices outside it; the file is damaged.")
        dense = np.zeros(self.shape, dtype=self.data.dtype)
        np.add.at(dense, (self.indices, np.repeat(np.arange(columns), counts)), self.data)
        return dense


@dataclass(slots=True)
class ChumpyArray:
    """A pickled `chumpy.Ch`, of which only the values matter."""

    x: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __setstate__(self, state: Mapping[str, Any]) -> None:  # Any: whatever the file holds
        self.x = np.asarray(state["x"])


def load_pickle(path: Path, encoding: str = "latin1") -> object:
    """The content of a pickle file.

    Args:
        path: the file.
        encoding: how byte strings of Python 2 are read; `latin1` is what numpy's old pickles need.

    Returns:
        Plain containers, scalars and numpy arrays; sparse matrices as `CscMatrix`, chumpy arrays as `ChumpyArray`.

    Raises:
        AssetMissingError: the file is not there.
        DataError: it is not a pickle, is damaged, or names a global that is not allowed (the message says which).
    """
    if not path.is_file():
        raise AssetMissingError(
            f"{path} not found. Check the path, or run `ecavatar doctor` for what is expected where."
        )
    try:
        with path.open("rb") as file:
            return _Unpickler(file, encoding=encoding).load()
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # noqa: BLE001 - a hostile or damaged stream can raise anything
        raise DataError(f"{path} is not a readable pickle: {type(error).__name__}: {error}.") from None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:  # Any: pickle's own signature
        allowed = _ALLOWED.get((module_name, global_name))
        if allowed is None:
            raise DataError(
                f"refused: the pickle wants {module_name}.{global_name}, and only numpy arrays, plain containers, "
                "scipy csc matrices and chumpy arrays are read. Check where the file came from."
            )
        return allowed


def _from_buffer(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    if np.dtype(dtype).hasobject:
        raise DataError("refused: an array of objects given as raw memory.")
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order="F" if order == "F" else "C")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding.lower().replace("-", "").replace("_", "") not in ("latin1", "iso88591"):
        raise DataError(f"refused: text encoded with {encoding!r}; only latin1 occurs in numpy's pickles.")
    return codecs.latin_1_encode(text)[0]


def _reconstruct_object(cls: type, base: type, state: object) -> object:
    if cls not in (CscMatrix, ChumpyArray) or base is not object:
        raise DataError(f"refused: an object of {cls!r} built from {base!r}.")
    return cls()


_MAKE_ARRAY = np.zeros(0).__reduce__()[0]  # numpy's own, wherever its private modules lie in this version
_MAKE_SCALAR = np.float64(0).__reduce__()[0]


def _allowed() -> dict[tuple[str, str], object]:
    table: dict[tuple[str, str], object] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("chumpy.ch", "Ch"): ChumpyArray,
    }
    for root in ("numpy.core", "numpy._core"):
        table[f"{root}.multiarray", "_reconstruct"] = _MAKE_ARRAY
        table[f"{root}.multiarray", "scalar"] = _MAKE_SCALAR
        table[f"{root}.numeric", "_frombuffer"] = _from_buffer
    for module_name in ("scipy.sparse.csc", "scipy.sparse._csc"):
        table[module_name, "csc_matrix"] = CscMatrix
    for module_name in ("copy_reg", "copyreg"):
        table[module_name, "_reconstructor"] = _reconstruct_object
    for module_name in ("__builtin__", "builtins"):
        for plain in (object, set, frozenset, complex, bytearray):
            table[module_name, plain.__name__] = plain
    return table


_ALLOWED = _allowed()
