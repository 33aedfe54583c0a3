"""Laws of a user's own mouth: what is read, moved, refused, and how a converted one is named."""

import json

import numpy as np
import pytest
import trimesh

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.face.mesh_file import write_mesh
from ecavatar.mouth.model import Part
from ecavatar.mouth.mouth_file import convert_mouth, read_mouth
from ecavatar.mouth.procedural import procedural_mouth
from ecavatar.mouth.source import open_mouth

OPEN = procedural_mouth()
AWAY = np.array([0.013, 1.6, -0.02])  # where a user's head may stand


def write_obj(path, vertices=None, name=lambda part: part.label, keyword="g", faces=OPEN.faces):
    """The open mouth as somebody else's .obj, a group for each part."""
    vertices = OPEN.vertices + AWAY if vertices is None else vertices
    lines = [f"v {x:.9f} {y:.9f} {z:.9f}" for x, y, z in vertices.tolist()]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in OPEN.uv.tolist()]
    for part in Part:
        lines.append(f"{keyword} {name(part)}")
        own = faces[OPEN.part[faces[:, 0]] == part] + 1
        lines += [f"f {a}/{a} {b}/{b} {c}/{c}" for a, b, c in own.tolist()]
    path.write_text("\n".join(lines) + "\n")
    return path


def same_shape(mouth):
    """Vertices come in the file's order, moved by no more than what defines the origin."""
    np.testing.assert_allclose(mouth.vertices, OPEN.vertices, atol=4e-4)
    np.testing.assert_array_equal(mouth.part, OPEN.part)


@pytest.mark.parametrize("keyword", ["g", "o", "usemtl"])
def test_an_obj_says_by_its_names_what_is_what(tmp_path, keyword):
    mouth = read_mouth(write_obj(tmp_path / "mine.obj", keyword=keyword))
    same_shape(mouth)
    assert mouth.name == "mine"
    np.testing.assert_allclose(mouth.uv, OPEN.uv, atol=1e-5)
    np.testing.assert_array_equal(np.sort(mouth.faces, axis=0), np.sort(OPEN.faces, axis=0))


def test_other_peoples_spelling_is_understood(tmp_path):
    spelt = dict(zip(Part, ("UpperTeeth", "teeth.mandible", "Gums Maxilla", "gingiva-LOWER", "Tongue01"), strict=True))
    same_shape(read_mouth(write_obj(tmp_path / "mine.obj", name=spelt.__getitem__)))


def test_the_origin_is_found_wherever_the_mesh_stands(tmp_path):
    here = read_mouth(write_obj(tmp_path / "here.obj", vertices=OPEN.vertices))
    there = read_mouth(write_obj(tmp_path / "there.obj"))
    np.testing.assert_allclose(here.vertices, there.vertices, atol=1e-6)
    upper = here.vertices[here.part == Part.UPPER_TEETH]
    assert abs(upper[:, 1].min()) < 1e-6
    assert abs(upper[:, 0].min() + upper[:, 0].max()) < 1e-6


@pytest.mark.parametrize("form", ["csv", "json", "npy", "groups.csv", "groups.json"])
def test_labels_may_lie_beside_the_mesh(tmp_path, form):
    path = tmp_path / "mine.ply"
    write_mesh(path, OPEN.vertices + AWAY, OPEN.faces)
    labels = tmp_path / f"mine.labels.{form.split('.')[-1]}"
    if form.startswith("groups"):
        path = write_obj(tmp_path / "mine.obj", name=lambda part: f"mesh {part.value}")
        rows = {f"mesh {part.value}": part.label for part in Part}
        text = "group,part\n" + "\n".join(f"{group},{part}" for group, part in rows.items())
        labels.write_text(json.dumps(rows) if form.endswith("json") else text)
    elif form == "csv":
        rows = [f"{i},{Part(p).label},{t}" for i, (p, t) in enumerate(zip(OPEN.part, OPEN.tooth, strict=True))]
        labels.write_text("vertex,part,tooth\n" + "\n".join(rows))
    elif form == "json":
        labels.write_text(json.dumps({part.label: np.flatnonzero(OPEN.part == part).tolist() for part in Part}))
    else:
        np.save(labels, OPEN.part)
    mouth = read_mouth(path)
    same_shape(mouth)
    assert (mouth.tooth == (OPEN.tooth if form == "csv" else 0)).all()


def test_other_counts_and_loose_vertices_are_allowed(tmp_path):
    keep = OPEN.faces[np.isin(OPEN.part[OPEN.faces[:, 0]], [Part.UPPER_TEETH, Part.LOWER_TEETH])]
    mouth = read_mouth(write_obj(tmp_path / "teeth.obj", faces=keep))
    assert len(mouth.faces) == len(keep)
    assert len(mouth.vertices) == len(np.unique(keep))
    assert set(mouth.part) == {Part.UPPER_TEETH, Part.LOWER_TEETH}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: 1000 * v, "looks like millimetres"),
        (lambda v: 100 * v, "looks like centimetres"),
        (lambda v: v * [1, -1, -1], "upside down"),
        (lambda v: v * [-1, 1, -1], "turn the mesh to face"),
        (lambda v: v - 0.02 * OPEN.follows_jaw[:, None] * [0, 1, 0], "mm apart; close them"),
    ],
)
def test_a_mesh_in_another_frame_is_refused(tmp_path, change, words):
    with pytest.raises(DataError, match=words):
        read_mouth(write_obj(tmp_path / "mine.obj", vertices=change(OPEN.vertices.astype(float))))


def test_a_mesh_that_does_not_say_what_is_what_is_refused(tmp_path):
    with pytest.raises(AssetMissingError, match=r"mine\.labels\.csv"):
        read_mouth(write_obj(tmp_path / "mine.obj", name=lambda part: f"mesh{part.value}"))
    write_mesh(tmp_path / "bare.ply", OPEN.vertices, OPEN.faces)
    with pytest.raises(AssetMissingError, match="does not say what its vertices are"):
        read_mouth(tmp_path / "bare.ply")
    with pytest.raises(AssetMissingError, match="not found"):
        read_mouth(tmp_path / "none.obj")


def test_a_mouth_needs_both_rows_of_teeth_and_a_label_for_every_vertex(tmp_path):
    unlabelled = write_obj(tmp_path / "a.obj", name=lambda part: "mesh" if part == Part.TONGUE else part.label)
    with pytest.raises(DataError, match="482 of 10028 vertices have no part"):
        read_mouth(unlabelled)
    toothless = write_obj(tmp_path / "b.obj", faces=OPEN.faces[OPEN.part[OPEN.faces[:, 0]] != Part.LOWER_TEETH])
    with pytest.raises(DataError, match="no vertex is labelled lower_teeth"):
        read_mouth(toothless)


def test_a_vertex_of_two_parts_is_refused(tmp_path):
    faces = OPEN.faces.copy()
    first = np.flatnonzero(OPEN.part == Part.TONGUE)[0]
    faces[faces == first] = 0
    labels = {part.label: np.unique(faces[OPEN.part[OPEN.faces[:, 0]] == part]).tolist() for part in Part}
    path = write_obj(tmp_path / "mine.obj")
    (tmp_path / "mine.labels.json").write_text(json.dumps(labels))
    with pytest.raises(DataError, match="1 vertices belong to two parts"):
        read_mouth(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv", "a,b\n1,2\n", "expected columns"),
        ("x.csv", "vertex,part\n0,nose\n", "expected one of upper_teeth"),
        ("x.csv", "vertex,part\n-1,tongue\n", "number of a vertex"),
        ("x.csv", "vertex,part\n99999,tongue\n", "outside 0..10027"),
        ("x.csv", "vertex,part,tooth\n0,tongue,99\n", "FDI"),
        ("x.csv", "group,part\nnose,tongue\n", "no group, object or material 'nose'"),
        ("x.json", "[1, 2]", "GROUP"),
        ("x.json", '{"tongue": [0.5]}', "outside"),
        ("x.json", '{"upper_teeth": "nose"}', "expected one of"),
        ("x.npy", "not numpy", "not an array of numbers"),
        ("x.txt", "", "expected labels as"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused(tmp_path, name, content, words):
    path = write_obj(tmp_path / "mine.obj")
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words):
        read_mouth(path, tmp_path / name)


def test_a_pickle_is_never_opened(tmp_path):
    write_mesh(tmp_path / "mine.ply", OPEN.vertices, OPEN.faces)
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="not an array of numbers"):
        read_mouth(tmp_path / "mine.ply", tmp_path / "x.npy")
    np.save(tmp_path / "short.npy", OPEN.part[:-1])
    with pytest.raises(DataError, match="expected 10028 integers"):
        read_mouth(tmp_path / "mine.ply", tmp_path / "short.npy")


def test_trimesh_can_write_what_is_read(tmp_path):
    trimesh.Trimesh(OPEN.vertices, OPEN.faces, process=False).export(tmp_path / "mine.ply")
    np.save(tmp_path / "mine.labels.npy", OPEN.part)
    same_shape(read_mouth(tmp_path / "mine.ply"))


def test_a_converted_mouth_is_named_by_its_content_and_opens_by_path(tmp_path):
    path = write_obj(tmp_path / "mine.obj")
    written = convert_mouth(path, None, tmp_path / "assets")
    again = convert_mouth(path, None, tmp_path / "other")
    assert written.name == again.name
    assert written.read_bytes() == again.read_bytes()
    assert list((tmp_path / "assets").iterdir()) == [written]
    same_shape(open_mouth(str(written)))
    assert open_mouth("procedural") is procedural_mouth()


def test_a_changed_renamed_or_missing_mouth_is_refused(tmp_path):
    written = convert_mouth(write_obj(tmp_path / "mine.obj"), None, tmp_path)
    renamed = tmp_path / "mouth-000000000000.npz"
    renamed.write_bytes(written.read_bytes())
    with pytest.raises(DataError, match="by its content its name should be"):
        open_mouth(str(renamed))
    with pytest.raises(AssetMissingError, match="Expected 'procedural' or a file"):
        open_mouth("procedual")
