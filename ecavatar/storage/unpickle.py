"""Other people's pickles, read without running anything they say.

Only the globals that the field's data files are known to use are built: numpy arrays and scalars, plain containers,
scipy's csc matrix, chumpy's Ch and Select (as small records of ours) and torch tensors (as numpy arrays), so none of
these packages is needed. All else is refused. `load_npy` and `load_npz` read numpy's own files the same way, for they
hold pickles wherever an array of objects was saved.
"""

import codecs
import collections
import io
import math
import pickle
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

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


@dataclass(slots=True)
class ChumpySelect(ChumpyArray):
    """A pickled `chumpy.reordering.Select`: some entries of another chumpy array, as the values they pick."""

    def __setstate__(self, state: Mapping[str, Any]) -> None:  # Any: whatever the file holds
        source = state["a"].x if isinstance(state["a"], ChumpyArray) else np.asarray(state["a"])
        self.x = source.ravel()[np.asarray(state["idxs"])].reshape(state["preferred_shape"])


def load_pickle(path: Path, encoding: str = "latin1") -> object:
    """The content of a pickle file.

    Args:
        path: the file.
        encoding: how byte strings of Python 2 are read; `latin1` is what numpy's old pickles need.

    Returns:
        Plain containers, scalars and numpy arrays; sparse matrices as `CscMatrix`, chumpy arrays as `ChumpyArray`,
        torch tensors as numpy arrays.

    Raises:
        AssetMissingError: the file is not there.
        DataError: it is not a pickle, is damaged, or names a global that is not allowed (the message says which).
    """
    with _opened(path, "pickle") as file:
        return _Unpickler(file, encoding=encoding).load()


def load_npy(path: Path) -> np.ndarray:
    """The array in an npy file; one of objects is unpickled as by `load_pickle`.

    Raises:
        AssetMissingError: the file is not there.
        DataError: it is no npy file, is damaged, or its objects name a global that is not allowed.
    """
    with _opened(path, "npy file") as file:
        return _read_array(file)


def load_npz(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays in an npz file by name; those of objects are unpickled as by `load_pickle`.

    Args:
        path: the file.
        names: only these, where they are there; None reads all.

    Raises:
        AssetMissingError: the file is not there.
        DataError: it is no npz file, is damaged, or its objects name a global that is not allowed.
    """
    arrays = {}
    with _opened(path, "npz file") as file, zipfile.ZipFile(file) as archive:
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            if names is None or name in names:
                with archive.open(member) as stream:
                    arrays[name] = _read_array(stream)
    return arrays


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[IO[bytes]]:
    """The open file; whatever goes wrong while it is read names it."""
    if not path.is_file():
        raise AssetMissingError(
            f"{path} not found. Check the path, or run `ecavatar doctor` for what is expected where."
        )
    try:
        with path.open("rb") as file:
            yield file
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # noqa: BLE001 - a hostile or damaged stream can raise anything
        raise DataError(f"{path} is not a readable {kind}: {type(error).__name__}: {error}.") from None


def _read_array(file: IO[bytes]) -> np.ndarray:
    """An array in numpy's npy format, wherever the stream stands."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise DataError(f"npy format {version} is not read; save the array again with numpy.save.")
    shape, is_fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        return np.asarray(_Unpickler(file, encoding="latin1").load(), dtype=object).reshape(shape)
    content = np.frombuffer(file.read(math.prod(shape) * dtype.itemsize), dtype=dtype)
    return content.reshape(shape, order="F" if is_fortran else "C").copy()


_HEADERS: Mapping[tuple[int, int], Callable[[IO[bytes]], tuple[tuple[int, ...], bool, np.dtype]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:  # Any: pickle's own signature
        allowed = _ALLOWED.get((module_name, global_name))
        if allowed is None:
            raise DataError(
                f"refused: the pickle wants {module_name}.{global_name}, and only numpy arrays, plain containers, "
                "scipy csc matrices, chumpy arrays and torch tensors are read. Check where the file came from."
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
    if cls not in (CscMatrix, ChumpyArray, ChumpySelect) or base is not object:
        raise DataError(f"refused: an object of {cls!r} built from {base!r}.")
    return cls()


def _tensor_from_storage(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_unused: object
) -> np.ndarray:
    """torch._utils._rebuild_tensor_v2 in numpy: a copy of the part of `storage` that the tensor shows."""
    if len(size) != len(stride) or min([offset, *size, *stride], default=0) < 0:
        raise DataError(f"refused: a tensor of size {size} and stride {stride}.")
    count = math.prod(size)
    end = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1 if count else offset
    if end > len(storage) or count > len(storage):
        raise DataError(f"refused: a tensor of size {size} and stride {stride} in {len(storage)} stored values.")
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()


def _storage_from_bytes(content: bytes) -> np.ndarray:
    """torch.storage._load_from_bytes in numpy: the values of one storage as torch saved it before its zip format.

    Four small pickles (magic number, version, byte order, the storage's name), a list of keys, a count, the values.
    """
    stream = io.BytesIO(content)
    magic, _version, system, storage = (_StorageUnpickler(stream).load() for _ in range(4))
    keys = _StorageUnpickler(stream).load()
    if magic != _TORCH_MAGIC or not system["little_endian"] or not isinstance(storage, tuple) or len(keys) != 1:
        raise DataError("refused: a torch storage in a form that is not read.")
    dtype, count = storage
    stored = int.from_bytes(stream.read(8), "little")
    values = np.frombuffer(stream.read(), dtype=dtype)
    if not count == stored == len(values):
        raise DataError(f"a torch storage of {count} values holds {len(values)}; the file is damaged.")
    return values


class _StorageUnpickler(pickle.Unpickler):
    """Reads the small pickles of `_storage_from_bytes`, in which a storage's type is the only global."""

    def find_class(self, module_name: str, global_name: str) -> Any:  # Any: pickle's own signature
        if module_name != "torch" or global_name not in _TORCH_DTYPES:
            raise DataError(f"refused: a torch storage that wants {module_name}.{global_name}.")
        return _TORCH_DTYPES[global_name]

    def persistent_load(self, pid: Any) -> tuple[np.dtype, int]:  # Any: pickle's own signature
        _tag, dtype, _key, _device, count, *_view = pid
        return dtype, count


_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_TORCH_DTYPES = {
    "DoubleStorage": np.dtype("<f8"), "FloatStorage": np.dtype("<f4"), "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"), "IntStorage": np.dtype("<i4"), "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"), "ByteStorage": np.dtype("u1"), "BoolStorage": np.dtype("?"),
}  # fmt: skip

_MAKE_ARRAY = np.zeros(0).__reduce__()[0]  # numpy's own, wherever its private modules lie in this version
_MAKE_SCALAR = np.float64(0).__reduce__()[0]


def _allowed() -> dict[tuple[str, str], object]:
    table: dict[tuple[str, str], object] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("chumpy.ch", "Ch"): ChumpyArray,
        ("chumpy.reordering", "Select"): ChumpySelect,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor_from_storage,
        ("torch.storage", "_load_from_bytes"): _storage_from_bytes,
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
