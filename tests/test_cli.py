"""Laws of the command line: what it says about this machine and about the user's files, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ecavatar import assets
from ecavatar.cli import app
from ecavatar.errors import AssetMissingError, ConfigError, DataError
from ecavatar.storage.files import read_json
from ecavatar.storage.parquet import write_table
from ecavatar.storage.shards import shard_path
from tests.fabricate_emolib import fabricated_faces
from tests.fabricate_flame import write_flame_masks

ROOT = Path(__file__).resolve().parents[1]


def ecavatar(*arguments, cwd=ROOT):
    command = [sys.executable, "-m", "ecavatar.cli", *map(str, arguments)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_doctor_says_what_is_missing_what_needs_it_and_what_works_without(tmp_path):
    done = CliRunner().invoke(app, ["doctor", "--data", str(tmp_path)])
    assert done.exit_code == 0
    line = next(line for line in done.stdout.splitlines() if line.strip().startswith("hubert"))
    for part in ("missing", "train_selftalk", "small HuBERT", "ecavatar assets add hubert"):
        assert part in line
    assert "torch" in done.stdout


def test_doctor_speaks_json(tmp_path):
    done = CliRunner().invoke(app, ["doctor", "--json", "--data", str(tmp_path)])
    report = json.loads(done.stdout)
    assert set(report) == {"machine", "packages", "libraries", "assets", "missing_for_full", "profiles"}
    assert {asset["kind"] for asset in report["assets"]} == {asset.kind for asset in assets.ASSETS}
    assert not any(asset["is_found"] for asset in report["assets"])
    assert report["profiles"]["full"].startswith("lacks ")


def test_every_command_shows_help_with_an_example():
    verbs = (
        "doctor", "assets list", "assets add", "select", "reconstruct", "face", "export", "verify", "emolib nearest",
        "emolib import", "emolib folders", "animate", "rig", "lips", "emotion",
    )  # fmt: skip
    for command in (verb.split() for verb in verbs):
        done = CliRunner().invoke(app, [*command, "--help"])
        assert done.exit_code == 0
        assert "Example: ecavatar" in done.stdout


def test_list_shows_every_asset_with_grantor_and_place(tmp_path):
    text = CliRunner().invoke(app, ["assets", "list", "--data", str(tmp_path)]).stdout
    for asset in assets.ASSETS:
        assert f"{asset.kind}: missing, {tmp_path / asset.path}" in text
        assert asset.grantor in text


def model_folder(path):
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"weights")
    return path


def test_an_added_folder_is_copied_and_recorded(tmp_path):
    source, data = model_folder(tmp_path / "download"), tmp_path / "data"
    done = CliRunner().invoke(app, ["assets", "add", "hubert", str(source), "--data", str(data)])
    assert done.exit_code == 0
    assert (data / "assets/hubert/model.safetensors").read_bytes() == b"weights"
    record = read_json(data / "assets/hubert.asset.json")
    assert record["licence"] == "Apache-2.0"
    assert record["bytes"] == 9
    assert set(record["files"]) == {"config.json", "model.safetensors"}
    assert "hubert: found" in CliRunner().invoke(app, ["assets", "list", "--data", str(data)]).stdout


def test_adding_again_replaces_the_whole_folder(tmp_path):
    source = model_folder(tmp_path / "download")
    first = assets.add_asset("hubert", source, tmp_path / "data")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    assert assets.add_asset("hubert", source, tmp_path / "data") == first
    assert sorted(path.name for path in first.iterdir()) == ["config.json", "pytorch_model.bin"]


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("hubrt", ConfigError, "unknown kind 'hubrt'; expected one of: affectnet"),
        ("vocaset", ConfigError, "put the folder at"),
        ("flame", DataError, "not a readable pickle"),
        ("face-model", DataError, "not a face model in our schema"),
        ("hubert", DataError, "is not a folder"),
    ],
)
def test_what_cannot_be_added_is_refused_with_the_next_step_and_nothing_is_written(tmp_path, kind, error, text):
    source = tmp_path / "file"
    source.write_bytes(b"something")
    with pytest.raises(error, match=text):
        assets.add_asset(kind, source, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_an_incomplete_folder_is_refused(tmp_path):
    source = model_folder(tmp_path / "download")
    (source / "config.json").unlink()
    with pytest.raises(DataError, match=r"lacks config\.json"):
        assets.add_asset("hubert", source, tmp_path / "data")
    with pytest.raises(AssetMissingError, match="not found"):
        assets.add_asset("hubert", tmp_path / "none", tmp_path / "data")


def test_mistakes_end_with_2_and_one_message(tmp_path):
    done = ecavatar("assets", "add", "hubert", tmp_path / "none")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert ecavatar("assets", "add").returncode == 2
    assert ecavatar("fly").returncode == 2


@pytest.fixture
def place(tmp_path, small_face, monkeypatch):
    """A folder with a face model, a folder of reconstructed faces and a release, current for the test."""
    monkeypatch.chdir(tmp_path)
    for profile in ("sample", "full"):
        small_face.save(tmp_path / "data" / profile / "assets" / "face" / "face_model.npz")
    faces = fabricated_faces(small_face, 48)
    tags = {"topology": "small", "basis": "small", "backend": "landmarks"}
    write_table(shard_path(tmp_path / "faces", 0, 1), faces, tags)
    return tmp_path


def test_faces_become_a_release_that_is_checked_searched_and_taken_apart(place, small_face):
    invoke = CliRunner().invoke
    assert "48 faces in 8 categories" in invoke(app, ["export", "faces", "--out", "release"]).stdout
    assert "all is as it says" in invoke(app, ["verify", "release"]).stdout
    np.save("shape.npy", np.zeros(small_face.n_shape))
    asked = ["emolib", "nearest", "release", "--face", "shape.npy", "--emotion", "sad", "--level", "2", "--json"]
    item = json.loads(invoke(app, asked).stdout)
    assert (item["emotion"], item["level"]) == ("sad", 2)
    assert item["shape_distance"] == pytest.approx(np.linalg.norm(item["shape"]))
    assert "48 items" in invoke(app, ["emolib", "folders", "release", "--out", "folders"]).stdout
    imported = invoke(app, ["emolib", "import", "folders", "--out", "imported"]).stdout
    assert "48 faces; 0 items could not be used" in imported
    assert json.loads(invoke(app, ["verify", "imported", "--json"]).stdout) == {"problems": []}


def test_a_damaged_release_ends_with_2_and_says_where(place):
    CliRunner().invoke(app, ["export", "faces", "--out", "release"])
    card = place / "release" / "README.md"
    card.write_text(card.read_text() + "more")
    done = CliRunner().invoke(app, ["verify", "release"])
    assert done.exit_code == 2
    assert "README.md" in done.stdout


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("select nowhere --out index.parquet", "AffectNet folder nowhere not found"),
        ("export nowhere --out release", "nowhere holds no shards"),
        ("export faces --out release --images pictures", "--i-hold-the-licence"),
        ("emolib nearest nowhere --face x.npy --emotion hapy --level 1", "hapy"),
        ("emolib nearest nowhere --face x.npy --emotion happy --level 1", "nowhere"),
        ("emolib import nowhere.zip --out release", "nowhere.zip"),
        ("face nowhere.png --out face --profile nobody --params params.yaml", "params.yaml not found"),
    ],
)
def test_each_wrong_input_of_the_emolib_verbs_is_named_and_nothing_is_written(place, command, text):
    done = ecavatar(*command.split(), cwd=place)
    assert done.returncode == 2
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in place.iterdir()) == ["data", "faces"]


def test_an_added_flame_part_says_what_is_still_missing(tmp_path):
    write_flame_masks(tmp_path / "FLAME_masks.pkl")
    data = tmp_path / "data"
    added = ["assets", "add", "flame-masks", str(tmp_path / "FLAME_masks.pkl"), "--data", str(data)]
    done = CliRunner().invoke(app, added)
    assert done.exit_code == 0
    assert "flame-landmarks" in done.stdout


def test_wrong_input_of_rig_lips_and_emotion_is_named_and_nothing_is_written(place, small_face):
    root = place / "mine"
    root.mkdir()
    silent = root / "nothing.wav"
    silent.touch()
    commands = {
        "trainingdata.zip": ("rig", root / "nowhere", "--out", root / "teeth"),
        "--labels says": ("rig", root, "--out", root / "teeth", "--labels", silent),
        "must end in .npz": ("lips", silent, "--template", root, "--out", root / "motion.mp4"),
        "selftalk": ("lips", silent, "--template", root, "--out", root / "motion.npz"),
        "must end in .json": ("emotion", silent, "--out", root / "track.png", "--params", ROOT / "params.yaml"),
        "config.yaml": ("emotion", silent, "--out", root / "track.json", "--params", ROOT / "params.yaml"),
    }
    for text, command in commands.items():
        done = ecavatar(*command, cwd=place)
        assert done.returncode == 2, (text, done.stderr)
        assert text in done.stderr
        assert "Traceback" not in done.stderr
    assert not any((root / name).exists() for name in ("teeth", "motion.npz", "track.json", "track.png"))
