"""Materialised VOCATeeth: the same heads in other programs' formats, whole or not at all."""

import errno
import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ecavatar.errors import DataError
from ecavatar.storage.files import read_json
from ecavatar.storage.parquet import mesh_array, read_row_group
from ecavatar.storage.shards import read_shards
from ecavatar.vocateeth import materialise as module
from ecavatar.vocateeth.materialise import materialise, materialised_bytes

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def arrays(tmp_path_factory, teeth):
    out = tmp_path_factory.mktemp("arrays") / "out"
    assert materialise(teeth.directory, out, "npy") == sum(clip.frames for clip in teeth.clips)
    return out


def test_arrays_hold_every_head_to_the_bit(arrays, teeth):
    assert sorted(path.stem for path in (arrays / "vertices_npy").iterdir()) == sorted(c.clip_id for c in teeth.clips)
    for clip in teeth.clips:
        stored = np.load(arrays / "vertices_npy" / f"{clip.clip_id}.npy", allow_pickle=False)
        assert stored.dtype == np.float32
        assert stored.ndim == 2
        assert stored.tobytes() == teeth.heads(clip).tobytes()
        samples, rate = soundfile.read(arrays / "wav" / f"{clip.clip_id}.wav", dtype="int16")
        assert rate == 22000
        np.testing.assert_array_equal(samples, teeth.samples(clip)[0])
    size = sum(path.stat().st_size for path in (arrays / "vertices_npy").iterdir())
    assert size == materialised_bytes(teeth, teeth.clips) + 128 * len(teeth.clips)


def test_templates_are_at_rest_and_topology_and_frame_rate_are_told(arrays, teeth):
    templates = np.load(arrays / "templates.npz", allow_pickle=False)
    for subject, face in teeth.templates().items():
        np.testing.assert_array_equal(templates[subject][: teeth.n_vertices], face)
        closed = teeth.fit(subject).closed(teeth.mouth)
        np.testing.assert_allclose(templates[subject][teeth.n_vertices :], closed, atol=1e-6)
    info = json.loads((arrays / "info.json").read_text())
    assert (info["topology"], info["fps"]) == (f"{teeth.topology}+mouth", 30)
    assert (arrays / "topology.npz").read_bytes() == (teeth.directory / "topology.npz").read_bytes()


def test_parquet_holds_the_same_heads_one_row_group_a_clip(tmp_path, teeth):
    materialise(teeth.directory, tmp_path / "out", "parquet", ["train", "val"])
    clips = [*teeth.of_split("train"), *teeth.of_split("val")]
    table = read_shards(tmp_path / "out" / "data", ["clip_id", "frame", "angle", "vertices"])
    assert table.num_rows == sum(clip.frames for clip in clips)
    heads, names = mesh_array(table["vertices"]), np.array(table["clip_id"].to_pylist())
    for clip in clips:
        np.testing.assert_array_equal(heads[names == clip.clip_id], teeth.heads(clip))
        np.testing.assert_array_equal(table["angle"].to_numpy()[names == clip.clip_id], teeth.angles(clip))
    first = sorted((tmp_path / "out" / "data").iterdir())[0]
    assert len(set(read_row_group(first, 0, ["clip_id"])["clip_id"].to_pylist())) == 1


def test_the_same_dataset_gives_the_same_bytes(tmp_path, arrays, teeth):
    materialise(teeth.directory, tmp_path / "again", "npy")
    for path in (path for path in arrays.rglob("*") if path.is_file()):
        assert (tmp_path / "again" / path.relative_to(arrays)).read_bytes() == path.read_bytes()


def test_nothing_is_written_where_the_disk_is_too_small(monkeypatch, tmp_path, teeth):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _path: Usage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(DataError, match="free"):
        materialise(teeth.directory, tmp_path / "out", "npy")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(monkeypatch, tmp_path, teeth):
    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for format in ("npy", "parquet"):
        with pytest.raises(DataError, match="no space left"):
            materialise(teeth.directory, tmp_path / "out", format)
        assert not list(tmp_path.iterdir())


def test_a_split_named_twice_is_written_once_and_no_split_is_refused(tmp_path, teeth):
    frames = materialise(teeth.directory, tmp_path / "out", "npy", ["train", "train"])
    clips = teeth.of_split("train")
    assert frames == sum(clip.frames for clip in clips)
    assert [clip["clip_id"] for clip in read_json(tmp_path / "out" / "info.json")["clips"]] == [
        clip.clip_id for clip in clips
    ]
    with pytest.raises(DataError, match="None means all"):
        materialise(teeth.directory, tmp_path / "none", "npy", [])


def test_a_damaged_part_leaves_nothing_and_an_earlier_folder_is_kept(tmp_path, teeth):
    shutil.copytree(teeth.directory, tmp_path / "teeth")
    part = sorted((tmp_path / "teeth" / "data" / "faces").iterdir())[2]
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(DataError, match=part.name):
        materialise(tmp_path / "teeth", tmp_path / "out", "npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["teeth"]
    with pytest.raises(DataError, match="exists"):
        materialise(tmp_path / "teeth", tmp_path, "npy")
    with pytest.raises(DataError, match="obj"):
        materialise(teeth.directory, tmp_path / "out", "obj")
