"""The chin-angle rig: laws that hold for any head."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ecavatar.config import RigSettings
from ecavatar.errors import DataError, ShapeError
from ecavatar.face.landmarks import ibug68_points
from ecavatar.mouth.rig import ChinRig, chin_vertex, ear_vertex, head_axes
from tests.fabricate_mouth import flame_face, turned_jaw

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


def test_the_angle_is_the_paper_s_signed_angle_between_projected_lines(small_face):
    """Project P and Q on the yz plane, take the angle between the two lines by its cosine, and its sign by the side."""
    template = small_face.template.astype(np.float64)
    rig, frames = ChinRig.fit(template, small_face, VERTEX), shaken(small_face, 40)
    p, q, (_, y, z) = rig.chin[0], rig.ear[0], rig.axes

    def projected(mesh):
        return np.array([(mesh[p] - mesh[q]) @ y, (mesh[p] - mesh[q]) @ z])

    rest = projected(template)
    for angle, frame in zip(rig.angles(frames), frames, strict=True):
        line = projected(frame.astype(np.float64))
        cosine = rest @ line / np.linalg.norm(rest) / np.linalg.norm(line)
        opens = line[1] * rest[0] - line[0] * rest[1] > 0  # y towards z turns right-handed about x
        expected = np.arccos(np.clip(cosine, -1, 1)) * (1 if opens else -1)
        assert angle == pytest.approx(expected, abs=1e-7)


def test_the_angle_is_the_x_turn_of_scipy_s_best_rotation_of_the_projected_line(small_face):
    rig, frames = ChinRig.fit(small_face.template, small_face, PATCH), shaken(small_face, 10)
    flat = np.diag([0.0, 1.0, 1.0]) @ rig.axes
    for angle, frame in zip(rig.angles(frames), frames, strict=True):
        rest, line = (
            flat @ (mesh[rig.chin].mean(axis=0) - mesh[rig.ear].mean(axis=0))
            for mesh in (small_face.template.astype(np.float64), frame.astype(np.float64))
        )
        across = [1.0, 0.0, 0.0]
        turn = Rotation.align_vectors([line / np.linalg.norm(line), across], [rest / np.linalg.norm(rest), across])[0]
        assert turn.as_rotvec()[0] == pytest.approx(angle, abs=1e-6)
        assert turn.magnitude() == pytest.approx(abs(angle), abs=1e-6)


def test_blocks_strides_maps_and_dtypes_change_no_angle(small_face, tmp_path):
    rig, frames = ChinRig.fit(small_face.template, small_face, PATCH), shaken(small_face, 300)
    alone = np.array([rig.angles(frame[None])[0] for frame in frames])
    np.save(tmp_path / "frames.npy", frames)
    mapped = np.load(tmp_path / "frames.npy", mmap_mode="r")
    np.testing.assert_array_equal(rig.angles(mapped), alone)
    np.testing.assert_array_equal(rig.angles(mapped[::2]), alone[::2])
    np.testing.assert_array_equal(rig.angles(np.asfortranarray(frames)), alone)
    np.testing.assert_allclose(rig.angles(frames.astype(np.float64)), alone, atol=1e-12)
    assert rig.angles(frames[:0]).shape == (0,)


def test_p_and_q_lie_on_chin_and_below_the_left_ear_of_flame_too(shared_data):
    face = flame_face(shared_data / "flame_template_ccby")
    p, q = face.template[chin_vertex(face)], face.template[ear_vertex(face)]
    landmarks = ibug68_points(face, face.template)
    assert abs(p[0]) < 0.004
    assert landmarks[8, 1] < p[1] < landmarks[57, 1]  # between menton and lower lip
    assert p[2] > landmarks[8, 2]
    ear = face.template[face.regions["left_ear"]]
    assert ear[:, 1].min() - 0.02 < q[1] < ear[:, 1].min()
    assert q[0] > 0.05
    rig = ChinRig.fit(face.template, face, VERTEX)
    opened = np.stack([turned_jaw(face, face.template.astype(np.float64), angle) for angle in (0.1, 0.2)])
    measured = rig.angles(opened)
    assert 0.7 < measured[0] / 0.1 < 1.1
    assert 0.7 < measured[1] / 0.2 < 1.1


def shaken(face, count: int) -> np.ndarray:
    """The template with every vertex moved by some millimetres, differently in each frame; float32."""
    noise = np.random.default_rng(4).normal(0, 0.004, (count, *face.template.shape))
    return (face.template + noise).astype(np.float32)


def test_every_vertex_of_every_frame_is_looked_at(small_face):
    rig, frames = ChinRig.fit(small_face.template, small_face, VERTEX), shaken(small_face, 200)
    far = next(v for v in range(226) if v not in (rig.chin[0], rig.ear[0]))
    for value in (np.nan, np.inf, -np.inf):
        broken = frames.copy()
        broken[170, far, 1] = value
        broken[180] = value
        with pytest.raises(DataError, match=f"frame 170 of 200: 1 vertices are not finite, the first is {far}"):
            rig.angles(broken)
    huge = frames.copy()
    huge[3, far] = 1e30  # its square is no float32; strange, but a number
    np.testing.assert_array_equal(rig.angles(huge), rig.angles(frames))


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
    with pytest.raises(ShapeError, match="floats"):
        rig.angles(np.zeros((2, 226, 3), dtype=int))
    for factor in (1000, 1 / 1000):
        with pytest.raises(DataError, match="metres"):
            ChinRig.fit(small_face.template * factor, small_face, VERTEX)
    with pytest.raises(DataError, match="3 vertices are not finite, the first is 20"):
        ChinRig.fit(np.where(np.isin(np.arange(226), [20, 30, 40])[:, None], np.nan, small_face.template), small_face,
                    VERTEX)  # fmt: skip
