"""Rows of many Parquet files, or of a table in memory, in any order and a few at a time."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from ecavatar.storage.parquet import count_row_groups, read_table, table_metadata

_CACHED_GROUPS = 16


class Rows:
    """Rows that need not fit into memory; whole columns are read only when asked for."""

    def __init__(self, source: pa.Table | Sequence[Path]) -> None:
        """Look at the first file's columns; see `read_table` for errors.

        Args:
            source: a table, or at least one Parquet file; the files' columns must agree.
        """
        self._table = source if isinstance(source, pa.Table) else None
        self._paths = [] if isinstance(source, pa.Table) else list(source)
        for path in self._paths:
            count_row_groups(path)  # told at once, with its path, when it cannot be read
        self._files = [pq.ParquetFile(path, memory_map=True) for path in self._paths]
        self._groups = [(file, group) for file in self._files for group in range(file.num_row_groups)]
        sizes = [file.metadata.row_group(group).num_rows for file, group in self._groups]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._cache: OrderedDict[tuple[int, tuple[str, ...]], pa.Table] = OrderedDict()

    @property
    def schema(self) -> pa.Schema:
        """Of the table or of the first file."""
        return self._files[0].schema_arrow if self._table is None else self._table.schema

    @property
    def count(self) -> int:
        """How many rows there are."""
        return int(self._starts[-1]) if self._table is None else self._table.num_rows

    def metadata(self) -> list[dict[str, str]]:
        """File-level texts of each file; of a table, none."""
        return [table_metadata(path) for path in self._paths]

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column, in the order of the source.

        Raises:
            DataError: a file has no such column.
        """
        if self._table is not None:
            return self._table[name]
        return pa.chunked_array([chunk for path in self._paths for chunk in read_table(path, [name])[name].chunks],
                                self.schema.field(name).type)  # fmt: skip

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
            file, group = self._groups[index]
            self._cache[key] = file.read_row_group(group, columns=list(columns), use_threads=False)
        self._cache.move_to_end(key)
        while len(self._cache) > _CACHED_GROUPS:
            self._cache.popitem(last=False)
        return self._cache[key]
