"""Laws of the way from the pose in a picture to pose zero."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ecavatar.face.model import FaceModel
from ecavatar.reconstruction.fitter import Reconstruction
from ecavatar.reconstruction.neutral import (
    align_to_zero_pose,
    expressive_vertices,
    neutral_vertices,
    posed_vertices,
)


@pytest.fixture
def found(asset) -> Reconstruction:
    rng = np.random.default_rng(3)
    return Reconstruction(
        shape=rng.normal(size=asset.n_shape),
        expression=rng.normal(size=asset.n_expression),
        jaw_pose=np.array([0.3, 0.0, 0.0]),
        rotation=Rotation.from_euler("yxz", [30, 15, -10], degrees=True).as_matrix(),
        scale_px_per_m=900.0,
        translation_px=np.array([112.0, 130.0]),
        residual_px=0.5,
        residual_mm=0.5,
        iterations=5,
        is_converged=True,
    )


@pytest.mark.parametrize(("method", "limit_m"), [("procrustes", 1e-6), ("icp", 1e-3)])
def test_alignment_undoes_the_pose_and_keeps_the_expression(asset, found, method, limit_m):
    model = FaceModel(asset)
    aligned = align_to_zero_pose(model, found, method)
    assert np.abs(aligned.vertices - expressive_vertices(model, found)).max() < limit_m
    assert aligned.residual_m < limit_m


def test_removed_transform_takes_the_posed_mesh_to_the_aligned_one(asset, found):
    model = FaceModel(asset)
    aligned = align_to_zero_pose(model, found)
    posed = posed_vertices(model, found)
    assert np.allclose(posed @ aligned.removed[:3, :3].T + aligned.removed[:3, 3], aligned.vertices, atol=1e-9)
    assert np.allclose(aligned.removed[:3, :3], found.rotation.T, atol=1e-5)


def test_neutral_face_depends_on_the_identity_only(asset, found):
    model = FaceModel(asset)
    neutral = neutral_vertices(model, found)
    expected = asset.template + np.einsum("vcs,s->vc", asset.shape_basis, found.shape)
    assert np.abs(neutral - expected).max() < 1e-6
    assert np.abs(expressive_vertices(model, found) - neutral).max() > 1e-3
