"""Laws of the Parquet mesh and vector columns."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ecavatar.errors import AssetMissingError, DataError, ShapeError
from ecavatar.storage.parquet import (
    count_row_groups,
    mesh_array,
    mesh_column,
    mesh_type,
    read_row_group,
    read_table,
    table_metadata,
    vector_array,
    vector_column,
    vector_type,
    write_table,
)


def frames(n_frames=10, n_vertices=7, seed=0):
    return np.random.default_rng(seed).normal(size=(n_frames, n_vertices, 3)).astype(np.float32)


def table(n_frames=10):
    vertices = frames(n_frames)
    return pa.table(
        {
            "clip_id": [f"clip{i // 4}" for i in range(n_frames)],
            "frame": pa.array(range(n_frames), pa.int32()),
            "angle": np.linspace(0, 1, n_frames),
            "vertices": mesh_column(vertices),
            "shape": vector_column(vertices[:, :, 0]),
        }
    )


@settings(max_examples=30)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 4), st.integers(1, 5), st.just(3)),
        elements=st.floats(width=32, allow_nan=False),
    )
)
def test_meshes_survive_a_column_unchanged(vertices):
    column = mesh_column(vertices)
    assert column.type == mesh_type(vertices.shape[1])
    np.testing.assert_array_equal(mesh_array(column), vertices)


def test_files_round_trip_meshes_vectors_and_texts(tmp_path):
    write_table(tmp_path / "a.parquet", table(), {"topology": "open-head"}, row_group_size=4)
    back = read_table(tmp_path / "a.parquet")
    np.testing.assert_array_equal(mesh_array(back["vertices"]), frames())
    np.testing.assert_array_equal(vector_array(back["shape"]), frames()[:, :, 0])
    assert back["shape"].type == vector_type(7)
    assert table_metadata(tmp_path / "a.parquet") == {"topology": "open-head"}
    assert read_table(tmp_path / "a.parquet", ["frame"]).column_names == ["frame"]


def test_the_same_table_gives_the_same_bytes(tmp_path):
    write_table(tmp_path / "a.parquet", table(), {"a": "1", "b": "2"})
    pandas_made = table().replace_schema_metadata({"pandas": "{}"})
    write_table(tmp_path / "b.parquet", pandas_made, {"b": "2", "a": "1"})
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_float_leaves_are_byte_stream_split_and_only_texts_have_a_dictionary(tmp_path):
    write_table(tmp_path / "a.parquet", table())
    group = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0)
    encodings = {group.column(i).path_in_schema: group.column(i).encodings for i in range(group.num_columns)}
    assert {name for name, kinds in encodings.items() if "BYTE_STREAM_SPLIT" in kinds} == {
        "angle",
        "vertices.list.element.list.element",
        "shape.list.element",
    }
    assert {name for name, kinds in encodings.items() if "RLE_DICTIONARY" in kinds} == {"clip_id"}


def test_row_groups_are_read_alone(tmp_path):
    write_table(tmp_path / "a.parquet", table(10), row_group_size=4)
    assert count_row_groups(tmp_path / "a.parquet") == 3
    group = read_row_group(tmp_path / "a.parquet", 2, ["vertices"])
    np.testing.assert_array_equal(mesh_array(group["vertices"]), frames()[8:])
    with pytest.raises(DataError, match="3 row groups"):
        read_row_group(tmp_path / "a.parquet", 3)


def test_slices_and_chunks_give_their_own_rows():
    column = mesh_column(frames())
    np.testing.assert_array_equal(mesh_array(column[3:6]), frames()[3:6])
    np.testing.assert_array_equal(mesh_array(pa.chunked_array([column[:2], column[7:]])), frames()[[0, 1, 7, 8, 9]])


def test_one_chunk_is_not_copied():
    column = vector_column(frames()[:, :, 0])
    assert np.shares_memory(vector_array(column), vector_array(column))


def test_pandas_reads_the_meshes(tmp_path):
    write_table(tmp_path / "a.parquet", table())
    first = pd.read_parquet(tmp_path / "a.parquet")["vertices"][0]
    np.testing.assert_array_equal(np.stack(list(first)), frames()[0])


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 3)), np.zeros((2, 5, 2)), np.zeros((2, 0, 3)), np.zeros((2, 5, 3), object)]
)
def test_other_shapes_are_refused(wrong):
    with pytest.raises(ShapeError):
        mesh_column(wrong)


def test_nulls_and_other_columns_are_refused():
    with pytest.raises(ShapeError, match="null"):
        vector_array(pa.array([[1.0, 2.0], None], vector_type(2)))
    with pytest.raises(ShapeError, match="mesh column"):
        mesh_array(pa.array([1.0]))
    with pytest.raises(ShapeError, match="vector column"):
        vector_array(mesh_column(frames()))


def test_bad_files_are_named(tmp_path):
    with pytest.raises(AssetMissingError, match="not found"):
        read_table(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(DataError, match=r"bad\.parquet is not a readable Parquet"):
        read_table(tmp_path / "bad.parquet")
    write_table(tmp_path / "a.parquet", table())
    with pytest.raises(DataError, match="has no column colour"):
        read_table(tmp_path / "a.parquet", ["colour"])
