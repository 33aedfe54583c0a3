"""Laws of the user's files: what is added is converted once and recorded, and what is still missing is said."""

import json
from pathlib import Path

import numpy as np
import pytest

from ecavatar import assets
from ecavatar.doctor import NO_TRUTH, diagnose
from ecavatar.errors import AssetMissingError, BasisError, ConfigError, DataError
from ecavatar.face.flame.parts import PART_FILES
from ecavatar.face.model import _DTYPES, _FORMAT, FaceAsset
from ecavatar.mouth.model import Part
from ecavatar.mouth.procedural import procedural_mouth
from ecavatar.mouth.source import open_mouth
from ecavatar.storage.arrays import write_arrays
from ecavatar.storage.files import read_json, sha256_file, write_json
from tests.fabricate_flame import (
    write_flame_landmarks,
    write_flame_masks,
    write_flame_mediapipe,
    write_flame_pickle,
    write_flame_uv,
)

OPEN = {"supr_expression_metadata": {"n_expr": 100}}
FLAME = {
    "flame": "generic_model.pkl",
    "flame-masks": "FLAME_masks.pkl",
    "flame-landmarks": "flame_static_embedding_68.pkl",
    "flame-mediapipe": "mediapipe_landmark_embedding.npz",
    "flame-uv": "head_template.obj",
}


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    """A user's FLAME files; the content of other.pkl tells its basis, generic_model.pkl does not."""
    folder = tmp_path_factory.mktemp("downloads")
    write_flame_pickle(folder / "generic_model.pkl", chumpy=True, seed=1)
    write_flame_pickle(folder / "other.pkl", chumpy=False, seed=2, extra=OPEN)
    write_flame_masks(folder / "FLAME_masks.pkl")
    write_flame_landmarks(folder)
    write_flame_mediapipe(folder / "mediapipe_landmark_embedding.npz")
    write_flame_uv(folder / "head_template.obj")
    return folder


def add_flame(downloads: Path, data: Path, kinds=tuple(FLAME)) -> None:
    for kind in kinds:
        assets.add_asset(kind, downloads / FLAME[kind], data, "flame2020" if kind == "flame" else None)


def test_flames_files_become_the_face_model_in_any_order(downloads, tmp_path):
    add_flame(downloads, tmp_path / "a")
    add_flame(downloads, tmp_path / "b", reversed(FLAME))
    models = [tmp_path / name / "assets/face/face_model.npz" for name in "ab"]
    assert models[0].read_bytes() == models[1].read_bytes()
    assert FaceAsset.load(models[0]).basis == "flame2020"
    for model in models:
        record = read_json(model.with_name("face_model.npz.asset.json"))
        assert (record["topology"], record["basis"]) == ("flame", "flame2020")
        assert record["licence"] == "FLAME licence, non-commercial research"
        assert record["sha256"] == sha256_file(model)
        assert record["made_of"] == {kind: sha256_file(downloads / name) for kind, name in FLAME.items()}


def test_each_added_file_says_what_is_still_missing(downloads, tmp_path):
    place = str(tmp_path / "assets/face/face_model.npz")
    add_flame(downloads, tmp_path, ["flame"])
    text = assets.what_is_next("flame", tmp_path)
    assert text.startswith(f"{place} is made as soon as")
    assert "assets add flame-masks FILE" in text
    assert "assets add flame-landmarks FILE" in text
    assets.add_asset("flame-landmarks", downloads / "flame_static_embedding.pkl", tmp_path)
    assert "17 of the 68 face landmarks are missing" in assets.what_is_next("flame-landmarks", tmp_path)
    add_flame(downloads, tmp_path, ["flame-masks"])
    assert not Path(place).exists()
    assets.add_asset("flame-landmarks", downloads / "flame_dynamic_embedding.npy", tmp_path)
    text = assets.what_is_next("flame-landmarks", tmp_path)
    assert text.startswith(f"{place} was made of flame, flame-masks, flame-landmarks.")
    assert "Without flame-mediapipe: reconstruction by EMICA" in text
    assert assets.what_is_next("hubert", tmp_path) == ""


def test_a_basis_that_only_the_name_tells_is_said_aloud(downloads, tmp_path):
    folder = tmp_path / "FLAME2020"
    folder.mkdir()
    (folder / "generic_model.pkl").symlink_to(downloads / "generic_model.pkl")
    assets.add_asset("flame", folder / "generic_model.pkl", tmp_path)
    assert "taken for flame2020 because of its name" in assets.what_is_next("flame", tmp_path)
    assets.add_asset("flame", folder / "generic_model.pkl", tmp_path, "flame2019")
    assert "because of its name" not in assets.what_is_next("flame", tmp_path)


@pytest.mark.parametrize("first", ["emica", "flame"])
def test_a_checkpoint_of_another_basis_than_the_face_models_is_said_aloud(downloads, tmp_path, first):
    def emica() -> str:
        write_json(tmp_path / "assets/face/emica.safetensors.asset.json", {"basis": "flame2023"})
        return assets.what_is_next("emica", tmp_path)

    def flame() -> str:
        add_flame(downloads, tmp_path)
        return assets.what_is_next("flame-uv", tmp_path)

    early, late = (emica, flame) if first == "emica" else (flame, emica)
    warning = "gives coefficients of flame2023, the face model's are of flame2020"
    assert warning not in early()
    assert warning in late()


def test_the_record_names_every_landmark_file(downloads, tmp_path):
    names = ("flame_static_embedding.pkl", "flame_dynamic_embedding.npy")
    for name in names:
        assets.add_asset("flame-landmarks", downloads / name, tmp_path)
    record = read_json(tmp_path / "assets/face/flame_landmarks.npz.asset.json")
    assert record["landmarks"] == 68
    assert record["earlier_files"] | record["files"] == {name: sha256_file(downloads / name) for name in names}


def test_another_model_replaces_the_face_model_and_its_record(downloads, tmp_path):
    add_flame(downloads, tmp_path)
    assets.add_asset("flame", downloads / "other.pkl", tmp_path)
    assert FaceAsset.load(tmp_path / "assets/face/face_model.npz").basis == "flame2023-open"
    for name in ("flame.npz", "face_model.npz"):
        record = read_json(tmp_path / f"assets/face/{name}.asset.json")
        assert (record["basis"], record["licence"]) == ("flame2023-open", "CC BY 4.0")


def test_the_record_of_a_converted_file_is_of_what_the_user_brought(downloads, tmp_path):
    target = assets.add_asset("flame", downloads / "generic_model.pkl", tmp_path, "flame2017")
    assert target == tmp_path / "assets/face/flame.npz"
    record = read_json(tmp_path / "assets/face/flame.npz.asset.json")
    source = downloads / "generic_model.pkl"
    assert record["files"] == {"generic_model.pkl": sha256_file(source)}
    assert record["bytes"] == source.stat().st_size
    assert (record["basis"], record["basis_known_by"]) == ("flame2017", "user")


@pytest.mark.parametrize(
    ("kind", "file", "basis", "error", "text"),
    [
        ("flame", "generic_model.pkl", None, ConfigError, "with --basis"),
        ("flame", "generic_model.pkl", "flame1999", ConfigError, "unknown basis"),
        ("flame", "other.pkl", "flame2020", BasisError, "flame2023-open"),
        ("flame", "FLAME_masks.pkl", "flame2020", DataError, "v_template is missing"),
        ("flame-masks", "generic_model.pkl", None, DataError, "not FLAME_masks"),
        ("flame-landmarks", "FLAME_masks.pkl", None, DataError, "no landmark embedding"),
        ("flame-mediapipe", "FLAME_masks.pkl", None, DataError, "not a readable npz"),
        ("flame-uv", "FLAME_masks.pkl", None, DataError, "not a readable npz"),
        ("flame-masks", "FLAME_masks.pkl", "flame2020", ConfigError, "kind flame-masks has none"),
        ("emica", "FLAME_masks.pkl", None, DataError, "FLAME_masks"),
        ("flame", "none.pkl", None, AssetMissingError, "not found"),
    ],
)
def test_a_wrong_file_is_refused_and_nothing_is_written(downloads, tmp_path, kind, file, basis, error, text):
    with pytest.raises(error, match=text):
        assets.add_asset(kind, downloads / file, tmp_path / "data", basis)
    assert not (tmp_path / "data").exists()


def test_a_refused_file_leaves_what_was_there(downloads, tmp_path):
    add_flame(downloads, tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "assets/face").iterdir()}
    for kind in FLAME:
        with pytest.raises(DataError):
            assets.add_asset(kind, Path(__file__), tmp_path, "flame2020" if kind == "flame" else None)
    assert {path.name: path.read_bytes() for path in (tmp_path / "assets/face").iterdir()} == before


def test_emica_is_converted_by_its_reader_and_recorded(tmp_path, monkeypatch):
    def convert(source: Path, target: Path) -> dict[str, object]:
        target.parent.mkdir(parents=True)
        target.write_bytes(source.read_bytes() * 2)
        return {"variant": "v", "basis": "flame2020"}

    monkeypatch.setattr("ecavatar.reconstruction.emica.checkpoint.convert_checkpoint", convert)
    (tmp_path / "last.ckpt").write_bytes(b"weights")
    target = assets.add_asset("emica", tmp_path / "last.ckpt", tmp_path / "data")
    assert target == tmp_path / "data/assets/face/emica.safetensors"
    record = read_json(target.with_name("emica.safetensors.asset.json"))
    assert (record["kind"], record["variant"], record["bytes"]) == ("emica", "v", 7)
    assert "emica" not in {asset.kind for asset in assets.missing_for_full(tmp_path / "data")}


# --- what full needs --------------------------------------------------------------------------------------------------

OTHERS = ["affectnet", "vocaset", "ravdess", "mead"], ["hubert", "emotion2vec"]


def missing(data: Path, backend: str) -> list[str]:
    return [asset.kind for asset in assets.missing_for_full(data, backend)]


def test_full_needs_what_its_backend_needs_and_flames_files_stand_for_the_face_model(tmp_path):
    first, last = OTHERS
    parts = ["flame", "flame-masks", "flame-landmarks"]
    assert missing(tmp_path, "emica") == [*first, *parts, "emica", *last]
    assert missing(tmp_path, "landmarks") == [*first, *parts, "flame-mediapipe", *last]


def test_a_face_model_from_elsewhere_needs_none_of_flames_files(tmp_path, small_face):
    small_face.save(tmp_path / "model.npz")
    place = assets.add_asset("face-model", tmp_path / "model.npz", tmp_path)
    assert place.read_bytes() == (tmp_path / "model.npz").read_bytes()
    assert read_json(place.with_name("face_model.npz.asset.json"))["basis"] == "small"
    first, last = OTHERS
    assert missing(tmp_path, "landmarks") == [*first, *last]
    assert missing(tmp_path, "emica") == [*first, "emica", *last]


def test_parts_are_asked_for_until_they_are_there(downloads, tmp_path):
    add_flame(downloads, tmp_path, ["flame", "flame-masks"])
    assets.add_asset("flame-landmarks", downloads / "flame_static_embedding.pkl", tmp_path)
    assert "flame-landmarks" in missing(tmp_path, "emica")
    assert "flame" not in missing(tmp_path, "emica")
    add_flame(downloads, tmp_path, ["flame-landmarks"])
    assert not {*FLAME, "face-model"} & {*missing(tmp_path, "emica")}
    (tmp_path / "assets/face/face_model.npz").unlink()
    assert "face-model" in missing(tmp_path, "emica")


def test_doctor_names_the_step_that_makes_the_face_model_and_what_full_cannot_do(tmp_path, small_face):
    diagnosis = diagnose(tmp_path)
    lines = {state.kind: state.sentence() for state in diagnosis.assets}
    assert "it is made of flame, flame-masks, flame-landmarks as soon as you have added them" in lines["face-model"]
    assert all("a part of face-model" in lines[kind] for kind in PART_FILES)
    assert "full needs it for reconstruct_faces with backend emica" in lines["emica"]
    assert diagnosis.profiles()["full"].endswith("emica, hubert, emotion2vec")
    assert json.loads(json.dumps(diagnosis.to_json()))["missing_for_full"] == missing(tmp_path, "emica")
    small_face.save(tmp_path / "assets/face/face_model.npz")
    for asset in assets.ASSETS:
        place = tmp_path / asset.path
        for name in [part.split("|")[0] for part in asset.files] or ["file"]:
            file = place / name if asset.is_folder else place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    full = diagnose(tmp_path).profiles()["full"]
    assert NO_TRUTH in full
    assert "RAVDESS and MEAD" in NO_TRUTH


def test_a_folder_may_link_to_files_but_to_nothing_else(tmp_path):
    cache, folder, elsewhere = tmp_path / "cache", tmp_path / "hubert", tmp_path / "elsewhere"
    for path in (cache, folder, elsewhere):
        path.mkdir()
    (cache / "blob").write_text("weights")
    (elsewhere / "secret").write_text("secret")
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").symlink_to(cache / "blob")
    added = assets.add_asset("hubert", folder, tmp_path / "data")
    assert (added / "model.safetensors").read_text() == "weights"
    assert not (added / "model.safetensors").is_symlink()
    for target in (elsewhere, folder, tmp_path / "absent"):
        (folder / "link").symlink_to(target)
        with pytest.raises(DataError, match="holds link"):
            assets.add_asset("hubert", folder, tmp_path / "data")
        (folder / "link").unlink()
    assert not list((tmp_path / "data").rglob("secret"))


def test_a_folder_that_holds_its_own_target_is_refused(tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match="would be copied to"):
        assets.add_asset("hubert", tmp_path, tmp_path / "data")


@pytest.mark.parametrize(
    "facts", [{}, {"topology": "a", "basis": "b"}, {"topology": "a", "basis": "b", "arkit_names": 5}]
)
def test_a_face_model_file_with_missing_or_wrong_tags_is_refused(tmp_path, facts):
    arrays = {name: np.zeros((1,)) for name in _DTYPES}
    write_arrays(tmp_path / "f.npz", arrays, {"format": _FORMAT} | facts)
    with pytest.raises(DataError, match=r"f\.npz is damaged"):
        assets.add_asset("face-model", tmp_path / "f.npz", tmp_path / "data")


def test_a_users_mouth_is_named_by_its_content_and_params_name_it(tmp_path):
    mouth = procedural_mouth()
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in mouth.vertices]
    for part in Part:
        rows = mouth.faces[mouth.part[mouth.faces[:, 0]] == part] + 1
        lines += [f"g {part.label}", *(f"f {a} {b} {c}" for a, b, c in rows)]
    (tmp_path / "mine.obj").write_text("\n".join(lines))
    data = tmp_path / "data"
    assert assets.asset_of_kind("mouth").find(data) is None
    added = assets.add_asset("mouth", tmp_path / "mine.obj", data)
    assert added.parent == data / "assets/mouth"
    assert len(open_mouth(str(added)).faces) == len(mouth.faces)
    assert "rig.mouth" in assets.what_is_next("mouth", data)
    assert read_json(added.with_name(f"{added.name}.asset.json"))["vertices"] == len(mouth.vertices)
    assert assets.asset_of_kind("mouth").find(data) is not None
    assert "mouth" not in missing(tmp_path / "other", "emica"), "the open mouth is there for everybody"
    renamed = added.rename(added.with_name("mouth-000000000000.npz"))
    with pytest.raises(DataError, match="changed or renamed"):
        open_mouth(str(renamed))
