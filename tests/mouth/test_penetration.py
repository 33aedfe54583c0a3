"""Signed distances to the outer skin: by hand, against independent implementations, and on lined and open mouths."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from ecavatar.errors import DataError, ShapeError
from ecavatar.face.landmarks import ibug68_points
from ecavatar.mouth.penetration import is_outside, measure_penetration, outer_skin, signed_distances
from tests.fabricate_mouth import flame_face, open_face, turned_jaw

CUBE = trimesh.creation.box((2.0, 2.0, 2.0))


@pytest.fixture(scope="module", params=["open-head", "flame"])
def face(request):
    if request.param == "open-head":
        return open_face()
    return flame_face(request.getfixturevalue("shared_data") / "flame_template_ccby")


def around_the_mouth(face, count: int) -> np.ndarray:
    """Random points in a box round the lips, within and before the head."""
    lips = ibug68_points(face, face.template.astype(np.float64))[48:]
    draw = np.random.default_rng(2)
    low, high = lips.min(axis=0) - np.array([0.01, 0.03, 0.04]), lips.max(axis=0) + np.array([0.01, 0.02, 0.012])
    return draw.uniform(low, high, (count, 3))


def winding_by_solid_angles(triangles: np.ndarray, point: np.ndarray) -> float:
    """Van Oosterom and Strackee's formula, summed."""
    a, b, c = np.moveaxis(triangles - point, 1, 0)
    la, lb, lc = (np.linalg.norm(side, axis=1) for side in (a, b, c))
    volume = (a * np.cross(b, c)).sum(axis=1)
    below = la * lb * lc + (a * b).sum(axis=1) * lc + (b * c).sum(axis=1) * la + (c * a).sum(axis=1) * lb
    return float(2 * np.arctan2(volume, below).sum() / (4 * np.pi))


def test_distances_to_a_cube_are_those_of_the_drawing():
    points = np.array([[0.1, 0.2, 0.3], [0.1, 0.2, 1.5], [3.0, 0.4, 0.1], [2.0, 2.0, 2.0], [0.0, -0.9, 0.05]])
    expected = [-0.7, 0.5, 2.0, np.sqrt(3), -0.1]
    np.testing.assert_allclose(signed_distances(CUBE.vertices, CUBE.faces, points), expected, atol=1e-12)
    found = measure_penetration(CUBE.vertices, CUBE.faces, points)
    assert (found.vertices, found.share) == (3, 0.6)
    assert found.deepest_m == pytest.approx(2.0)


def test_a_mouth_that_lies_inside_has_no_penetration():
    found = measure_penetration(CUBE.vertices, CUBE.faces, np.random.default_rng(0).uniform(-0.9, 0.9, (500, 3)))
    assert (found.deepest_m, found.vertices, found.share) == (0.0, 0, 0.0)


def test_a_ray_through_edges_and_corners_counts_once():
    grid = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 5)] * 2, [0.0]), axis=-1).reshape(-1, 3)
    assert not is_outside(CUBE.vertices, CUBE.faces, grid).any()


def test_the_outer_skin_is_closed_but_for_the_neck(face):
    skin = outer_skin(face)
    edges = np.sort(np.concatenate([skin[:, [0, 1]], skin[:, [1, 2]], skin[:, [2, 0]]]), axis=1)
    border, counts = np.unique(edges, axis=0, return_counts=True)
    assert counts.max() == 2
    assert face.template[border[counts == 1], 1].max() < face.template[face.regions["C"], 1].min()
    assert trimesh.Trimesh(face.template, skin, process=False).is_winding_consistent
    assert not np.isin(face.regions["left_eyeball"], skin).any()


def test_the_lining_of_the_mouth_is_left_away():
    face = open_face()
    lining = np.setdiff1d(face.regions["inner_mouth"], face.regions["L"])
    kept = np.isin(lining, outer_skin(face))
    assert kept.mean() < 0.1


def test_distance_and_side_agree_with_independent_implementations(face):
    import open3d

    skin, points = outer_skin(face), around_the_mouth(face, 3000)
    ours = signed_distances(face.template, skin, points)
    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(open3d.core.Tensor(face.template), open3d.core.Tensor(skin.astype(np.uint32)))
    theirs = scene.compute_distance(open3d.core.Tensor(points.astype(np.float32))).numpy()
    np.testing.assert_allclose(np.abs(ours), theirs, atol=5e-5)  # open3d's float32 is that far off at slivers
    assert np.median(np.abs(np.abs(ours) - theirs)) < 1e-7
    triangles = face.template[skin].astype(np.float64)
    winding = np.array([winding_by_solid_angles(triangles, point) for point in points[:150]])
    np.testing.assert_array_equal(ours[:150] < 0, winding > 0.5)
    assert 0.05 < (ours > 0).mean() < 0.95


def test_what_lies_behind_parted_lips_is_inside_until_it_comes_before_them(face):
    opened, skin = turned_jaw(face, face.template.astype(np.float64), 0.3), outer_skin(face)
    lips = ibug68_points(face, opened)
    between = (lips[62] + lips[66]) / 2
    assert lips[62, 1] - lips[66, 1] > 0.01
    points = between + np.array([[0, 0, -0.006], [0, 0, 0.012]])
    assert is_outside(opened, skin, points).tolist() == [False, True]


def test_wrong_arrays_are_refused():
    with pytest.raises(ShapeError, match=r"points: expected \(N, 3\)"):
        measure_penetration(CUBE.vertices, CUBE.faces, np.zeros((4, 2)))
    with pytest.raises(ShapeError, match=r"outside 0\.\.7"):
        measure_penetration(CUBE.vertices, CUBE.faces + 1, np.zeros((4, 3)))
    with pytest.raises(DataError, match="finite"):
        measure_penetration(CUBE.vertices, CUBE.faces, np.full((4, 3), np.nan))


def test_landmarks_that_enclose_no_mouth_are_refused(small_face):
    with pytest.raises(DataError, match="inner-lip landmarks"):
        outer_skin(replace(small_face, ibug68_faces=np.full(68, 7)))
