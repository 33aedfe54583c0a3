"""What all layouts of AffectNet become: one table of labels, and the rows that cannot be used with their reasons."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int, UInt8

from ecavatar.storage.names import repeated_names
from ecavatar.storage.rejects import Reject

STAGE = "read_affectnet"
SPLITS = ("train", "val")
CODES = range(11)
"""0..7 are the eight categories; 8 none, 9 uncertain, 10 no face."""
NOT_ANNOTATED = -2.0
BOX = ("face_x", "face_y", "face_width", "face_height")
RAW_SCHEMA = pa.schema(
    [
        ("source_id", pa.large_binary()),
        *((name, pa.float32()) for name in (*BOX, "expression")),
        *((name, pa.float64()) for name in ("valence", "arousal")),
    ]
)
"""Rows before any check: whatever bytes stand where the path should, and numbers or null."""

_PIECE = 1 << 14  # rows whose paths are looked at together
_PIECES_HELD = 32  # pieces of a column, of about 70 kB each, whose memory may wait to be given back
_UNSAFE_PATH = r"^\s*$|^/|^[A-Za-z]:|(^|/)\.\.(/|$)|\\|\x00"
_SUSPECTS = b"\\:\0"  # every unsafe path has one of these or two dots in it, is empty, or begins with one of:
_SUSPECT_STARTS = np.frombuffer(b"/ \t\n\v\f\r", np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRows:
    """One list, or one split's folder, before any check."""

    rows: pa.Table
    """Columns of `RAW_SCHEMA`."""
    split: str
    """`train` or `val`."""
    folder: str
    """What `source_id` is relative to, itself relative to the corpus folder; empty for the corpus folder."""
    name: str
    """For messages."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """The rows that can be used, and those that cannot."""

    labels: pd.DataFrame
    """One row per image, in the order of the lists: source_id (str, the path as the layout names it), folder (category,
    what that path is relative to), split (category, train or val), emotion_code (int8, 0..10), valence and arousal
    (float64 in -1..1, NaN where not annotated), face_x, face_y, face_width, face_height (float32 pixels, all NaN
    without a real box). About 110 bytes a row."""
    rejects: list[Reject]
    """Rows without the right number of fields, then bad rows in the order of the lists, then repeated ones."""

    @property
    def table(self) -> pd.DataFrame:
        """`labels` with path (posix, relative to the corpus folder) in place of folder, split as text, the box as
        float64. A copy of more than twice the size; `image_paths` gives the paths of a few rows.
        """
        table = self.labels.drop(columns="folder").astype({"split": "str", **dict.fromkeys(BOX, np.float64)})
        table.insert(1, "path", image_paths(self.labels))
        return table


def image_paths(labels: pd.DataFrame) -> pd.Series:
    """Where each row's image is: posix, relative to the corpus folder.

    Args:
        labels: columns `source_id` and `folder`, as in `Annotations.labels`.
    """
    folders = labels["folder"].cat.categories.to_numpy(dtype=object)
    if list(folders) == [""]:
        return labels["source_id"].rename("path")
    prefixes = np.array([f"{folder}/" if folder else "" for folder in folders], dtype=object)
    column = pa.DictionaryArray.from_arrays(
        labels["folder"].cat.codes.to_numpy(), pa.array(prefixes, pa.large_string())
    )
    names = pa.array(labels["source_id"])
    paths = pc.binary_join_element_wise(column.cast(pa.large_string()), names, pa.scalar("", pa.large_string()))
    return pd.Series(pa.chunked_array([paths]).to_pandas().array, labels.index, name="path")


def checked_annotations(lists: list[RawRows], rejects: Sequence[Reject]) -> Annotations:
    """The usable rows of all `lists`, each image once.

    Args:
        lists: emptied, so that their memory is free while the labels are made.
        rejects: rows that never came so far.
    """
    lengths = [len(part.rows) for part in lists]
    splits = pd.Categorical([part.split for part in lists], list(SPLITS)).codes
    folders, folder_of = np.unique([part.folder for part in lists], return_inverse=True)
    origins = [part.name for part in lists]
    columns = dict(zip(RAW_SCHEMA.names, pa.concat_tables([part.rows for part in lists]).columns, strict=True))
    lists.clear()
    pa.default_memory_pool().release_unused()  # what the reader needed on the way
    names = _one_piece(columns.pop("source_id").chunks)
    numbers = {name: columns.pop(name).to_numpy() for name in ("expression", "valence", "arousal")}
    problems = _row_problems(names, numbers)
    bad = np.flatnonzero(problems)
    rejects = [*rejects, *_rejects_of(names, problems, bad, origins, np.cumsum(lengths))]
    labels: dict[str, object] = {
        "source_id": None,
        "folder": pd.Categorical.from_codes(np.repeat(folder_of.astype(np.int8), lengths), folders.tolist()),
        "split": pd.Categorical.from_codes(np.repeat(splits, lengths), list(SPLITS)),
        "emotion_code": np.where(problems == 0, numbers.pop("expression"), 0).astype(np.int8),
        **{name: _without_marker(numbers.pop(name)) for name in ("valence", "arousal")},
        **_boxes({name: columns.pop(name).to_numpy() for name in BOX}),
    }
    pa.default_memory_pool().release_unused()  # the numbers as they were read
    good = problems == 0
    if len(bad):
        names = names.filter(pa.array(good))
        labels = {name: value if value is None else value[good] for name, value in labels.items()}  # type: ignore[index]
    labels["source_id"] = pa.chunked_array([names.cast(pa.large_string())]).to_pandas().array
    table = pd.DataFrame(labels, copy=False)
    repeated = repeated_names(table["source_id"])
    if repeated.any():
        rejects += [
            Reject(source, STAGE, "repeated_row", "an earlier row names the same image")
            for source in table.loc[repeated, "source_id"]
        ]
        table = table.loc[~repeated].reset_index(drop=True)
    return Annotations(table, rejects)


def unsafe_paths(names: pa.LargeBinaryArray) -> Bool[np.ndarray, " rows"]:
    """Which paths are empty, absolute, with a drive letter, "..", a backslash or NUL in them, or not UTF-8.

    Links are not followed here; `ecavatar.storage.files.resolve_inside` does when an image is opened.
    """
    unsafe = np.zeros(len(names), bool)
    for start in range(0, len(names), _PIECE):
        piece = names.slice(start, _PIECE)
        rows = slice(start, start + len(piece))
        bounds, text = _bounds_and_bytes(piece)
        if text.max(initial=0) >= 0x80:
            unsafe[rows] |= [not _is_utf8(name.as_py()) for name in piece]
        if _is_suspect(bounds, text):
            unsafe[rows] |= pc.match_substring_regex(piece, _UNSAFE_PATH).to_numpy(zero_copy_only=False)
    return unsafe


def _is_suspect(bounds: Int[np.ndarray, " names+1"], text: UInt8[np.ndarray, " bytes"]) -> bool:
    """Whether any of the names may be unsafe: looks at all their bytes at once, ten times faster than at each name."""
    if (bounds[1:] == bounds[:-1]).any():
        return True
    dots = text == ord(".")
    has_mark = any((text == mark).any() for mark in _SUSPECTS) or (dots[1:] & dots[:-1]).any()
    return bool(has_mark or np.isin(text[bounds[:-1]], _SUSPECT_STARTS).any())


_PROBLEMS = (
    ("bad_path", "the path is empty, absolute, leads out of the image folder, or is not plain text"),
    ("bad_expression", "the expression code is not one of 0..10"),
    ("bad_valence", "valence is neither in -1..1 nor -2"),
    ("bad_arousal", "arousal is neither in -1..1 nor -2"),
)


def _row_problems(names: pa.LargeBinaryArray, numbers: dict[str, np.ndarray]) -> UInt8[np.ndarray, " rows"]:
    """0 for a good row, else the place (from 1) of its first problem in `_PROBLEMS`."""
    code, ratings = numbers["expression"], (numbers["valence"], numbers["arousal"])
    is_code = (code >= CODES.start) & (code < CODES.stop) & (code == np.floor(code))
    is_rating = [(np.abs(rating) <= 1) | (rating == NOT_ANNOTATED) for rating in ratings]
    problems = np.zeros(len(names), np.uint8)
    for place, bad in enumerate((unsafe_paths(names), ~is_code, *(~good for good in is_rating)), 1):
        problems[bad & (problems == 0)] = place
    return problems


def _rejects_of(
    names: pa.LargeBinaryArray, problems: np.ndarray, bad: np.ndarray, origins: Sequence[str], ends: np.ndarray
) -> list[Reject]:
    rejects = []
    for row in bad.tolist():
        part = int(np.searchsorted(ends, row, side="right"))
        number = row - int(ends[part - 1] if part else 0) + 1
        name = names[row].as_py().decode("utf-8", errors="backslashreplace")
        rejects.append(Reject(name or f"{origins[part]}, row {number}", STAGE, *_PROBLEMS[problems[row] - 1]))
    return rejects


def _without_marker(rating: np.ndarray) -> np.ndarray:
    return np.where(rating == NOT_ANNOTATED, np.nan, rating)


def _boxes(box: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of the box, NaN where its size is not positive or a number is missing."""
    is_real = (box["face_width"] > 0) & (box["face_height"] > 0)
    for values in box.values():
        is_real &= np.isfinite(values)
    return {name: np.where(is_real, values, np.float32(np.nan)) for name, values in box.items()}


def _one_piece(pieces: list[pa.LargeBinaryArray]) -> pa.LargeBinaryArray:
    """The pieces as one array; each is let go once it is copied, so that names are never in memory twice."""
    ends = np.zeros(sum(map(len, pieces)) + 1, np.int64)
    text = np.empty(sum(pc.sum(pc.binary_length(piece)).as_py() or 0 for piece in pieces), np.uint8)
    row = 0
    pieces.reverse()
    while pieces:
        bounds, part = _bounds_and_bytes(pieces.pop())
        text[ends[row] : ends[row] + len(part)] = part
        ends[row + 1 : row + len(bounds)] = ends[row] + bounds[1:]
        row += len(bounds) - 1
        if len(pieces) % _PIECES_HELD == 0:
            pa.default_memory_pool().release_unused()  # Arrow would keep what was let go
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), row, [None, pa.py_buffer(ends), pa.py_buffer(text)])


def _bounds_and_bytes(names: pa.LargeBinaryArray) -> tuple[Int[np.ndarray, " names+1"], UInt8[np.ndarray, " bytes"]]:
    """Where each name begins and ends in the bytes of all of them."""
    _, offset_buffer, data_buffer = names.buffers()
    bounds = np.frombuffer(offset_buffer, np.int64)[names.offset : names.offset + len(names) + 1]
    data = np.empty(0, np.uint8) if data_buffer is None else np.frombuffer(data_buffer, np.uint8)
    return bounds - bounds[0], data[bounds[0] : bounds[-1]]


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
