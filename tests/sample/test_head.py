"""The open head: FLAME's counts and schema, plausible people, units that do what the artist drew."""

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from ecavatar.errors import DataError
from ecavatar.face.alignment import register_points
from ecavatar.face.landmarks import ibug68_points, mediapipe_points
from ecavatar.face.model import ARKIT_INDEX, ARKIT_NAMES, FaceAsset, FaceModel, arkit_coefficients
from ecavatar.sample import head_data
from ecavatar.sample.head import JAW_UNITS, build_open_head, write_open_head
from ecavatar.sample.head_data import HeadData


@pytest.fixture(scope="module")
def asset() -> FaceAsset:
    return build_open_head()


@pytest.fixture(scope="module")
def data() -> HeadData:
    return HeadData.load()


@pytest.fixture(scope="module")
def model(asset) -> FaceModel:
    return FaceModel(asset).double()


def moved_by(model: FaceModel, weights: np.ndarray) -> np.ndarray:
    """How ARKit weights (n, 52) move the mean head, metres (n, V, 3)."""
    expression, jaw = (torch.from_numpy(array).double() for array in arkit_coefficients(model.asset, weights))
    return model(torch.zeros(1, 1).double(), expression, jaw).numpy() - model.asset.template


def posed(model: FaceModel, **units: float) -> np.ndarray:
    """Vertices of the mean head with ARKit units; a name without its side means both."""
    weights = np.zeros((1, 52))
    for name, value in units.items():
        for side in ("", "Left", "Right"):
            if name + side in ARKIT_INDEX:
                weights[0, ARKIT_INDEX[name + side]] = value
    return moved_by(model, weights)[0] + model.asset.template


def test_counts_and_tags_are_flames(asset):
    assert (asset.topology, asset.basis) == ("open-head", "open-head")
    assert (asset.n_vertices, len(asset.faces), asset.n_shape, asset.n_expression) == (5023, 9976, 300, 100)
    assert len(asset.mediapipe_indices) == 478


def test_surface_is_one_open_head_and_two_closed_eyeballs(asset):
    mesh = trimesh.Trimesh(asset.template, asset.faces, process=False)
    parts = sorted(mesh.split(only_watertight=False), key=lambda part: len(part.vertices))
    assert [len(part.vertices) for part in parts] == [338, 338, 4347]
    assert [part.is_watertight for part in parts] == [True, True, False]
    assert all(part.is_winding_consistent for part in parts)
    assert parts[0].volume > 0
    borders = trimesh.grouping.group_rows(np.sort(mesh.edges, axis=1), require_count=1)
    assert len(borders) == 60
    assert mesh.edges_unique_length.min() > 1e-5


def test_head_is_in_metres_upright_and_looks_along_z(asset):
    size = np.ptp(asset.template, axis=0)
    np.testing.assert_allclose(size, [0.17, 0.29, 0.21], atol=0.03)
    left, right = (asset.template[asset.regions[name]].mean(axis=0) for name in ("left_ear", "right_ear"))
    assert left[0] > 0.06 > -0.06 > right[0]
    points = ibug68_points(asset, asset.template)
    assert points[30, 2] == points[:, 2].max()  # the nose's tip is in front
    assert points[27, 1] > points[30, 1] > points[51, 1] > points[57, 1] > points[8, 1]


def test_template_landmarks_and_regions_are_mirror_images(asset, data):
    np.testing.assert_allclose(asset.template[data.mirror] * (-1, 1, 1), asset.template, atol=1e-6)
    swap = {"left_ear": "right_ear", "left_eyeball": "right_eyeball", "left_brow": "right_brow"}
    for name, indices in asset.regions.items():
        partner = swap.get(name, {b: a for a, b in swap.items()}.get(name, name))
        np.testing.assert_array_equal(np.sort(data.mirror[indices]), asset.regions[partner])
    points = ibug68_points(asset, asset.template)
    jaw_and_brows, nose = [*range(16, -1, -1), *range(26, 16, -1)], [27, 28, 29, 30, 35, 34, 33, 32, 31]
    eyes = [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    lips = [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    order = [*jaw_and_brows, *nose, *eyes, *lips]
    np.testing.assert_allclose(points[order] * (-1, 1, 1), points, atol=2e-3)


def test_components_come_in_order_of_variance_and_are_uncorrelated(asset):
    for basis in (asset.shape_basis, asset.expression_basis):
        flat = basis.reshape(-1, basis.shape[-1]).astype(np.float64)
        gram = flat.T @ flat
        deviations = np.sqrt(np.diag(gram))
        assert (np.diff(deviations) <= 1e-9).all()
        correlation = gram / np.outer(deviations, deviations)
        assert np.abs(correlation - np.eye(len(gram))).max() < 1e-3


def test_random_people_differ_by_millimetres_and_keep_their_parts_in_place(asset):
    draw = np.random.default_rng(0)
    people = asset.template + np.einsum("vcs,ns->nvc", asset.shape_basis, draw.normal(size=(40, 300)))
    spread = np.linalg.norm(people - asset.template, axis=2).mean()
    assert 0.003 < spread < 0.009
    skin = np.setdiff1d(np.arange(5023), asset.regions["neck"])
    turns = [register_points(person[skin], asset.template[skin]).transform[:3, :3] for person in people]
    assert np.degrees(np.arccos((np.trace(turns, axis1=1, axis2=2) - 1) / 2)).max() < 4
    eyes = people[:, asset.regions["left_eyeball"]]
    centres = (eyes[:, 0] + eyes[:, -1]) / 2
    radii = np.linalg.norm(eyes - centres[:, None], axis=2)
    assert (np.ptp(radii, axis=1) < 1e-4).all()  # eyeballs stay spheres
    nose, chin = (ibug68_points(asset, people)[:, index] for index in (30, 8))
    assert (nose[:, 1] > chin[:, 1] + 0.03).all()


def test_joints_sit_where_they_turn_and_follow_the_person(asset):
    joints = asset.joint_regressor @ asset.template
    np.testing.assert_allclose(joints[:, 0], [0, 0, 0, joints[3, 0], -joints[3, 0]], atol=1e-5)
    assert joints[0, 1] < joints[1, 1] < joints[2, 1] < joints[3, 1]
    person = asset.template + asset.shape_basis @ np.random.default_rng(1).normal(size=300)
    eye = person[asset.regions["left_eyeball"]]
    np.testing.assert_allclose((asset.joint_regressor @ person)[3], (eye[0] + eye[-1]) / 2, atol=1e-6)


def test_units_move_the_head_as_the_artist_drew_them(asset, data, model):
    moved = moved_by(model, np.eye(52))
    eyeballs = np.concatenate([asset.regions["left_eyeball"], asset.regions["right_eyeball"]])
    for index, name in enumerate(ARKIT_NAMES):
        if name in ("jawLeft", "jawRight"):
            continue  # pure turns; the artist also shifts the jaw forward
        other = name.replace("Left", "*").replace("Right", "Left").replace("*", "Right")
        drawn, mirrored = (data.target(f"faceunits01/targets/faceunits/{unit}.target") for unit in (name, other))
        drawn = (drawn + mirrored[data.mirror] * (-1, 1, 1)) / 2  # the sources are symmetric to about a millimetre
        drawn[eyeballs] = 0
        assert np.abs(moved[index] - drawn).max() < 2e-5, name


def test_jaw_units_turn_the_jaw_and_nothing_else(asset, model):
    for name in JAW_UNITS:
        assert not asset.arkit_expression[ARKIT_INDEX[name]].any()
    assert not np.delete(asset.arkit_jaw, [ARKIT_INDEX[name] for name in JAW_UNITS], axis=0).any()
    assert asset.arkit_jaw[ARKIT_INDEX["jawOpen"], 0] > 0.3
    side = posed(model, jawLeft=1) - asset.template
    chin = asset.regions["C"]
    assert side[chin, 0].mean() > 0.002
    opened = posed(model, jawOpen=1) - asset.template
    assert opened[chin, 1].mean() < -0.01
    assert np.abs(opened[asset.regions["upper_face"]]).max() < 2e-3


def test_open_jaw_parts_the_inner_lips_and_blink_closes_the_lids(asset, model):
    def gap(vertices: np.ndarray, upper: int, lower: int) -> float:
        points = mediapipe_points(asset, vertices)
        return float(points[upper, 1] - points[lower, 1])

    assert abs(gap(asset.template, 13, 14)) < 0.002
    assert gap(posed(model, jawOpen=1), 13, 14) > 0.02
    assert gap(asset.template, 159, 145) > 0.006
    assert abs(gap(posed(model, eyeBlink=1), 159, 145)) < 0.004


def test_eyes_turn_about_their_centres(asset, model):
    zero, pose = torch.zeros(1, 1).double(), torch.tensor([[0.0, 0.4, 0, 0, 0, 0]]).double()
    turned = model(zero, zero, eye_pose=pose)[0].numpy()
    still = np.setdiff1d(np.arange(5023), asset.regions["left_eyeball"])
    np.testing.assert_allclose(turned[still], asset.template[still], atol=1e-6)
    eye, rest = turned[asset.regions["left_eyeball"]], asset.template[asset.regions["left_eyeball"]]
    np.testing.assert_allclose((eye[0] + eye[-1]) / 2, (rest[0] + rest[-1]) / 2, atol=1e-6)
    assert eye[0, 0] - rest[0, 0] > 0.004  # +y turns the gaze to the subject's left


def test_texture_triangles_lie_in_the_unit_square_and_keep_their_side_up(asset):
    assert 0 <= asset.uv.min() <= asset.uv.max() <= 1
    a, b, c = (asset.uv[asset.uv_faces[:, k]].astype(np.float64) for k in range(3))
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert (area > 0).all()
    assert area.sum() / 2 > 0.5


def test_fusion_regions_lie_where_the_paper_draws_them(asset):
    def height(name: str) -> float:
        return float(asset.template[asset.regions[name], 1].mean())

    assert height("C") < height("L") < height("nose") < height("eye_region") < height("forehead")
    outside = set(asset.regions["O"])
    for name in ("nose", "left_ear", "right_ear", "scalp", "neck", "left_eyeball", "right_eyeball", "inner_mouth"):
        assert outside.issuperset(asset.regions[name]), name
    assert set(asset.regions["F"]).issuperset(asset.regions["upper_face"])


def test_written_head_is_the_same_every_time_and_package_data_is_small(tmp_path, asset):
    write_open_head(tmp_path / "a.npz")
    asset.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    folder = Path(head_data.__file__).parent / "data"
    assert (folder / "head.npz").stat().st_size < 3_000_000
    assert "CC0 1.0" in (folder / "LICENSE.txt").read_text()


def test_data_survives_saving_and_damage_is_noticed(tmp_path, data):
    data.save(tmp_path / "head.npz")
    again = HeadData.load(tmp_path / "head.npz")
    assert list(again.targets) == list(data.targets)
    name = next(iter(data.targets))
    np.testing.assert_array_equal(again.target(name), data.target(name))
    (tmp_path / "head.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match="install"):
        HeadData.load(tmp_path / "head.npz")
    with pytest.raises(DataError, match="no target"):
        data.target("third-eye")


def test_agrees_with_the_reference_build(shared_data, data):
    reference = np.load(shared_data / "open_head_cc0" / "anny_head_5023.npz")
    drawn = dict(zip(reference["expr_names"].tolist(), reference["expr"].astype(np.float64) / 10, strict=True))
    base, positions = reference["v"][:4311].astype(np.float64) / 10, data.points[:4326].astype(np.float64)
    distance = np.linalg.norm(positions[:, None] - base[None, ::7], axis=2)
    ours, theirs = np.nonzero(distance < 1e-6)
    assert len(ours) > 550
    for unit in ("mouthSmileLeft", "jawOpen"):
        name = f"faceunits01/targets/faceunits/{unit}.target"
        np.testing.assert_allclose(data.offsets(name)[ours], drawn[name][:4311][::7][theirs], atol=3e-5)
