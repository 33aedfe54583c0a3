"""Laws of `EmolibItems`."""

import multiprocessing
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from torch.utils.data import DataLoader

from ecavatar.emolib.dataset import read_emolib
from ecavatar.emolib.loader import EmolibItems
from ecavatar.emolib.quantisation import MAX_ERROR_M
from ecavatar.emolib.schema import OPTIONAL, read_info
from ecavatar.emolib.verify import verify
from ecavatar.errors import AssetMissingError, DataError
from ecavatar.storage.parquet import mesh_array, read_table, vector_array


def in_stored_order(release, config):
    info = read_info(release)
    return [row for split in info.rows for path in info.files(config, split)
            for row in read_table(release / path).to_pylist()]  # fmt: skip


def test_items_are_the_rows_in_stored_order(full_release):
    items, rows = EmolibItems(full_release), in_stored_order(full_release, "coefficients")
    assert len(items) == len(rows) == 40
    for item, row in zip(items, rows, strict=True):
        assert list(item) == list(row)
        for name, value in item.items():
            if isinstance(value, np.ndarray):
                assert value.dtype == np.float32
            assert np.array_equal(value, row[name], equal_nan=isinstance(value, float)), name


def test_random_items_are_those_of_the_walk(full_release):
    walked = list(EmolibItems(full_release))
    items = EmolibItems(full_release)
    for index in np.random.default_rng(0).integers(-40, 40, 200).tolist():
        np.testing.assert_array_equal(items[index]["shape"], walked[index]["shape"])
        assert items[index]["item_id"] == walked[index]["item_id"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_is_its_rows_alone(full_release, split):
    items = EmolibItems(full_release, split=split)
    expected = [row["item_id"] for row in in_stored_order(full_release, "coefficients") if row["split"] == split]
    assert [item["item_id"] for item in items] == expected


def test_meshes_come_in_metres_from_both_configs(full_release, int16_release):
    exact, coarse = EmolibItems(full_release, "vertices"), EmolibItems(int16_release, "vertices_int16")
    truth = mesh_array(read_emolib(full_release, "vertices")["vertices_m"])
    ids = read_emolib(full_release, "vertices")["item_id"].to_pylist()
    for index in range(40):
        a, b = exact[index], coarse[index]
        assert a["item_id"] == b["item_id"]
        np.testing.assert_array_equal(a["vertices_m"], truth[ids.index(a["item_id"])])
        assert b["vertices_m"].dtype == np.float32
        assert np.abs(a["vertices_m"] - b["vertices_m"]).max() <= MAX_ERROR_M + 1e-7


def test_pictures_come_as_their_bytes(full_release, faces, picture_of):
    records = {record["item_id"]: record for record in faces.to_pylist()}
    for item in EmolibItems(full_release, "images", split="val"):
        assert item["image"]["bytes"] == picture_of(records[item["item_id"]])


def test_unknown_numbers_are_nan(full_release):
    unknown = [np.isnan(item["residual_mm"]) for item in EmolibItems(full_release)]
    assert sum(unknown) == 8


def test_batches_of_faces_of_which_little_is_known(write, faces, tmp_path):
    unknown = {"alignment_is_converged": 40, "perceptual_hash": 39, "image_height_px": 40}
    for name, count in unknown.items():
        values = [*[None] * count, *faces[name].to_pylist()[count:]]
        faces = faces.set_column(faces.column_names.index(name), name, pa.array(values, faces.schema.field(name).type))
    info = write(tmp_path / "emolib", faces, backend="imported")
    assert {"alignment_is_converged"} == set(OPTIONAL) - {"light"} - {c.name for c in info.columns["coefficients"]}
    hashes = [text for batch in DataLoader(EmolibItems(tmp_path / "emolib"), batch_size=7)
              for text in batch["perceptual_hash"]]  # fmt: skip
    assert sorted(map(len, hashes)) == [0] * 39 + [64]
    assert verify(tmp_path / "emolib") == []


def test_writing_into_an_item_changes_nothing(full_release):
    items = EmolibItems(full_release)
    before = items[3]["shape"].copy()
    items[3]["shape"][:] = 0
    np.testing.assert_array_equal(items[3]["shape"], before)


def test_index_errors_end_iteration_and_are_told(full_release):
    items = EmolibItems(full_release)
    for index in (40, -41, 10**9):
        with pytest.raises(IndexError):
            items[index]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_see_what_the_parent_sees(full_release, method):
    items = EmolibItems(full_release)
    first = items[0]["item_id"]  # opened before the workers start
    loader = DataLoader(items, batch_size=7, num_workers=2, multiprocessing_context=method)
    seen = [name for batch in loader for name in batch["item_id"]]
    shapes = np.concatenate([batch["shape"].numpy() for batch in loader])
    assert seen[0] == first
    assert seen == [item["item_id"] for item in items]
    np.testing.assert_array_equal(shapes, [item["shape"] for item in items])


def read_in_child(items, queue):
    queue.put([items[index]["item_id"] for index in (39, 0, 20)])


def test_a_fork_opens_its_own_files(full_release):
    items = EmolibItems(full_release)
    expected = [items[index]["item_id"] for index in (39, 0, 20)]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=read_in_child, args=(items, queue))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join()


def test_pickled_items_are_small_and_alike(full_release):
    items = EmolibItems(full_release)
    list(items)
    data = pickle.dumps(items)
    assert len(data) < 20_000  # neither rows nor open files
    assert pickle.loads(data)[5]["item_id"] == items[5]["item_id"]


def test_what_is_kept_stays_below_its_limit(full_release, monkeypatch):
    monkeypatch.setattr("ecavatar.emolib.loader._CACHE_BYTES", 100_000)
    items, expected = EmolibItems(full_release, "vertices"), EmolibItems(full_release, "vertices")
    for index in np.random.default_rng(1).permutation(40).tolist():
        np.testing.assert_array_equal(items[index]["vertices_m"], expected[index]["vertices_m"])
        assert items._kept == sum(size for size, _ in items._cache.values())
        assert items._kept <= 100_000


def test_coefficients_are_read_without_torch_or_a_face_model(full_release):
    code = (
        "import sys\nfrom ecavatar.emolib.loader import EmolibItems\n"
        f"print(EmolibItems({str(full_release)!r})[7]['item_id'], 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [EmolibItems(full_release)[7]["item_id"], "False"]


def test_wrong_requests_name_what_there_is(full_release, tmp_path):
    with pytest.raises(AssetMissingError):
        EmolibItems(tmp_path)
    with pytest.raises(DataError, match="coefficients, vertices, images"):
        EmolibItems(full_release, "vertices_int16")
    with pytest.raises(DataError, match="train, val"):
        EmolibItems(full_release, split="test")


def test_damaged_and_missing_files_are_told_with_their_path(write, faces, tmp_path):
    write(tmp_path / "emolib", faces)
    path = tmp_path / "emolib" / "data" / "coefficients" / "val-00000-of-00001.parquet"
    items = EmolibItems(tmp_path / "emolib")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=path.name):
        items[39]
    assert items[0]["split"] == "train"
    path.unlink()
    with pytest.raises(AssetMissingError, match=path.name):
        EmolibItems(tmp_path / "emolib")


def test_batches_hold_tensors_of_every_column(full_release):
    batch = next(iter(DataLoader(EmolibItems(full_release, split="train"), batch_size=4)))
    assert batch["shape"].shape == (4, 6)
    assert batch["emotion_code"].shape == batch["alignment_is_converged"].shape == (4,)
    shapes = vector_array(read_emolib(full_release)["shape"])
    assert {tuple(row) for row in batch["shape"].numpy().tolist()} <= {tuple(row) for row in shapes.tolist()}
