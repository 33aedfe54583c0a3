"""Laws of what a release may hold."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecavatar.emolib.dataset import write_emolib
from ecavatar.emolib.licence import licence_problems
from ecavatar.emolib.topology import read_topology, write_topology
from ecavatar.face.model import FaceAsset
from tests.fabricate_emolib import LEAN, fabricated_faces

MESHES = LEAN.model_copy(update={"vertices": "float32"})
STEPS = LEAN.model_copy(update={"vertices": "int16"})
PICTURES = LEAN.model_copy(update={"images": True})


def release(directory, face, settings=LEAN, *, basis="open-head", topology="open-head", source="affectnet"):
    fields = {name: getattr(face, name) for name in FaceAsset.__dataclass_fields__}
    asset = FaceAsset(**{**fields, "basis": basis, "topology": topology})
    write_emolib(
        directory, fabricated_faces(face, 24), asset=asset, backend="landmarks", settings=settings, source=source,
        read_image_bytes=lambda record: b"picture",
    )  # fmt: skip
    return directory


@pytest.mark.parametrize("basis", ["open-head", "flame2020", "flame2023", "flame2023-open"])
def test_coefficients_and_ids_of_every_basis_may_go(tmp_path, small_face, basis):
    topology = "open-head" if basis == "open-head" else "flame"
    assert licence_problems(release(tmp_path / "r", small_face, basis=basis, topology=topology)) == []


@pytest.mark.parametrize("settings", [MESHES, STEPS])
@pytest.mark.parametrize(
    ("basis", "is_free"),
    [("open-head", True), ("flame2023-open", True), ("flame2017", False), ("flame2020", False), ("flame2023", False)],
)
def test_meshes_may_go_where_the_face_model_may(tmp_path, small_face, settings, basis, is_free):
    topology = "open-head" if basis == "open-head" else "flame"
    problems = licence_problems(release(tmp_path / "r", small_face, settings, basis=basis, topology=topology))
    assert (problems == []) is is_free
    assert all(f"meshes of {basis}" in problem for problem in problems)


@pytest.mark.parametrize(("source", "is_free"), [("sample", True), ("affectnet", False)])
def test_photographs_may_go_where_they_are_our_own(tmp_path, small_face, source, is_free):
    problems = licence_problems(release(tmp_path / "r", small_face, PICTURES, source=source))
    assert (problems == []) is is_free
    assert all("photographs" in problem for problem in problems)


def test_content_is_found_whatever_it_is_called(tmp_path, small_face):
    directory = release(tmp_path / "r", small_face, basis="flame2020", topology="flame")
    mesh = pa.array([[[0.0, 0.0, 0.0]] * 4], pa.list_(pa.list_(pa.float32(), 3), 4))
    hidden = pa.table({"notes": mesh, "blob": pa.array([b"jpeg"])})
    (directory / "extra").mkdir()
    pq.write_table(hidden, directory / "extra" / "x.parquet")
    (directory / "photo.JPG").write_bytes(b"jpeg")
    problems = licence_problems(directory)
    assert [problem.split(":")[0] for problem in problems] == ["extra/x.parquet", "extra/x.parquet", "photo.JPG"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("flat", pa.list_(pa.float32(), 15069)), ("pixels", pa.list_(pa.uint8())), ("base64", pa.string()),
     ("shape", pa.list_(pa.float32(), 15069))],
)  # fmt: skip
def test_meshes_and_pictures_in_disguise_are_told(tmp_path, small_face, name, kind):
    directory = release(tmp_path / "r", small_face, basis="flame2020", topology="flame")
    pq.write_table(pa.table({name: pa.nulls(1, kind)}), directory / "data" / "coefficients" / "extra.parquet")
    problems = licence_problems(directory)
    assert len(problems) == 1
    assert f"column {name} " in problems[0]


def test_texture_coordinates_of_the_open_head_may_go(tmp_path, small_face):
    directory = release(tmp_path / "r", small_face)
    assert {"uv", "uv_faces"} <= set(read_topology(directory / "meta" / "topology.npz"))
    assert licence_problems(directory) == []


def test_the_topology_file_holds_no_part_of_a_licensed_model(tmp_path, small_face):
    directory = release(tmp_path / "r", small_face, basis="flame2020", topology="flame")
    arrays = {"template": small_face.template, "uv": small_face.uv, "faces": small_face.faces}
    write_topology(directory / "meta" / "topology.npz", arrays, "flame")
    problems = licence_problems(directory)
    assert len(problems) == 2
    assert "array template" in problems[0]
    assert "array uv" in problems[1]
