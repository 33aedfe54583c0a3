"""Photographs that would be in both splits of a release, as themselves or nearly."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from ecavatar.emolib.duplicates import HASH_BITS, Hashes, near_pairs
from ecavatar.emolib.schema import SPLITS, read_info
from ecavatar.errors import DataError
from ecavatar.storage.parquet import read_table

_SAME = {"source_id": "the same photograph", "content_sha256": "the same bytes"}
_SHOWN = 3
_ROWS_AT_ONCE = 4096
_HASH = re.compile(rf"[0-9a-fA-F]{{{HASH_BITS // 4}}}")


def release_leaks(directory: Path) -> list[str]:
    """`split_leaks` of the release in `directory`.

    Raises:
        AssetMissingError: no release there, or a data file is missing.
        DataError: damaged.
    """
    info = read_info(directory)
    known = {column.name for column in info.columns["coefficients"]}
    columns = [name for name in ("item_id", "split", "source_id", "perceptual_hash") if name in known]
    files = [directory / path for split in info.rows for path in info.files("coefficients", split)]
    return split_leaks(pa.concat_tables([read_table(path, columns) for path in files]), info.near_duplicate_bits)


def split_leaks(labels: pa.Table, near_duplicate_bits: int) -> list[str]:
    """One sentence for each way in which items of different splits are one photograph; empty when all is well.

    Args:
        labels: item_id and split, and whichever it has of source_id, content_sha256 and perceptual_hash (64
            hexadecimal digits; null or empty where it is not known).
        near_duplicate_bits: perceptual hashes that differ in at most so many of 256 bits mean one photograph.

    Raises:
        DataError: a perceptual hash is not 64 hexadecimal digits.
    """
    is_second = pc.equal(labels["split"], SPLITS[1])
    problems = []
    for name, what in _SAME.items():
        if name in labels.column_names:
            problems += _told(_same(labels, name, is_second), what)
    if "perceptual_hash" in labels.column_names:
        problems += _told(_near(labels, is_second, near_duplicate_bits), f"hashes within {near_duplicate_bits} bits")
    return problems


def _same(labels: pa.Table, name: str, is_second: pa.ChunkedArray) -> list[tuple[str, str]]:
    """Ids of items of the first and of the second split that have one value."""
    values = labels[name]
    wanted = pc.unique(values.filter(is_second))  # the second split is the small one: little is held twice
    shared = pc.and_not(pc.is_in(values, value_set=wanted, skip_nulls=True), is_second)
    pairs = []
    for place in np.flatnonzero(shared.to_numpy()).tolist():
        other = pc.index(pc.and_(pc.equal(values, values[place]), is_second), True).as_py()
        pairs.append((labels["item_id"][place].as_py(), labels["item_id"][other].as_py()))
    return pairs


def _near(labels: pa.Table, is_second: pa.ChunkedArray, bits: int) -> list[tuple[str, str]]:
    """Ids of items of the first and of the second split whose hashes differ in at most `bits` bits."""
    hashes, known = _hashes(labels["perceptual_hash"])
    in_second = is_second.to_numpy()[known]
    second, second_rows, first_rows = hashes[in_second], known[in_second], known[~in_second]
    first, pairs = hashes[~in_second], []
    for start in range(0, len(first), _ROWS_AT_ONCE):  # so that what the search holds stays small
        block = np.concatenate([second, first[start : start + _ROWS_AT_ONCE]])
        for later, earlier in near_pairs(block, len(second), bits):
            if earlier < len(second):
                pairs.append((int(first_rows[start + later - len(second)]), int(second_rows[earlier])))
    return [(labels["item_id"][a].as_py(), labels["item_id"][b].as_py()) for a, b in pairs]


def _hashes(column: pa.ChunkedArray) -> tuple[Hashes, Int[np.ndarray, " known"]]:
    """The known perceptual hashes and the rows they are of."""
    known = np.flatnonzero(pc.fill_null(pc.greater(pc.binary_length(column), 0), False).to_numpy())
    hashes = np.empty((len(known), HASH_BITS // 8), np.uint8)
    for start in range(0, len(known), _ROWS_AT_ONCE):
        rows = known[start : start + _ROWS_AT_ONCE]
        texts = column.slice(rows[0], rows[-1] - rows[0] + 1).take(pa.array(rows - rows[0])).to_pylist()
        if wrong := [text for text in texts if not _HASH.fullmatch(text)]:
            raise DataError(
                f"expected a perceptual hash of {HASH_BITS // 4} hexadecimal digits, found {wrong[0]!r}. "
                "Select the images again."
            )
        flat = np.frombuffer(bytes.fromhex("".join(texts)), np.uint8)
        hashes[start : start + len(rows)] = flat.reshape(len(rows), -1)
    return hashes, known


def _told(pairs: list[tuple[str, str]], what: str) -> list[str]:
    if not pairs:
        return []
    shown = ", ".join([*(f"{a} and {b}" for a, b in pairs[:_SHOWN]), *(["..."] if len(pairs) > _SHOWN else [])])
    return [f"{len(pairs)} pair(s) of items in different splits have {what}: {shown}."]
