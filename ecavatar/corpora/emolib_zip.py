"""The Emolib that the paper's authors published as one zip, read without a description of what is inside.

Their repository holds a title, the paper, and `emolib_release.zip` behind git-LFS; nothing says how the zip is laid
out, and no licence comes with it. The paper says what belongs to an item: an image, its category and level, a mesh, and
FLAME's shape (300), expression (100) and jaw pose (3). So this reader takes what it recognises:

* an item is a folder with `shape.npy`, `exp.npy`, `jawpose.npy`, `mesh.obj`, `inputs.png` or similar names (those of
  EMICA's demo, with which the authors say they reconstructed), or files that share a stem (`0001_shape.npy`,
  `0001.obj`), also with one folder per kind (`shape/0001.npy`, `meshes/0001.obj`);
* category and level stand in the path in any spelling (`Happy/level2/0001`, `angry_3/0001`), or in a `label.json`.

Everything else is left alone. Nothing is unpacked to the disk and nothing in the zip is trusted: paths, links, sizes
and array headers are checked, and pickled arrays refused. What the zip cannot say stays unknown (NaN or null):
valence, arousal, split, alignment, camera, and the basis of the coefficients (which FLAME release was used).

Source:
    github.com/yuminjing/Emolib, commit 56d6416; the paper's section 3.3 and Figure 1.
"""

import io
import itertools
import json
import lzma
import math
import os
import re
import stat
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from ecavatar.emotion import EMOTION2VEC_EMOTIONS, LEVELS, MEAD_EMOTIONS, Emotion, LabelPair
from ecavatar.errors import AssetMissingError, DataError
from ecavatar.face.mesh_file import read_mesh
from ecavatar.storage.files import sha256_file
from ecavatar.storage.parquet import vector_type
from ecavatar.storage.rejects import Reject

PUBLISHED_BYTES = 1_820_439_063
"""Size of the authors' zip, as their git-LFS pointer gives it."""
PUBLISHED_SHA256 = "39aa3eeb60d504e6cca846a7dba5d49c0c4d606292aaece3f5d0cd458a8c3144"
"""SHA-256 of the authors' zip, from the same place."""
N_SHAPE, N_EXPRESSION = 300, 100
"""Numbers of coefficients in the paper."""
STAGE = "import_emolib"

SPELLINGS: Mapping[str, Emotion] = {
    **{emotion.label: emotion for emotion in Emotion},
    **MEAD_EMOTIONS,
    **EMOTION2VEC_EMOTIONS,
    "happiness": Emotion.HAPPY,
    "sadness": Emotion.SAD,
    "disgusting": Emotion.DISGUST,
    "contemptuous": Emotion.CONTEMPT,
}
"""Words that name a category, lower case."""

_POINTER = b"version https://git-lfs.github.com/spec/v1"
_SUFFIXES = {
    ".npy": "array",
    ".obj": "mesh",
    ".ply": "mesh",
    ".json": "label",
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"), "image"),
}
_MAX_BYTES = {"array": 1 << 20, "mesh": 1 << 26, "image": 1 << 26, "label": 1 << 16}
"""Largest file of each kind that is read; an honest mesh is below 2 MB."""
_ARRAYS = {
    **dict.fromkeys(("shape", "shapes", "shapecode", "beta", "betas"), "shape"),
    **dict.fromkeys(("exp", "expr", "expression", "expressions", "expcode"), "expression"),
    **dict.fromkeys(("jaw", "jawpose", "jawcode"), "jaw"),
    **dict.fromkeys(("pose", "posecode"), "pose"),
}
_FILLERS = {
    "array": {"flame", "code", "codes", "param", "params", "parameters", "coeff", "coeffs", "pose"},
    "mesh": {"mesh", "meshes", "obj", "ply", "coarse", "model", "head", "face", "flame", "recon", "reconstruction"},
    "image": {"image", "images", "img", "imgs", "input", "inputs", "photo", "crop", "cropped", "face", "original"},
    "label": {"label", "labels"},
}
"""Words of a file name that say what it is, not which item it belongs to."""
_OTHERS = {
    "array": {"global", "globalpose", "neck", "eye", "eyes", "cam", "camera", "tex", "light", "lightcode", "detail"},
    "mesh": {"detail"},
    "image": {"geometry", "render", "rendered", "overlay", "shape", "depth", "normal", "normals", "texture", "uv"},
    "label": set(),
}
"""Words that say a file is something else."""
_KIND_FOLDERS = {
    *_ARRAYS, "mesh", "meshes", "obj", "ply", "image", "images", "img", "imgs", "label", "labels", "flame", "param",
    "params", "parameters", "code", "codes", "coeff", "coeffs",
}  # fmt: skip
"""Folders that gather files of one kind; they name no item."""
_LEVEL_WORDS = ("level", "levels", "lv", "lvl", "l", "intensity")
_UNKNOWN_VECTORS = {"rotation": 9, "translation_px": 2, "removed_transform": 16}
_JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorsItem:
    """One item: its label pair, and those of its parts that are there. Coefficients come all three or not at all."""

    item_id: str
    """From its label.json, else its path in the zip without what names the single files."""
    source_id: str
    """From its label.json, else as `item_id`."""
    label: LabelPair
    valence: float
    """NaN where unknown; so is `arousal`."""
    arousal: float
    split: str | None
    shape: Float[np.ndarray, " S"] | None
    expression: Float[np.ndarray, " E"] | None
    jaw_pose: Float[np.ndarray, " 3"] | None
    """Axis-angle, radians."""
    mesh_file: str | None
    """Name for `AuthorsEmolib.mesh`."""
    image_file: str | None
    """Name for `AuthorsEmolib.image_bytes`."""


@dataclass(frozen=True, slots=True)
class ImportedItems:
    """Rows for an Emolib of ours, and what was left out."""

    table: pa.Table
    """The columns that `emolib.dataset.write_emolib` takes, sorted by item_id: item_id, source_id, path (of the image,
    null without), split, emotion, level, valence, arousal, shape, expression, jaw_pose, and what the zip does not know:
    camera (rotation, scale_px_per_m, translation_px, image_height_px, image_width_px), removed_transform,
    alignment_residual_m, alignment_is_converged, residual_mm and perceptual_hash are NaN or null in every row, valence
    and arousal in those without a label.json. `split` is train where the zip does not say, for it divides nothing."""
    rejects: list[Reject]


class _Store(Protocol):
    def files(self) -> Iterator[tuple[str, str]]:
        """Name of every file, and why it must not be used (empty: it may)."""
        ...

    def read(self, name: str, limit: int) -> bytes:
        """At most `limit` bytes of a file."""
        ...


class AuthorsEmolib:
    """The authors' zip, or the folder it was unpacked to; a context manager."""

    def __init__(self, path: Path) -> None:
        """Open the zip or the folder `path`.

        Raises:
            AssetMissingError: nothing there.
            DataError: a git-LFS pointer, a damaged download of the published zip, or no zip.
        """
        path = Path(path)
        if path.is_dir():
            self._store: _Store = _Folder(path)
        else:
            check_download(path)
            self._store = _Zip(path)
        self._path = path

    def __enter__(self) -> "AuthorsEmolib":
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self._store, _Zip):
            self._store.close()

    def items(self) -> Iterator[AuthorsItem | Reject]:
        """Every item in the order of names, and a reject for each that lacks a label pair or both geometry and
        coefficients, is damaged, or has a bad path. Meshes and images are not opened.

        Raises:
            DataError: no file in it looks like part of an item.
        """
        names, rejects = _usable(self._store.files())
        groups = _groups(names)
        if not groups:
            raise DataError(
                f"{self._path} holds nothing that looks like an item of Emolib: expected folders with shape.npy, "
                "exp.npy, jaw.npy and mesh.obj below folders named after categories and levels. Check the path."
            )
        yield from rejects
        seen: set[str] = set()
        for name in sorted(groups):
            item = self._item(name, groups[name])
            if isinstance(item, AuthorsItem) and item.item_id in seen:
                yield Reject(name, STAGE, "repeated_item", f"an earlier item is called {item.item_id}, too")
                continue
            if isinstance(item, AuthorsItem):
                seen.add(item.item_id)
            yield item

    def mesh(self, item: AuthorsItem) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"]]:
        """Vertices (as the file has them; the authors' in metres by the paper's FLAME) and triangles of an item.

        Raises:
            AssetMissingError: the item has no mesh.
            DataError: the mesh is damaged or too large.
        """
        name = _required(item, item.mesh_file, "mesh")
        content = self._read(name, "mesh")
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / f"mesh{PurePosixPath(name).suffix.lower()}"
            file.write_bytes(content)
            try:
                return read_mesh(file)
            except DataError as error:
                raise DataError(f"{name}: {error}") from None

    def image_bytes(self, item: AuthorsItem) -> bytes:
        """The item's image file as it is.

        Raises:
            AssetMissingError: the item has no image.
            DataError: the file is damaged or too large.
        """
        return self._read(_required(item, item.image_file, "image"), "image")

    def _item(self, name: str, files: Mapping[str, str]) -> AuthorsItem | Reject:
        try:
            written = self._label_file(files.get("label"))
            label = _agreed_label(name, written)
            valence, arousal = _rating(written, "valence"), _rating(written, "arousal")
            shape, expression, jaw = self._coefficients(files)
        except _BadItemError as error:
            return Reject(name, STAGE, error.reason, error.detail)
        if shape is None and "mesh" not in files:
            return Reject(name, STAGE, "missing_parts", f"neither coefficients nor mesh; it has {', '.join(files)}")
        return AuthorsItem(
            item_id=_text(written, "item_id") or name, source_id=_text(written, "source_id") or name, label=label,
            valence=valence, arousal=arousal, split=_text(written, "split"), shape=shape, expression=expression,
            jaw_pose=jaw, mesh_file=files.get("mesh"), image_file=files.get("image"),
        )  # fmt: skip

    def _label_file(self, name: str | None) -> Mapping[str, object]:
        if name is None:
            return {}
        try:
            value = json.loads(self._part(name, "label"))
        except (ValueError, RecursionError) as error:
            raise _BadItemError("bad_label", f"{name} is not json: {error}") from None
        if not isinstance(value, dict):
            raise _BadItemError("bad_label", f"{name}: expected an object, got {type(value).__name__}")
        return value

    def _coefficients(self, files: Mapping[str, str]) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        """Shape, expression and jaw; all None when there is a mesh and not all three."""
        jaw = "jaw" if "jaw" in files else "pose"
        missing = [kind for kind in ("shape", "expression", jaw) if kind not in files]
        if missing:
            if "mesh" in files or len(missing) == 3:
                return None, None, None
            raise _BadItemError("missing_parts", f"no mesh, and no {' or '.join(missing)}")
        shape, expression, pose = (
            _vector(files[kind], self._part(files[kind], "array")) for kind in ("shape", "expression", jaw)
        )
        size = 3 if jaw == "jaw" else 6  # DECA's and EMOCA's pose: global rotation, then jaw
        if len(pose) != size:
            raise _BadItemError("bad_array", f"{files[jaw]}: expected {size} numbers, got {len(pose)}")
        return shape, expression, pose[-3:]

    def _part(self, name: str, kind: str) -> bytes:
        try:
            return self._read(name, kind)
        except DataError as error:
            raise _BadItemError("damaged_file", str(error)) from None

    def _read(self, name: str, kind: str) -> bytes:
        limit = _MAX_BYTES[kind]
        content = self._store.read(name, limit + 1)
        if len(content) > limit:
            raise DataError(f"{name} is larger than {limit} bytes, more than any {kind} of Emolib; it was not read.")
        return content


def check_download(path: Path) -> bool:
    """Whether `path` is the authors' published zip, bit for bit; a file of another size is somebody's own zip.

    Raises:
        AssetMissingError: no such file.
        DataError: a git-LFS pointer instead of the zip, or the published size with another checksum.
    """
    path = Path(path)
    if not path.is_file():
        raise AssetMissingError(
            f"{path} not found. Expected the authors' emolib_release.zip (github.com/yuminjing/Emolib, by git-LFS), or "
            "the folder it was unpacked to."
        )
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise DataError(
                f"{path} is a git-LFS pointer of {path.stat().st_size} bytes, not the zip: expected {PUBLISHED_BYTES} "
                f"bytes with sha256 {PUBLISHED_SHA256}. Run `git lfs install && git lfs pull` in the authors' clone."
            )
    if path.stat().st_size != PUBLISHED_BYTES:
        return False
    found = sha256_file(path)
    if found != PUBLISHED_SHA256:
        raise DataError(
            f"{path} has the published size but sha256 {found} instead of {PUBLISHED_SHA256}. Download it again."
        )
    return True


def read_items(path: Path, *, n_shape: int = N_SHAPE, n_expression: int = N_EXPRESSION) -> ImportedItems:
    """All items of the zip or folder `path` with coefficients, as rows for an Emolib of ours.

    Args:
        path: the authors' zip, or the folder it was unpacked to.
        n_shape: shape coefficients of an item; one with another number is a reject, as is one without coefficients.
        n_expression: likewise.

    Raises:
        AssetMissingError, DataError: see `AuthorsEmolib`; also when every item is a reject.
    """
    items, rejects = [], []
    with AuthorsEmolib(path) as library:
        for found in library.items():
            item = found if isinstance(found, Reject) else _with_coefficients(found, n_shape, n_expression)
            (rejects if isinstance(item, Reject) else items).append(item)
    if not items:
        raise DataError(
            f"{path}: none of its items can be used, {len(rejects)} were rejected. The first: {rejects[0].item_id}: "
            f"{rejects[0].reason}, {rejects[0].detail}."
        )
    items.sort(key=lambda item: item.item_id)
    return ImportedItems(_table(items, n_shape, n_expression), rejects)


def _with_coefficients(item: AuthorsItem, n_shape: int, n_expression: int) -> AuthorsItem | Reject:
    if item.shape is None or item.expression is None:
        return Reject(item.item_id, STAGE, "no_coefficients", f"only a mesh, {item.mesh_file}")
    sizes = (len(item.shape), len(item.expression))
    if sizes != (n_shape, n_expression):
        detail = f"{sizes[0]} shape and {sizes[1]} expression coefficients, expected {n_shape} and {n_expression}"
        return Reject(item.item_id, STAGE, "other_coefficients", detail)
    return item


def _table(items: Sequence[AuthorsItem], n_shape: int, n_expression: int) -> pa.Table:
    unknown, missing = [math.nan] * len(items), [None] * len(items)
    columns = [
        ("item_id", pa.string(), [item.item_id for item in items]),
        ("source_id", pa.string(), [item.source_id for item in items]),
        ("path", pa.string(), [item.image_file for item in items]),
        ("split", pa.string(), [item.split or "train" for item in items]),
        ("emotion", pa.string(), [item.label.emotion.label for item in items]),
        ("level", pa.int64(), [item.label.level for item in items]),
        ("valence", pa.float64(), [item.valence for item in items]),
        ("arousal", pa.float64(), [item.arousal for item in items]),
        ("shape", vector_type(n_shape), [item.shape for item in items]),
        ("expression", vector_type(n_expression), [item.expression for item in items]),
        ("jaw_pose", vector_type(3), [item.jaw_pose for item in items]),
        *((name, vector_type(size), [np.full(size, np.nan)] * len(items)) for name, size in _UNKNOWN_VECTORS.items()),
        ("scale_px_per_m", pa.float32(), unknown),
        ("image_height_px", pa.int32(), missing),
        ("image_width_px", pa.int32(), missing),
        ("alignment_residual_m", pa.float32(), unknown),
        ("alignment_is_converged", pa.bool_(), missing),
        ("residual_mm", pa.float32(), unknown),
        ("perceptual_hash", pa.string(), missing),
    ]
    return pa.table([pa.array(values, kind) for _, kind, values in columns], [name for name, _, _ in columns])


# --- which file belongs to which item ---------------------------------------------------------------------------------


def _usable(files: Iterable[tuple[str, str]]) -> tuple[list[str], list[Reject]]:
    """Names that may be parts of items, and those with a bad path."""
    names, rejects = [], []
    for name, fault in files:
        if not any(part in _JUNK or part.startswith("._") for part in PurePosixPath(name).parts):
            fault = fault or _path_fault(name)
            if fault:
                rejects.append(Reject(name, STAGE, "bad_path", fault))
            else:
                names.append(name)
    return names, rejects


def _path_fault(name: str) -> str:
    path = PurePosixPath(name)
    if not name or "\0" in name or path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        return "the path is empty, absolute, or contains '..'"
    return ""


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    folder: str
    kind: str
    rest: str
    """What is left of the stem without the words that say the kind; names the item in a folder of many."""


def _groups(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Files by kind (shape, expression, jaw, pose, mesh, image, label) of every item, by the item's path."""
    folders: dict[str, list[_Part]] = {}
    for name in sorted(names):
        part = _part(name)
        if part is not None:
            folders.setdefault(part.folder, []).append(part)
    groups: dict[str, dict[str, str]] = {}
    for folder, parts in folders.items():
        is_item = _is_item_folder(parts)
        for part in sorted(parts, key=lambda part: (bool(part.rest), part.name)):  # a plain `mesh.obj` comes first
            key = folder if is_item else f"{folder}/{part.rest or PurePosixPath(part.name).stem}".lstrip("/")
            groups.setdefault(key, {}).setdefault(part.kind, part.name)
    return {key: files for key, files in groups.items() if set(files) != {"label"}}


def _part(name: str) -> _Part | None:
    """What kind of part a file is by its name; None for a file that is not part of an item."""
    path = PurePosixPath(name)
    family = _SUFFIXES.get(path.suffix.lower())
    if family is None:
        return None
    words = [word for word in re.split(r"[^a-z0-9]+", path.stem.lower()) if word]
    kinds = [part.lower() for part in path.parent.parts if part.lower() in _KIND_FOLDERS]
    kind = _array_kind(words, kinds) if family == "array" else family
    is_other = bool(_OTHERS[family] & set(words)) or (family == "label" and not _FILLERS[family] & set(words))
    if kind is None or is_other:
        return None
    rest = [word for word in words if word not in _FILLERS[family] and (family != "array" or word not in _ARRAYS)]
    folder = "/".join(part for part in path.parent.parts if part.lower() not in _KIND_FOLDERS)
    return _Part(name, folder, kind, "_".join(rest))


def _array_kind(words: Sequence[str], folders: Sequence[str]) -> str | None:
    kinds = [_ARRAYS[word] for word in words if word in _ARRAYS]
    if "jaw" in kinds:  # jaw_pose
        return "jaw"
    return next(iter(kinds), None) or next((_ARRAYS[name] for name in reversed(folders) if name in _ARRAYS), None)


def _is_item_folder(parts: Sequence[_Part]) -> bool:
    """Whether the folder is one item: no two arrays are of one kind, and an array or a mesh has a plain name."""
    meshes = [part for part in parts if part.kind == "mesh"]
    arrays = [part for part in parts if part.kind in ("shape", "expression", "jaw", "pose")]
    if arrays:
        has_one_of_each = len({part.kind for part in arrays}) == len(arrays)
        return has_one_of_each and any(not part.rest for part in (*arrays, *meshes))
    return any(not part.rest for part in meshes)


# --- labels -----------------------------------------------------------------------------------------------------------


class _BadItemError(Exception):
    """Why an item is left out."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def _agreed_label(name: str, written: Mapping[str, object]) -> LabelPair:
    """The label pair by the item's label file or else by its path."""
    if "emotion" not in written or "level" not in written:
        return _label_from_path(name)
    emotion, level = SPELLINGS.get(str(written["emotion"]).lower()), written["level"]
    if emotion is None or not isinstance(level, int) or isinstance(level, bool) or level not in LEVELS:
        raise _BadItemError("bad_label", f"label file says {written['emotion']!r}, level {level!r}")
    label = LabelPair(emotion, level)
    try:
        by_path = _label_from_path(name)
    except _BadItemError:  # a path that names no label pair contradicts nothing
        return label
    if by_path != label:
        detail = f"label file says {_say(label)}, the path {_say(by_path)}"
        raise _BadItemError("two_labels", detail)
    return label


def _say(label: LabelPair) -> str:
    return f"{label.emotion.label} {label.level}"


def _label_from_path(name: str) -> LabelPair:
    """Category and level that an item's path names: `Happy/level2/0001`, `angry_3/0001`, `Sad/1/17`, ...

    The number after the category is the level only where something else names the item: `happy/2` is item 2.
    """
    parts = [re.findall(r"[a-z]+|\d+", part.lower()) for part in PurePosixPath(name).parts]
    emotions = {SPELLINGS[word] for words in parts for word in words if word in SPELLINGS}
    if len(emotions) != 1:
        found = " and ".join(sorted(emotion.label for emotion in emotions)) or "no category"
        raise _BadItemError("two_emotions" if emotions else "no_emotion", f"its path names {found}")
    levels = _named_levels(parts) or _levels_after_emotion(parts)
    if len(levels) != 1 or not levels <= set(LEVELS):
        found = " and ".join(map(str, sorted(levels))) or "none"
        raise _BadItemError("bad_level" if levels else "no_level", f"levels named by its path: {found}")
    return LabelPair(emotions.pop(), levels.pop())


def _named_levels(parts: Sequence[Sequence[str]]) -> set[int]:
    return {
        int(words[i + 1])
        for words in parts
        for i in range(len(words) - 1)
        if words[i] in _LEVEL_WORDS and words[i + 1].isdecimal() and len(words[i + 1]) <= 2
    }


def _levels_after_emotion(parts: Sequence[Sequence[str]]) -> set[int]:
    flat = [(word, depth) for depth, words in enumerate(parts) for word in words]
    last = len(flat) - 1
    return {
        int(number)
        for i, ((word, _), (number, _)) in enumerate(itertools.pairwise(flat))
        if word in SPELLINGS and i + 1 < last and number.isdecimal() and len(number) <= 2
    }


def _rating(written: Mapping[str, object], name: str) -> float:
    """A rating of the label file; NaN where it has none."""
    value = written.get(name)
    if value is None:
        return math.nan
    if not isinstance(value, int | float) or isinstance(value, bool) or not -1 <= value <= 1:
        raise _BadItemError("bad_label", f"label file says {name} {str(value)[:40]}, expected -1 to 1")
    return float(value)


def _text(written: Mapping[str, object], name: str) -> str | None:
    value = written.get(name)
    return value if isinstance(value, str) and value else None


def _required(item: AuthorsItem, name: str | None, what: str) -> str:
    if name is None:
        raise AssetMissingError(f"item {item.item_id} has no {what} in this zip; leave it out.")
    return name


# --- bytes ------------------------------------------------------------------------------------------------------------


def _vector(name: str, content: bytes) -> Float[np.ndarray, " K"]:
    """A vector from the bytes of an .npy file; its header is checked before any memory is asked for."""
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except (ValueError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise _BadItemError("bad_array", f"{name} is not an .npy file: {error}") from None
    count, left = math.prod(shape), len(content) - file.tell()
    if dtype.kind not in "fiu" or max(shape, default=1) != count or not count or count * dtype.itemsize != left:
        raise _BadItemError("bad_array", f"{name}: expected one vector of numbers, got {dtype} {shape} in {left} bytes")
    with np.errstate(over="ignore"):  # told below
        vector = np.frombuffer(content, dtype, offset=file.tell()).astype(np.float32)
    if not np.isfinite(vector).all():
        raise _BadItemError("bad_array", f"{name}: holds NaN or infinity")
    return vector


_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError, NotImplementedError,
)  # fmt: skip
"""What a damaged zip makes the standard library raise; NotImplementedError: a compression it does not know."""


class _Zip:
    """Files of a zip by their names, with forward slashes."""

    def __init__(self, path: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(path)
        except _DAMAGE as error:
            raise DataError(f"{path} is not a zip that can be read ({error}). Download it again.") from None
        self._members: dict[str, zipfile.ZipInfo] = {}

    def close(self) -> None:
        self._archive.close()

    def files(self) -> Iterator[tuple[str, str]]:
        for info in self._archive.infolist():
            name = info.filename.replace("\\", "/")
            if info.is_dir():
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                yield name, "a symbolic link"
            elif name in self._members and self._members[name] is not info:
                yield name, "the zip names it twice"
            else:
                self._members[name] = info
                yield name, ""

    def read(self, name: str, limit: int) -> bytes:
        try:
            with self._archive.open(self._members[name]) as file:
                return file.read(limit)
        except (*_DAMAGE, RuntimeError) as error:  # RuntimeError: encrypted
            raise DataError(f"{name} cannot be read from the zip ({error}). Download the zip again.") from None


class _Folder:
    """Files of a folder by their paths relative to it; links are not followed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def files(self) -> Iterator[tuple[str, str]]:
        for directory, folders, names in os.walk(self._root):
            folders.sort()
            here = Path(directory)
            for name in sorted([*names, *(folder for folder in folders if (here / folder).is_symlink())]):
                path = here / name
                fault = "" if path.is_file() and not path.is_symlink() else "a link or no plain file"
                yield path.relative_to(self._root).as_posix(), fault

    def read(self, name: str, limit: int) -> bytes:
        try:
            with (self._root / name).open("rb") as file:
                return file.read(limit)
        except OSError as error:
            raise DataError(f"{self._root / name} cannot be read ({error}). Unpack the zip again.") from None
