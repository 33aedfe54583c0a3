"""A mouth in a face: anatomy's laws on both topologies, and the jaw's turn against independent implementations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ecavatar.errors import DataError, ShapeError, TopologyError
from ecavatar.face.landmarks import ibug68_points
from ecavatar.mouth.fit import MouthFit, MouthPoser, fit_mouth, pose_mouth
from ecavatar.mouth.model import MouthMesh, Part
from ecavatar.mouth.penetration import measure_penetration, outer_skin, signed_distances
from ecavatar.mouth.procedural import procedural_mouth
from ecavatar.mouth.rig import head_axes
from tests.fabricate_mouth import flame_face, open_face, small_mouth, turned_jaw

ANGLES = np.array([0.0, 0.05, -0.02, 0.31])


@pytest.fixture(scope="module", params=["open-head", "flame"])
def face(request):
    if request.param == "open-head":
        return open_face()
    return flame_face(request.getfixturevalue("shared_data") / "flame_template_ccby")


@pytest.fixture(scope="module")
def mouth():
    return small_mouth()


@pytest.fixture(scope="module")
def fit(face, mouth):
    return fit_mouth(mouth, face.template, face)


def changed(mouth: MouthMesh, vertices: np.ndarray) -> MouthMesh:
    names = ("name", "licence", "faces", "part", "tooth", "uv")
    return MouthMesh(vertices=vertices, **{name: getattr(mouth, name) for name in names})


def some_fit() -> MouthFit:
    rotation = Rotation.from_rotvec([0.1, 0.05, -0.02]).as_matrix()
    return MouthFit(
        scale=0.95, rotation=rotation, translation=np.array([0.001, -0.045, 0.046]), axis=rotation[:, 0],
        pivot=np.array([0.0, -0.02, -0.025]),
    )  # fmt: skip


# --- where the teeth lie ----------------------------------------------------------------------------------------------


def test_incisors_end_1_to_3_mm_below_the_upper_lip_and_a_lip_behind_it(face, fit):
    landmarks = ibug68_points(face, face.template.astype(np.float64))
    assert 0.001 < landmarks[62, 1] - fit.translation[1] < 0.003
    assert 0.009 < landmarks[51, 2] - fit.translation[2] < 0.020
    assert abs(fit.translation[0] - landmarks[[51, 57], 0].mean()) < 0.001


def test_a_closed_mouth_sticks_out_nowhere_and_keeps_behind_the_lips(face, mouth, fit):
    closed, skin = fit.closed(mouth), outer_skin(face)
    assert measure_penetration(face.template, skin, closed).vertices == 0
    teeth = mouth.part == Part.UPPER_TEETH
    front = teeth & (closed[:, 2] > closed[teeth, 2].max() - 0.002)
    assert signed_distances(face.template, skin, closed[front]).max() < -0.003


def test_the_open_mouth_fits_both_heads_in_its_own_size(face):
    mouth = procedural_mouth()
    fit = fit_mouth(mouth, face.template, face)
    assert 0.9 < fit.scale < 1.1
    assert measure_penetration(face.template, outer_skin(face), fit.closed(mouth)).vertices == 0


def test_the_fit_is_a_similarity_whose_arch_looks_forward_and_slopes_a_little(face, fit):
    np.testing.assert_allclose(fit.rotation @ fit.rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(fit.rotation) == pytest.approx(1)
    slope = np.degrees(np.arctan2(fit.rotation[1, 2], fit.rotation[2, 2]))
    assert -20 < slope < 0  # the occlusal plane falls by some 9 degrees towards the front
    assert fit.rotation.dtype == fit.translation.dtype == fit.pivot.dtype == np.float64


def test_only_the_arch_width_of_a_mouth_counts_not_its_scale(face, fit):
    big = small_mouth(1.3)
    again = fit_mouth(big, face.template, face)
    np.testing.assert_allclose(again.closed(big), fit.closed(small_mouth()), atol=1e-6)


def test_a_face_elsewhere_takes_its_mouth_along(face, mouth, fit):
    shift = np.array([0.02, -0.3, 0.1])
    moved = fit_mouth(mouth, face.template + shift, face)
    np.testing.assert_allclose(moved.closed(mouth), fit.closed(mouth) + shift, atol=1e-4)
    np.testing.assert_allclose(moved.pivot, fit.pivot + shift, atol=1e-6)


def test_a_larger_face_gets_a_larger_mouth(face, mouth, fit):
    centre = face.template.mean(axis=0)
    larger = fit_mouth(mouth, (face.template - centre) * 1.08 + centre, face)
    assert larger.scale == pytest.approx(1.08 * fit.scale, rel=1e-5)


def test_the_same_face_gives_the_same_fit_to_the_bit(face, mouth, fit):
    again = fit_mouth(mouth, face.template.copy(), face)
    for name in ("rotation", "translation", "axis", "pivot"):
        np.testing.assert_array_equal(getattr(again, name), getattr(fit, name))


def test_the_pivot_is_the_jaw_joint_in_the_yz_plane_and_the_axis_points_left(face, fit):
    template = face.template.astype(np.float64)
    origin, axes = head_axes(template, face)
    joint = face.joint_regressor[2].astype(np.float64) @ template
    np.testing.assert_allclose((fit.pivot - origin) @ axes[0], 0, atol=1e-12)
    np.testing.assert_allclose((fit.pivot - joint) @ axes[1:].T, 0, atol=1e-12)
    np.testing.assert_array_equal(fit.axis, axes[0])
    assert fit.axis[0] > 0.99


def test_what_cannot_fit_goes_back_shrinks_and_is_reported(mouth):
    face = open_face()
    longer = changed(mouth, mouth.vertices + np.where(mouth.part == Part.TONGUE, 0.08, 0.0)[:, None] * (0, 0, 1))
    fit, usual = fit_mouth(longer, face.template, face), fit_mouth(mouth, face.template, face)
    assert fit.scale < usual.scale
    assert fit.translation[2] < usual.translation[2]
    left = measure_penetration(face.template, outer_skin(face), fit.closed(longer))
    assert left.vertices > 0
    assert left.deepest_m > 0.01


# --- the jaw turns ----------------------------------------------------------------------------------------------------


def test_the_pose_is_the_rotation_that_scipy_makes_about_pivot_and_axis(mouth):
    fit = some_fit()
    closed, frames = fit.closed(mouth), pose_mouth(mouth, fit, ANGLES)
    for angle, frame in zip(ANGLES, frames, strict=True):
        turned = Rotation.from_rotvec(angle * fit.axis).apply(closed - fit.pivot) + fit.pivot
        expected = np.where(mouth.follows_jaw[:, None], turned, closed)
        np.testing.assert_allclose(frame, expected, atol=2e-8)


def test_upper_teeth_and_gum_rest_to_the_bit_and_opening_is_positive(mouth):
    fit = some_fit()
    frames, rests = pose_mouth(mouth, fit, ANGLES), ~mouth.follows_jaw
    np.testing.assert_array_equal(frames[:, rests], np.broadcast_to(frames[0, rests], frames[:, rests].shape))
    np.testing.assert_array_equal(frames[0, rests], fit.closed(mouth)[rests].astype(np.float32))
    lower = mouth.part == Part.LOWER_TEETH
    assert (frames[3, lower, 1] < frames[0, lower, 1] - 0.002).all()


def test_a_window_of_frames_has_the_bits_of_the_whole_clip(mouth):
    fit, angles = some_fit(), np.linspace(-0.05, 0.4, 50)
    whole = pose_mouth(mouth, fit, angles)
    np.testing.assert_array_equal(pose_mouth(mouth, fit, angles[17:18]), whole[17:18])
    out = np.full((50, len(mouth.vertices), 3), np.nan, np.float32)
    assert pose_mouth(mouth, fit, angles, out=out) is out
    np.testing.assert_array_equal(out, whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numpy_and_torch_agree_within_a_tenth_of_a_micrometre(mouth, dtype):
    fit = some_fit()
    posed = MouthPoser(mouth, fit)(torch.tensor(ANGLES, dtype=dtype))
    assert posed.dtype == torch.float32
    np.testing.assert_allclose(posed.numpy(), pose_mouth(mouth, fit, ANGLES), atol=1e-7)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_poses_the_same_mouth(mouth):
    fit = some_fit()
    posed = MouthPoser(mouth, fit).to("cuda")(torch.tensor(ANGLES, device="cuda"))
    np.testing.assert_allclose(posed.cpu().numpy(), pose_mouth(mouth, fit, ANGLES), atol=1e-7)


def test_gradients_reach_the_angles(mouth):
    angles = torch.tensor(ANGLES, dtype=torch.float32, requires_grad=True)
    MouthPoser(mouth, some_fit())(angles)[..., 1].sum().backward()
    assert angles.grad is not None
    assert (angles.grad < 0).all()


def test_lower_teeth_stay_where_they_are_under_skin_that_follows_the_jaw(face, mouth, fit):
    template, angle = face.template.astype(np.float64), 0.25
    skin = np.flatnonzero(face.skinning[:, 2] == 1)
    tooth = np.flatnonzero(mouth.part == Part.LOWER_TEETH)[:8]
    opened, teeth = turned_jaw(face, template, angle)[skin], pose_mouth(mouth, fit, np.array([0.0, angle]))[:, tooth]
    before = np.linalg.norm(template[skin][:, None] - teeth[0], axis=2)
    after = np.linalg.norm(opened[:, None] - teeth[1], axis=2)
    np.testing.assert_allclose(after, before, atol=5e-4)  # the line between FLAME's ears is a little off the mesh's x
    assert np.abs(opened - template[skin]).max() > 0.005


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_neutral_that_is_none_is_refused(mouth):
    face = open_face()
    template = face.template.astype(np.float64)
    broken = template.copy()
    broken[70, 1] = np.nan
    for head, error, words in (
        (turned_jaw(face, template, 0.2), DataError, "lips .* mm apart"),
        (broken, DataError, "1 vertices are not finite, the first is 70"),
        (template * 1000, DataError, "is it in metres"),
        (template[:-1], ShapeError, "expected .5023, 3. as in topology open-head"),
        (template[np.random.default_rng(0).permutation(len(template))], TopologyError, "vertex order"),
        (Rotation.from_rotvec([0.8, 0, 0]).apply(template), DataError, "tilted by .* degrees"),
    ):
        with pytest.raises(error, match=words):
            fit_mouth(mouth, head, face)


def test_a_mouth_in_millimetres_or_without_upper_teeth_is_refused(mouth):
    face = open_face()
    with pytest.raises(DataError, match=r"are 59.* wide, expected 0\.02 to 0\.12 m"):
        fit_mouth(changed(mouth, mouth.vertices * 1000), face.template, face)
    lower = np.where(mouth.part == Part.UPPER_TEETH, Part.LOWER_TEETH, mouth.part)
    without = MouthMesh(
        name="lower", licence="CC0-1.0", vertices=mouth.vertices, faces=mouth.faces, part=lower, tooth=mouth.tooth,
        uv=mouth.uv,
    )  # fmt: skip
    with pytest.raises(DataError, match="upper teeth"):
        fit_mouth(without, face.template, face)


def test_landmarks_that_enclose_no_mouth_are_refused(mouth):
    face = open_face()
    faces = face.ibug68_faces.copy()
    faces[60:] = faces[60]
    with pytest.raises(DataError, match="inner-lip landmarks"):
        fit_mouth(mouth, face.template, replace(face, ibug68_faces=faces))


def test_wrong_angles_and_arrays_are_refused(mouth):
    fit = some_fit()
    with pytest.raises(ShapeError, match=r"angles: expected \(T,\)"):
        pose_mouth(mouth, fit, np.zeros((2, 1)))
    with pytest.raises(ShapeError, match=r"angles: expected \(T,\)"):
        MouthPoser(mouth, fit)(torch.zeros(2, 1))
    with pytest.raises(DataError, match="angle of frame 1 is not finite"):
        pose_mouth(mouth, fit, np.array([0.0, np.nan]))
    with pytest.raises(ShapeError, match="out: expected contiguous float32"):
        pose_mouth(mouth, fit, ANGLES, out=np.empty((4, len(mouth.vertices), 3)))
