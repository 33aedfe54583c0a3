"""Rotations against scipy's."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ecavatar.face.rotations import axis_angle_from_matrix, matrix_from_axis_angle

VECTORS = st.lists(st.floats(-6, 6), min_size=3, max_size=3)


@given(VECTORS)
def test_matrix_is_scipys_rotation(vector):
    ours = matrix_from_axis_angle(torch.tensor(vector, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(ours, Rotation.from_rotvec(vector).as_matrix(), atol=1e-10)


@given(VECTORS)
def test_axis_angle_gives_the_matrix_back_with_the_smallest_angle(vector):
    matrix = Rotation.from_rotvec(vector).as_matrix()
    back = axis_angle_from_matrix(torch.from_numpy(matrix)).numpy()
    assert np.linalg.norm(back) <= np.pi + 1e-9
    np.testing.assert_allclose(Rotation.from_rotvec(back).as_matrix(), matrix, atol=1e-7)


def test_half_turns_and_tiny_turns_survive_the_round_trip():
    half = torch.tensor([[np.pi, 0, 0], [0, np.pi, 0], [0, 0, np.pi], [np.pi / 2**0.5, np.pi / 2**0.5, 0]])
    matrices = matrix_from_axis_angle(half.double())
    torch.testing.assert_close(matrix_from_axis_angle(axis_angle_from_matrix(matrices)), matrices, atol=1e-7, rtol=0)
    tiny = torch.tensor([[1e-9, -2e-9, 0], [0.0, 0, 0], [0.009, 0, 0], [0.011, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(axis_angle_from_matrix(matrix_from_axis_angle(tiny)), tiny, atol=1e-12, rtol=1e-9)


def test_gradient_at_zero_is_the_cross_product_matrix():
    zero = torch.zeros(3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(matrix_from_axis_angle, zero)
    assert torch.isfinite(jacobian).all()
    torch.testing.assert_close(jacobian[2, 1], torch.tensor([1.0, 0, 0], dtype=torch.float64))
    torch.testing.assert_close(jacobian[0, 2], torch.tensor([0, 1.0, 0], dtype=torch.float64))
