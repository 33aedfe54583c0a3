"""Laws of `make repro` that need no run: inputs are checked first, targets are known, the table shows the metrics."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from ecavatar.assets import ASSETS
from ecavatar.config import load_params
from ecavatar.errors import AssetMissingError, ConfigError
from flows import repro
from flows.paths import ProfilePaths

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings():
    return load_params(ROOT / "params.yaml")


def supply_everything(data):
    for asset in ASSETS:
        if asset.needed_by:
            place = data / asset.path
            place.mkdir(parents=True) if asset.is_folder else place.parent.mkdir(parents=True, exist_ok=True)
            names = [name.split("|")[0] for name in asset.files] or ["file"]
            for file in [place / name for name in names] if asset.is_folder else [place]:
                file.write_text("")


def test_the_sample_profile_needs_no_file_of_the_users(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    repro.check_inputs(settings)
    assert list(tmp_path.iterdir()) == []


def test_the_full_profile_names_every_missing_file_and_its_next_step(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssetMissingError) as caught:
        repro.check_inputs(settings.model_copy(update={"profiles": ["sample", "full"]}))
    text = str(caught.value)
    for kind in ("affectnet", "vocaset", "ravdess", "mead", "flame", "hubert", "emotion2vec"):
        assert f"  {kind}: " in text
    assert "put the folder at data/full/raw/vocaset" in text
    assert "ecavatar assets add hubert FOLDER" in text
    assert list(tmp_path.iterdir()) == []


def test_the_full_profile_starts_when_everything_is_there(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = ProfilePaths("full")
    supply_everything(paths.data)
    repro.check_inputs(settings.model_copy(update={"profiles": ["full"]}))
    assert paths.truth.is_dir()
    assert paths.speech_figures.is_file()


def test_assets_lie_where_the_stages_look_for_them():
    paths = ProfilePaths("full")
    known = {
        getattr(paths, name).as_posix()
        for name in dir(ProfilePaths)
        if isinstance(getattr(ProfilePaths, name), property)
    }
    for asset in ASSETS:
        if asset.needed_by:
            assert (paths.data / asset.path).as_posix() in known, asset.kind


def test_missing_files_end_the_command_with_2_and_start_nothing(tmp_path):
    params = (ROOT / "params.yaml").read_text().replace("profiles: [sample]", "profiles: [full]")
    (tmp_path / "params.yaml").write_text(params)
    done = subprocess.run(
        [sys.executable, "-m", "flows.repro"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PREFECT_HOME": str(tmp_path / "prefect")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: repro: profile full needs 10 input(s)")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()
    assert not list((tmp_path / "prefect").glob("server.pid"))


def test_targets_are_the_instances_of_a_stage(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert repro.targets_of(["benchmark"]) == ["benchmark@sample"]
    assert len(repro.targets_of(["predict", "track_emotions"])) == 8
    assert repro.targets_of([]) == []
    with pytest.raises(ConfigError, match=r"no stage 'benchmrk'; it has: make_corpora"):
        repro.targets_of(["benchmrk"])


def test_unknown_studies_are_refused(settings, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert repro.study_stages(settings) == ["study@sample-mouth"]
    with pytest.raises(ConfigError, match="baselines"):
        repro.study_stages(settings.model_copy(update={"studies": ["baselines"]}))


def test_the_table_has_a_row_per_method_and_a_column_per_measured_error():
    score = {"mean": 2.5e-5, "ci95_low": 2e-5, "ci95_high": 3.25e-5}
    metrics = {
        "errors": {"vocaset": {"neutral": {"lve_m2": score}}, "mead": {"neutral": {"eve_m2": score}, "ours": {}}}
    }
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(repro.metrics_table("sample", metrics))
    text = console.export_text()
    assert "2.5 (2 to 3.25)" in text
    assert next(line for line in text.splitlines() if "ours" in line).count(" - ") == 2
