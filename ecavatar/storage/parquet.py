"""Parquet with mesh and vector columns: nested fixed-size lists of float32, which all common readers understand.

Arrow's own `fixed_shape_tensor` is not used because `datasets.load_dataset` refuses it. Float leaves are byte-stream
split and zstd-compressed, the smallest lossless choice measured; the same table gives the same bytes every time.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecavatar.errors import AssetMissingError, DataError, ShapeError
from ecavatar.storage.files import atomic_path

_ZSTD_LEVEL = 3  # level 9 was measured to gain nothing
Compression = Literal["zstd", "lz4"]
"""zstd makes the smaller files; lz4 is read twice as fast where row groups are small."""


def mesh_type(n_vertices: int) -> pa.DataType:
    """Arrow type of one mesh: fixed list [n_vertices][3] of float32."""
    return pa.list_(pa.list_(pa.float32(), 3), n_vertices)


def vector_type(n: int) -> pa.DataType:
    """Arrow type of one vector: fixed list [n] of float32."""
    return pa.list_(pa.float32(), n)


def mesh_column(array: np.ndarray) -> pa.FixedSizeListArray:
    """A column of meshes from vertices (N, V, 3), stored as float32.

    Raises:
        ShapeError: the array is not (N, V, 3) of real numbers.
    """
    _check(array, dimensions=3, what="mesh column", shape="(N, V, 3)")
    if array.shape[2] != 3:
        raise ShapeError(f"mesh column needs shape (N, V, 3), got {array.shape}.")
    points = pa.FixedSizeListArray.from_arrays(_flat(array), 3)
    return pa.FixedSizeListArray.from_arrays(points, type=mesh_type(array.shape[1]))


def vector_column(array: np.ndarray) -> pa.FixedSizeListArray:
    """A column of vectors from an array (N, K), stored as float32.

    Raises:
        ShapeError: the array is not (N, K) of real numbers, or K is 0.
    """
    _check(array, dimensions=2, what="vector column", shape="(N, K)")
    return pa.FixedSizeListArray.from_arrays(_flat(array), type=vector_type(array.shape[1]))


def mesh_array(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Vertices (N, V, 3) float32 of a mesh column; a view of Arrow's memory where the column is one chunk.

    Raises:
        ShapeError: not a mesh column, or a mesh is null.
    """
    kind = column.type
    if not (_is_fixed(kind) and _is_fixed(kind.value_type) and kind.value_type.list_size == 3):
        raise ShapeError(f"expected a mesh column (fixed list [V][3] of float), got {kind}.")
    return _numbers(column, depth=2).reshape(len(column), kind.list_size, 3)


def vector_array(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Vectors (N, K) float32 of a vector column; a view of Arrow's memory where the column is one chunk.

    Raises:
        ShapeError: not a vector column, or a vector is null.
    """
    kind = column.type
    if not (_is_fixed(kind) and pa.types.is_floating(kind.value_type)):
        raise ShapeError(f"expected a vector column (fixed list [K] of float), got {kind}.")
    return _numbers(column, depth=1).reshape(len(column), kind.list_size)


def write_table(
    path: Path,
    table: pa.Table,
    metadata: Mapping[str, str] | None = None,
    row_group_size: int = 64,
) -> None:
    """Write `table` whole or not at all; equal tables and metadata give equal bytes.

    Args:
        path: the Parquet file.
        table: any columns; the schema's own metadata is dropped (pandas' would carry library versions).
        metadata: file-level texts, stored sorted by key.
        row_group_size: rows per group; a group is the smallest piece that can be read alone.
    """
    texts = dict(sorted((metadata or {}).items()))
    with atomic_path(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata(texts), temporary, row_group_size=row_group_size, **_encoding(table.schema)
        )


@contextlib.contextmanager
def open_writer(
    path: Path, schema: pa.Schema, metadata: Mapping[str, str] | None = None, *, compression: Compression = "zstd"
) -> Iterator[pq.ParquetWriter]:
    """A writer for tables that come piece by piece, encoded as by `write_table`; the file appears whole or not at all.

    Args:
        path: the Parquet file.
        schema: of every piece given to the writer's `write_table`, which makes row groups of each piece alone.
        metadata: file-level texts, stored sorted by key.
        compression: of all columns.
    """
    described = schema.with_metadata(dict(sorted((metadata or {}).items())))
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, described, **_encoding(schema, compression)) as writer,
    ):
        yield writer


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The table in a Parquet file, or only some of its columns.

    Raises:
        AssetMissingError: the file is not there.
        DataError: not Parquet, or a column is missing.
    """
    with _open(path) as file:
        _require(file, path, columns)
        return file.read(columns=None if columns is None else list(columns))


def read_row_group(path: Path, index: int, columns: Sequence[str] | None = None) -> pa.Table:
    """One row group of a Parquet file.

    Raises:
        AssetMissingError: the file is not there.
        DataError: not Parquet, no such group, or a column is missing.
    """
    with _open(path) as file:
        _require(file, path, columns)
        if not 0 <= index < file.num_row_groups:
            raise DataError(f"{path} has {file.num_row_groups} row groups; group {index} does not exist.")
        return file.read_row_group(index, columns=None if columns is None else list(columns))


def count_row_groups(path: Path) -> int:
    """How many row groups a Parquet file has; `read_row_group` takes 0 up to one less."""
    with _open(path) as file:
        return file.num_row_groups


def table_metadata(path: Path) -> dict[str, str]:
    """The file-level texts of a Parquet file, without Arrow's own.

    Raises:
        AssetMissingError: the file is not there.
        DataError: it is not Parquet.
    """
    with _open(path) as file:
        raw = file.schema_arrow.metadata or {}
    return {key.decode(): value.decode() for key, value in raw.items() if not key.startswith(b"ARROW:")}


def _encoding(
    schema: pa.Schema, compression: Compression = "zstd"
) -> dict[str, Any]:  # Any: pyarrow's options are of many types
    """Compression of all columns, dictionaries for texts, split bytes for numbers that fill their width."""
    leaves = [leaf for field in schema for leaf in _leaves(field.name, field.type)]
    return {
        "compression": compression,
        "compression_level": _ZSTD_LEVEL if compression == "zstd" else None,
        "use_dictionary": [name for name, kind in leaves if pa.types.is_string(kind)] or False,
        "column_encoding": {name: "BYTE_STREAM_SPLIT" for name, kind in leaves if _is_split(kind)} or None,
    }


def _is_split(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_int16(kind)


def _open(path: Path) -> pq.ParquetFile:
    if not Path(path).is_file():
        raise AssetMissingError(f"{path} not found. Run the stage that writes it, or check the path.")
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}. Remove it and run its stage again.") from None


def _require(file: pq.ParquetFile, path: Path, columns: Sequence[str] | None) -> None:
    missing = [name for name in columns or () if name not in file.schema_arrow.names]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; it has {', '.join(file.schema_arrow.names)}.")


def _leaves(name: str, kind: pa.DataType) -> list[tuple[str, pa.DataType]]:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or _is_fixed(kind):
        return _leaves(f"{name}.list.element", kind.value_type)
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{name}.{field.name}", field.type)]
    return [(name, kind)]


def _is_fixed(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(kind)


def _check(array: np.ndarray, dimensions: int, what: str, shape: str) -> None:
    if array.ndim != dimensions or array.dtype.kind not in "fiu" or 0 in array.shape[1:]:
        raise ShapeError(f"{what} needs real numbers of shape {shape}, got {array.dtype} {array.shape}.")


def _flat(array: np.ndarray) -> pa.Array:
    return pa.array(np.ascontiguousarray(array, dtype=np.float32).reshape(-1))


def _numbers(column: pa.Array | pa.ChunkedArray, depth: int) -> np.ndarray:
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = []
    for chunk in chunks:
        values = chunk
        for _ in range(depth):
            _refuse_nulls(values)
            values = values.flatten()
        _refuse_nulls(values)
        parts.append(values.to_numpy(zero_copy_only=False))
    if not parts:
        return np.zeros(0, dtype=np.float32)
    joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return joined.astype(np.float32, copy=False)


def _refuse_nulls(values: pa.Array) -> None:
    if values.null_count:
        raise ShapeError(
            f"{values.null_count} of {len(values)} entries are null; filter the rows before asking for numbers."
        )
