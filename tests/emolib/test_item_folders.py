"""Laws of the folder-per-item layout: nothing is lost on the way there and back."""

import numpy as np
import pytest

from ecavatar.corpora.emolib_zip import AuthorsEmolib, read_items
from ecavatar.emolib.dataset import read_emolib
from ecavatar.emolib.item_folders import export_item_folders
from ecavatar.emolib.meshes import expressive_vertices
from ecavatar.errors import BasisError, DataError
from ecavatar.face.model import FaceAsset, FaceModel
from tests.fabricate_emolib import changed_column, fabricated_faces, write_release


@pytest.fixture
def faces(small_face):
    table = fabricated_faces(small_face, 20)
    return changed_column(table, "arousal", [float("nan"), *table["arousal"].to_pylist()[1:]])


@pytest.fixture
def release(tmp_path, small_face, faces):
    return write_release(tmp_path / "release", small_face, faces)


def test_the_round_trip_keeps_labels_coefficients_and_meshes(tmp_path, release, small_face, faces):
    out = tmp_path / "items"
    assert export_item_folders(release, out, small_face) == 20
    sizes = {"n_shape": small_face.n_shape, "n_expression": small_face.n_expression}
    imported = read_items(out, **sizes)
    assert imported.rejects == []
    stored = read_emolib(release)
    for name in ("item_id", "source_id", "split", "emotion", "level", "shape", "expression", "jaw_pose"):
        assert imported.table[name].to_pylist() == stored[name].to_pylist(), name
    for name in ("valence", "arousal"):
        np.testing.assert_array_equal(imported.table[name].to_numpy().astype(np.float32), stored[name].to_numpy())
    expected = dict(zip(stored["item_id"].to_pylist(), expressive_vertices(FaceModel(small_face), stored), strict=True))
    with AuthorsEmolib(out) as library:
        items = list(library.items())
        assert {item.item_id for item in items} == set(expected)
        for item in items:
            vertices, triangles = library.mesh(item)
            assert np.abs(vertices - expected[item.item_id]).max() <= 1e-6
            np.testing.assert_array_equal(triangles, small_face.faces)


def test_folders_are_named_by_category_level_and_item(tmp_path, release, small_face):
    out = tmp_path / "items"
    export_item_folders(release, out, small_face)
    folders = sorted(path.parent.relative_to(out).as_posix() for path in out.rglob("mesh.obj"))
    rows = read_emolib(release).select(["emotion", "level", "item_id"]).to_pylist()
    assert folders == sorted(f"{row['emotion']}/level{row['level']}/{row['item_id']}" for row in rows)
    for folder in folders:
        names = sorted(path.name for path in (out / folder).iterdir())
        assert names == ["exp.npy", "jaw.npy", "label.json", "mesh.obj", "shape.npy"]


def test_imported_items_become_a_release_again(tmp_path, release, small_face):
    """What the folders cannot say is unknown in the release, and nothing else differs."""
    export_item_folders(release, tmp_path / "items", small_face)
    sizes = {"n_shape": small_face.n_shape, "n_expression": small_face.n_expression}
    table = read_items(tmp_path / "items", **sizes).table
    again = read_emolib(write_release(tmp_path / "again", small_face, table))
    stored = read_emolib(release)
    for name in ("item_id", "emotion", "emotion_code", "level", "shape", "expression", "jaw_pose", "basis"):
        assert again[name].to_pylist() == stored[name].to_pylist(), name
    assert np.isnan(again["residual_mm"].to_numpy()).all()
    assert again["image_height_px"].null_count == again.num_rows


def test_a_model_of_another_basis_is_refused(tmp_path, release, small_face):
    fields = {name: getattr(small_face, name) for name in FaceAsset.__dataclass_fields__}
    other = FaceAsset(**{**fields, "basis": "other"})
    with pytest.raises(BasisError, match=r"'small'.*'other'"):
        export_item_folders(release, tmp_path / "items", other)
    assert not (tmp_path / "items").exists()


def test_an_existing_folder_is_left_alone(tmp_path, release, small_face):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="exists"):
        export_item_folders(release, tmp_path / "mine", small_face)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def with_id(table, name):
    return changed_column(table, "item_id", [*table["item_id"].to_pylist()[:-1], name])


@pytest.mark.parametrize("name", ["../../outside", "/outside", "happy/level2/0001", "100%2F"])
def test_an_item_id_that_is_a_path_is_one_folder_and_comes_back(tmp_path, small_face, name):
    release = write_release(tmp_path / "release", small_face, with_id(fabricated_faces(small_face, 3), name))
    assert export_item_folders(release, tmp_path / "items", small_face) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items", "release"]
    assert {len(path.relative_to(tmp_path / "items").parts) for path in tmp_path.rglob("mesh.obj")} == {4}
    sizes = {"n_shape": small_face.n_shape, "n_expression": small_face.n_expression}
    assert name in read_items(tmp_path / "items", **sizes).table["item_id"].to_pylist()


@pytest.mark.parametrize("name", ["..", ".", ""])
def test_an_item_id_cannot_lead_out_and_nothing_half_written_stays(tmp_path, small_face, name):
    release = write_release(tmp_path / "hostile", small_face, with_id(fabricated_faces(small_face, 3), name))
    with pytest.raises(DataError, match="cannot name a folder"):
        export_item_folders(release, tmp_path / "items", small_face)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile"]
