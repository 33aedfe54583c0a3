"""Other people's pickles, read without running anything they say.

Only the globals that the field's data files are known to use are built: numpy arrays and scalars, plain containers,
scipy's csc matrix, chumpy's Ch and Select (as small records of ours) and torch tensors (as numpy arrays), so none of
these packages is needed. All else is refused. `load_npy` and `load_npz` read numpy's own files the same way, for they
hold pickles wherever an array of objects was saved.
"""

import codecs
import collections
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.storage.torch_file import TupleCheck, storage_values

_MOST_BYTES = 1 << 29
"""Of an npy file, or of all that is read of an npz file, unpacked; the largest known one has a tenth."""
_MOST_NUMBERS = 50_000_000
"""In nested lists, which a pickle can multiply with a few bytes."""
_MOST_LEVELS = 4


@dataclass(slots=True)
class CscMatrix:
    """A pickled `scipy.sparse.csc_matrix`, kept as its parts."""

    data: np.ndarray = field(default_factory=lambda: np.zeros(0))
    indices: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    indptr: np.ndarray = field(default_factory=lambda: np.zeros(1, dtype=np.int32))
    shape: tuple[int, int] = (0, 0)

    def __setstate__(self, state: Mapping[str, Any]) -> None:  # Any: whatever the file holds; used below only as arrays
        self.data = array_of(state["data"])
        self.indices = array_of(state["indices"])
        self.indptr = array_of(state["indptr"])
        rows, columns = state.get("_shape", state.get("shape", (0, 0)))
        self.shape = (int(rows), int(columns))

    def to_dense(self) -> np.ndarray:
        """The matrix as an ordinary array of `shape`.

        Raises:
            DataError: the parts do not describe a matrix of that shape.
        """
        rows, columns = self.shape
        parts = (self.data, self.indices, self.indptr)
        kinds = ("biuf", "iu", "iu")
        if not all(part.ndim == 1 and part.dtype.kind in kind for part, kind in zip(parts, kinds, strict=True)):
            raise DataError(f"sparse matrix of shape {self.shape} is no lists of numbers; the file is damaged.")
        ends, count = self.indptr.astype(np.int64), len(self.data)
        fits = len(ends) == columns + 1 and len(self.indices) == count and ends[0] == 0 and ends[-1] == count
        if not fits or (ends[1:] < ends[:-1]).any():
            raise DataError(f"sparse matrix of shape {self.shape} is inconsistent; the file is damaged.")
        if count and (self.indices.min() < 0 or self.indices.max() >= rows):
            raise DataError(f"sparse matrix of shape {self.shape} has row indices outside it; the file is damaged.")
        dense = np.zeros(self.shape, dtype=self.data.dtype)
        np.add.at(dense, (self.indices, np.repeat(np.arange(columns), np.diff(ends))), self.data)
        return dense


@dataclass(slots=True)
class ChumpyArray:
    """A pickled `chumpy.Ch`, of which only the values matter."""

    x: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __setstate__(self, state: Mapping[str, Any]) -> None:  # Any: whatever the file holds
        self.x = array_of(state["x"])


@dataclass(slots=True)
class ChumpySelect(ChumpyArray):
    """A pickled `chumpy.reordering.Select`: some entries of another chumpy array, as the values they pick."""

    def __setstate__(self, state: Mapping[str, Any]) -> None:  # Any: whatever the file holds
        source = state["a"].x if isinstance(state["a"], ChumpyArray) else array_of(state["a"])
        self.x = source.ravel()[array_of(state["idxs"])].reshape(state["preferred_shape"])


def array_of(value: object) -> np.ndarray:
    """What a file gives for an array, which may be nested lists, as an array.

    Raises:
        DataError: lists that are no array, or lists within lists that would fill the memory.
    """
    if isinstance(value, list | tuple) and _count(value, _MOST_LEVELS, {}) > _MOST_NUMBERS:
        raise DataError(f"refused: nested lists of more than {_MOST_NUMBERS} entries.")
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(f"lists that are no array ({error}); the file is damaged.") from None


def _count(value: object, levels: int, known: dict[int, int]) -> int:
    """Entries of nested lists; `known` are those of lists met before, by identity."""
    if isinstance(value, np.ndarray):
        return value.size
    if not isinstance(value, list | tuple):
        return 1
    if not levels:
        raise DataError(f"refused: lists nested deeper than {_MOST_LEVELS}.")
    if id(value) not in known:
        known[id(value)] = sum(_count(part, levels - 1, known) for part in value)
    return known[id(value)]


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
        _check_size(path.stat().st_size)
        return _read_array(file)


def load_npz(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays in an npz file by name; those of objects are unpickled as by `load_pickle`.

    Args:
        path: the file.
        names: only these, where they are there; None reads all.

    Raises:
        AssetMissingError: the file is not there.
        DataError: it is no npz file, is damaged, names an array twice, would fill more than 512 MiB, or its objects
            name a global that is not allowed.
    """
    arrays = {}
    with _opened(path, "npz file") as file, zipfile.ZipFile(file) as archive:
        members = [(member.filename.removesuffix(".npy"), member) for member in archive.infolist()]
        members = [(name, member) for name, member in members if names is None or name in names]
        _check_size(sum(member.file_size for _, member in members))
        for name, member in members:
            if name in arrays:
                raise DataError(f"it holds {name} twice; the file is damaged.")
            with archive.open(member) as stream:
                arrays[name] = _read_array(stream)
    return arrays


def names_in_zip(path: Path) -> list[str]:
    """The names of an archive's entries.

    Raises:
        AssetMissingError: the file is not there.
        DataError: it is no zip archive, or damaged.
    """
    with _opened(path, "zip archive") as file, zipfile.ZipFile(file) as archive:
        return archive.namelist()


def _check_size(size: int) -> None:
    if size > _MOST_BYTES:
        raise DataError(f"refused: {size} bytes of arrays, more than {_MOST_BYTES}. Check where the file came from.")


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
    if min(shape, default=0) < 0:
        raise DataError(f"an array of shape {shape}; the file is damaged.")
    if dtype.hasobject:
        return np.asarray(_Unpickler(file, encoding="latin1").load(), dtype=object).reshape(shape)
    content = np.frombuffer(file.read(math.prod(shape) * dtype.itemsize), dtype=dtype)
    return content.reshape(shape, order="F" if is_fortran else "C").copy()


_HEADERS: Mapping[tuple[int, int], Callable[[IO[bytes]], tuple[tuple[int, ...], bool, np.dtype]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class _Unpickler(pickle._Unpickler):  # the one written in Python: its steps can be checked
    """Builds only what `_ALLOWED` names; its memo is a dictionary, so no index reserves memory."""

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: IO[bytes], *, encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self.tuples = TupleCheck()

    def find_class(self, module_name: str, global_name: str) -> Any:  # Any: pickle's own signature
        allowed = _ALLOWED.get((module_name, global_name))
        if allowed is None:
            raise DataError(
                f"refused: the pickle wants {module_name}.{global_name}, and only numpy arrays, plain containers, "
                "scipy csc matrices, chumpy arrays and torch tensors are read. Check where the file came from."
            )
        return allowed

    def get_extension(self, code: int) -> None:
        raise DataError(f"refused: a class by its number {code}, which means something else on every machine.")

    def load_build(self) -> None:
        """Gives an object its state: only such objects as can be given no wrong one."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, np.dtype):
            _check_dtype_state(target, state)
        elif isinstance(target, collections.OrderedDict):
            return  # attributes of a dictionary
        elif not isinstance(target, np.ndarray | CscMatrix | ChumpyArray):
            raise DataError(f"refused: attributes for a {type(target).__name__}.")
        target.__setstate__(state)

    dispatch[pickle.BUILD[0]] = load_build


def _then_check(load: Callable[[Any], None]) -> Callable[[_Unpickler], None]:
    def load_and_check(unpickler: _Unpickler) -> None:
        load(unpickler)
        unpickler.tuples.checked(unpickler.stack[-1])

    return load_and_check


for _opcode in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
    _Unpickler.dispatch[_opcode[0]] = _then_check(_Unpickler.dispatch[_opcode[0]])


class _ArrayClass:
    """Stands for numpy.ndarray, which could be called with any shape and memory."""


def _empty_array(cls: type, _shape: object, _code: object) -> np.ndarray:
    if cls is not _ArrayClass:
        raise DataError(f"refused: an array of class {cls!r}.")
    return np.zeros(0, np.int8)  # its state gives it dtype and shape


def _dtype(code: str | bytes, *_flags: object) -> np.dtype:
    text = code.decode("latin1") if isinstance(code, bytes) else code
    if re.fullmatch(r"[<>|=]?[biufcSUO][1-9]\d{0,5}|[?O]", text) is None:
        raise DataError(f"refused: numbers of type {text[:20]!r}; only plain numbers, texts and objects are read.")
    return np.dtype(text, align=False, copy=True)  # a copy: its state may turn the byte order


def _check_dtype_state(dtype: np.dtype, state: Any) -> None:  # Any: whatever the file holds
    """Only the byte order may differ: made-up fields, sizes or flags would let numpy read foreign memory."""
    version, order, *parts, size, alignment, flags = state
    is_plain = version in (3, 4) and order in tuple("<>|=") and parts == [None] * 3
    if not is_plain or size not in (-1, dtype.itemsize) or alignment not in (-1, dtype.alignment):
        raise DataError(f"refused: a made-up description of {dtype}.")
    if flags != dtype.flags:
        raise DataError(f"refused: a made-up description of {dtype}.")


def _from_buffer(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    if np.dtype(dtype).hasobject:
        raise DataError("refused: an array of objects given as raw memory.")
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order="F" if order == "F" else "C")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding.lower().replace("-", "").replace("_", "") not in ("latin1", "iso88591"):
        raise DataError(f"refused: text encoded with {encoding!r}; only latin1 occurs in numpy's pickles.")
    return codecs.latin_1_encode(text)[0]


def _no_bytes() -> bytes:
    """Python 3 writes empty bytes like this in Python 2's pickles."""
    return b""


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


_MAKE_SCALAR = np.float64(0).__reduce__()[0]  # numpy's own, wherever its private modules lie in this version


def _allowed() -> dict[tuple[str, str], object]:
    table: dict[tuple[str, str], object] = {
        ("numpy", "ndarray"): _ArrayClass,
        ("numpy", "dtype"): _dtype,
        ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("chumpy.ch", "Ch"): ChumpyArray,
        ("chumpy.reordering", "Select"): ChumpySelect,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor_from_storage,
        ("torch.storage", "_load_from_bytes"): storage_values,
    }
    for root in ("numpy.core", "numpy._core"):
        table[f"{root}.multiarray", "_reconstruct"] = _empty_array
        table[f"{root}.multiarray", "scalar"] = _MAKE_SCALAR
        table[f"{root}.numeric", "_frombuffer"] = _from_buffer
    for module_name in ("scipy.sparse.csc", "scipy.sparse._csc"):
        table[module_name, "csc_matrix"] = CscMatrix
    for module_name in ("copy_reg", "copyreg"):
        table[module_name, "_reconstructor"] = _reconstruct_object
    for module_name in ("__builtin__", "builtins"):
        for plain in (object, set, frozenset, complex):
            table[module_name, plain.__name__] = plain
        table[module_name, "bytes"] = _no_bytes
    return table


_ALLOWED = _allowed()
