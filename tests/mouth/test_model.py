"""Laws of a mouth as a mesh and of its file."""

import numpy as np
import pytest

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.mouth.model import MouthMesh, Part
from ecavatar.storage.arrays import read_arrays, write_arrays

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=float)


def tiny(**changes):
    """A square of upper teeth and one of tongue behind it."""
    arrays = {
        "name": "tiny",
        "licence": "CC0-1.0",
        "vertices": np.concatenate([SQUARE, SQUARE - [0, 0, 1]]) / 100,
        "faces": np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]]),
        "part": np.repeat([Part.UPPER_TEETH, Part.TONGUE], 4),
        "tooth": np.repeat([11, 0], 4),
        "uv": np.tile(SQUARE[:, :2], (2, 1)),
    }
    return MouthMesh(**(arrays | changes))


def test_materials_and_what_turns_with_the_jaw():
    assert [part.material for part in Part] == ["enamel", "enamel", "gum", "gum", "tongue"]
    assert {part for part in Part if part.follows_jaw} == {Part.LOWER_TEETH, Part.LOWER_GUM, Part.TONGUE}
    assert tiny().follows_jaw.tolist() == [False] * 4 + [True] * 4


def test_normals_look_where_faces_are_counter_clockwise():
    np.testing.assert_allclose(tiny().normals, np.tile([0.0, 0.0, 1.0], (8, 1)), atol=1e-12)


def test_arrays_are_copied_and_frozen():
    vertices = np.concatenate([SQUARE, SQUARE])
    mouth = tiny(vertices=vertices)
    vertices[0] = 9
    assert mouth.vertices[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        mouth.vertices[0] = 9


def test_a_file_gives_the_same_mouth_and_the_same_bytes(tmp_path):
    mouth = tiny()
    mouth.save(tmp_path / "a.npz")
    again = MouthMesh.load(tmp_path / "a.npz")
    again.save(tmp_path / "b.npz")
    assert (again.name, again.licence) == (mouth.name, mouth.licence)
    for name in ("vertices", "faces", "part", "tooth", "uv"):
        np.testing.assert_array_equal(getattr(again, name), getattr(mouth, name))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"faces": np.array([[0, 1, 4]])}, "joins two parts"),
        ({"faces": np.array([[0, 1, 8]])}, "outside 0..7"),
        ({"faces": np.zeros((0, 3), int)}, "no faces"),
        ({"part": np.full(8, 7)}, "parts must lie"),
        ({"vertices": np.full((8, 3), np.nan)}, "not finite"),
        ({"tooth": np.zeros(3, int)}, "tooth has shape"),
    ],
)
def test_contradictions_are_named(changes, words):
    with pytest.raises(DataError, match=words):
        tiny(**changes)


def test_what_is_no_mouth_is_refused(tmp_path):
    with pytest.raises(AssetMissingError, match="not found"):
        MouthMesh.load(tmp_path / "none.npz")
    write_arrays(tmp_path / "other.npz", {"vertices": SQUARE}, {"format": "ecavatar-face-1"})
    with pytest.raises(DataError, match="expected format ecavatar-mouth-1"):
        MouthMesh.load(tmp_path / "other.npz")
    tiny().save(tmp_path / "mouth.npz")
    arrays, facts = read_arrays(tmp_path / "mouth.npz")
    write_arrays(tmp_path / "partless.npz", {k: v for k, v in arrays.items() if k != "part"}, facts)
    with pytest.raises(DataError, match="missing \\['part'\\]"):
        MouthMesh.load(tmp_path / "partless.npz")
