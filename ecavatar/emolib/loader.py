"""Items of a release one at a time, as PyTorch's DataLoader wants them; needs no torch itself."""

import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecavatar.emolib.quantisation import from_steps
from ecavatar.emolib.schema import read_info
from ecavatar.errors import AssetMissingError, DataError
from ecavatar.storage.columns import Column

Item = dict[str, np.ndarray | str | int | float | bool | dict]
_CACHE_BYTES = 64 * 2**20
_STEPS, _METRES = "vertices_10um", "vertices_m"


class EmolibItems:
    """A release as a map-style data set: `len(items)`, `items[i]`, rows in the order of the release.

    An item is a dict of its row's columns: vectors and meshes as float32 arrays, the others as Python values; a number
    that is not known is NaN, such a text is empty. Meshes of `vertices_int16` come as `vertices_m`, in metres, as those
    of `vertices` do; a picture is a dict of its bytes and path.

    Files are opened when first read, by each process for itself, and decoded row groups are kept up to 64 MiB: so the
    object can be forked and pickled, a first look at an item costs one row group, and a second one next to nothing.
    """

    def __init__(self, directory: Path | str, config: str = "coefficients", split: str | None = None) -> None:
        """Read what the release says about itself.

        Args:
            directory: the release.
            config: coefficients, vertices, vertices_int16 or images, whichever the release has.
            split: train or val; None: both, one after the other.

        Raises:
            AssetMissingError: no release there, or a data file is missing.
            DataError: no such config or split, or the release is damaged.
        """
        self.directory, self.config = Path(directory), config
        info = read_info(self.directory)
        if config not in info.columns:
            raise DataError(f"{directory} has no config {config!r}; it has {', '.join(info.columns)}.")
        if split is not None and split not in info.rows:
            raise DataError(f"{directory} has no split {split!r}; it has {', '.join(info.rows)}.")
        splits = [name for name in info.rows if split in (None, name)]
        files = {path: n for name in splits for path, n in info.files(config, name).items()}
        if missing := [path for path in files if not (self.directory / path).is_file()]:
            raise AssetMissingError(f"{self.directory / missing[0]} not found. Copy the release again.")
        self.columns: tuple[Column, ...] = info.columns[config]
        self._paths = [self.directory / path for path in files]
        tags = {"topology": info.topology, "basis": info.basis}
        self._constants = [{**tags, "split": name} for name in splits for _ in info.files(config, name)]
        """What is the same in all rows of a file: a fifth of the time to read a row group."""
        self._starts = np.concatenate([[0], np.cumsum(list(files.values()), dtype=np.int64)])
        self._forget()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Item:
        """The item at `index`; negative ones count from the end.

        Raises:
            IndexError: there is no such item.
            DataError: its file is damaged.
        """
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"item {index} of {len(self)}.")
        if self._process != os.getpid():  # forked: open files and their positions belong to the parent
            self._forget()
        file = int(np.searchsorted(self._starts, row, side="right")) - 1
        starts = self._opened(file)[1]
        place = row - int(self._starts[file])
        group = int(np.searchsorted(starts, place, side="right")) - 1
        columns, at = self._group(file, group), place - int(starts[group])
        return {
            name: values[at].copy() if isinstance(values, np.ndarray) else values[at]  # the caller may write into it
            for name, values in columns.items()
        }

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_files", "_cache", "_kept")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._process, self._kept = os.getpid(), 0
        self._files: dict[int, tuple[pq.ParquetFile, np.ndarray]] = {}
        self._cache: OrderedDict[tuple[int, int], tuple[int, dict[str, np.ndarray | list]]] = OrderedDict()

    def _opened(self, file: int) -> tuple[pq.ParquetFile, np.ndarray]:
        """The file and the first row of each of its row groups."""
        if file not in self._files:
            try:
                opened = pq.ParquetFile(self._paths[file], memory_map=True)
            except (pa.ArrowInvalid, OSError) as error:
                raise self._damaged(file, error) from None
            sizes = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
            expected = int(self._starts[file + 1] - self._starts[file])
            if sum(sizes) != expected:
                raise self._damaged(file, f"{sum(sizes)} rows instead of {expected}")
            self._files[file] = opened, np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        return self._files[file]

    def _group(self, file: int, group: int) -> dict[str, np.ndarray | list]:
        key = (file, group)
        if key not in self._cache:
            try:  # one thread: a pool does not survive a fork
                wanted = [column.name for column in self.columns if column.name not in self._constants[file]]
                table = self._files[file][0].read_row_group(group, columns=wanted, use_threads=False)
                decoded = dict(_decoded(column, table, self._constants[file]) for column in self.columns)
            except (pa.ArrowException, OSError, KeyError, ValueError) as error:
                raise self._damaged(file, error) from None
            size = sum(_bytes_kept(values) for values in decoded.values())
            self._cache[key] = size, decoded
            self._kept += size
        self._cache.move_to_end(key)
        while self._kept > _CACHE_BYTES and len(self._cache) > 1:
            self._kept -= self._cache.popitem(last=False)[1][0]
        return self._cache[key][1]

    def _damaged(self, file: int, why: object) -> DataError:
        return DataError(
            f"{self._paths[file]} is damaged: {why}. `ecavatar verify` tells more; copy the release again."
        )


def _bytes_kept(values: np.ndarray | list) -> int:
    """Bytes of an array or of pictures; texts and single numbers are too little to count."""
    if isinstance(values, np.ndarray):
        return values.nbytes
    return sum(len(value["bytes"]) for value in values) if isinstance(values[0], dict) else 0


def _decoded(column: Column, table: pa.Table, constants: Mapping[str, str]) -> tuple[str, np.ndarray | list]:
    """Name and values of a column in an item: an array for vectors and meshes, a list of Python values for the rest."""
    if column.name in constants:
        return column.name, [constants[column.name]] * table.num_rows
    chunks = table[column.name]
    values = chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()
    if column.kind == "image":
        return column.name, values.to_pylist()
    if column.kind == "string" and values.null_count:
        values = values.fill_null("")
    for _ in column.shape:
        values = values.flatten()
    array = values.to_numpy(zero_copy_only=False)  # a null number becomes NaN
    if not column.shape:
        return column.name, array.tolist()
    array = array.reshape(table.num_rows, *column.shape)
    return (_METRES, from_steps(array)) if column.name == _STEPS else (column.name, array)
