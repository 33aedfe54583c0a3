"""Photographs that would be in both splits of a release, as themselves or nearly."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from ecavatar.emolib.duplicates import HASH_BITS, Hashes, near_pairs
from ecavatar.emolib.schema import SPLITS
from ecavatar.errors import DataError

_SAME = {"source_id": "the same photograph", "content_sha256": "the same bytes"}
_SHOWN = 3
_ROWS_AT_ONCE = 1024
_HASH = re.compile(rf"[0-9a-fA-F]{{{HASH_BITS // 4}}}")


def split_leaks(labels: pa.Table, near_duplicate_bits: int) -> list[str]:
    """One sentence for each way in which items of different splits are one photograph; empty when all is well.

    Args:
        labels: item_id and split, and whichever it has of source_id, content_sha256 and perceptual_hash (64
            hexadecimal digits; null or empty where it is not known).
        near_duplicate_bits: perceptual hashes that differ in at most so many of 256 bits mean one photograph.

    Raises:
        DataError: a perceptual hash is not 64 hexadecimal digits.
    """
    first, second = (labels.filter(pc.equal(labels["split"], split)) for split in SPLITS)
    problems = []
    for name, what in _SAME.items():
        if name in labels.column_names:
            shared = second.filter(pc.is_in(second[name], value_set=first[name].combine_chunks().drop_null()))
            pairs = [(_holder(first, name, value), item) for item, value in _head(shared, name)]
            problems += _told(pairs, shared.num_rows, what)
    if "perceptual_hash" in labels.column_names:
        near = _near(first, second, near_duplicate_bits)
        pairs = [(first["item_id"][a].as_py(), second["item_id"][b].as_py()) for a, b in near[:_SHOWN]]
        problems += _told(pairs, len(near), f"perceptual hashes within {near_duplicate_bits} bits")
    return problems


def _near(first: pa.Table, second: pa.Table, bits: int) -> list[tuple[int, int]]:
    """Rows of `first` and of `second` whose hashes differ in at most `bits` bits."""
    (left, left_rows), (right, right_rows) = _hashes(first), _hashes(second)
    pairs = near_pairs(np.concatenate([left, right]), len(left), bits)
    across = pairs[pairs[:, 1] < len(left)]
    return [(int(left_rows[earlier]), int(right_rows[later - len(left)])) for later, earlier in across]


def _hashes(table: pa.Table) -> tuple[Hashes, Int[np.ndarray, " known"]]:
    """The known perceptual hashes and the rows they are of."""
    column = table["perceptual_hash"].combine_chunks().cast(pa.string())
    known = np.flatnonzero(pc.fill_null(pc.greater(pc.binary_length(column), 0), False).to_numpy(zero_copy_only=False))
    hashes = np.empty((len(known), HASH_BITS // 8), np.uint8)
    for start in range(0, len(known), _ROWS_AT_ONCE):
        rows = known[start : start + _ROWS_AT_ONCE]
        texts = column.take(pa.array(rows)).to_pylist()
        if wrong := [text for text in texts if not _HASH.fullmatch(text)]:
            raise DataError(
                f"expected a perceptual hash of {HASH_BITS // 4} hexadecimal digits, found {wrong[0]!r}. "
                "Select the images again."
            )
        hashes[start : start + len(rows)] = np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(
            len(rows), -1
        )
    return hashes, known


def _head(table: pa.Table, name: str) -> list[tuple[str, str]]:
    head = table.slice(0, _SHOWN)
    return list(zip(head["item_id"].to_pylist(), head[name].to_pylist(), strict=True))


def _holder(table: pa.Table, name: str, value: str) -> str:
    return table["item_id"][pc.index(table[name], value).as_py()].as_py()


def _told(pairs: list[tuple[str, str]], count: int, what: str) -> list[str]:
    if not count:
        return []
    shown = ", ".join(f"{a} and {b}" for a, b in pairs)
    return [
        f"{count} pair(s) of items in different splits have {what}: {shown}{', ...' if count > len(pairs) else ''}."
    ]
