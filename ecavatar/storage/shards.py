"""Datasets in parts: a part that is finished for the same inputs is not computed again.

A part is `part-00000-of-00004.parquet`; its file metadata names the hash of the inputs it was made from. Parts appear
whole or not at all, so a killed stage goes on where it stopped.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from ecavatar.errors import AssetMissingError, DataError, EcavatarError
from ecavatar.storage.files import is_temporary, sha256_file
from ecavatar.storage.parquet import read_table, table_metadata, write_table

HASH_KEY = "input_hash"
_PART = re.compile(r"part-(\d{5})-of-(\d{5})\.parquet")


def input_hash(*parts: object) -> str:
    """One hash of everything a shard is made from.

    Args:
        parts: json values, settings sections, arrays, bytes, and Paths. A Path counts by its content (a directory by
            its files' relative names and contents), never by its name.

    Raises:
        AssetMissingError: a Path does not exist.
        TypeError: a part is of another kind.
    """
    text = json.dumps([_canonical(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def shard_path(directory: Path, index: int, count: int) -> Path:
    """Path of part `index` of `count`.

    Raises:
        ValueError: `index` is not in [0, count).
    """
    if not 0 <= index < count:
        raise ValueError(f"shard index must be in [0, {count}), got {index}.")
    return directory / f"part-{index:05d}-of-{count:05d}.parquet"


def write_shard(
    path: Path,
    hash: str,
    make: Callable[[], pa.Table],
    metadata: Mapping[str, str] | None = None,
) -> bool:
    """Write the shard unless it is already there for the same inputs.

    Args:
        path: from `shard_path`.
        hash: `input_hash` of everything that `make` uses.
        make: computes the table; not called when the shard is finished.
        metadata: further file-level texts.

    Returns:
        True when the shard was computed, False when it was already finished.
    """
    if _is_finished(path, hash):
        return False
    write_table(path, make(), {**(metadata or {}), HASH_KEY: hash})
    return True


def read_shards(directory: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All parts of a dataset as one table, in order.

    Raises:
        AssetMissingError: the directory has no parts.
        DataError: a part is missing, or parts of different counts lie side by side.
    """
    return pa.concat_tables([read_table(path, columns) for path in list_shards(directory)])


def list_shards(directory: Path) -> list[Path]:
    """Paths of all parts of a dataset, in order, checked to be complete.

    Raises:
        AssetMissingError: the directory has no parts.
        DataError: a part is missing, or parts of different counts lie side by side.
    """
    names = [entry.name for entry in directory.iterdir()] if directory.is_dir() else []
    found = sorted(match.groups() for match in map(_PART.fullmatch, names) if match)
    if not found:
        raise AssetMissingError(f"{directory} holds no shards (part-*.parquet). Run the stage that writes them.")
    counts = sorted({count for _, count in found})
    if len(counts) > 1:
        raise DataError(f"{directory} mixes parts of {' and '.join(counts)}. Remove it and run its stage again.")
    count = int(counts[0])
    missing = sorted(set(range(count)) - {int(index) for index, _ in found})
    if missing:
        raise DataError(f"{directory} lacks {len(missing)} of {count} parts, first {missing[0]}. Run its stage again.")
    return [shard_path(directory, index, count) for index in range(count)]


def split_rows(n_rows: int, n_shards: int) -> list[range]:
    """`n_shards` consecutive ranges that cover `n_rows` and differ in length by at most one.

    With fewer rows than shards there are fewer ranges, but always one, so an empty dataset still has one (empty) shard.

    Raises:
        ValueError: `n_rows` is negative or `n_shards` is not positive.
    """
    if n_rows < 0 or n_shards < 1:
        raise ValueError(f"need n_rows >= 0 and n_shards >= 1, got {n_rows} and {n_shards}.")
    count = max(1, min(n_rows, n_shards))
    borders = [n_rows * index // count for index in range(count + 1)]
    return [range(first, last) for first, last in itertools.pairwise(borders)]


def _is_finished(path: Path, hash: str) -> bool:
    if not path.is_file():
        return False
    try:
        return table_metadata(path).get(HASH_KEY) == hash
    except EcavatarError:  # damaged from outside: make it anew
        return False


def _canonical(part: object) -> object:
    if part is None or isinstance(part, bool | int | float | str):
        return part
    if isinstance(part, Path):
        return {"file": _content(part)}
    if isinstance(part, BaseModel):
        return _canonical(part.model_dump())
    if isinstance(part, bytes):
        return {"bytes": hashlib.sha256(part).hexdigest()}
    if isinstance(part, np.ndarray | np.generic):
        return _array_content(np.asarray(part))
    if isinstance(part, Mapping):
        return {"mapping": sorted([str(key), _canonical(value)] for key, value in part.items())}
    if isinstance(part, Sequence | set | frozenset):
        items = [_canonical(item) for item in part]
        return sorted(items, key=repr) if isinstance(part, set | frozenset) else items
    raise TypeError(f"cannot hash a {type(part).__name__}; give json values, settings, arrays, bytes or Paths.")


def _array_content(array: np.ndarray) -> object:
    if array.dtype.hasobject:
        raise TypeError("cannot hash an array of objects; give numbers or texts.")
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"array": [str(array.dtype), list(array.shape), digest]}


def _content(path: Path) -> object:
    if path.is_dir():
        files = sorted(entry for entry in path.rglob("*") if entry.is_file() and not is_temporary(entry.name))
        return [[file.relative_to(path).as_posix(), sha256_file(file)] for file in files]
    if not path.is_file():
        raise AssetMissingError(f"{path} not found, so what depends on it cannot be computed. Check the path.")
    return sha256_file(path)
