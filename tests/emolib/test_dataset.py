"""Laws of how a release is written: meshes, pictures, splits, bytes, memory, full disks."""

import dataclasses
import errno
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ecavatar.emolib.dataset import read_emolib
from ecavatar.emolib.quantisation import MAX_ERROR_M, from_steps, to_steps
from ecavatar.emolib.schema import EmolibInfo, read_info
from ecavatar.emolib.stats import release_stats
from ecavatar.emolib.topology import read_topology
from ecavatar.emolib.verify import verify
from ecavatar.errors import BasisError, DataError, SplitLeakError
from ecavatar.face.model import FaceModel
from ecavatar.storage.files import read_json
from ecavatar.storage.parquet import mesh_array, read_table, vector_array, write_table

from .conftest import export_settings, invented_faces


def replaced(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def meshes_of(face, table):
    arrays = [torch.tensor(vector_array(table[name])) for name in ("shape", "expression", "jaw_pose")]
    return FaceModel(face)(*arrays).numpy()


def test_rows_are_sorted_by_split_and_item_and_cut_into_files(full_release, faces):
    info = read_info(full_release)
    assert info.rows == {"train": 35, "val": 5}
    assert list(info.files("coefficients", "train").values()) == [13, 13, 9]
    for config in info.columns:
        for split in info.rows:
            tables = [read_table(full_release / path) for path in info.files(config, split)]
            assert [table.num_rows for table in tables] == list(info.files(config, split).values())
            ids = pa.concat_tables(tables)["item_id"].to_pylist()
            assert ids == sorted(i for i, s in zip(*faces.select(["item_id", "split"]).to_pydict().values(),
                                                   strict=True) if s == split)  # fmt: skip
    assert sorted(path.relative_to(full_release) for path in (full_release / "data").rglob("*.parquet")) == sorted(
        info.data_files()
    )


def test_info_survives_its_own_json(full_release):
    info = read_info(full_release)
    assert EmolibInfo.from_json(read_json(full_release / "meta" / "info.json")) == info


def test_stored_meshes_are_those_of_the_face_model(full_release, small_face):
    meshes = mesh_array(read_emolib(full_release, "vertices")["vertices_m"])
    expected = meshes_of(small_face, read_emolib(full_release))
    assert meshes.dtype == np.float32
    np.testing.assert_allclose(meshes, expected, rtol=0, atol=1e-7)


def test_quantised_meshes_are_within_five_micrometres(int16_release, small_face):
    column = read_emolib(int16_release, "vertices_int16")["vertices_10um"].combine_chunks()
    assert column.type.value_type.value_type == pa.int16()
    meshes = from_steps(column.flatten().flatten().to_numpy()).reshape(40, -1, 3)
    expected = meshes_of(small_face, read_emolib(int16_release))
    worst = np.abs(meshes.astype(np.float64) - expected).max()
    assert MAX_ERROR_M == 5e-6
    assert 4e-6 < worst <= MAX_ERROR_M + 1e-7  # float32 itself is 1.5e-8 off here


def test_steps_are_exact_on_whole_steps_and_refuse_what_does_not_fit():
    steps = np.array([-32767, -1, 0, 1, 32767], np.int16)
    np.testing.assert_array_equal(to_steps(from_steps(steps)), steps)
    for bad in (0.32768, -0.32768, np.nan, np.inf):
        with pytest.raises(DataError, match="int16"):
            to_steps(np.array([0.0, bad]))


def test_a_mesh_too_large_for_int16_leaves_no_release(write, faces, small_face, tmp_path):
    giant = dataclasses.replace(small_face, template=small_face.template * 10)
    with pytest.raises(DataError, match="float32"):
        write(tmp_path / "emolib", faces, export_settings("int16"), asset=giant)
    assert list(tmp_path.iterdir()) == []


def test_float_columns_are_byte_stream_split_and_compressed(full_release):
    for config, name, codec in (("vertices", "vertices_m", "ZSTD"), ("coefficients", "shape", "LZ4")):
        group = pq.ParquetFile(next((full_release / "data" / config).iterdir())).metadata.row_group(0)
        column = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema.startswith(name))
        assert column.compression == codec
        assert "BYTE_STREAM_SPLIT" in column.encodings
        assert not column.has_dictionary_page


def test_images_need_their_reader_and_keep_their_bytes(write, faces, full_release, picture_of, tmp_path):
    with pytest.raises(DataError, match="read_image_bytes"):
        write(tmp_path / "emolib", faces, export_settings(images=True))
    rows = read_emolib(full_release, "images").to_pylist()
    assert [row["image"]["bytes"] for row in rows] == [picture_of(record) for record in faces.to_pylist()]
    assert {row["image"]["path"] for row in rows} == {f"{name}.jpg" for name in faces["item_id"].to_pylist()}


def test_only_free_copies_may_be_passed_on(write, faces, full_release, int16_release, picture_of, tmp_path, small_face):
    free = dataclasses.replace(small_face, basis="open-head")
    assert read_info(full_release).holds_licensed_meshes  # of the invented basis "small", which nobody declared free
    assert not read_info(full_release).holds_photographs
    for number, (settings, source, asset, is_free) in enumerate(
        (
            (export_settings(), "affectnet", small_face, True),
            (export_settings("float32"), "affectnet", free, True),
            (export_settings("float32"), "affectnet", small_face, False),
            (export_settings("float32", images=True), "sample", free, True),
            (export_settings(images=True), "affectnet", free, False),
        )
    ):
        place = tmp_path / str(number)
        info = write(place, faces, settings, source=source, asset=asset, read_image_bytes=picture_of)
        assert info.is_redistributable == is_free
        assert ("**This copy holds" in (place / "README.md").read_text()) == (not is_free)


def test_splits_that_share_a_photograph_are_refused(write, faces, tmp_path):
    hashes = faces["perceptual_hash"].to_pylist()
    near = bytearray.fromhex(hashes[1])  # item 1 is of train, item 0 of val
    near[3] ^= 0b1011_0101
    for name, values, message in (
        ("source_id", ["1/1.jpg", *faces["source_id"].to_pylist()[1:]], "same photograph"),
        ("content_sha256", [faces["content_sha256"][1].as_py(), *faces["content_sha256"].to_pylist()[1:]], "bytes"),
        ("perceptual_hash", [near.hex(), *hashes[1:]], "hashes within 8 bits"),
    ):
        with pytest.raises(SplitLeakError, match=rf"{message}.*item_000001 and item_000000"):
            write(tmp_path / "leak", replaced(faces, name, values), near_duplicate_bits=8)
    assert list(tmp_path.iterdir()) == []
    other = replaced(faces, "perceptual_hash", [near.hex(), *hashes[1:]])
    write(tmp_path / "strict", other, near_duplicate_bits=4)  # five bits differ: two photographs under this rule
    within = replaced(faces, "perceptual_hash", [*hashes[:2], hashes[1], *hashes[3:]])
    write(tmp_path / "within", within)  # both of train: not this check's concern


def test_unknown_hashes_leak_nothing(write, faces, tmp_path):
    write(tmp_path / "empty", replaced(faces, "perceptual_hash", [""] * 40))
    write(tmp_path / "null", replaced(faces, "perceptual_hash", pa.nulls(40, pa.string())))
    write(tmp_path / "without", faces.drop_columns(["perceptual_hash", "content_sha256"]))
    assert "perceptual_hash" not in read_emolib(tmp_path / "null").column_names  # of none is it known
    assert "perceptual_hash" not in read_emolib(tmp_path / "without").column_names
    assert all(verify(tmp_path / name) == [] for name in ("empty", "null", "without"))


def test_light_is_kept_where_it_is_known(write, faces, tmp_path):
    light = np.random.default_rng(3).normal(size=(40, 27)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(light.ravel()), 27)
    write(tmp_path / "emolib", faces.append_column("light", column))
    np.testing.assert_array_equal(vector_array(read_emolib(tmp_path / "emolib")["light"]), light)


def test_faces_of_another_model_are_refused(write, faces, small_face, tmp_path):
    write_table(tmp_path / "part.parquet", faces, {"basis": "flame2020"})
    with pytest.raises(BasisError, match="flame2020"):
        write(tmp_path / "emolib", [tmp_path / "part.parquet"])
    narrow = dataclasses.replace(small_face, shape_basis=small_face.shape_basis[..., :5])
    with pytest.raises(BasisError, match="shape"):
        write(tmp_path / "emolib", faces, asset=narrow)


@pytest.mark.parametrize("vertices", ["float32", "int16"])
def test_equal_faces_give_equal_bytes_however_they_are_cut(write, faces, vertices, tmp_path):
    settings, manifests = export_settings(vertices, rows_per_file=13), []
    for name, order, pieces in (("one", np.arange(40), 1), ("five", np.random.default_rng(4).permutation(40), 5)):
        paths = []
        for number, rows in enumerate(np.array_split(order, pieces)):
            paths.append(tmp_path / f"{name}-{number}.parquet")
            write_table(paths[-1], faces.take(rows), {"input_hash": str(number)}, row_group_size=3)
        write(tmp_path / name, paths, settings)
        manifests.append((tmp_path / name / "MANIFEST.json").read_bytes())
    write(tmp_path / "table", faces, settings)
    assert manifests[0] == manifests[1] == (tmp_path / "table" / "MANIFEST.json").read_bytes()


def test_statistics_are_of_the_training_rows_alone(full_release, faces):
    stats = read_json(full_release / "meta" / "stats.json")
    train = faces.filter(pa.array([split == "train" for split in faces["split"].to_pylist()]))
    assert (stats["split"], stats["rows"]) == ("train", 35)
    for name in ("shape", "expression", "translation_px"):
        values = vector_array(train[name]).astype(np.float64)
        for what, expected in (("mean", values.mean(0)), ("std", values.std(0)), ("min", values.min(0)),
                               ("max", values.max(0))):  # fmt: skip
            np.testing.assert_allclose(stats["columns"][name][what], expected, rtol=1e-7, atol=1e-9)
    residual = train["residual_mm"].to_numpy()
    assert stats["columns"]["residual_mm"]["count"] == int((~np.isnan(residual)).sum()) < 35
    assert stats["columns"]["residual_mm"]["mean"] == 1.0
    assert not {"level", "emotion_code", "alignment_is_converged"} & set(stats["columns"])


def test_statistics_of_no_training_rows_are_unknown(write, faces, tmp_path):
    info = write(tmp_path / "emolib", replaced(faces, "split", ["val"] * 40))
    stats = release_stats(tmp_path / "emolib", info)
    assert stats["rows"] == 0
    assert stats["columns"]["arousal"] == {"mean": None, "std": None, "min": None, "max": None, "count": 0}
    assert verify(tmp_path / "emolib") == []


def test_topology_holds_nothing_licensed(full_release, small_face, write, faces, tmp_path):
    arrays = read_topology(full_release / "meta" / "topology.npz")
    assert set(arrays) == {"faces", *(f"region:{name}" for name in small_face.regions)}
    np.testing.assert_array_equal(arrays["faces"], small_face.faces)
    write(tmp_path / "free", faces, asset=dataclasses.replace(small_face, topology="open-head"))
    assert {"uv", "uv_faces"} <= set(read_topology(tmp_path / "free" / "meta" / "topology.npz"))


def test_a_full_disk_is_told_and_the_earlier_release_stays(write, faces, tmp_path, monkeypatch):
    write(tmp_path / "emolib", faces.slice(0, 20))
    before = (tmp_path / "emolib" / "MANIFEST.json").read_bytes()
    calls, real = [], pq.ParquetWriter.write_table

    def full_on_the_third_call(self, *args, **more):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, *args, **more)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full_on_the_third_call)
    with pytest.raises(DataError, match=rf"no space left.*{tmp_path}.*Free space"):
        write(tmp_path / "emolib", faces, export_settings("float32", rows_per_file=13))
    assert len(calls) == 3
    assert (tmp_path / "emolib" / "MANIFEST.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["emolib"]
    assert verify(tmp_path / "emolib") == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is Linux's")
def test_arrow_tells_a_full_disk_by_its_number(faces):
    with pytest.raises(OSError, match="No space") as told, pa.OSFile("/dev/full", "wb") as full:
        pq.write_table(pa.concat_tables([faces] * 50), full)  # by its name, pyarrow would delete the device
    assert told.value.errno == errno.ENOSPC


_PEAK = """
import re, sys
from pathlib import Path
from ecavatar.config import ExportSettings
from ecavatar.emolib.dataset import write_emolib
from ecavatar.face.model import FaceAsset
asset = FaceAsset.load(Path(sys.argv[1]))
settings = ExportSettings(vertices="float32", images=False, rows_per_file=4096)
parts = sorted(Path(sys.argv[2]).iterdir())
write_emolib(Path(sys.argv[3]), parts, asset=asset, backend="landmarks", settings=settings)
print(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_items(small_face, tmp_path):
    small_face.save(tmp_path / "face.npz")
    peaks = {}
    for count in (2_000, 20_000):
        rows = invented_faces(count)
        for part in range(10):
            piece = rows.slice(part * count // 10, count // 10)
            write_table(tmp_path / str(count) / f"{part}.parquet", piece)
        command = [sys.executable, "-c", _PEAK, str(tmp_path / "face.npz"), str(tmp_path / str(count))]
        run = subprocess.run([*command, str(tmp_path / f"release-{count}")], capture_output=True, text=True, check=True)
        peaks[count] = int(run.stdout) * 1024
    meshes = 18_000 * len(small_face.template) * 3 * 4
    assert meshes > 40e6  # what holding the meshes would have cost
    assert peaks[20_000] - peaks[2_000] < 18_000 * 200 + 16e6  # labels, and what allocators keep
