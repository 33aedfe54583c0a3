"""The face schema and FLAME's forward pass, against an independent float64 implementation."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ecavatar.errors import AssetMissingError, DataError, ShapeError
from ecavatar.face.landmarks import mediapipe_points
from ecavatar.face.model import ARKIT_INDEX, FaceAsset, FaceModel, arkit_coefficients, arkit_eye_pose


def reference_vertices(asset: FaceAsset, shape, expression, poses, translation) -> np.ndarray:
    """FLAME's equations for one face, joint by joint with homogeneous matrices."""
    shaped = asset.template.astype(float) + asset.shape_basis.astype(float) @ shape
    shaped = shaped + asset.expression_basis.astype(float) @ expression
    joints = asset.joint_regressor.astype(float) @ shaped
    turns = [Rotation.from_rotvec(pose).as_matrix() for pose in poses]
    feature = np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
    posed = shaped + asset.pose_basis.astype(float) @ feature
    world = []
    for joint, parent in enumerate(asset.parents):
        local = np.eye(4)
        local[:3, :3] = turns[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world.append(local if parent < 0 else world[parent] @ local)
    result = np.zeros_like(posed)
    for joint, matrix in enumerate(world):
        bound = matrix.copy()
        bound[:3, 3] -= matrix[:3, :3] @ joints[joint]
        homogeneous = np.concatenate([posed, np.ones((len(posed), 1))], axis=1)
        result += asset.skinning[:, joint : joint + 1].astype(float) * (homogeneous @ bound.T)[:, :3]
    return result + translation


@pytest.fixture
def draw() -> np.random.Generator:
    return np.random.default_rng(7)


def test_forward_pass_agrees_with_an_independent_float64_one(asset, draw):
    shape, expression = draw.normal(size=(3, 5)), draw.normal(size=(3, 4))
    poses, translation = draw.normal(0, 0.6, (3, 5, 3)), draw.normal(size=(3, 3))
    t = torch.from_numpy
    model = FaceModel(asset)
    vertices = model(
        t(shape),
        t(expression),
        t(poses[:, 2]),
        t(poses[:, 0]),
        t(poses[:, 1]),
        t(poses[:, 3:].reshape(3, 6)),
        t(translation),
    )
    assert vertices.dtype == torch.float64
    for index in range(3):
        expected = reference_vertices(asset, shape[index], expression[index], poses[index], translation[index])
        np.testing.assert_allclose(vertices[index].numpy(), expected, atol=1e-6)  # buffers are float32


def test_no_pose_and_zero_pose_are_the_same_face(asset, draw):
    shape, expression = (torch.from_numpy(draw.normal(size=(2, n)).astype(np.float32)) for n in (5, 4))
    model, zero = FaceModel(asset), torch.zeros(2, 3)
    torch.testing.assert_close(model(shape, expression), model(shape, expression, zero, zero, zero, torch.zeros(2, 6)))


def test_fewer_coefficients_are_the_leading_ones(asset):
    model = FaceModel(asset)
    short = model(torch.ones(1, 2), torch.ones(1, 1), torch.full((1, 3), 0.1))
    full = model(torch.tensor([[1.0, 1, 0, 0, 0]]), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 0.1))
    torch.testing.assert_close(short, full)


def test_one_shape_serves_a_batch_of_expressions(asset, draw):
    expression = torch.from_numpy(draw.normal(size=(6, 4)).astype(np.float32))
    model, shape, jaw = FaceModel(asset), torch.ones(1, 5), torch.full((6, 3), 0.2)
    torch.testing.assert_close(model(shape, expression, jaw), model(shape.expand(6, 5), expression, jaw))


def test_global_rotation_turns_about_the_root_joint_of_this_shape(asset, draw):
    model, shape, expression = FaceModel(asset), torch.ones(1, 5), torch.ones(1, 4)
    pose = torch.tensor([[0.3, -1.0, 0.2]])
    root = model.joints_of(shape, expression)[0, 0]
    turn = torch.from_numpy(Rotation.from_rotvec(pose[0].numpy()).as_matrix()).float()
    still = model(shape, expression)[0]
    torch.testing.assert_close(
        model(shape, expression, global_pose=pose)[0], (still - root) @ turn.T + root, atol=1e-6, rtol=0
    )


def test_gradients_at_rest_are_finite_and_reach_every_input(asset):
    inputs = [torch.zeros(2, n, requires_grad=True) for n in (5, 4, 3, 3, 3, 6, 3)]
    FaceModel(asset)(*inputs).square().sum().backward()
    assert all(torch.isfinite(x.grad).all() and x.grad.abs().max() > 0 for x in inputs)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.zeros(1, 6), torch.zeros(1, 4)), "shape"),
        ((torch.zeros(1, 5), torch.zeros(4)), "expression"),
        ((torch.zeros(2, 5), torch.zeros(3, 4)), "batch"),
        ((torch.zeros(2, 5), torch.zeros(2, 4), torch.zeros(2, 6)), "jaw_pose"),
    ],
)
def test_wrong_inputs_are_named(asset, arguments, words):
    with pytest.raises(ShapeError, match=words):
        FaceModel(asset)(*arguments)


def test_arkit_weights_map_linearly_to_expression_and_jaw(asset, draw):
    weights = draw.random((6, 52))
    expression, jaw = arkit_coefficients(asset, weights)
    np.testing.assert_allclose(expression, weights @ asset.arkit_expression, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jaw, weights @ asset.arkit_jaw, rtol=1e-4, atol=1e-5)
    with pytest.raises(ShapeError, match="52"):
        arkit_coefficients(asset, weights[:, :51])


def test_eyes_look_where_the_units_say():
    def gaze(**units: float) -> np.ndarray:
        weights = np.zeros((1, 52))
        for name, value in units.items():
            weights[0, ARKIT_INDEX[name]] = value
        pose = arkit_eye_pose(weights)[0]
        return np.stack([Rotation.from_rotvec(pose[k : k + 3]).apply([0, 0, 1]) for k in (0, 3)])

    left_out, right_in = gaze(eyeLookOutLeft=1, eyeLookInRight=1)
    assert left_out[0] > 0.3
    assert right_in[0] > 0.3  # both to the subject's left, +x
    assert (gaze(eyeLookUpLeft=1, eyeLookUpRight=1)[:, 1] > 0.1).all()
    assert (gaze(eyeLookDownLeft=1, eyeLookDownRight=1)[:, 1] < -0.1).all()


def test_saved_asset_loads_equal_and_its_bytes_do_not_change(asset, tmp_path):
    asset.save(tmp_path / "a.npz")
    FaceAsset.load(tmp_path / "a.npz").save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = FaceAsset.load(tmp_path / "b.npz")
    assert (again.topology, again.basis, again.arkit_names) == (asset.topology, asset.basis, asset.arkit_names)
    np.testing.assert_array_equal(again.pose_basis, asset.pose_basis)
    assert list(again.regions) == list(asset.regions)


def test_asset_arrays_cannot_be_changed(asset):
    with pytest.raises(ValueError, match="read-only"):
        asset.template[0] = 0


def test_every_contradiction_is_reported_at_once(fields):
    fields["skinning"] = fields["skinning"] * 2
    fields["faces"] = fields["faces"] + 1000
    fields["regions"]["L"] = np.array([3, 2])
    with pytest.raises(DataError) as error:
        FaceAsset(**fields)
    assert all(name in str(error.value) for name in ("skinning", "faces", "'L'"))


def test_fusion_regions_must_partition_the_vertices(fields):
    fields["regions"]["O"] = fields["regions"]["O"][1:]
    with pytest.raises(DataError, match="partition"):
        FaceAsset(**fields)


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(AssetMissingError, match="face model"):
        FaceAsset.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(DataError, match="not a face model"):
        FaceAsset.load(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", facts=np.frombuffer(b"{}", np.uint8))
    with pytest.raises(DataError, match="template"):
        FaceAsset.load(tmp_path / "other.npz")


def bare(fields: dict) -> FaceAsset:
    """An asset without what FLAME comes without."""
    none = {"mediapipe_indices": 0, "mediapipe_faces": 0, "mediapipe_barycentrics": (0, 3), "uv": (0, 2)}
    none |= {"uv_faces": (0, 3), "arkit_expression": (0, 4), "arkit_jaw": (0, 3)}
    return FaceAsset(**fields | {name: np.zeros(shape) for name, shape in none.items()} | {"arkit_names": ()})


def test_parts_that_flame_lacks_may_be_missing_and_their_first_use_says_what_to_add(fields, tmp_path):
    bare(fields).save(tmp_path / "a.npz")
    asset = FaceAsset.load(tmp_path / "a.npz")
    assert FaceModel(asset)(torch.zeros(1, 5), torch.zeros(1, 4), torch.zeros(1, 3)).shape == (1, 24, 3)
    with pytest.raises(AssetMissingError, match="assets add flame-mediapipe FILE"):
        mediapipe_points(asset, asset.template)
    with pytest.raises(AssetMissingError, match="no ARKit units"):
        arkit_coefficients(asset, np.zeros((1, 52)))
    with pytest.raises(AssetMissingError, match="assets add flame-uv FILE"):
        asset.require("uv")
    for part in ("mediapipe", "uv", "arkit"):
        FaceAsset(**fields).require(part)


def test_a_part_is_there_whole_or_not_at_all(fields):
    with pytest.raises(DataError, match="arkit_expression"):
        FaceAsset(**fields | {"arkit_names": ()})
    with pytest.raises(DataError, match="uv_faces"):
        FaceAsset(**fields | {"uv": np.zeros((0, 2))})
