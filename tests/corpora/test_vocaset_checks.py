"""Neutral meshes that do not fit the face model are refused, each fault by its name, and people are not."""

import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from ecavatar.corpora.vocaset import Vocaset
from ecavatar.corpora.vocaset_checks import check_frame_rate, check_frames, check_templates, template_problems
from ecavatar.errors import DataError, TopologyError
from ecavatar.face.landmarks import surface_points
from ecavatar.face.mesh_file import read_mesh, write_mesh
from ecavatar.face.model import FaceAsset, FaceModel
from ecavatar.sample.head import build_open_head
from ecavatar.storage.unpickle import load_pickle
from tests.fabricate import write_vocaset_folders
from tests.fabricate_mouth import turned_jaw

TURNS = {"x": "nodded", "y": "turned", "z": "tilted"}


@pytest.fixture(scope="module")
def head() -> FaceAsset:
    return build_open_head()


@pytest.fixture(scope="module")
def flame(small_face, shared_data) -> FaceAsset:
    return flame_stand_in(small_face, shared_data)


def flame_stand_in(small: FaceAsset, shared_data: Path) -> FaceAsset:
    """A face model of FLAME's published template: its landmarks, and regions by rule where FLAME's masks would be."""
    folder = shared_data / "flame_template_ccby"
    mesh = trimesh.load(folder / "template.ply", process=False)
    template, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    embedding = load_pickle(folder / "flame_static_embedding_68.pkl")
    ibug = np.asarray(embedding["lmk_face_idx"]).ravel(), np.asarray(embedding["lmk_b_coords"]).reshape(-1, 3)
    points = surface_points(template, faces, *ibug)
    _, y, z = template.T
    eyes, chin = points[36:48, 1].mean(), points[8, 1]
    upper = (y > eyes) & (z > -0.02)
    jaw = (y < points[48, 1]) & (y > chin - 0.01) & (z > 0.0)
    masks = {name: np.zeros(len(y), bool) for name in small.regions}
    masks |= {"upper_face": upper, "nose": np.linalg.norm(template - points[30], axis=1) < 0.02, "scalp": y > 0.09}
    masks |= {"L": jaw, "C": ~jaw & upper, "F": ~jaw & ~upper}
    skinning = np.zeros((len(y), 5))
    skinning[np.arange(len(y)), np.where(jaw, 2, 0)] = 1
    still = {"shape_basis": 1, "expression_basis": 1, "pose_basis": 36}
    return replace(
        small, topology="flame", basis="flame2020", template=template, faces=faces, skinning=skinning,
        regions={name: np.flatnonzero(mask) for name, mask in masks.items()},
        joint_regressor=np.full((5, len(y)), 1 / len(y)), ibug68_faces=ibug[0], ibug68_barycentrics=ibug[1],
        mediapipe_indices=np.zeros(0), mediapipe_faces=np.zeros(0), mediapipe_barycentrics=np.zeros((0, 3)),
        uv=np.zeros((0, 2)), uv_faces=np.zeros((0, 3)), arkit_names=(), arkit_expression=np.zeros((0, 1)),
        arkit_jaw=np.zeros((0, 3)), **{name: np.zeros((len(y), 3, width)) for name, width in still.items()},
    )  # fmt: skip


@pytest.fixture(scope="module", params=["small_face", "head", "flame"])
def asset(request) -> FaceAsset:
    return request.getfixturevalue(request.param)


def problems(vertices: np.ndarray, asset: FaceAsset) -> dict[str, str]:
    found = template_problems(np.asarray(vertices, np.float32), asset)
    assert len({problem.kind for problem in found}) == len(found)
    return {problem.kind: problem.text for problem in found}


def turned(vertices: np.ndarray, axes: str, degrees: float | list[float]) -> np.ndarray:
    return Rotation.from_euler(axes, degrees, degrees=True).apply(vertices)


def test_the_models_own_neutral_mesh_has_no_problem(asset):
    assert not problems(asset.template, asset)


@pytest.mark.parametrize(("factor", "name"), [(1000, "millimetres"), (100, "centimetres"), (10, "decimetres")])
def test_the_unit_is_named(asset, factor, name):
    (kind, text), *others = problems(factor * asset.template, asset).items()
    assert kind == "unit"
    assert f"expected metres, got {name}" in text
    assert f"by {factor}." in text
    assert not others, "what is wrong with the unit is not reported twice"


@pytest.mark.parametrize("factor", [4.0, 0.01, 1e6])
def test_an_unknown_unit_is_one(asset, factor):
    assert "unknown unit" in problems(factor * asset.template, asset)["unit"]


@pytest.mark.parametrize(
    ("axes", "degrees", "words"),
    [
        ("x", 90, "got z up and -y forward"), ("x", -90, "got -z up and y forward"),
        ("y", 90, "got y up and x forward"), ("z", 90, "got -x up and z forward"),
        ("y", 180, "got y up and -z forward"),
    ],
)  # fmt: skip
def test_axes_that_lie_elsewhere_are_named(asset, axes, degrees, words):
    found = problems(turned(asset.template, axes, degrees), asset)
    assert list(found) == ["frame"]
    assert words in found["frame"]


def test_a_mirror_image_is_one(asset):
    for axis in np.eye(3):
        found = problems(asset.template * (1 - 2 * axis), asset)
        assert list(found) == ["frame"]
        assert "mirror image" in found["frame"]


@pytest.mark.parametrize("axis", "xyz")
def test_a_head_with_pose_is_found_from_some_degrees_on(asset, axis):
    for degrees in (-3, 3):
        assert not problems(turned(asset.template, axis, degrees), asset)
    for degrees in (-7, 7, 20, 40):
        found = problems(turned(asset.template, axis, degrees), asset)
        assert list(found) == ["pose"]
        assert TURNS[axis] in found["pose"]
        assert f"{abs(degrees)}.0 degrees" in found["pose"]


def test_all_that_is_wrong_with_one_mesh_is_told(asset):
    found = problems(1000 * turned(asset.template, "xy", [90, 10]), asset)
    assert list(found) == ["unit", "frame", "pose"]


def test_a_head_in_another_place_is_told_how_far(asset):
    assert not problems(asset.template + np.array([0, 0.03, 0]), asset)
    assert "(0, 20, -10) cm" in problems(asset.template + np.array([0, 0.2, -0.1]), asset)["place"]


def test_another_vertex_order_is_found(asset):
    v = asset.n_vertices
    swapped = np.arange(v)
    far = int(np.linalg.norm(asset.template - asset.template[0], axis=1).argmax())
    swapped[[0, far]] = far, 0
    by_height = np.argsort(asset.template[:, 1])
    for order in (np.random.default_rng(8).permutation(v), np.arange(v)[::-1], swapped, by_height):
        found = problems(1000 * turned(asset.template[order], "y", 50), asset)
        assert list(found) == ["unit", "order"]
        assert f"expected the vertex order of {asset.topology}" in found["order"]
    assert "vertices, got" in problems(asset.template[:-1], asset)["order"]


def test_one_vertex_elsewhere_is_named(asset):
    mesh = np.array(asset.template)
    mesh[17] = mesh[17] + (0, 0.3, 0)
    assert "1 vertices far from all their neighbours, the first is 17" in problems(mesh, asset)["order"]


def test_the_orders_of_the_open_head_and_flame_are_told_apart(head, flame):
    assert head.template.shape == flame.template.shape
    assert "order" in problems(head.template, flame)
    assert "order" in problems(flame.template, head)


def test_whole_parts_in_another_place_are_found(head):
    left, right = head.regions["left_eyeball"], head.regions["right_eyeball"]
    mesh = np.array(head.template)
    mesh[left], mesh[right] = head.template[right], head.template[left]
    assert "off their place" in problems(mesh, head)["order"]


def test_a_mesh_file_that_split_its_vertices_is_refused_and_one_that_kept_them_is_not(tmp_path, head):
    corners = head.faces.ravel()
    write_mesh(tmp_path / "kept.obj", head.template, head.faces)
    write_mesh(tmp_path / "split.obj", head.template[corners], np.arange(len(corners)).reshape(-1, 3))
    assert not problems(read_mesh(tmp_path / "kept.obj")[0], head)
    assert "vertices, got" in problems(read_mesh(tmp_path / "split.obj")[0], head)["order"]
    first_met = corners[np.sort(np.unique(corners, return_index=True)[1])]  # as an exporter that walks over triangles
    assert "order" in problems(head.template[first_met], head)


def test_an_open_mouth_is_found_from_some_degrees_of_the_jaw_on(head):
    angles = np.array([0, 0.03, 0.1, 0.2, 0.5], np.float32)
    with torch.inference_mode():
        jaw = torch.from_numpy(np.pad(angles[:, None], ((0, 0), (0, 2))))
        meshes = FaceModel(head)(torch.zeros(1, 1), torch.zeros(1, 1), jaw_pose=jaw).numpy()
    assert [list(problems(mesh, head)) for mesh in meshes] == [[], [], ["mouth"], ["mouth"], ["mouth"]]
    assert "expected a closed mouth" in problems(meshes[-1], head)["mouth"]


def test_an_open_mouth_of_flame_is_found(flame):
    inner_and_outer_lower_lip = np.unique(flame.faces[flame.ibug68_faces[[58, 57, 56, 65, 66, 67]]])
    mesh = np.array(flame.template)
    mesh[inner_and_outer_lower_lip, 1] -= 0.01
    assert list(problems(mesh, flame)) == ["mouth"]


def test_people_have_no_problem(head):
    draw = np.random.default_rng(8)
    for _ in range(20):
        person = head.template + head.shape_basis @ draw.normal(size=head.n_shape).astype(np.float32)
        assert not problems(person, head)


def test_the_sample_worlds_subjects_have_no_problem(repository, head):
    root = repository / "data" / "sample" / "raw" / "vocaset"
    if not root.is_dir():
        pytest.skip("the sample profile's VOCASET is not built (`dvc repro make_corpora@sample`)")
    vocaset = Vocaset.open(root)
    assert len(vocaset.templates) == 12
    check_templates(vocaset, head)
    check_frame_rate(vocaset)
    assert np.abs(vocaset.durations()["mismatch_s"].to_numpy()).max() < 1 / 60


def test_all_problems_of_all_subjects_are_one_error(tmp_path, small_vocaset, small_face):
    check_templates(Vocaset.open(small_vocaset), small_face)
    shutil.copytree(small_vocaset, tmp_path / "raw")
    path = tmp_path / "raw" / "templates.pkl"
    templates = pickle.loads(path.read_bytes())
    first, second, third, fourth = templates
    templates[first] = 1000 * turned(templates[first], "x", 90)
    templates[second] = turned(templates[second], "y", 20)
    path.write_bytes(pickle.dumps(templates, protocol=2))
    with pytest.raises(DataError) as error:
        check_templates(Vocaset.open(tmp_path / "raw"), small_face)
    text = str(error.value)
    assert text.startswith(f"{path}: 2 of 4 neutral meshes")
    for subject, words in ((first, "millimetres"), (first, "z up"), (second, "turned (about y)")):
        assert any(subject in line and words in line for line in text.splitlines())
    assert third not in text
    templates[fourth] = templates[fourth][::-1]
    path.write_bytes(pickle.dumps(templates, protocol=2))
    with pytest.raises(TopologyError, match=rf"(?s)3 of 4.*{first}.*{fourth}: expected the vertex order"):
        check_templates(Vocaset.open(tmp_path / "raw"), small_face)


def test_meshes_at_another_rate_are_found_by_their_sound(tmp_path, small_vocaset):
    vocaset = Vocaset.open(small_vocaset)
    check_frame_rate(vocaset)
    write_vocaset_folders(tmp_path / "folders", vocaset)
    for path in (tmp_path / "folders" / "vertices_npy").glob("*.npy"):
        np.save(path, np.load(path)[::2])
    with pytest.raises(DataError, match="about 30 a second"):
        check_frame_rate(Vocaset.open(tmp_path / "folders"))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda frames: 1000 * frames, DataError, "millimetres"),
        (lambda frames: frames[:, ::-1], TopologyError, "vertex order"),
        (lambda frames: frames + np.array([0, 0, 0.3]), DataError, "moved by"),
        (lambda frames: frames @ Rotation.from_euler("x", -8, degrees=True).as_matrix(), DataError, "nodded"),
    ],
)
def test_frames_unlike_their_neutral_mesh_are_one_error_that_names_the_clip(
    tmp_path, small_vocaset, small_face, change, error, words
):
    vocaset = Vocaset.open(small_vocaset)
    check_frames(vocaset, small_face)
    write_vocaset_folders(tmp_path / "folders", vocaset)
    clip = vocaset.clips[1].clip_id
    path = tmp_path / "folders" / "vertices_npy" / f"{clip}.npy"
    frames = np.load(path)
    changed = change(frames.reshape(len(frames), -1, 3).astype(np.float64))
    np.save(path, changed.astype(np.float32).reshape(frames.shape))
    with pytest.raises(error, match=rf"(?s): 1 of \d+ clips.*  {clip}, frame 0: .*{re.escape(words)}"):
        check_frames(Vocaset.open(tmp_path / "folders"), small_face)


def test_a_first_frame_that_is_not_finite_or_speaks_is_no_frame_in_another_order(tmp_path, small_vocaset, small_face):
    vocaset = Vocaset.open(small_vocaset)
    write_vocaset_folders(tmp_path / "folders", vocaset)
    first, second = (
        tmp_path / "folders" / "vertices_npy" / f"{clip.clip_id}.npy" for clip in (vocaset.clips[0], vocaset.clips[1])
    )
    frames = np.load(first)
    frames[0, 5] = np.nan
    np.save(first, frames)
    neutral = vocaset.templates[vocaset.clips[1].subject].astype(np.float64)
    spoken = np.load(second)
    jaw = small_face.skinning[:, 2:3] > 0.5
    spoken[0] = np.where(jaw, turned_jaw(small_face, neutral, 0.3), neutral).ravel()
    np.save(second, spoken)
    check_frames(Vocaset.open(tmp_path / "folders"), small_face)


def test_a_corpus_without_a_usable_clip_is_an_error_that_says_why(tmp_path, small_vocaset, small_face):
    write_vocaset_folders(tmp_path / "folders", Vocaset.open(small_vocaset))
    for path in (tmp_path / "folders" / "wav").glob("*.wav"):
        path.unlink()
    with pytest.raises(DataError, match=r"found none that can be used \(\d+ rejects; the first, .*wav is not there"):
        check_frames(Vocaset.open(tmp_path / "folders"), small_face)
