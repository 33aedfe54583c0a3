"""AffectNet with a file of annotations per image: the 8-class mini set of 2021 (npy) and AffectNet+ (json).

    {train_set,val_set}/images/<N>.jpg, {train_set,val_set}/annotations/<N>_{exp,val,aro,lnd}.npy
    AffectNet+/human_annotated/{train_set,validation_set}/{images/<name>.jpg,annotations/<name>.json}

The npy files often hold numbers as text. Neither layout has face boxes: the images are cut to the face.
Source: AffectNet's distribution pages; Fard et al., AffectNet+, 2024.
"""

import functools
import io
import json
import os
import tokenize
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from ecavatar.corpora.affectnet_layouts.annotations import BOX, RAW_SCHEMA, STAGE, RawRows
from ecavatar.corpora.affectnet_layouts.landmarks import landmarks_of
from ecavatar.errors import DataError
from ecavatar.storage.files import resolve_inside
from ecavatar.storage.rejects import Reject

MINI_SPLITS = {"train": "train_set", "val": "val_set"}
PLUS_SPLITS = {"train": "train_set", "val": "validation_set"}
PLUS_FOLDERS = ("AffectNet+/human_annotated", "human_annotated", "AffectNet+", ".")
LABEL_FILES = ("exp", "val", "aro")

_BATCH = 1 << 13  # items that are held as Python values at a time
_MOST_BYTES = 1 << 20  # of an annotation file; a real one has at most some kilobytes

Labels = tuple[object, object, object]
"""Expression, valence and arousal as a file gives them."""


@dataclass(frozen=True, slots=True)
class NpyItems:
    """The mini set in the folder `root`."""

    root: Path

    @classmethod
    def find(cls, root: Path) -> "NpyItems | None":
        """The layout, where `root` has a split of it."""
        return cls(root) if any(_has(root / part / "annotations", ".npy") for part in MINI_SPLITS.values()) else None

    def read(self) -> tuple[list[RawRows], list[Reject]]:
        """The labels of all items, ordered by number, and the items that lack one."""
        return _read_splits(self.root, "", MINI_SPLITS, _item_numbers, _npy_labels)

    def landmarks(self, source_ids: Sequence[str]) -> dict[str, Float[np.ndarray, "68 2"]]:
        """The 68 landmarks of the images that have them, in pixels of the image."""
        return _landmarks(self.root, source_ids, "_lnd.npy", _npy_array)


@dataclass(frozen=True, slots=True)
class JsonItems:
    """AffectNet+ below the folder `root`."""

    root: Path
    folder: str
    """Where the splits are, relative to `root`."""

    @classmethod
    def find(cls, root: Path) -> "JsonItems | None":
        """The layout, where a split of it is in `root` or in the distribution's folders below it."""
        for folder in PLUS_FOLDERS:
            if any(_has(root / folder / part / "annotations", ".json") for part in PLUS_SPLITS.values()):
                return cls(root, "" if folder == "." else folder)
        return None

    def read(self) -> tuple[list[RawRows], list[Reject]]:
        """The labels of all items, ordered by name, and the items that lack one."""
        return _read_splits(self.root / self.folder, self.folder, PLUS_SPLITS, _item_names, _json_labels)

    def landmarks(self, source_ids: Sequence[str]) -> dict[str, Float[np.ndarray, "68 2"]]:
        """The 68 landmarks of the images that have them, in pixels of the image."""
        return _landmarks(self.root / self.folder, source_ids, ".json", _json_landmarks)


def _has(folder: Path, suffix: str) -> bool:
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(entry.name.endswith(suffix) for entry in entries)


def _read_splits(
    base: Path,
    folder: str,
    splits: dict[str, str],
    items: Callable[[Path, list[Reject]], Iterable[str]],
    labels: Callable[[Path, str], Labels],
) -> tuple[list[RawRows], list[Reject]]:
    lists, rejects = [], []
    for split, part in splits.items():
        annotations = base / part / "annotations"
        if annotations.is_dir():
            rows = pa.Table.from_batches(
                _batches(annotations, part, items(annotations, rejects), labels, rejects), RAW_SCHEMA
            )
            lists.append(RawRows(rows=rows, split=split, folder=folder, name=part))
    return lists, rejects


def _batches(
    annotations: Path,
    part: str,
    items: Iterable[str],
    labels: Callable[[Path, str], Labels],
    rejects: list[Reject],
) -> Iterator[pa.RecordBatch]:
    rows: list[tuple[bytes, float | None, float | None, float | None]] = []
    for item in items:
        source_id = f"{part}/images/{item}.jpg"
        try:
            expression, valence, arousal = labels(annotations, item)
        except OSError as error:
            detail = f"{Path(error.filename or item).name}: {error.strerror}"
            rejects.append(Reject(source_id, STAGE, "missing_annotation", detail))
        except DataError as error:
            rejects.append(Reject(source_id, STAGE, "damaged_annotation", str(error)))
        else:
            rows.append((source_id.encode(), _number(expression), _number(valence), _number(arousal)))
        if len(rows) == _BATCH:
            yield _batch(rows)
            rows = []
    yield _batch(rows)


def _batch(rows: Sequence[tuple[bytes, float | None, float | None, float | None]]) -> pa.RecordBatch:
    columns = dict(zip(("source_id", "expression", "valence", "arousal"), zip(*rows, strict=True), strict=False))
    boxes = {name: pa.nulls(len(rows), pa.float32()) for name in BOX}
    arrays = [
        boxes[field.name] if field.name in boxes else pa.array(columns.get(field.name, ()), field.type)
        for field in RAW_SCHEMA
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=RAW_SCHEMA)


def _number(value: object) -> float | None:
    """The number in `value`, a number or a text; None where it is neither."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _item_numbers(annotations: Path, rejects: list[Reject]) -> list[str]:
    """The numbers that any label file has, ascending; names that are no numbers become rejects."""
    suffixes = tuple(f"_{kind}.npy" for kind in LABEL_FILES)
    numbers = np.empty(0, np.int64)
    with os.scandir(annotations) as entries:
        for names in _portions(entry.name for entry in entries if entry.name.endswith(suffixes)):
            stems = [name[: -len(suffixes[0])] for name in names]
            good = [int(stem) for stem in stems if _is_plain_number(stem)]
            numbers = np.union1d(numbers, np.array(good, np.int64))
            rejects += [
                _bad_name(annotations, name, "expected <number>_exp.npy")
                for name, stem in zip(names, stems, strict=True)
                if not _is_plain_number(stem)
            ]
    return list(map(str, numbers.tolist()))


def _is_plain_number(stem: str) -> bool:
    return stem.isascii() and stem.isdecimal() and len(stem) < 19 and str(int(stem)) == stem


def _portions(names: Iterable[str]) -> Iterator[list[str]]:
    portion: list[str] = []
    for name in names:
        portion.append(name)
        if len(portion) == _BATCH:
            yield portion
            portion = []
    yield portion


def _item_names(annotations: Path, rejects: list[Reject]) -> list[str]:
    """The names of the json files, sorted; names that are not UTF-8 become rejects."""
    with os.scandir(annotations) as entries:
        names = sorted(entry.name for entry in entries if entry.name.endswith(".json"))
    good = [name for name in names if _plain_text(name) == name]
    rejects += [_bad_name(annotations, name, "expected UTF-8") for name in names if _plain_text(name) != name]
    return [name.removesuffix(".json") for name in good]


def _bad_name(annotations: Path, name: str, detail: str) -> Reject:
    return Reject(f"{annotations.parent.name}/annotations/{_plain_text(name)}", STAGE, "bad_name", detail)


def _plain_text(name: str) -> str:
    """A file's name, bytes that are not UTF-8 written with a backslash."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def _npy_labels(annotations: Path, item: str) -> Labels:
    expression, valence, arousal = (_npy_scalar(annotations / f"{item}_{kind}.npy") for kind in LABEL_FILES)
    return expression, valence, arousal


def _npy_scalar(path: Path) -> object:
    array = _npy_array(path)
    if array.size != 1:
        raise DataError(f"{path.name} must hold one value, got {array.size}. Copy it again from the original.")
    return array.reshape(-1)[0].item()


def _npy_array(path: Path) -> np.ndarray:
    """The array in an npy file of numbers or text; nothing is unpickled.

    Raises:
        DataError: it is damaged, or holds anything else.
    """
    data = _bytes_of(path)
    header_end = 10 + int.from_bytes(data[8:10], "little")
    if data[:7] != b"\x93NUMPY\x01" or len(data) < header_end:
        raise DataError(f"{path.name} is not an npy file of version 1. Copy it again from the original.")
    try:
        shape, dtype = _npy_header(data[8:header_end])
        count = int(np.prod(shape, dtype=np.int64))
        if dtype.kind not in "iufUSb" or len(data) != header_end + count * dtype.itemsize:
            raise ValueError(f"{len(data)} bytes for {dtype} {shape}")
        array = np.frombuffer(data, dtype, count, header_end).reshape(shape)
        return np.char.decode(array, "ascii") if dtype.kind == "S" else array
    except (ValueError, TypeError, OverflowError, tokenize.TokenError) as error:  # numpy's words for a bad header
        raise DataError(f"{path.name} does not hold numbers: {error}. Copy it again from the original.") from None


@functools.lru_cache(maxsize=1024)
def _npy_header(header: bytes) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that a header tells; most files of a corpus share one."""
    shape, _, dtype = np.lib.format.read_array_header_1_0(io.BytesIO(header))
    return shape, dtype


def _json_labels(annotations: Path, item: str) -> Labels:
    value = _json_object(annotations / f"{item}.json")
    facts = value.get("meta-data")
    if "human-label" not in value or not isinstance(facts, dict) or not {"valence", "arousal"} <= facts.keys():
        raise DataError(f"{item}.json lacks human-label, or valence and arousal in meta-data. Copy it again.")
    return value["human-label"], facts["valence"], facts["arousal"]


def _json_landmarks(path: Path) -> object:
    facts = _json_object(path).get("meta-data")
    return facts.get("landmark-68") if isinstance(facts, dict) else None


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_bytes_of(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name} is not json: {error}. Copy it again from the original.") from None
    if not isinstance(value, dict):
        raise DataError(f"{path.name} must hold an object, got {type(value).__name__}. Copy it again.")
    return value


def _bytes_of(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise DataError(f"{path.name} has more than {_MOST_BYTES} bytes, too many for an annotation. Copy it again.")
    return data


def _landmarks(
    base: Path, source_ids: Sequence[str], ending: str, read: Callable[[Path], object]
) -> dict[str, Float[np.ndarray, "68 2"]]:
    found = {}
    for source_id in source_ids:
        image = PurePosixPath(source_id)
        try:
            value = read(resolve_inside(base, image.parent.parent / "annotations" / f"{image.stem}{ending}"))
        except (OSError, DataError):
            continue  # the caller counts images without landmarks
        points = landmarks_of(value)
        if points is not None:
            found[source_id] = points
    return found
