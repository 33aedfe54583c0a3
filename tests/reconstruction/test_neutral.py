"""Laws of the way from the pose in a picture to pose zero."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ecavatar.errors import DataError, ShapeError, TopologyError
from ecavatar.face.alignment import apply_transform, register_points
from ecavatar.face.model import FaceAsset, FaceModel
from ecavatar.reconstruction.fitter import Reconstruction
from ecavatar.reconstruction.neutral import (
    align_meshes,
    align_to_zero_pose,
    expressive_vertices,
    neutral_vertices,
    posed_vertices,
    rigid_vertices,
)
from ecavatar.sample.head import build_open_head


@pytest.fixture
def found(asset) -> Reconstruction:
    return reconstruction(asset, seed=3, turn=(15, 30, -10))


@pytest.fixture(scope="module")
def head() -> FaceModel:
    """The open head, on which ICP has something to hold on to."""
    return FaceModel(build_open_head())


def reconstruction(asset: FaceAsset, *, seed: int, turn: tuple[float, float, float]) -> Reconstruction:
    """A random face with its mouth open, turned by these degrees about x, y and z."""
    rng = np.random.default_rng(seed)
    return Reconstruction(
        shape=rng.normal(size=asset.n_shape),
        expression=rng.normal(size=asset.n_expression),
        jaw_pose=np.array([0.3, 0.0, 0.0]),
        rotation=Rotation.from_euler("xyz", turn, degrees=True).as_matrix(),
        scale_px_per_m=900.0,
        translation_px=np.array([112.0, 130.0]),
        residual_px=0.5,
        residual_mm=0.5,
        iterations=5,
        is_converged=True,
    )


def degrees(turn: np.ndarray) -> np.ndarray:
    return np.degrees(Rotation.from_matrix(turn).magnitude())


def random_heads(model: FaceModel, count: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Meshes at pose zero with expressions and open mouths, the same turned and shifted, the rotations, the neutral."""
    rng, asset = np.random.default_rng(seed), model.asset
    jaw = np.column_stack([rng.uniform(0, 0.4, count), np.zeros((count, 2))])
    numbers = (rng.normal(size=(count, asset.n_shape)), rng.normal(size=(count, asset.n_expression)), jaw)
    shape, expression, jaw = (torch.from_numpy(n.astype(np.float32)) for n in numbers)
    with torch.no_grad():
        still, neutral = model(shape, expression, jaw).numpy(), model(shape, torch.zeros(1, 1)).numpy()
    turns = Rotation.from_rotvec(rng.normal(size=(count, 3)) * 0.3).as_matrix()
    posed = still @ turns.transpose(0, 2, 1) + rng.normal(size=(count, 1, 3)) * 0.05
    return still, posed.astype(np.float32), turns, neutral


def test_alignment_undoes_the_pose_and_keeps_the_expression(asset, found):
    model = FaceModel(asset)
    aligned = align_to_zero_pose(model, found)
    assert np.abs(aligned.vertices - expressive_vertices(model, found)).max() < 1e-6
    assert aligned.residual_m < 1e-6


@pytest.mark.parametrize("turn", [(0, 20, 0), (-12, 12, 12), (0, -85, 0), (20, 10, 170)])
def test_icp_undoes_the_pose_without_being_told_the_rotation(head, turn):
    found = reconstruction(head.asset, seed=4, turn=turn)
    aligned = align_to_zero_pose(head, found, "icp")
    assert aligned.is_converged
    assert np.abs(aligned.vertices - expressive_vertices(head, found)).max() < 1e-4
    assert aligned.residual_m < 1e-4


@pytest.mark.parametrize("method", ["procrustes", "icp"])
def test_open_jaw_and_strong_expression_do_not_tilt_the_head(head, method):
    found = reconstruction(head.asset, seed=5, turn=(10, -15, 5))
    grimace = replace(found, expression=3 * found.expression, jaw_pose=np.array([0.5, 0.1, 0.0]))
    aligned = align_to_zero_pose(head, grimace, method)
    assert degrees(aligned.removed[:3, :3] @ found.rotation) < 0.02
    whole = register_points(posed_vertices(head, grimace), neutral_vertices(head, grimace)).transform
    assert degrees(whole[:3, :3] @ found.rotation) > 1.0  # what is avoided


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


def test_expressive_face_keeps_the_jaw_and_drops_the_pose_in_the_image(asset, found):
    model = FaceModel(asset)
    numbers = (torch.from_numpy(n.astype(np.float32))[None] for n in (found.shape, found.expression, found.jaw_pose))
    zeros = torch.zeros(1, 3)
    with torch.no_grad():
        at_zero = model(*numbers, zeros, zeros, torch.zeros(1, 6))[0].numpy()
    expressive = expressive_vertices(model, found)
    np.testing.assert_allclose(expressive, at_zero, atol=1e-7)
    turned = replace(found, rotation=np.eye(3), translation_px=np.zeros(2), scale_px_per_m=1.0)
    np.testing.assert_array_equal(expressive_vertices(model, turned), expressive)
    closed = expressive_vertices(model, replace(found, jaw_pose=np.zeros(3)))
    assert np.abs(closed - expressive).max() > 5e-3


def test_rigid_vertices_are_what_expression_and_jaw_leave_alone_on_both_sides(head):
    asset = head.asset
    rigid = rigid_vertices(asset)
    rng = np.random.default_rng(0)
    expression = torch.from_numpy(rng.normal(size=(20, asset.n_expression)).astype(np.float32))
    with torch.no_grad():
        rest = head(torch.zeros(1, 1), torch.zeros(1, 1)).numpy()
        moved = head(torch.zeros(1, 1), expression, torch.tensor([[0.3, 0.0, 0.0]])).numpy()
    way = np.linalg.norm(moved - rest, axis=2)
    assert np.median(way[:, rigid]) < 1e-5
    assert np.percentile(way[:, rigid], 99) < 2e-4
    left, right = (np.isin(rigid, asset.regions[name]).sum() for name in ("left_ear", "right_ear"))
    assert left == right > 300
    assert not np.isin(rigid, asset.regions["neck"]).any()


def test_where_everything_moves_a_little_the_steadier_half_is_rigid(head):
    asset = head.asset
    shaken = replace(asset, expression_basis=asset.expression_basis + np.float32(1e-3))
    candidates = np.unique(np.concatenate([asset.regions[n] for n in ("scalp", "left_ear", "right_ear", "forehead")]))
    rigid = rigid_vertices(shaken)
    assert 0.5 * len(candidates) <= len(rigid) < 0.9 * len(candidates)


def test_meshes_of_known_people_come_back_to_pose_zero_exactly(head):
    still, posed, _, neutral = random_heads(head, 3)
    for index in range(3):
        aligned = align_meshes(posed[index : index + 1], head.asset, target=neutral[index])
        # what is left is the expression's tiny motion of the rigid regions
        assert np.abs(aligned.vertices[0] - still[index]).max() < 5e-5
        assert aligned.residual_m[0] < 5e-5


def test_a_strangers_form_is_not_taken_for_a_turn(head):
    still, posed, turns, _ = random_heads(head, 150)
    aligned = align_meshes(posed, head.asset)
    off = degrees(aligned.removed[:, :3, :3] @ turns)
    assert aligned.is_converged.all()
    assert np.median(off) < 0.3
    assert off.max() < 1.0
    assert np.median(np.linalg.norm(aligned.vertices - still, axis=2)) < 5e-4
    plain = align_meshes(posed, head.asset, target=head.asset.template)
    assert np.median(degrees(plain.removed[:, :3, :3] @ turns)) > 1.0  # what the identity's weights avoid


def test_many_meshes_at_once_are_the_single_ones_and_removed_is_what_was_applied(head):
    posed = random_heads(head, 70)[1]  # more than one piece
    together = align_meshes(posed, head.asset)
    for index in (0, 63, 64, 69):
        alone = align_meshes(posed[index : index + 1], head.asset)
        np.testing.assert_allclose(alone.removed[0], together.removed[index], atol=1e-12)
        moved = apply_transform(together.removed[index], posed[index].astype(np.float64))
        np.testing.assert_allclose(together.vertices[index], moved, atol=1e-6)
    assert together.vertices.dtype == np.float32
    rigid = rigid_vertices(head.asset)
    distance = together.vertices[:, rigid] - head.asset.template[rigid]
    np.testing.assert_allclose(together.residual_m, np.sqrt((distance**2).sum(2).mean(1)), rtol=1e-4)


def test_icp_aligns_meshes_of_another_topology(head):
    still, posed, turns, neutral = random_heads(head, 1, seed=1)
    order = np.random.default_rng(0).permutation(posed.shape[1])[:4500]  # another order, some vertices lost
    aligned = align_meshes(posed[:, order], head.asset, "icp", target=neutral[0])
    assert aligned.is_converged.all()
    assert degrees(aligned.removed[:, :3, :3] @ turns).max() < 0.2
    assert np.median(np.linalg.norm(aligned.vertices[0] - still[0, order], axis=1)) < 5e-4


def test_no_meshes_align_to_no_meshes(head):
    aligned = align_meshes(np.zeros((0, head.asset.n_vertices, 3), np.float32), head.asset)
    assert (len(aligned.vertices), len(aligned.removed), len(aligned.is_converged)) == (0, 0, 0)


def test_meshes_that_cannot_be_aligned_are_refused(asset):
    good = np.repeat(asset.template[None], 3, axis=0)
    with pytest.raises(ShapeError, match=r"mesh\[None\]"):
        align_meshes(good[0], asset)
    with pytest.raises(TopologyError, match="icp"):
        align_meshes(good[:, :-1], asset)
    with pytest.raises(ShapeError, match="target"):
        align_meshes(good, asset, target=good[0, :-1])
    broken = good.copy()
    broken[2, 0, 0] = np.inf
    with pytest.raises(DataError, match="mesh 2"):
        align_meshes(broken, asset)
