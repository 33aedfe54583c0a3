"""Points fixed to a mesh's surface."""

import numpy as np
import pytest
import torch
import trimesh

from ecavatar.errors import ShapeError
from ecavatar.face.landmarks import ibug68_points, mediapipe_points, surface_points
from ecavatar.face.model import FaceModel


def test_a_corner_is_its_vertex_and_thirds_are_the_centroid():
    vertices = np.array([[0.0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 9]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    points = surface_points(vertices, faces, np.array([0, 1]), np.array([[0, 1, 0], [1 / 3, 1 / 3, 1 / 3]]))
    np.testing.assert_allclose(points, [[3, 0, 0], [0, 1, 3]])


def test_agrees_with_trimesh_on_random_points():
    mesh = trimesh.creation.icosphere(subdivisions=2)
    draw = np.random.default_rng(0)
    faces, weights = draw.integers(0, len(mesh.faces), 50), draw.dirichlet([1, 1, 1], 50)
    expected = trimesh.triangles.barycentric_to_points(mesh.triangles[faces], weights)
    np.testing.assert_allclose(surface_points(mesh.vertices, mesh.faces, faces, weights), expected, atol=1e-12)


def test_torch_and_numpy_agree_on_a_batch_and_landmarks_follow_the_mesh(asset):
    with torch.no_grad():
        vertices = FaceModel(asset)(torch.randn(4, 5), torch.randn(4, 4))
    for points in (ibug68_points, mediapipe_points):
        np.testing.assert_allclose(points(asset, vertices).numpy(), points(asset, vertices.numpy()), atol=1e-6)
    shifted = ibug68_points(asset, vertices + 1)
    torch.testing.assert_close(shifted, ibug68_points(asset, vertices) + 1)


def test_shapes_that_do_not_fit_are_refused(asset):
    with pytest.raises(ShapeError, match="triangles"):
        surface_points(asset.template, asset.faces, asset.ibug68_faces, asset.ibug68_barycentrics[:5])
