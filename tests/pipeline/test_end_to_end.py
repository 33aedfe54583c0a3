"""The whole pipeline in a scratch clone: it runs once, does nothing twice, repeats exactly what a change asks for."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from flows.paths import ProfilePaths

pytestmark = pytest.mark.slow

PATHS = ProfilePaths("sample")


def stages_run(done):
    return re.findall(r"^Running stage '([^']+)'", done.stdout, flags=re.MULTILINE)


def lock(clone):
    return yaml.safe_load((clone.root / "dvc.lock").read_text())


@pytest.fixture
def restored(built):
    """The built clone, put back as it was committed when the test has ended."""
    yield built
    built.run("git", "checkout", "--quiet", ".")
    built.dvc("checkout", "--force")


def test_the_first_run_ends_with_the_table_and_the_reports_path(built, first_run):
    assert len(stages_run(first_run)) == len(set(built.dvc("stage", "list", "--name-only").stdout.split()))
    last = first_run.stdout.strip().splitlines()[-1]
    assert last == f"report: {(built.root / PATHS.report).resolve()}"
    for word in ("train-mean", "selftalk", "ours-given", "LVE", "EVE"):
        assert word in first_run.stdout
    assert "Traceback" not in first_run.stderr


def test_no_process_is_left(built, first_run):
    left = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                at_work_here = (entry / "cwd").resolve().is_relative_to(built.root.resolve())
            except OSError:
                continue
            if at_work_here:
                left.append((entry / "cmdline").read_bytes())
    assert left == []


def test_a_second_run_does_nothing(built):
    before = (built.root / "dvc.lock").read_bytes()
    done = built.dvc("repro")
    assert stages_run(done) == []
    assert "up to date" in done.stdout
    assert (built.root / "dvc.lock").read_bytes() == before
    assert "everything is up to date; nothing was run." in built.python("-m", "flows.repro").stdout
    assert built.run("git", "status", "--porcelain").stdout == ""


def test_outputs_are_few_files_and_nothing_half_written(built):
    for folder in (built.root / "data/sample").rglob("*"):
        assert ".tmp-" not in folder.name
    for stage in lock(built)["stages"].values():
        for out in stage.get("outs", []):
            assert out.get("nfiles", 1) <= 1000, out["path"]


def test_metrics_and_plots_are_read_by_dvc(built, tmp_path):
    metrics = json.loads(built.dvc("metrics", "show", "--json").stdout)
    assert PATHS.metrics.as_posix() in json.dumps(metrics)
    built.dvc("plots", "show", "--out", str(tmp_path))
    assert (tmp_path / "index.html").is_file()


def test_one_changed_number_asks_for_its_own_stages_alone(restored):
    restored.edit_params("sample.select.per_level", 2)
    changed = json.loads(restored.dvc("status", "--json").stdout)
    assert set(changed) == {"select_images@sample", "export_emolib@sample"}  # the card tells the settings


def test_a_changed_number_reruns_what_follows_and_the_diff_shows_it(restored):
    restored.edit_params("sample.predict.fusion", "blend")
    done = restored.python("-m", "flows.repro")
    assert {stage.split("@")[0] for stage in stages_run(done)} == {"predict", "benchmark", "report"}
    difference = json.loads(restored.dvc("metrics", "diff", "HEAD", "--json").stdout)
    changed = set(difference[PATHS.metrics.as_posix()])
    assert any("ours-given.eve_m2.mean" in key for key in changed), changed  # lips are exact either way
    assert not any(".neutral.eve_m2" in key for key in changed), changed


@pytest.mark.parametrize(
    ("target", "marker"),
    [
        ("reconstruct_faces@sample", PATHS.faces / "work"),
        ("train_funet@sample", PATHS.checkpoints / "funet.pt"),
    ],
)
def test_a_killed_stage_ends_with_the_same_bytes_when_started_again(restored, target, marker):
    before = lock(restored)["stages"]
    if marker.is_relative_to(PATHS.checkpoints):
        (restored.root / marker).unlink(missing_ok=True)
    restored.kill_while_running(target, restored.root / marker)
    restored.dvc("repro")
    assert lock(restored)["stages"] == before
    assert restored.run("git", "status", "--porcelain").stdout == ""


def test_the_number_of_workers_changes_no_byte(restored):
    faces = {path: path.read_bytes() for path in (restored.root / PATHS.faces).rglob("*.parquet")}
    assert faces
    for path in faces:
        os.chmod(path, 0o644)  # noqa: PTH101 (outputs are links into the cache, read-only)
        path.unlink()
    restored.python("-m", "flows.emolib", "reconstruct_faces", "--profile", "sample", "--workers", "1")
    assert {path: path.read_bytes() for path in faces} == faces


def test_a_misspelt_number_ends_with_2_before_anything_runs(built):
    params = built.root / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace("per_level:", "per_levle:"))
    done = built.python("-m", "flows.repro", check=False)
    params.write_text(text)
    assert done.returncode == 2
    assert "sample.select.per_levle: unknown key; did you mean 'per_level'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_corpus_folder_ends_with_2_and_its_name(built):
    folder = built.root / PATHS.ravdess
    hidden = folder.with_name("hidden")
    folder.rename(hidden)
    done = built.python(
        "-m", "flows.evaluation", "track_emotions", "--profile", "sample", "--corpus", "ravdess", check=False
    )
    hidden.rename(folder)
    assert done.returncode == 2, done.stderr
    assert "ravdess" in done.stderr
    assert "Traceback" not in done.stderr
