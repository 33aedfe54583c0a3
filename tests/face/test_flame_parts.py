"""FLAME's masks, landmark embeddings and texture coordinates, and the asset made of them in any order."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import trimesh

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.face.flame.embeddings import Embedding, read_ibug_embedding, read_mediapipe_embedding
from ecavatar.face.flame.masks import _NEEDED, flame_regions, read_flame_masks
from ecavatar.face.flame.model_file import FlameModel
from ecavatar.face.flame.parts import convert_flame, flame_asset, missing_parts, read_parts, write_flame_part
from ecavatar.face.flame.texture_coordinates import TextureCoordinates, read_texture_coordinates
from ecavatar.face.landmarks import ibug68_points, surface_points
from ecavatar.face.model import FaceAsset
from ecavatar.sample.head import build_open_head
from ecavatar.sample.head_data import HeadData
from tests.fabricate_flame import (
    flame_content,
    open_head_template,
    write_flame_landmarks,
    write_flame_masks,
    write_flame_mediapipe,
    write_flame_pickle,
    write_flame_uv,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A user's downloads."""
    folder = tmp_path_factory.mktemp("downloads")
    write_flame_pickle(folder / "flame2023.pkl", chumpy=True, seed=1)
    write_flame_masks(folder / "FLAME_masks.pkl")
    write_flame_landmarks(folder)
    write_flame_mediapipe(folder / "mediapipe_landmark_embedding.npz")
    write_flame_uv(folder / "head_template.obj")
    return folder


def model_of(template: np.ndarray, faces: np.ndarray) -> FlameModel:
    """A model without any deformation whose jaw moves what is low and in front."""
    skinning = np.zeros((5023, 5))
    is_jaw = (template[:, 1] < -0.045) & (template[:, 2] > -0.02)
    skinning[np.arange(5023), np.where(is_jaw, 2, 1)] = 1
    return FlameModel(
        basis="flame2023-open", known_by="user", template=template, faces=faces, shape_basis=np.zeros((5023, 3, 1)),
        expression_basis=np.zeros((5023, 3, 1)), pose_basis=np.zeros((5023, 3, 36)),
        joint_regressor=np.full((5, 5023), 1 / 5023), skinning=skinning,
    )  # fmt: skip


# --- masks and regions ------------------------------------------------------------------------------------------------


def test_masks_are_read_sorted_and_without_duplicates(files):
    masks = read_flame_masks(files / "FLAME_masks.pkl")
    np.testing.assert_array_equal(masks["lips"], np.sort(HeadData.load().regions["lips"]))
    assert all((np.diff(indices) > 0).all() for indices in masks.values())


@pytest.mark.slow
def test_the_rule_cuts_the_open_head_exactly_as_it_is_cut(files):
    head = build_open_head()
    fields = {name: getattr(head, name) for name in ("template", "faces", "skinning", "pose_basis", "joint_regressor")}
    model = FlameModel(
        basis="flame2023-open", known_by="user", shape_basis=head.shape_basis, expression_basis=head.expression_basis,
        **fields,
    )  # fmt: skip
    cut = flame_regions(read_flame_masks(files / "FLAME_masks.pkl"), model, ibug68_points(head, head.template))
    for name in ("L", "C", "F", "O", "upper_face"):
        np.testing.assert_array_equal(cut[name], head.regions[name])


def test_regions_partition_the_vertices_whatever_the_masks_overlap(files):
    template, faces = open_head_template(), HeadData.load().faces
    masks = read_flame_masks(files / "FLAME_masks.pkl")
    masks |= {"nose": np.union1d(masks["nose"], masks["lips"]), "neck": np.arange(5023), "scalp": np.arange(3000)}
    cut = flame_regions(masks, model_of(template, faces), np.zeros((68, 3)))
    together = np.concatenate([cut[name] for name in "LCFO"])
    np.testing.assert_array_equal(np.sort(together), np.arange(5023))
    np.testing.assert_array_equal(cut["L"], masks["lips"])
    assert not np.isin(masks["nose"], np.concatenate([cut["C"], cut["F"]])).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lips": None}, "lacks lips"),
        ({"lips": np.array([5023])}, r"lips names vertices outside 0\.\.5022"),
        ({"nose": np.array([0.5])}, "nose is no list of vertex indices"),
        ({"nose": np.array([], int)}, "nose is no list of vertex indices"),
    ],
)
def test_wrong_masks_are_refused(tmp_path, change, words):
    masks = write_flame_masks(tmp_path / "a.pkl") | change
    masks = {name: indices for name, indices in masks.items() if indices is not None}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(masks))
    with pytest.raises(DataError, match=words):
        read_flame_masks(tmp_path / "a.pkl")


def test_another_pickle_is_not_taken_for_masks(files):
    with pytest.raises(DataError, match=r"not FLAME_masks\.pkl: it lacks face, neck"):
        read_flame_masks(files / "flame_static_embedding.pkl")


# --- landmarks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tensors", [True, False])
def test_every_landmark_file_places_the_same_points(tmp_path, tensors):
    faces, weights = write_flame_landmarks(tmp_path, torch=tensors)
    for name, indices in (
        ("flame_static_embedding_68.pkl", range(68)),
        ("landmark_embedding.npy", range(68)),
        ("flame_static_embedding.pkl", range(17, 68)),
        ("flame_dynamic_embedding.npy", range(17)),
    ):
        embedding = read_ibug_embedding(tmp_path / name)
        np.testing.assert_array_equal(embedding.indices, indices)
        np.testing.assert_array_equal(embedding.faces, faces[list(indices)])
        np.testing.assert_allclose(embedding.barycentrics, weights[list(indices)], atol=1e-7)


def test_inner_landmarks_and_jaw_line_make_all_68_in_either_order(files):
    inner, jaw = (read_ibug_embedding(files / f"flame_{part}_embedding{end}") for part, end in
                  (("static", ".pkl"), ("dynamic", ".npy")))  # fmt: skip
    whole = read_ibug_embedding(files / "flame_static_embedding_68.pkl")
    for both in (inner.over(jaw), jaw.over(inner), whole.over(jaw)):
        np.testing.assert_array_equal(both.indices, whole.indices)
        np.testing.assert_array_equal(both.faces, whole.faces)
        np.testing.assert_array_equal(both.barycentrics, whole.barycentrics)


def test_the_upper_embedding_wins_where_both_place_a_landmark():
    def embedding(indices, face):
        weights = np.full((len(indices), 3), 1 / 3)
        return Embedding(indices=np.array(indices), faces=np.full(len(indices), face), barycentrics=weights)

    both = embedding([3, 1], 7).over(embedding([0, 1, 2], 9))
    np.testing.assert_array_equal(both.indices, [0, 1, 2, 3])
    np.testing.assert_array_equal(both.faces, [9, 7, 9, 7])


def test_mediapipe_landmarks_are_read_in_rising_order(tmp_path):
    indices, faces, weights = write_flame_mediapipe(tmp_path / "a.npz")
    embedding = read_mediapipe_embedding(tmp_path / "a.npz")
    assert (np.diff(embedding.indices) > 0).all()
    rows = np.searchsorted(embedding.indices, indices)
    np.testing.assert_array_equal(embedding.faces[rows], faces)
    np.testing.assert_allclose(embedding.barycentrics[rows], weights, atol=1e-7)
    with pytest.raises(DataError, match="flame-mediapipe"):
        read_ibug_embedding(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"lmk_face_idx": np.zeros(53, int), "lmk_b_coords": np.full((53, 3), 1 / 3)}, "expected 68 or 51 landmarks"),
        ({"lmk_face_idx": np.full(51, 9976), "lmk_b_coords": np.full((51, 3), 1 / 3)}, "whole numbers below 9976"),
        ({"lmk_face_idx": np.zeros(51, int), "lmk_b_coords": np.full((51, 3), 0.5)}, "must sum to 1"),
        ({"lmk_face_idx": np.zeros(51, int), "lmk_b_coords": np.full((51, 3), np.nan)}, "must sum to 1"),
        ({"lmk_face_idx": np.zeros(51, int), "lmk_b_coords": np.full((68, 3), 1 / 3)}, "do not fit"),
        ({"lmk_face_idx": ["a"] * 51, "lmk_b_coords": np.full((51, 3), 1 / 3)}, "arrays of numbers"),
        ({"lmk_face_idx": [[1], [2, 3]], "lmk_b_coords": 3}, "arrays of numbers"),
        ({"other": 1}, "it has other"),
        ([1, 2], "no arrays by name"),
    ],
)
def test_wrong_landmark_files_are_refused(tmp_path, content, words):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    np.save(tmp_path / "a.npy", np.array(content, dtype=object), allow_pickle=True)
    for name in ("a.pkl", "a.npy"):
        with pytest.raises(DataError, match=words):
            read_ibug_embedding(tmp_path / name)


@pytest.mark.parametrize(
    "change",
    [
        {"landmark_indices": np.array(5)},
        {"landmark_indices": np.arange(5)[:, None]},
        {"landmark_indices": np.arange(5) - 1},
        {"lmk_face_idx": np.arange(3)},
        {"landmark_indices": np.zeros(0, int), "lmk_face_idx": np.zeros(0, int), "lmk_b_coords": np.zeros((0, 3))},
    ],
)
def test_mediapipe_landmarks_that_do_not_fit_are_refused(tmp_path, change):
    good = {"landmark_indices": np.arange(5), "lmk_face_idx": np.arange(5), "lmk_b_coords": np.full((5, 3), 1 / 3)}
    np.savez(tmp_path / "good.npz", **good)
    assert read_mediapipe_embedding(tmp_path / "good.npz").indices.tolist() == [0, 1, 2, 3, 4]
    np.savez(tmp_path / "bad.npz", **good | change)
    with pytest.raises(DataError, match=r"bad\.npz"):
        read_mediapipe_embedding(tmp_path / "bad.npz")


@pytest.mark.parametrize("value", [5, "text", None, [[1], [1, 2]]])
def test_landmarks_and_masks_that_are_no_lists_of_numbers_are_refused(tmp_path, value):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"lmk_face_idx": value, "lmk_b_coords": value}))
    with pytest.raises(DataError, match=r"a\.pkl"):
        read_ibug_embedding(tmp_path / "a.pkl")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(dict.fromkeys(_NEEDED, value)))
    with pytest.raises(DataError, match=r"a\.pkl"):
        read_flame_masks(tmp_path / "a.pkl")


def test_texture_triangles_with_strange_indices_are_refused(tmp_path):
    for index in ("-5", "0", "9" * 30):
        (tmp_path / "a.obj").write_text("vt 0 1\n" + f"f {index}/1 2/1 3/1\n" * 9976)
        with pytest.raises(DataError, match=r"a\.obj"):
            read_texture_coordinates(tmp_path / "a.obj")


def test_a_hostile_landmark_file_runs_nothing(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "witness"),)

    np.save(tmp_path / "a.npy", {"lmk_face_idx": Hostile()}, allow_pickle=True)
    with pytest.raises(DataError, match="refused"):
        read_ibug_embedding(tmp_path / "a.npy")
    assert not (tmp_path / "witness").exists()


# --- texture coordinates ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["head_template.obj", "FLAME_texture.npz"])
def test_texture_coordinates_come_back_for_the_triangles_of_the_model(tmp_path, name):
    uv, uv_faces = write_flame_uv(tmp_path / name)
    found = read_texture_coordinates(tmp_path / name)
    np.testing.assert_allclose(found.uv, uv, atol=1e-7)
    np.testing.assert_array_equal(found.of_faces(HeadData.load().faces), uv_faces)


def test_the_order_of_triangles_and_corners_in_the_file_does_not_matter():
    data, draw = HeadData.load(), np.random.default_rng(0)
    rows, turn = draw.permutation(len(data.faces)), draw.integers(0, 3, len(data.faces))
    corners = (np.arange(3) + turn[:, None]) % 3
    shuffled = TextureCoordinates(
        uv=data.uv,
        uv_faces=np.take_along_axis(data.uv_faces[rows], corners, axis=1),
        faces=np.take_along_axis(data.faces[rows], corners, axis=1),
    )
    np.testing.assert_array_equal(shuffled.of_faces(data.faces), data.uv_faces)
    with pytest.raises(DataError, match="other triangles"):
        shuffled.of_faces(data.faces[:, ::-1] * 0)


def test_files_without_texture_coordinates_are_refused(tmp_path):
    trimesh.Trimesh(open_head_template(), HeadData.load().faces, process=False).export(tmp_path / "a.obj")
    (tmp_path / "b.obj").write_text("f 1/1 2/2 3/3\nvt 0 0\n")
    (tmp_path / "c.obj").write_bytes(b"\xff\xfe")
    np.savez(tmp_path / "d.npz", vt=np.zeros((4, 2)))
    np.savez(tmp_path / "e.npz", vt=np.zeros((4, 2)), ft=np.full((9976, 3), 4))
    for name, words in (
        ("a.obj", "texture coordinates"), ("b.obj", "expected 9976 triangles"), ("c.obj", "no triangles"),
        ("d.npz", "lacks ft"), ("e.npz", "outside"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=words):
            read_texture_coordinates(tmp_path / name)
    with pytest.raises(AssetMissingError):
        read_texture_coordinates(tmp_path / "none.obj")


# --- together ---------------------------------------------------------------------------------------------------------

KINDS = {
    "flame": "flame2023.pkl",
    "flame-masks": "FLAME_masks.pkl",
    "flame-landmarks": "landmark_embedding.npy",
    "flame-mediapipe": "mediapipe_landmark_embedding.npz",
    "flame-uv": "head_template.obj",
}


def test_parts_added_in_any_order_give_the_same_model_as_all_at_once(files, tmp_path):
    whole = convert_flame(
        files / "flame2023.pkl", masks=files / "FLAME_masks.pkl", landmarks=[files / "landmark_embedding.npy"],
        mediapipe=files / "mediapipe_landmark_embedding.npz", uv=files / "head_template.obj",
    )  # fmt: skip
    whole.save(tmp_path / "whole.npz")
    for number, kinds in enumerate((list(KINDS), list(reversed(KINDS)))):
        folder = tmp_path / str(number)
        for kind in kinds:
            write_flame_part(kind, files / KINDS[kind], folder)
        assert (folder / "face_model.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    asset = FaceAsset.load(tmp_path / "whole.npz")
    assert (asset.topology, asset.basis, asset.arkit_names) == ("flame", "flame2023", ())
    assert (len(asset.mediapipe_indices), len(asset.uv)) == (105, len(HeadData.load().uv))


def test_nothing_is_made_until_all_that_is_needed_is_there(files, tmp_path):
    write_flame_part("flame-uv", files / "head_template.obj", tmp_path)
    write_flame_part("flame-masks", files / "FLAME_masks.pkl", tmp_path)
    write_flame_part("flame-landmarks", files / "flame_static_embedding.pkl", tmp_path)
    write_flame_part("flame", files / "flame2023.pkl", tmp_path)
    assert read_parts(tmp_path) is None
    assert list(missing_parts(tmp_path)) == ["flame-landmarks"]
    assert "17 of the 68" in missing_parts(tmp_path)["flame-landmarks"]
    assert not (tmp_path / "face_model.npz").exists()
    facts = write_flame_part("flame-landmarks", files / "flame_dynamic_embedding.npy", tmp_path)
    assert facts == {"landmarks": 68}
    asset = FaceAsset.load(tmp_path / "face_model.npz")
    assert len(asset.mediapipe_indices) == 0
    with pytest.raises(AssetMissingError, match="flame-mediapipe"):
        asset.require("mediapipe")


def test_a_part_that_contradicts_the_others_changes_nothing(files, tmp_path):
    for kind, name in KINDS.items():
        write_flame_part(kind, files / name, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    wrong = (files / "head_template.obj").read_text().replace("\nf ", "\nf 5000/1 5001/1 5002/1\n#", 1)
    (files / "wrong.obj").write_text(wrong)
    with pytest.raises(DataError, match="other triangles"):
        write_flame_part("flame-uv", files / "wrong.obj", tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_refused_file_leaves_no_trace(tmp_path, files):
    with pytest.raises(DataError):
        write_flame_part("flame-masks", files / "flame_dynamic_embedding.npy", tmp_path / "assets")
    assert not (tmp_path / "assets").exists()


def test_too_few_landmarks_are_an_error_that_names_the_files(files):
    with pytest.raises(AssetMissingError, match=r"iBUG 0 to 16.*flame_dynamic_embedding\.npy"):
        convert_flame(
            files / "flame2023.pkl",
            masks=files / "FLAME_masks.pkl",
            landmarks=[files / "flame_static_embedding.pkl"],
        )


# --- FLAME's own template ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(shared_data) -> Path:
    """The CC BY template and landmarks of TF_FLAME; test-only."""
    folder = shared_data / "flame_template_ccby"
    if not folder.is_dir():
        pytest.skip("../shared/data/flame_template_ccby is not there")
    return folder


def test_published_landmarks_lie_where_a_face_has_them(published):
    mesh = trimesh.load(published / "template.ply", process=False)
    whole = read_ibug_embedding(published / "flame_static_embedding_68.pkl")
    inner = read_ibug_embedding(published / "flame_static_embedding.pkl")
    np.testing.assert_array_equal(whole.faces[17:], inner.faces)
    points = surface_points(np.asarray(mesh.vertices), np.asarray(mesh.faces), whole.faces, whole.barycentrics)
    mirror = [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)]
    assert np.abs(points[:36] - points[mirror] * (-1, 1, 1)).max() < 0.003
    brows, nose_tip, lips, chin = points[17:27, 1].mean(), points[30], points[48:], points[8]
    assert brows > points[36:48, 1].mean() > nose_tip[1] > lips[:, 1].mean() > chin[1]
    assert nose_tip[2] == points[:, 2].max()


def test_the_partition_of_the_published_template_puts_landmarks_where_the_paper_has_them(published):
    mesh = trimesh.load(published / "template.ply", process=False)
    template, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    embedding = read_ibug_embedding(published / "flame_static_embedding_68.pkl")
    asset = flame_asset(model_of(template, faces), _masks_of(template, faces, embedding), embedding)
    owner = np.zeros(5023, dtype="<U1")
    for name in "LCFO":
        owner[asset.regions[name]] = name
    nearest = np.argmin(np.linalg.norm(template[:, None] - ibug68_points(asset, template), axis=2), axis=0)
    of = owner[nearest]
    assert set(of[17:27]) == {"F"}  # brows
    assert set(of[48:60]) == {"L"}
    assert set(of[28:36]) == {"O"}  # nose
    assert set(of[6:11]) == {"C"}  # chin
    assert set(of[[1, 15]]) <= {"F", "O"}  # before the ears
    assert template[asset.regions["C"], 1].max() < ibug68_points(asset, template)[33, 1]
    left, right = (np.sign(template[asset.regions["C"], 0]) == side for side in (1, -1))
    assert abs(left.sum() - right.sum()) < 0.1 * len(asset.regions["C"])


def _masks_of(template: np.ndarray, faces: np.ndarray, embedding: Embedding) -> dict[str, np.ndarray]:
    """Stand-ins for FLAME's masks on its template: boxes and outlines about the landmarks, eyeballs by their range."""
    x, y, z = template.T
    points = surface_points(template, faces, embedding.faces, embedding.barycentrics)
    is_eyeball = np.arange(5023) >= 3931
    skin = ~is_eyeball & (z > -0.06)
    lips = skin & (abs(x) < 0.027) & (y < -0.034) & (y > -0.058) & (z > 0.035)
    nose = skin & (abs(x) < 0.018) & (y < 0.026) & (y > -0.0232) & (z > 0.045)
    face = skin & (abs(x) < 0.073) & (y < 0.085) & (y > points[8, 1] - 0.004) & (z > -0.045)
    eyes = face & (y > 0.005) & (y < 0.036) & ~nose
    forehead = face & (y >= 0.036) & (z > 0)
    masks = {
        "face": face, "lips": lips, "nose": nose, "eye_region": eyes, "forehead": forehead, "neck": skin & (y < -0.1),
        "scalp": ~skin & (y > 0), "left_ear": ~is_eyeball & (x > 0.075), "right_ear": ~is_eyeball & (x < -0.075),
        "left_eyeball": is_eyeball & (x > 0), "right_eyeball": is_eyeball & (x < 0),
    }  # fmt: skip
    return {name: np.flatnonzero(mask).astype(np.int32) for name, mask in masks.items()}


def test_the_published_mesh_has_the_eyeballs_that_the_fabricated_masks_assume(published):
    mesh = trimesh.load(published / "template.ply", process=False)
    x = np.asarray(mesh.vertices)[:, 0]
    assert (x[3931:4477] > 0).all()
    assert (x[4477:] < 0).all()


def test_fabricated_content_has_the_published_counts(published):
    mesh = trimesh.load(published / "template.ply", process=False)
    content = flame_content(0)
    assert content["v_template"].shape == mesh.vertices.shape
    assert content["f"].shape == mesh.faces.shape
