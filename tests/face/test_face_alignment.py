"""Registration against known motions and scipy."""

import numpy as np
import pytest
import torch
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


def bumpy_sphere(n: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """A closed mesh without symmetry, about the size of a head."""
    around, up = np.meshgrid(np.arange(2 * n) * np.pi / n, (np.arange(n) + 0.5) * np.pi / n)
    radius = 0.1 * (
        1 + 0.2 * np.sin(2 * around + 1) * np.sin(up) ** 2 + 0.15 * np.cos(3 * up) + 0.1 * np.cos(around) * np.sin(up)
    )
    points = radius[..., None] * np.stack([np.sin(up) * np.cos(around), np.sin(up) * np.sin(around), np.cos(up)], -1)
    index = np.arange(points[..., 0].size).reshape(n, 2 * n)
    a, b, c, d = index[:-1], index[1:], np.roll(index, -1, 1)[1:], np.roll(index, -1, 1)[:-1]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    return points.reshape(-1, 3), faces


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
    expected, residual = Rotation.align_vectors(target - share @ target, source - share @ source, weights=weights)
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
    rotations, translations, rmse = register_points_batch(torch.from_numpy(source), torch.from_numpy(target))
    for index in range(6):
        single = register_points(source[index], target)
        np.testing.assert_allclose(rotations[index].numpy(), single.transform[:3, :3], atol=1e-9)
        np.testing.assert_allclose(translations[index].numpy(), single.transform[:3, 3], atol=1e-9)
        assert float(rmse[index]) == pytest.approx(single.rmse, rel=1e-9)
    with pytest.raises(ShapeError):
        register_points_batch(torch.zeros(2, 5, 3), torch.zeros(4, 3))


@pytest.mark.parametrize("has_faces", [True, False])
def test_icp_recovers_a_known_rigid_motion(has_faces):
    vertices, faces = bumpy_sphere()
    motion = rigid(np.radians([10, -15, 8]) * (1 if has_faces else 0.3), [0.01, -0.005, 0.008])
    source = apply_transform(np.linalg.inv(motion), vertices)
    order = np.random.default_rng(0).permutation(len(source))
    found = iterative_closest_point(source[order], vertices, faces if has_faces else None, max_iterations=200)
    assert found.is_converged
    np.testing.assert_allclose(found.transform, motion, atol=1e-6)
    assert found.rmse < 1e-6


def test_icp_ignores_a_part_without_counterpart_when_trimmed():
    vertices, faces = bumpy_sphere()
    motion = rigid(np.radians([3, -5, 4]), [0.004, -0.002, 0.003])
    source = apply_transform(np.linalg.inv(motion), vertices)
    stray = source[:100] + np.array([0, 0, 0.15])
    found = iterative_closest_point(np.concatenate([source, stray]), vertices, faces, trim=0.12)
    np.testing.assert_allclose(found.transform, motion, atol=1e-5)


def test_icp_says_when_it_hit_the_cap():
    vertices, faces = bumpy_sphere()
    found = iterative_closest_point(vertices + 0.02, vertices, faces, max_iterations=1)
    assert (found.iterations, found.is_converged) == (1, False)
    with pytest.raises(DataError, match="trim"):
        iterative_closest_point(vertices, vertices, trim=1.0)
