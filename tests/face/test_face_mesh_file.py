"""Mesh files keep vertices, their order and their triangles."""

import numpy as np
import pytest
import trimesh

from ecavatar.errors import AssetMissingError, DataError, ShapeError
from ecavatar.face.mesh_file import read_mesh, write_mesh


@pytest.fixture
def mesh() -> tuple[np.ndarray, np.ndarray]:
    """A mesh that readers like to tidy: a doubled vertex, an unused one, vertices in odd order."""
    draw = np.random.default_rng(0)
    vertices = draw.normal(size=(30, 3)).astype(np.float32)
    vertices[7] = vertices[3]
    faces = draw.permutation(29)[:27].reshape(9, 3)
    return vertices, faces


@pytest.mark.parametrize("suffix", [".ply", ".obj"])
def test_round_trip_keeps_vertices_order_and_triangles(mesh, suffix, tmp_path):
    path = tmp_path / f"mesh{suffix}"
    write_mesh(path, *mesh)
    vertices, faces = read_mesh(path)
    np.testing.assert_array_equal(vertices, mesh[0])
    np.testing.assert_array_equal(faces, mesh[1])
    first = path.read_bytes()
    write_mesh(path, *mesh)
    assert path.read_bytes() == first


def test_texture_seams_do_not_split_vertices(mesh, tmp_path):
    vertices, faces = mesh
    uv, uv_faces = np.random.default_rng(1).random((27, 2)), np.arange(27).reshape(9, 3)
    two = np.concatenate([faces, faces[:1, ::-1]])  # one triangle seen again with other texture corners
    write_mesh(tmp_path / "a.obj", vertices, two, uv=uv, uv_faces=np.concatenate([uv_faces, uv_faces[1:2]]))
    again = read_mesh(tmp_path / "a.obj")
    np.testing.assert_array_equal(again[0], vertices)
    np.testing.assert_array_equal(again[1], two)
    assert "vt " in (tmp_path / "a.obj").read_text()


def test_trimesh_reads_the_same_surface(mesh, tmp_path):
    box = trimesh.creation.box()
    write_mesh(tmp_path / "box.obj", box.vertices, box.faces)
    assert trimesh.load(tmp_path / "box.obj").volume == pytest.approx(box.volume)


def test_wrong_files_and_arrays_are_refused(mesh, tmp_path):
    with pytest.raises(AssetMissingError):
        read_mesh(tmp_path / "none.ply")
    (tmp_path / "bad.ply").write_text("not a mesh")
    with pytest.raises(DataError, match=r"bad\.ply"):
        read_mesh(tmp_path / "bad.ply")
    with pytest.raises(DataError, match=r"\.obj"):
        write_mesh(tmp_path / "a.stl", *mesh)
    with pytest.raises(ShapeError, match="faces"):
        write_mesh(tmp_path / "a.ply", mesh[0], mesh[1] + 30)
    assert not list(tmp_path.glob("*.stl"))
