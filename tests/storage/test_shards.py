"""Laws of shards, rejects and manifests."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecavatar.config import Section
from ecavatar.errors import AssetMissingError, DataError
from ecavatar.storage.manifest import verify_manifest, write_manifest
from ecavatar.storage.rejects import Reject, check_rejects, read_rejects, write_rejects
from ecavatar.storage.shards import input_hash, list_shards, read_shards, shard_path, split_rows, write_shard


class Example(Section):
    size: int


def write_all(directory, count=3, stamp="h"):
    for index in range(count):
        write_shard(shard_path(directory, index, count), stamp, lambda index=index: pa.table({"n": [index]}))


def test_a_finished_shard_is_not_made_again(tmp_path):
    path = shard_path(tmp_path, 0, 1)
    assert write_shard(path, "one", lambda: pa.table({"n": [1]}), {"fps": "30"})
    before = path.read_bytes()
    assert not write_shard(path, "one", lambda: pytest.fail("made again"))
    assert path.read_bytes() == before
    assert write_shard(path, "two", lambda: pa.table({"n": [2]}))
    assert read_shards(tmp_path)["n"].to_pylist() == [2]


def test_a_damaged_shard_is_made_again(tmp_path):
    path = shard_path(tmp_path, 0, 1)
    path.write_bytes(b"damaged")
    assert write_shard(path, "one", lambda: pa.table({"n": [1]}))


def test_a_failing_shard_leaves_nothing(tmp_path):
    def fail():
        raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        write_shard(shard_path(tmp_path, 0, 1), "one", fail)
    assert list(tmp_path.iterdir()) == []


def test_shards_are_read_in_order_whatever_the_order_of_writing(tmp_path):
    for index in (2, 0, 1):
        write_shard(shard_path(tmp_path, index, 3), "h", lambda index=index: pa.table({"n": [index]}))
    assert shard_path(tmp_path, 0, 3).name == "part-00000-of-00003.parquet"
    assert read_shards(tmp_path, ["n"])["n"].to_pylist() == [0, 1, 2]


def test_incomplete_or_mixed_datasets_are_refused(tmp_path):
    with pytest.raises(AssetMissingError, match="no shards"):
        read_shards(tmp_path / "none")
    write_all(tmp_path)
    shard_path(tmp_path, 1, 3).unlink()
    with pytest.raises(DataError, match="lacks 1 of 3 parts, first 1"):
        list_shards(tmp_path)
    write_all(tmp_path, count=2)
    with pytest.raises(DataError, match="mixes parts"):
        list_shards(tmp_path)


def test_the_hash_follows_content_and_not_names(tmp_path):
    (tmp_path / "a").write_text("same")
    (tmp_path / "b").write_text("same")
    assert input_hash(tmp_path / "a") == input_hash(tmp_path / "b")
    (tmp_path / "b").write_text("other")
    assert input_hash(tmp_path / "a") != input_hash(tmp_path / "b")
    with pytest.raises(AssetMissingError):
        input_hash(tmp_path / "none")


def test_the_hash_of_a_directory_follows_names_and_contents_in_it(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("1")
    assert input_hash(tmp_path / "x") == input_hash(tmp_path / "y")
    (tmp_path / "y" / "file").rename(tmp_path / "y" / "renamed")
    assert input_hash(tmp_path / "x") != input_hash(tmp_path / "y")


def test_the_hash_tells_values_apart_that_look_alike():
    hashes = [
        input_hash(1),
        input_hash("1"),
        input_hash([1]),
        input_hash(1, None),
        input_hash({"a": 1}),
        input_hash([["a", 1]]),
        input_hash(b"1"),
        input_hash(np.array([1])),
        input_hash(np.array([1], dtype=np.int8)),
        input_hash(np.array([[1]])),
        input_hash(Example(size=1)),
        input_hash(Example(size=2)),
    ]
    assert len(set(hashes)) == len(hashes)
    assert input_hash({"b": 1, "a": 2}) == input_hash({"a": 2, "b": 1})
    with pytest.raises(TypeError, match="cannot hash"):
        input_hash(object())


@given(st.integers(0, 500), st.integers(1, 20))
def test_ranges_cover_all_rows_once_and_evenly(n_rows, n_shards):
    ranges = split_rows(n_rows, n_shards)
    assert [row for part in ranges for row in part] == list(range(n_rows))
    assert 1 <= len(ranges) <= n_shards
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


def rejects(n):
    return [Reject(f"item{i}", "stage", "no face" if i % 2 else "corrupt", "seen") for i in range(n)]


def test_rejects_have_the_same_bytes_in_any_order(tmp_path):
    write_rejects(tmp_path / "a.parquet", rejects(9))
    write_rejects(tmp_path / "b.parquet", rejects(9)[::-1])
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert list(read_rejects(tmp_path / "a.parquet").columns) == ["item_id", "stage", "reason", "detail"]
    write_rejects(tmp_path / "none.parquet", [])
    assert len(read_rejects(tmp_path / "none.parquet")) == 0


def test_a_stage_stops_above_its_share_of_rejects_and_not_at_it():
    check_rejects(rejects(3), total=10, max_share=0.3, stage="stage")
    with pytest.raises(DataError, match=r"4 of 10 records.*0\.3:\n  2 x corrupt\n  2 x no face"):
        check_rejects(rejects(4), total=10, max_share=0.3, stage="stage")


def test_a_manifest_finds_every_kind_of_change(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("a", "b", "data/c"):
        (tmp_path / name).write_text(name)
    write_manifest(tmp_path, {"schema_version": 1})
    assert verify_manifest(tmp_path) == []
    (tmp_path / "a").unlink()
    (tmp_path / "b").write_text("B")
    (tmp_path / "data" / "c").write_text("something longer")
    (tmp_path / "extra").write_text("")
    problems = verify_manifest(tmp_path)
    assert [p.split(":")[0] for p in problems] == ["a", "b", "data/c", "extra"]
    assert "missing" in problems[0]
    assert "checksum" in problems[1]
    assert "16 bytes" in problems[2]
    assert "not listed" in problems[3]


def test_a_manifest_cannot_point_outside(tmp_path):
    (tmp_path / "MANIFEST.json").write_text('{"files": [{"path": "../x", "bytes": 1, "sha256": ""}]}')
    assert "must be relative" in verify_manifest(tmp_path)[0]
    assert "not found" in verify_manifest(tmp_path / "none")[0]
