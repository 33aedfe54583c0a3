"""FLAME's files in every form become one face asset, whose faces are those of FLAME's equations."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ecavatar.errors import AssetMissingError, BasisError, ConfigError, DataError
from ecavatar.face.flame.model_file import FINGERPRINTS, N_VERTICES, FlameModel, read_flame_model, recognise_basis
from ecavatar.face.flame.parts import convert_flame
from ecavatar.face.model import FaceModel
from tests.fabricate_flame import (
    flame_content,
    python_2_pickle,
    write_flame_landmarks,
    write_flame_masks,
    write_flame_npz,
    write_flame_pickle,
)

SEED = 7


def flame_vertices(content: dict, beta, psi, theta, translation) -> np.ndarray:
    """One face by FLAME's equations in float64, straight from the file's arrays; theta (15) as the file's joints."""
    shaped = content["v_template"] + content["shapedirs"][..., :300] @ beta + content["shapedirs"][..., 300:] @ psi
    joints = content["J_regressor"] @ shaped
    turns = [rodrigues(theta[3 * k : 3 * k + 3]) for k in range(5)]
    feature = np.concatenate([(turn - np.eye(3)).reshape(9) for turn in turns[1:]])
    posed = shaped + content["posedirs"] @ feature
    parents = [-1, 0, 1, 1, 1]
    chain = []
    for k in range(5):
        step = np.eye(4)
        step[:3, :3] = turns[k]
        step[:3, 3] = joints[k] - (joints[parents[k]] if k else 0)
        chain.append(step if k == 0 else chain[parents[k]] @ step)
    result = np.zeros((N_VERTICES, 3))
    for k, matrix in enumerate(chain):
        offset = matrix[:3, 3] - matrix[:3, :3] @ joints[k]
        result += content["weights"][:, k, None] * (posed @ matrix[:3, :3].T + offset)
    return result + translation


def rodrigues(vector: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(vector)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew


@pytest.fixture(scope="module")
def content() -> dict:
    return flame_content(SEED)


@pytest.fixture(scope="module")
def helpers(tmp_path_factory) -> Path:
    """Masks and landmark files, which are the same for every model."""
    folder = tmp_path_factory.mktemp("flame")
    write_flame_masks(folder / "FLAME_masks.pkl")
    write_flame_landmarks(folder)
    return folder


def converted(helpers: Path, path: Path, basis: str | None = None):
    landmarks = [helpers / "flame_static_embedding_68.pkl"]
    return convert_flame(path, masks=helpers / "FLAME_masks.pkl", landmarks=landmarks, basis=basis)


FORMS = {
    "chumpy": lambda path: write_flame_pickle(path, chumpy=True, seed=SEED),
    "plain": lambda path: write_flame_pickle(path, chumpy=False, seed=SEED),
    "npz": lambda path: write_flame_npz(path, seed=SEED),
    "npz with a sparse regressor": lambda path: write_flame_npz(path, seed=SEED, sparse_regressor=True, flat_pose=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_faces_of_the_equations(tmp_path, helpers, content, form):
    path = tmp_path / ("FLAME_NEUTRAL.npz" if "npz" in form else "generic_model.pkl")
    FORMS[form](path)
    asset = converted(helpers, path, "flame2019")
    assert (asset.topology, asset.basis) == ("flame", "flame2019")
    draw, count = np.random.default_rng(1), 3
    beta, psi = draw.normal(size=(count, 300)), draw.normal(size=(count, 100))
    theta, translation = draw.normal(0, 0.5, (count, 15)), draw.normal(0, 0.1, (count, 3))
    theta[0, 3:6] = 0  # no rotation at all, too
    given = [torch.from_numpy(array).float() for array in (beta, psi, theta, translation)]
    root, neck, jaw, eyes = given[2].split([3, 3, 3, 6], dim=1)
    vertices = FaceModel(asset)(given[0], given[1], jaw, root, neck, eyes, given[3]).numpy()
    for k in range(count):
        exact = [array[k].double().numpy() for array in given]
        expected = flame_vertices(content, *exact)
        assert np.linalg.norm(expected - content["v_template"], axis=1).max() > 0.02
        assert np.abs(vertices[k] - expected).max() < 1e-6


def test_smplx_gives_the_same_faces_where_it_is_installed(tmp_path, helpers):
    smplx = pytest.importorskip("smplx")
    write_flame_npz(tmp_path / "FLAME_NEUTRAL.npz", seed=SEED)
    write_flame_landmarks(tmp_path)
    asset = converted(helpers, tmp_path / "FLAME_NEUTRAL.npz", "flame2020")
    theirs = smplx.FLAME(
        str(tmp_path), ext="npz", num_betas=300, num_expression_coeffs=100, use_face_contour=False, batch_size=2
    )
    draw = torch.Generator().manual_seed(2)
    beta, psi, theta = (torch.randn(2, n, generator=draw) for n in (300, 100, 15))
    root, neck, jaw, left, right = (0.4 * theta).split(3, dim=1)
    expected = theirs(
        betas=beta, expression=psi, global_orient=root, neck_pose=neck, jaw_pose=jaw, leye_pose=left, reye_pose=right
    ).vertices
    ours = FaceModel(asset)(beta, psi, jaw, root, neck, torch.cat([left, right], dim=1))
    torch.testing.assert_close(ours, expected.detach(), atol=2e-6, rtol=0)


def test_a_converted_model_is_written_without_objects_and_comes_back_equal(tmp_path):
    write_flame_pickle(tmp_path / "flame2023.pkl", chumpy=True, seed=SEED)
    model = read_flame_model(tmp_path / "flame2023.pkl")
    model.save(tmp_path / "a.npz")
    again = FlameModel.load(tmp_path / "a.npz")
    again.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert (again.basis, again.known_by) == ("flame2023", "name")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert all(not archive[name].dtype.hasobject for name in archive.files)


# --- which FLAME it is ------------------------------------------------------------------------------------------------


def test_the_open_model_is_known_by_its_content(tmp_path):
    extra = {"supr_expression_metadata": {"expr_source": "last_100", "n_expr": 100}}
    write_flame_pickle(tmp_path / "model.pkl", chumpy=False, seed=SEED, extra=extra)
    model = read_flame_model(tmp_path / "model.pkl")
    assert (model.basis, model.known_by) == ("flame2023-open", "content")
    with pytest.raises(BasisError, match="said to be flame2020, but its content is that of flame2023-open"):
        read_flame_model(tmp_path / "model.pkl", "flame2020")


@pytest.mark.parametrize(("start", "basis"), FINGERPRINTS.items())
def test_published_files_are_known_by_their_fingerprint(tmp_path, monkeypatch, start, basis):
    (tmp_path / "generic_model.pkl").write_bytes(b"x")
    monkeypatch.setattr("ecavatar.face.flame.model_file.sha256_file", lambda path: start.ljust(64, "0"))
    assert recognise_basis(tmp_path / "generic_model.pkl", {}, None) == (basis, "fingerprint")
    assert recognise_basis(tmp_path / "generic_model.pkl", {}, basis) == (basis, "fingerprint")
    with pytest.raises(BasisError, match="fingerprint"):
        recognise_basis(tmp_path / "generic_model.pkl", {}, "flame2017")


@pytest.mark.parametrize(
    ("name", "basis"),
    [
        ("FLAME2017/generic_model.pkl", "flame2017"),
        ("flame_2019/generic_model.pkl", "flame2019"),
        ("FLAME2020/generic_model.pkl", "flame2020"),
        ("x/flame2023.pkl", "flame2023"),
        ("FLAME2020/flame2023_no_jaw.pkl", "flame2023-nojaw"),
        ("x/flame2023_Open.pkl", "flame2023-open"),
    ],
)
def test_names_tell_the_basis_where_nothing_else_does_and_the_user_knows_better(tmp_path, name, basis):
    path = tmp_path / name
    path.parent.mkdir()
    path.write_bytes(b"x")
    assert recognise_basis(path, {}, None) == (basis, "name")
    assert recognise_basis(path, {}, "flame2017") == ("flame2017", "user")


def test_a_file_that_tells_nothing_needs_the_user_to_say(tmp_path):
    write_flame_pickle(tmp_path / "generic_model.pkl", chumpy=True, seed=SEED)
    with pytest.raises(ConfigError, match=r"with --basis: flame2017, flame2019, .*flame2023-open"):
        read_flame_model(tmp_path / "generic_model.pkl")
    assert read_flame_model(tmp_path / "generic_model.pkl", "flame2017").known_by == "user"
    with pytest.raises(ConfigError, match="unknown basis 'flame2021'"):
        read_flame_model(tmp_path / "generic_model.pkl", "flame2021")


def test_male_and_female_models_are_refused(tmp_path):
    (tmp_path / "female_model.pkl").write_bytes(b"x")
    with pytest.raises(ConfigError, match="is the female model"):
        recognise_basis(tmp_path / "female_model.pkl", {}, "flame2020")


# --- bad files --------------------------------------------------------------------------------------------------------


def small(**changes) -> dict:
    """A model of the right shapes that pickles fast: zeros are views of one number."""
    shapes = {"v_template": (5023, 3), "f": (9976, 3), "shapedirs": (5023, 3, 400), "posedirs": (5023, 3, 36)}
    content = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    content["f"] = content["f"].astype(np.uint32)
    content["v_template"][0] = 0.2
    content |= {"J_regressor": np.full((5, 5023), 1 / 5023), "weights": np.full((5023, 5), 0.2)}
    content["kintree_table"] = np.array([[-1, 0, 1, 1, 1], range(5)])
    return content | changes


def test_the_small_model_of_these_tests_is_accepted(tmp_path):
    (tmp_path / "flame2020.pkl").write_bytes(pickle.dumps(small()))
    assert read_flame_model(tmp_path / "flame2020.pkl").basis == "flame2020"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"v_template": np.zeros((6890, 3))}, "6890 vertices, FLAME has 5023: it is SMPL"),
        ({"v_template": 3}, "0 vertices"),
        ({"shapedirs": np.zeros((5023, 3, 10))}, r"shapedirs: expected shape \(5023, 3, 400\), got \(5023, 3, 10\)"),
        ({"posedirs": np.zeros((5023, 36))}, r"posedirs: expected shape .* or \(36, 15069\)"),
        ({"f": np.full((9976, 3), 5023)}, "f: expected vertex indices below 5023"),
        ({"weights": np.full((5023, 5), 0.3)}, "weights: expected rows"),
        ({"weights": np.full((5023, 5), np.nan)}, "weights: not finite"),
        ({"kintree_table": np.array([[-1, 0, 0, 1, 1], range(5)])}, "kintree_table: expected the parents"),
        ({"v_template": np.linspace(0, 300, 15069).reshape(5023, 3)}, "a head measures 0.1 to 1.0 m, this one 299"),
        ({"J_regressor": np.array([["a"] * 5023] * 5)}, "J_regressor: expected numbers"),
        ({"J_regressor": {"a": 1}}, "J_regressor: expected shape"),
    ],
)
def test_what_is_no_flame_model_is_refused_with_the_reason(tmp_path, changes, words):
    (tmp_path / "flame2020.pkl").write_bytes(pickle.dumps(small(**changes)))
    with pytest.raises(DataError, match=rf"flame2020\.pkl is not a FLAME model:\n  (?s:.*){words}"):
        read_flame_model(tmp_path / "flame2020.pkl")


def test_every_missing_key_is_named_at_once(tmp_path):
    (tmp_path / "flame2020.pkl").write_bytes(pickle.dumps({"v_template": np.zeros((5023, 3)), "vertices": 0}))
    with pytest.raises(DataError) as error:
        read_flame_model(tmp_path / "flame2020.pkl")
    assert all(name in str(error.value) for name in ("shapedirs is missing", "kintree_table is missing", "vertices"))


def test_an_absurd_sparse_matrix_fills_no_memory(tmp_path):
    from scipy import sparse

    matrix = sparse.csc_matrix((5, 5023))
    matrix._shape = (10**9, 10**9)
    (tmp_path / "flame2020.pkl").write_bytes(pickle.dumps(small(J_regressor=matrix)))
    with pytest.raises(DataError, match="J_regressor: a sparse matrix of shape"):
        read_flame_model(tmp_path / "flame2020.pkl")


class Hostile:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


def test_hostile_and_damaged_files_are_refused_and_nothing_runs(tmp_path):
    witness = tmp_path / "witness"
    content = small(extra=Hostile(witness))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    np.savez(tmp_path / "b.npz", **content)
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(small())[:-1000])
    (tmp_path / "d.pkl").write_bytes(pickle.dumps([1, 2]))
    np.savez(tmp_path / "e.npz", **small())
    (tmp_path / "e.npz").write_bytes((tmp_path / "e.npz").read_bytes()[:-1000])
    for name, words in (
        ("a.pkl", "refused"), ("b.npz", "refused"), ("c.pkl", "not a readable pickle"), ("d.pkl", "holds list"),
        ("e.npz", "not a readable"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=words):
            read_flame_model(tmp_path / name, "flame2020")
    assert not witness.exists()
    with pytest.raises(AssetMissingError, match="not found"):
        read_flame_model(tmp_path / "none.pkl", "flame2020")


def test_an_archive_is_to_be_unpacked(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "FLAME2023Open.zip", "w") as archive:
        archive.writestr("FLAME2023Open/readme.txt", "read me")
        archive.writestr("FLAME2023Open/flame2023_Open.pkl", python_2_pickle({}))
    with pytest.raises(ConfigError, match=r"unpack it and add FLAME2023Open/flame2023_Open\.pkl"):
        read_flame_model(tmp_path / "FLAME2023Open.zip")
