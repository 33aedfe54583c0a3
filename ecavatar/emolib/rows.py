"""Rows of many Parquet files, or of a table in memory, in any order and a few at a time."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from ecavatar.storage.parquet import count_row_groups, table_metadata

_CACHED_GROUPS = 16
_OPEN_FILES = 2  # an open file holds a description of every column of every row group


class Rows:
    """Rows that need not fit into memory; whole columns are read only when asked for."""

    def __init__(self, source: pa.Table | Sequence[Path]) -> None:
        """Look at the first file's columns; see `read_table` for errors.

        Args:
            source: a table, or at least one Parquet file; the files' columns must agree.
        """
        self._table = source if isinstance(source, pa.Table) else None
        self._paths = [] if isinstance(source, pa.Table) else list(source)
        sizes = [_group_sizes(path) for path in self._paths]
        self._groups = [(file, group) for file, groups in enumerate(sizes) for group in range(len(groups))]
        self._starts = np.concatenate([[0], np.cumsum(np.concatenate([*sizes, np.zeros(0, np.int64)]))])
        self._schema = pq.read_schema(self._paths[0]) if self._table is None else self._table.schema
        self._open: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._cache: OrderedDict[tuple[int, tuple[str, ...]], pa.Table] = OrderedDict()

    @property
    def schema(self) -> pa.Schema:
        """Of the table or of the first file."""
        return self._schema

    @property
    def count(self) -> int:
        """How many rows there are."""
        return int(self._starts[-1]) if self._table is None else self._table.num_rows

    def metadata(self) -> list[dict[str, str]]:
        """File-level texts of each file; of a table, none."""
        return [table_metadata(path) for path in self._paths]

    def column(self, name: str, kind: pa.DataType) -> pa.ChunkedArray:
        """A whole column as `kind`, in the order of the source.

        Raises:
            DataError: a file has no such column.
        """
        if self._table is not None:
            return self._table[name].cast(kind)
        parts = [
            self._file(number).read(columns=[name], use_threads=False)[name].cast(kind)  # cast at once: half the memory
            for number in range(len(self._paths))
        ]
        return pa.chunked_array([chunk for part in parts for chunk in part.chunks], kind)

    def take(self, rows: Int[np.ndarray, " n"], columns: Sequence[str]) -> pa.Table:
        """The given rows and columns, in the given order.

        Neighbouring rows are quick; the last few row groups that were touched stay in memory.
        """
        if self._table is not None:
            return self._table.select(list(columns)).take(pa.array(rows, pa.int64()))
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        used = np.unique(groups)
        tables = [self._group(int(group), tuple(columns)) for group in used]
        first = np.concatenate([[0], np.cumsum([table.num_rows for table in tables])])[:-1]
        places = first[np.searchsorted(used, groups)] + rows - self._starts[groups]
        return pa.concat_tables(tables).take(pa.array(places, pa.int64()))

    def _group(self, index: int, columns: tuple[str, ...]) -> pa.Table:
        key = (index, columns)
        if key not in self._cache:
            number, group = self._groups[index]
            self._cache[key] = self._file(number).read_row_group(group, columns=list(columns), use_threads=False)
        self._cache.move_to_end(key)
        while len(self._cache) > _CACHED_GROUPS:
            self._cache.popitem(last=False)
        return self._cache[key]

    def _file(self, number: int) -> pq.ParquetFile:
        if number not in self._open:
            self._open[number] = pq.ParquetFile(self._paths[number])
        self._open.move_to_end(number)
        while len(self._open) > _OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return self._open[number]


def _group_sizes(path: Path) -> Int[np.ndarray, " groups"]:
    count_row_groups(path)  # says with its path what is wrong with the file
    with pq.ParquetFile(path) as file:
        return np.array([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)], np.int64)
