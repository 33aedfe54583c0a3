"""Whole-or-not-at-all files and directories, canonical json, checksums, and paths that stay inside their root."""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ecavatar.errors import AssetMissingError, DataError

_TEMPORARY_MARK = ".tmp-"
_counter = itertools.count()  # distinguishes temporaries of one process; never reaches any written byte


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary sibling of `path` that becomes `path` when the block ends well.

    Write one file there, or `mkdir()` it and fill the directory. On success everything is flushed to disk and renamed;
    on any error it is removed and an older `path` stays as it was. A killed process leaves at most the sibling, a
    hidden name that `clean_stale` removes. Replacing an existing *directory* takes two renames: for an instant it is
    absent.

    Raises:
        DataError: the block ended without writing anything to the temporary path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{_TEMPORARY_MARK}{os.getpid()}-{next(_counter)}")
    _remove(temporary)
    try:
        yield temporary
        if not temporary.exists():
            raise DataError(
                f"nothing was written for {path}; the code that fills it must write to the path it is given."
            )
        _flush(temporary)
        _replace(temporary, path)
    finally:
        _remove(temporary)
    _flush_entry(path.parent)


def clean_stale(directory: Path, keep: Collection[str] | None = None) -> list[str]:
    """Remove what a killed run left in `directory` and return the removed names, sorted.

    Args:
        directory: looked at, not its subdirectories; need not exist.
        keep: names that may stay; everything else goes. None: only temporaries of `atomic_path` go.
    """
    if not directory.is_dir():
        return []
    stale = sorted(
        entry.name
        for entry in directory.iterdir()
        if is_temporary(entry.name) or (keep is not None and entry.name not in keep)
    )
    for name in stale:
        _remove(directory / name)
    return stale


def is_temporary(name: str) -> bool:
    """Whether `name` is one that `atomic_path` gives to unfinished work."""
    return name.startswith(".") and _TEMPORARY_MARK in name


def write_json(path: Path, value: Any) -> None:  # json's own notion of a value: dict, list, str, number, bool, None
    """Write `value` as canonical json (sorted keys, indent 1, one trailing newline), whole or not at all.

    Raises:
        DataError: a number is NaN or infinite, which json cannot say.
    """
    try:
        text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise DataError(f"{path} cannot be written as json: {error}. Replace NaN and infinity by null.") from None
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:  # as written; callers check what they need
    """The value in a json file.

    Raises:
        AssetMissingError: the file is not there.
        DataError: it is not json.
    """
    if not path.is_file():
        raise AssetMissingError(f"{path} not found. Run the stage that writes it, or check the path.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not valid json: {error}.") from None


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes.

    Raises:
        AssetMissingError: the file is not there.
    """
    if not path.is_file():
        raise AssetMissingError(f"{path} not found, so its checksum cannot be computed. Check the path.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resolve_inside(root: Path, relative: str | os.PathLike[str]) -> Path:
    """`root / relative`, made sure to lie inside `root` even after links are followed.

    For paths read from datasets: an annotation file must not be able to name files elsewhere.

    Raises:
        DataError: `relative` is empty, absolute, contains "..", a NUL or a backslash, leads out of `root`,
            or through links that go in a circle.
    """
    text = os.fspath(relative)
    pure = PurePosixPath(text)
    if not text or "\0" in text or "\\" in text or pure.is_absolute() or ".." in pure.parts:
        raise DataError(f"path {text!r} must be relative to {root}, with forward slashes and without '..'.")
    base = Path(root).resolve()
    try:
        target = (base / pure).resolve()
    except (RuntimeError, OSError) as error:  # links in a circle: RuntimeError up to Python 3.12
        raise DataError(f"path {text!r} below {root} cannot be followed ({error}). Remove the link.") from None
    if not target.is_relative_to(base):
        raise DataError(f"path {text!r} leads out of {root} through a link. Copy the file into the folder.")
    return Path(root) / pure


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _replace(temporary: Path, path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        old = path.with_name(f".{path.name}{_TEMPORARY_MARK}{os.getpid()}-{next(_counter)}-old")
        path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old)
        return
    temporary.replace(path)


def _flush(path: Path) -> None:
    if path.is_dir():
        for entry in path.iterdir():
            _flush(entry)
    _flush_entry(path)


def _flush_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
