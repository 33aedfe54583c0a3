"""Registration against known motions, scipy and open3d."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ecavatar.errors import DataError, ShapeError
from ecavatar.face.alignment import (
    apply_transform,
    iterative_closest_point,
    register_points,
    register_points_batch,
)


def rigid(rotvec, shift) -> np.ndarray:
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = Rotation.from_rotvec(rotvec).as_matrix(), shift
    return transform


def blob_head() -> np.ndarray:
    """3,000 irregular points, metres, on an ellipsoid with nose, ears and chin.

    Irregular, because on a regular grid ICP may rest one grid step beside the truth.
    """
    ball = np.random.default_rng(3).normal(size=(3000, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    nose = np.exp(-((ball - [0, 0, 1]) ** 2).sum(1) / 0.08)
    ears = np.exp(-((np.abs(ball) - [1, 0, 0]) ** 2).sum(1) / 0.05)
    chin = np.exp(-((ball - [0, -0.8, 0.6]) ** 2).sum(1) / 0.1)
    return ball * [0.08, 0.11, 0.1] * (1 + 0.25 * nose + 0.25 * ears + 0.2 * chin)[:, None]


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3), st.integers(0, 99))
def test_kabsch_recovers_a_known_motion(rotvec, seed):
    draw = np.random.default_rng(seed)
    source, motion = draw.normal(size=(20, 3)), rigid(rotvec, draw.normal(size=3))
    found = register_points(source, apply_transform(motion, source))
    np.testing.assert_allclose(found.transform, motion, atol=1e-9)
    assert found.rmse < 1e-9
    assert found.is_converged


def test_kabsch_agrees_with_scipy_on_noisy_weighted_points():
    draw = np.random.default_rng(3)
    source, target, weights = draw.normal(size=(50, 3)), draw.normal(size=(50, 3)), draw.random(50)
    found = register_points(source, target, weights)
    share = weights / weights.sum()
    expected, residual = Rotation.align_vectors(target - share @ target, source - share @ source, weights=weights)[:2]
    np.testing.assert_allclose(found.transform[:3, :3], expected.as_matrix(), atol=1e-8)
    assert found.rmse == pytest.approx(residual / np.sqrt(weights.sum()), rel=1e-9)


def test_kabsch_never_reflects_and_does_not_depend_on_the_points_order():
    draw = np.random.default_rng(5)
    source = draw.normal(size=(30, 3))
    found = register_points(source, source * (-1, 1, 1))
    assert np.linalg.det(found.transform[:3, :3]) == pytest.approx(1)
    order = draw.permutation(30)
    np.testing.assert_allclose(
        register_points(source[order], (source * (-1, 1, 1))[order]).transform, found.transform, atol=1e-9
    )


def test_points_of_no_weight_do_not_count():
    draw = np.random.default_rng(6)
    source, motion = draw.normal(size=(30, 3)), rigid([0.2, 0.1, -0.4], [1, 2, 3])
    target = apply_transform(motion, source)
    target[:10] += 5
    found = register_points(source, target, np.arange(30) >= 10)
    np.testing.assert_allclose(found.transform, motion, atol=1e-9)


def test_degenerate_input_is_refused():
    line = np.arange(9.0)[:, None] * np.ones(3)
    with pytest.raises(DataError, match="line"):
        register_points(line, line)
    with pytest.raises(DataError, match="line"):
        register_points(np.eye(3)[:2], np.eye(3)[:2])
    with pytest.raises(ShapeError, match=r"\(N, 3\)"):
        register_points(np.zeros((4, 3)), np.zeros((5, 3)))
    with pytest.raises(DataError, match="finite"):
        register_points(np.full((4, 3), np.nan), np.zeros((4, 3)))


def test_batch_is_the_single_registration_repeated():
    draw = np.random.default_rng(8)
    source, target = draw.normal(size=(6, 40, 3)), draw.normal(size=(40, 3))
    source[3] *= (-1, 1, 1)
    transforms, rmse = register_points_batch(source, target)
    for index in range(6):
        single = register_points(source[index], target)
        np.testing.assert_allclose(transforms[index], single.transform, atol=1e-9)
        assert rmse[index] == pytest.approx(single.rmse, rel=1e-9)


def test_batch_names_the_set_that_cannot_be_registered():
    draw = np.random.default_rng(9)
    source, target = draw.normal(size=(4, 5, 3)), draw.normal(size=(5, 3))
    source[2, 1, 1] = np.nan
    with pytest.raises(DataError, match="set 2"):
        register_points_batch(source, target)
    source[2] = np.arange(5)[:, None]
    with pytest.raises(DataError, match=r"set 2.*line"):
        register_points_batch(source, target)
    with pytest.raises(ShapeError):
        register_points_batch(np.zeros((2, 5, 3)), np.zeros((4, 3)))


def test_icp_recovers_a_known_rigid_motion_of_shuffled_points():
    vertices = blob_head()
    motion = rigid(np.radians([10, -15, 8]), [0.03, -0.02, 0.04])
    source = apply_transform(np.linalg.inv(motion), vertices)
    found = iterative_closest_point(source[np.random.default_rng(0).permutation(len(source))], vertices)
    assert found.is_converged
    np.testing.assert_allclose(found.transform, motion, atol=1e-6)
    assert found.rmse < 1e-6


def test_icp_agrees_with_open3d():
    registration = pytest.importorskip("open3d").pipelines.registration
    vertices = blob_head()
    draw = np.random.default_rng(1)
    motion = rigid(np.radians([6, 4, -5]), [0.005, 0.002, -0.003])
    source = apply_transform(np.linalg.inv(motion), vertices) + draw.normal(0, 5e-4, vertices.shape)
    found = iterative_closest_point(source, vertices)
    start = np.eye(4)
    start[:3, 3] = vertices.mean(0) - source.mean(0)
    theirs = registration.registration_icp(
        _cloud(source),
        _cloud(vertices),
        1.0,
        start,
        registration.TransformationEstimationPointToPoint(),
        registration.ICPConvergenceCriteria(1e-12, 1e-12, 500),
    )
    np.testing.assert_allclose(found.transform, theirs.transformation, atol=5e-5)
    assert found.rmse == pytest.approx(theirs.inlier_rmse, rel=1e-5)


def _cloud(points):
    import open3d

    return open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))


def test_icp_lets_only_the_steady_points_decide():
    vertices = blob_head()
    motion = rigid(np.radians([3, -5, 4]), [0.004, -0.002, 0.003])
    source = apply_transform(np.linalg.inv(motion), vertices)
    is_jaw = vertices[:, 2] < -0.05
    source[is_jaw] += [0.03, 0.0, -0.02]
    steady = np.flatnonzero(~is_jaw)
    found = iterative_closest_point(source, vertices, steady=steady)
    np.testing.assert_allclose(found.transform, motion, atol=1e-5)
    everything = iterative_closest_point(source, vertices).transform
    assert np.abs(everything - motion).max() > 1e-2  # what is avoided


def test_icp_from_quarter_turns_finds_a_head_that_lies_on_its_side():
    vertices = blob_head()
    motion = rigid(np.radians([20, 95, 10]), [0.3, 0.1, 0.0])
    source = apply_transform(np.linalg.inv(motion), vertices)
    turns = Rotation.create_group("O").as_matrix()
    found = iterative_closest_point(source, vertices, turns=turns, near_m=1e-3)
    np.testing.assert_allclose(found.transform, motion, atol=1e-5)


def test_icp_is_reproducible_to_the_bit():
    vertices = blob_head()
    source = apply_transform(rigid([0.2, 0.1, 0.0], [0.01, 0, 0]), vertices)
    first, second = (iterative_closest_point(source, vertices) for _ in range(2))
    assert first.transform.tobytes() == second.transform.tobytes()
    assert (first.rmse, first.iterations) == (second.rmse, second.iterations)


def test_icp_says_when_it_hit_the_cap():
    vertices = blob_head()
    turned = apply_transform(rigid([0.0, 0.4, 0.0], [0, 0, 0]), vertices)
    found = iterative_closest_point(turned, vertices, max_iterations=1)
    assert (found.iterations, found.is_converged) == (1, False)


def test_icp_refuses_what_it_cannot_register():
    vertices = blob_head()
    with pytest.raises(ShapeError, match="source"):
        iterative_closest_point(vertices[:, :2], vertices)
    with pytest.raises(DataError, match="target"):
        iterative_closest_point(vertices, vertices * np.nan)
    with pytest.raises(DataError, match="steady"):
        iterative_closest_point(vertices, vertices, steady=np.array([0, 1, len(vertices)]))
    with pytest.raises(DataError, match="start from"):
        iterative_closest_point(vertices, vertices, turns=np.zeros((0, 3, 3)))
    with pytest.raises(DataError, match="round"):
        iterative_closest_point(vertices, vertices, max_iterations=0)
