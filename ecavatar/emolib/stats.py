"""Mean, spread and range of a release's numbers, over its training split only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from ecavatar.emolib.schema import EmolibInfo
from ecavatar.storage.columns import Column
from ecavatar.storage.parquet import read_row_group

STATS_SPLIT = "train"
_DIGITS = 9  # of 17: the rest depends on the order in which a machine adds


def release_stats(directory: Path, info: EmolibInfo) -> dict[str, object]:
    """Content of stats.json, computed from the data files; memory does not grow with their number.

    Each numeric column of `coefficients` has mean, std (of the population), min, max and the count of known values, one
    number per component; unknown values (null, NaN) are left out. Without any known value the four are null.

    Raises:
        AssetMissingError: a data file is missing.
        DataError: a data file is not Parquet or lacks a column.
    """
    columns = [column for column in info.columns["coefficients"] if column.is_numeric]
    totals = {column.name: _Total(column) for column in columns}
    files = [directory / path for path in info.files("coefficients", STATS_SPLIT)]
    for table in _pieces(files, [column.name for column in columns]):
        for column in columns:
            totals[column.name].add(_numbers(table[column.name], column))
    return {
        "split": STATS_SPLIT,
        "rows": info.rows.get(STATS_SPLIT, 0),
        "columns": {name: total.to_json() for name, total in totals.items()},
    }


@dataclass(slots=True)
class _Total:
    """Running mean and squared spread, merged piece by piece.

    Source:
        Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979.
    """

    column: Column
    count: Float[np.ndarray, " components"] = field(init=False)
    mean: Float[np.ndarray, " components"] = field(init=False)
    squares: Float[np.ndarray, " components"] = field(init=False)
    lowest: Float[np.ndarray, " components"] = field(init=False)
    highest: Float[np.ndarray, " components"] = field(init=False)

    def __post_init__(self) -> None:
        size = int(np.prod(self.column.shape, dtype=int))
        self.count, self.mean, self.squares = np.zeros(size), np.zeros(size), np.zeros(size)
        self.lowest, self.highest = np.full(size, np.inf), np.full(size, -np.inf)

    def add(self, values: Float[np.ndarray, "rows components"]) -> None:
        known = ~np.isnan(values)
        count = known.sum(axis=0).astype(np.float64)
        mean = np.where(known, values, 0).sum(axis=0) / np.maximum(count, 1)
        squares = (np.where(known, values - mean, 0) ** 2).sum(axis=0)
        total = np.maximum(self.count + count, 1)
        shift = mean - self.mean
        self.mean = self.mean + shift * count / total
        self.squares = self.squares + squares + shift**2 * self.count * count / total
        self.count = self.count + count
        self.lowest = np.fmin(self.lowest, np.where(known, values, np.inf).min(axis=0, initial=np.inf))
        self.highest = np.fmax(self.highest, np.where(known, values, -np.inf).max(axis=0, initial=-np.inf))

    def to_json(self) -> dict[str, object]:
        std = np.sqrt(self.squares / np.maximum(self.count, 1))
        numbers = {"mean": self.mean, "std": std, "min": self.lowest, "max": self.highest}
        result: dict[str, object] = {name: self._listed(values) for name, values in numbers.items()}
        counts = self.count.astype(int).tolist()
        return result | {"count": counts if self.column.shape else counts[0]}

    def _listed(self, values: Float[np.ndarray, " components"]) -> object:
        known = [
            float(f"{value:.{_DIGITS}g}") if count else None
            for value, count in zip(values.tolist(), self.count, strict=True)
        ]
        return known if self.column.shape else known[0]


def _pieces(files: Sequence[Path], columns: Sequence[str]) -> Iterator[pa.Table]:
    for path in files:
        read_row_group(path, 0, columns)  # says with its path what is wrong with the file
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=list(columns), use_threads=False)


def _numbers(values: pa.ChunkedArray, column: Column) -> Float[np.ndarray, "rows components"]:
    size = int(np.prod(column.shape, dtype=int))
    flat = values.combine_chunks()
    for _ in column.shape:
        flat = flat.flatten()
    return flat.to_numpy(zero_copy_only=False).astype(np.float64).reshape(len(values), size)
