"""Other people's `torch.save` files, read without running anything they say.

The pickle inside is not unpickled but interpreted: containers and numbers become themselves, tensors become records of
where their numbers lie, and every class or function that the file names becomes an `Unknown`, which nothing ever calls.
Both of torch's formats are read: the zip of torch 1.6 and later, and the older sequence of pickles and raw numbers.
"""

import io
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ecavatar.errors import AssetMissingError, DataError

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_ATTACK_MODULES = frozenset(
    {"os", "posix", "nt", "subprocess", "pty", "sys", "importlib", "runpy", "shutil", "socket", "ctypes", "webbrowser",
     "commands", "code", "pdb", "timeit", "multiprocessing", "asyncio"}
)  # fmt: skip
_ATTACK_NAMES = frozenset(
    {"eval", "exec", "execfile", "compile", "__import__", "open", "input", "breakpoint", "exit", "quit"}
)
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_MAX_PICKLE_BYTES = 256 << 20  # the largest known one is below a megabyte
_MOST_NESTED = 500  # tuples within one tuple, at every depth
_EXTRAS = {"data.pkl", "version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor that has not been read: where its numbers lie."""

    storage: str
    """Key of the storage in the file; several tensors may share one."""
    dtype: torch.dtype
    offset: int
    """First element in the storage."""
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def extent(self) -> int:
        """Elements of the storage from the first to the last one used."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something the file names or builds that is neither data nor a tensor: its name, and nothing else."""

    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True, slots=True)
class _Place:
    """Bytes of the file that hold one storage."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class TorchFile:
    """The content of a `torch.save` file."""

    path: Path
    content: Any
    """Plain containers, numbers and texts, with `StoredTensor` for tensors and `Unknown` for all else."""
    places: Mapping[str, _Place]

    def read(self, tensor: StoredTensor) -> Tensor:
        """The numbers of one tensor of `content`, on the CPU; only the part of its storage that it uses is read."""
        place, width = self.places[tensor.storage], tensor.dtype.itemsize
        first = place.offset + tensor.offset * width
        raw = np.fromfile(self.path, np.uint8, count=tensor.extent * width, offset=first)
        if raw.size != tensor.extent * width:
            raise DataError(f"{self.path} ends before its tensors do; copy or download it again.")
        if not raw.size:
            return torch.empty(tensor.shape, dtype=tensor.dtype)
        return torch.from_numpy(raw).view(tensor.dtype).as_strided(tensor.shape, tensor.stride)


def open_torch_file(path: Path) -> TorchFile:
    """What `torch.save` wrote to `path`; tensors are read one by one with `TorchFile.read`.

    Raises:
        AssetMissingError: no such file.
        DataError: not such a file, damaged, or hostile: entries that torch never writes, compressed entries, sizes that
            do not fit, a tensor inside an unknown object, or a name that only an attack needs.
    """
    if not path.is_file():
        raise AssetMissingError(f"{path} not found. Check the path, or run `ecavatar doctor` for what is expected.")
    with path.open("rb") as file:
        start = file.read(len(_LEGACY_START))
        file.seek(0)
        try:
            if start.startswith(b"PK\x03\x04"):
                return _open_zip(path, file)
            if start == _LEGACY_START:
                return _open_legacy(path, file)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        except (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError, struct.error,
                zipfile.BadZipFile, EOFError, NotImplementedError, RecursionError, MemoryError) as error:  # fmt: skip
            raise DataError(
                f"{path} is damaged ({type(error).__name__}: {error}). Copy or download it again."
            ) from None
    raise DataError(
        f"{path} is not a file of torch.save (it starts with {start[:8]!r}). Give the .ckpt, .pt or .tar as published."
    )


# --- zip --------------------------------------------------------------------------------------------------------------


def _open_zip(path: Path, file: BinaryIO) -> TorchFile:
    with zipfile.ZipFile(file) as archive:
        entries = _checked_entries(archive.infolist(), path.stat().st_size)
        if "data.pkl" not in entries:
            raise DataError("a zip without data.pkl: not a file of torch.save.")
        if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
            raise DataError("written on a big-endian machine, which is not supported. Save it again on another.")
        pickled = archive.read(entries["data.pkl"])
        places = {
            name.removeprefix("data/"): _Place(_data_offset(file, entry), entry.file_size)
            for name, entry in entries.items()
            if name.startswith("data/")
        }
    return TorchFile(path, _Machine(_SizeCheck(places)).run(pickled), places)


def _checked_entries(entries: Iterable[zipfile.ZipInfo], archive_size: int) -> dict[str, zipfile.ZipInfo]:
    """Entries by name below the archive's one folder, if they are all such as torch writes."""
    found: dict[str, zipfile.ZipInfo] = {}
    folders, problems, total = set(), [], 0
    for entry in entries:
        folder, _, name = entry.filename.partition("/")
        folders.add(folder)
        is_storage = name.startswith("data/") and name.removeprefix("data/").isdecimal()
        if name == "constants.pkl" or name.startswith("code/"):
            raise DataError("a TorchScript program, not a checkpoint. Give the file with the weights.")
        if name in found or not (is_storage or name in _EXTRAS) or PurePosixPath(entry.filename).is_absolute():
            problems.append(entry.filename)
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.flag_bits & 1:
            problems.append(f"{entry.filename} (compressed or encrypted)")
        total += entry.file_size
        found[name] = entry
    if len(folders) > 1:
        problems.append(f"{len(folders)} top folders")
    if problems:
        raise DataError(f"refused: the zip holds what torch.save never writes: {', '.join(problems[:5])}.")
    if total > archive_size or found.get("data.pkl", zipfile.ZipInfo()).file_size > _MAX_PICKLE_BYTES:
        raise DataError(f"refused: its entries claim {total} bytes, the file has {archive_size}.")
    return found


def _data_offset(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes start, behind its local header."""
    file.seek(entry.header_offset)
    header = file.read(30)
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    if not header.startswith(b"PK\x03\x04"):
        raise DataError(f"entry {entry.filename} does not start where the zip's directory says; the file is damaged.")
    return entry.header_offset + 30 + name_length + extra_length


# --- legacy -----------------------------------------------------------------------------------------------------------


def storage_values(saved: bytes) -> np.ndarray:
    """The values of one storage as torch puts it into other pickles: saved in the older format by itself.

    Raises:
        DataError: something else than a storage; damage raises all that `open_torch_file` turns into a DataError.
    """
    storage, places = _legacy_content(io.BytesIO(saved), len(saved))
    if not isinstance(storage, _Storage):
        raise DataError("refused: a torch storage in a form that is not read.")
    place = places[storage.key]
    dtype = torch.empty(0, dtype=storage.dtype).numpy().dtype
    return np.frombuffer(saved[place.offset : place.offset + place.size], dtype)


def _open_legacy(path: Path, file: BinaryIO) -> TorchFile:
    return TorchFile(path, *_legacy_content(file, path.stat().st_size))


def _legacy_content(file: BinaryIO, file_size: int) -> tuple[Any, dict[str, _Place]]:
    """What was saved, and where its storages lie."""
    storages: dict[str, _Storage] = {}

    def remember(storage: _Storage) -> None:
        if storages.setdefault(storage.key, storage) != storage:
            raise DataError(f"storage {storage.key} is described in two ways; the file is damaged.")

    magic, _, system = (_Machine(None).run(file) for _ in range(3))
    if magic != _LEGACY_MAGIC or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise DataError("not a little-endian file of torch.save. Save it again with a current torch.")
    content = _Machine(remember).run(file)
    keys = _Machine(None).run(file)
    places = dict(_legacy_places(file, keys, storages, file_size))
    if missing := sorted(set(storages) - set(places)):
        raise DataError(f"{len(missing)} storages are missing, first {missing[0]}; the file is cut short.")
    return content, places


def _legacy_places(
    file: BinaryIO, keys: Iterable[object], storages: Mapping[str, _Storage], file_size: int
) -> Iterator[tuple[str, _Place]]:
    """Each storage: an int64 number of elements, then the elements."""
    for key in keys:
        storage = storages.get(str(key)) if isinstance(key, str | int) else None
        (count,) = struct.unpack("<q", file.read(8))
        if storage is None or count != storage.count:
            raise DataError(f"storage {_short(key)} does not fit its description; the file is damaged.")
        place = _Place(file.tell(), count * storage.dtype.itemsize)
        if place.offset + place.size > file_size:
            raise DataError("the file ends before its tensors do; copy or download it again.")
        file.seek(place.offset + place.size)
        yield storage.key, place


# --- the pickle's instructions ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _SizeCheck:
    """Refuses a storage whose description does not fit its bytes."""

    places: Mapping[str, _Place]

    def __call__(self, storage: _Storage) -> None:
        place = self.places.get(storage.key)
        expected = storage.count * storage.dtype.itemsize
        if place is None or place.size != expected:
            seen = "missing" if place is None else f"{place.size} bytes"
            raise DataError(f"storage {storage.key} should have {expected} bytes and is {seen}; the file is damaged.")


class TupleCheck:
    """Refuses tuples nested so deeply or so often that hashing or printing one would crash or never end.

    A few bytes of a pickle can double a tuple, and Python follows tuples without looking whether it was there before.
    """

    def __init__(self) -> None:
        self._nested: dict[int, int] = {}

    def checked(self, made: tuple[Any, ...]) -> tuple[Any, ...]:
        """`made`, the newest tuple of a pickle.

        Raises:
            DataError: too many tuples within it.
        """
        nested = sum(self._nested.get(id(part), 1) for part in made if isinstance(part, tuple))
        if nested > _MOST_NESTED:
            raise DataError(f"refused: more than {_MOST_NESTED} tuples nested in one, which no data file has.")
        self._nested[id(made)] = nested + 1
        return made


class _Machine:
    """Interprets one pickle. Nothing named in it is imported, called or given attributes."""

    def __init__(self, check_storage: Callable[[_Storage], None] | None) -> None:
        self._check_storage = check_storage
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._tuples = TupleCheck()

    def run(self, pickled: bytes | BinaryIO) -> Any:
        """The value that the pickle describes."""
        for opcode, argument, _ in pickletools.genops(pickled):
            name = opcode.name
            if name == "STOP":
                return self._stack.pop()
            if name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name in _LITERALS:
                self._stack.append(argument)
            elif name in _EMPTY:
                self._stack.append(_EMPTY[name]())
            elif (step := getattr(self, f"_do_{name.lower()}", None)) is not None:
                step(argument)
            elif name not in ("PROTO", "FRAME"):
                raise DataError(f"refused: pickle instruction {name}, which torch.save does not use.")
        raise DataError("the pickle has no end; the file is damaged.")

    # memo and marks

    def _do_mark(self, _: object) -> None:
        self._marks.append(len(self._stack))

    def _do_memoize(self, _: object) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _do_binput(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _do_binget(self, index: int) -> None:
        self._stack.append(self._memo[index])

    _do_long_binput = _do_put = _do_binput
    _do_long_binget = _do_get = _do_binget

    def _do_pop(self, _: object) -> None:
        self._stack.pop()

    def _popped_to_mark(self) -> list[Any]:
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    # containers

    def _do_tuple(self, _: object) -> None:
        self._stack.append(self._tuples.checked(tuple(self._popped_to_mark())))

    def _do_tuple1(self, _: object) -> None:
        self._stack.append(self._tuples.checked((self._stack.pop(),)))

    def _do_tuple2(self, _: object) -> None:
        last = self._stack.pop()
        self._stack.append(self._tuples.checked((self._stack.pop(), last)))

    def _do_tuple3(self, _: object) -> None:
        last, middle = self._stack.pop(), self._stack.pop()
        self._stack.append(self._tuples.checked((self._stack.pop(), middle, last)))

    def _do_list(self, _: object) -> None:
        self._stack.append(self._popped_to_mark())

    def _do_dict(self, _: object) -> None:
        items = self._popped_to_mark()
        self._stack.append(dict(zip(items[::2], items[1::2], strict=True)))

    def _do_frozenset(self, _: object) -> None:
        self._stack.append(frozenset(self._popped_to_mark()))

    def _do_append(self, _: object) -> None:
        self._extend([self._stack.pop()])

    def _do_appends(self, _: object) -> None:
        self._extend(self._popped_to_mark())

    def _do_additems(self, _: object) -> None:
        self._extend(self._popped_to_mark())

    def _do_setitem(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def _do_setitems(self, _: object) -> None:
        self._set(self._popped_to_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(items)
        else:
            self._stack[-1] = _inert(target, items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            target.update(zip(items[::2], items[1::2], strict=True))
        else:
            self._stack[-1] = _inert(target, items)

    # objects

    def _do_global(self, qualified: str) -> None:
        self._stack.append(_named(*qualified.split(" ", 1)))

    def _do_stack_global(self, _: object) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(_named(module, name))

    def _do_reduce(self, _: object) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(_built(function, arguments))

    def _do_newobj_ex(self, _: object) -> None:
        keywords, arguments, function = self._stack.pop(), self._stack.pop(), self._stack.pop()
        self._stack.append(_inert(function, [arguments, keywords]))

    def _do_inst(self, qualified: str) -> None:
        self._stack.append(_built(_named(*qualified.split(" ", 1)), tuple(self._popped_to_mark())))

    def _do_obj(self, _: object) -> None:
        function, *arguments = self._popped_to_mark()
        self._stack.append(_built(function, tuple(arguments)))

    _do_newobj = _do_reduce

    def _do_build(self, _: object) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if not isinstance(target, dict):  # attributes of an ordered dict, such as torch's module versions, are dropped
            self._stack[-1] = _inert(target, [state])

    def _do_binpersid(self, _: object) -> None:
        match self._stack.pop():
            case ("storage", Unknown(name=kind), str() | int() as key, _, int(count), *view) if view in ([], [None]):
                storage = _Storage(str(key), _storage_dtype(kind), count)
            case other:
                raise DataError(f"refused: a reference to {_short(other)}; only tensor storages are read.")
        if self._check_storage is None or count < 0:
            raise DataError("a storage where none belongs; the file is damaged.")
        self._check_storage(storage)
        self._stack.append(storage)


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set}
_LITERALS = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
     "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
     "BINBYTES8"}
)  # fmt: skip


def _named(module: object, name: object) -> Unknown:
    """A class or function by name. Nothing here runs, so refusing attacks only tells the user what the file is."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise DataError("a class without a name; the file is damaged.")
    is_attack = module.split(".")[0] in _ATTACK_MODULES
    is_attack |= module in ("builtins", "__builtin__") and name in _ATTACK_NAMES
    if is_attack:
        raise DataError(
            f"refused: it would call {module}.{name} when loaded by others, which no checkpoint needs. Nothing was "
            "run. Delete it and get the file from its publisher."
        )
    return Unknown(f"{module}.{name}")


def _built(function: object, arguments: object) -> object:
    """What calling `function` stands for: a tensor, an ordered dict, or an inert `Unknown`."""
    if not isinstance(arguments, tuple):
        raise DataError("arguments that are no tuple; the file is damaged.")
    match function:
        case Unknown("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor"):
            return _tensor(*arguments[:4])
        case Unknown("torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state"):
            if not isinstance(arguments[0], StoredTensor):
                raise DataError("a parameter without a tensor; the file is damaged.")
            return arguments[0]
        case Unknown("collections.OrderedDict"):
            return dict(*arguments[:1])
        case Unknown("collections.defaultdict"):
            return {}
    return _inert(function, list(arguments))


def _tensor(storage: object, offset: object, shape: object, stride: object) -> StoredTensor:
    shape_ok, stride_ok = _are_counts(shape), _are_counts(stride)
    if not isinstance(storage, _Storage) or not _are_counts((offset,)) or not (shape_ok and stride_ok):
        raise DataError(f"a tensor of {_short(storage)}, shape {_short(shape)}; the file is damaged.")
    tensor = StoredTensor(storage.key, storage.dtype, int(str(offset)), tuple(shape), tuple(stride))  # pyright: ignore[reportArgumentType]
    if tensor.offset + tensor.extent > storage.count:
        raise DataError(f"a tensor of shape {tensor.shape} reaches beyond its storage; the file is damaged.")
    return tensor


def _are_counts(values: object) -> bool:
    return isinstance(values, tuple | list) and all(type(n) is int and 0 <= n < 2**48 for n in values)


def _storage_dtype(kind: str) -> torch.dtype:
    module, _, name = kind.rpartition(".")
    if module not in ("torch", "torch.cuda") or name not in _DTYPES:
        raise DataError(f"refused: storage of type {kind}; known are {', '.join(_DTYPES)}.")
    return _DTYPES[name]


def _inert(target: object, content: list[Any]) -> Unknown:
    """`target`, with `content` dropped.

    Raises:
        DataError: it is no unknown object, or tensors would be lost with the content.
    """
    if not isinstance(target, Unknown):
        raise DataError(f"{_short(target)} cannot be called, filled or given attributes; the file is damaged.")
    if _has_tensors(content):
        raise DataError(
            f"refused: it keeps tensors inside a {target.name}, which cannot be read without running that class. Save "
            "the plain state dict with torch.save and give that file."
        )
    return target


def _has_tensors(content: list[Any]) -> bool:
    waiting, seen = list(content), set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, StoredTensor | _Storage):
            return True
        if isinstance(item, dict | list | tuple | set | frozenset) and id(item) not in seen:
            seen.add(id(item))
            waiting.extend([*item.keys(), *item.values()] if isinstance(item, dict) else item)
    return False


def _short(value: object) -> str:
    is_simple = isinstance(value, str | int | float | None | Unknown | StoredTensor)
    return repr(value)[:80] if is_simple else f"a {type(value).__name__}"  # printing a container may never end
