"""The chin-angle rig: laws that hold for any head."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ecavatar.config import RigSettings
from ecavatar.errors import DataError, ShapeError
from ecavatar.mouth.rig import ChinRig, chin_vertex, ear_vertex, head_axes

VERTEX = RigSettings(mouth="procedural", fps=30, patch_mm=0.0, max_rejects=0.1)
PATCH = RigSettings(mouth="procedural", fps=30, patch_mm=25.0, max_rejects=0.1)


def jaw_turned(asset, rig, angle):
    """The template with region C turned rigidly by `angle` about the axis through Q along the head's x."""
    template = asset.template.astype(np.float64)
    q = template[rig.ear].mean(axis=0)
    turned = template.copy()
    rotation = Rotation.from_rotvec(angle * rig.axes[0])
    jaw = np.union1d(asset.regions["C"], rig.chin)
    turned[jaw] = rotation.apply(template[jaw] - q) + q
    return turned


@pytest.mark.parametrize("how", [VERTEX, PATCH])
def test_the_template_has_angle_zero(small_face, how):
    rig = ChinRig.fit(small_face.template, small_face, how)
    assert abs(rig.angles(small_face.template[None])[0]) < 1e-12


@pytest.mark.parametrize("how", [VERTEX, PATCH])
@settings(max_examples=20, deadline=None)
@given(angle=st.floats(-0.6, 0.6))
def test_a_rigid_jaw_turning_about_q_gives_back_its_angle(small_face, how, angle):
    rig = ChinRig.fit(small_face.template, small_face, how)
    assert rig.angles(jaw_turned(small_face, rig, angle)[None])[0] == pytest.approx(angle, abs=1e-9)


def test_opening_is_positive_like_the_jaw_pose(small_face):
    rig = ChinRig.fit(small_face.template, small_face, VERTEX)
    opened = jaw_turned(small_face, rig, 0.2)
    assert opened[rig.chin, 1].mean() < small_face.template[rig.chin, 1].mean()


def test_motion_across_the_face_and_of_the_whole_head_changes_nothing(small_face):
    rig = ChinRig.fit(small_face.template, small_face, VERTEX)
    frame = jaw_turned(small_face, rig, 0.15)
    sideways = frame.copy()
    sideways[rig.chin] += 0.01 * rig.axes[0]
    moved = np.stack([frame, sideways, frame + np.array([0.1, -0.2, 0.3])])
    np.testing.assert_allclose(rig.angles(moved), 0.15, atol=1e-9)


def test_the_same_vertices_serve_every_subject_and_turning_the_head_in_space_changes_nothing(small_face):
    rotation = Rotation.from_rotvec([0.0, 0.3, 0.0]).as_matrix()
    rig = ChinRig.fit(small_face.template, small_face, VERTEX)
    turned = ChinRig.fit(small_face.template @ rotation.T, small_face, VERTEX)
    assert rig.chin.tolist() == turned.chin.tolist()
    frame = jaw_turned(small_face, rig, 0.1)
    assert turned.angles((frame @ rotation.T)[None])[0] == pytest.approx(0.1, abs=1e-6)


def test_axes_are_orthonormal_and_point_left_up_and_forward(small_face):
    origin, axes = head_axes(small_face.template.astype(np.float64), small_face)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)
    np.testing.assert_allclose(axes, np.eye(3), atol=0.05)
    assert abs(origin[0]) < 1e-3


def test_p_is_on_the_middle_of_the_chin_and_q_below_the_left_ear_off_the_jaw(small_face):
    p, q = chin_vertex(small_face), ear_vertex(small_face)
    template = small_face.template
    assert p in small_face.regions["C"]
    assert abs(template[p, 0]) < 0.01
    assert template[q, 1] < template[small_face.regions["left_ear"], 1].min()
    assert template[q, 0] > 0.03
    assert small_face.skinning[q, 2] == 0


def test_wrong_meshes_are_refused(small_face):
    rig = ChinRig.fit(small_face.template, small_face, VERTEX)
    with pytest.raises(ShapeError, match="expected"):
        rig.angles(small_face.template)
    with pytest.raises(ShapeError):
        ChinRig.fit(small_face.template[:-1], small_face, VERTEX)
    broken = np.repeat(small_face.template[None], 3, axis=0)
    broken[1, rig.chin] = np.nan
    with pytest.raises(DataError, match="frame 1 of 3"):
        rig.angles(broken)
    with pytest.raises(DataError, match="metres"):
        ChinRig.fit(small_face.template / 1000, small_face, VERTEX)
