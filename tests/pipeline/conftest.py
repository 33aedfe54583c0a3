"""One scratch clone in which the whole pipeline has run, shared by the tests that need its results."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

SMALLER: Mapping[str, object] = {
    "sample.corpora.affectnet_images": 160,
    "sample.corpora.vocaset_sentences": 1,
    "sample.corpora.ravdess_actors": 1,
    "sample.corpora.mead_actors": 1,
    "sample.speech_models.clips": 48,
    "sample.speech_models.held_out_clips": 8,
    "sample.speech_models.front_end_steps": 20,
    "sample.speech_models.step_steps": 10,
    "sample.speech_models.ctc_steps": 10,
    "sample.speech_models.emotion_steps": 10,
    "sample.select.per_level": 3,
    "sample.select.pool": 40,
    "sample.selftalk.training.epochs": 4,
    "sample.pairs.train": 96,
    "sample.pairs.validation": 16,
    "sample.funet.training.epochs": 2,
    "sample.benchmark.bootstrap_samples": 50,
    "sample.report.picture_px": 96,
}
"""params.yaml's numbers in the end-to-end test; everything else is as committed."""


def shrink(params: dict) -> dict:
    """`params` with the numbers of SMALLER; a key that params.yaml does not have is an error of this table."""
    for dotted, value in SMALLER.items():
        *parents, key = dotted.split(".")
        place = params
        for name in parents:
            place = place[name]
        assert key in place, f"SMALLER names {dotted}, which params.yaml does not have"
        place[key] = value
    return params


@dataclass(frozen=True)
class Clone:
    """A scratch clone of the checkout under test, run with the interpreter that runs the tests."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DVC_"))}
        return {**kept, "PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(self.root)}

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode:
            pytest.fail(
                f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
            )
        return done

    def python(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, *arguments, check=check)

    def dvc(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "dvc", *arguments, check=check)

    def kill_while_running(self, target: str, marker: Path, seconds: float = 300) -> None:
        """Start `dvc repro --force --single-item target`, and kill it and its stage once `marker` has appeared."""
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", "--force", "--single-item", target],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + seconds
        while not marker.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert marker.exists(), f"{target} was not seen at work"

    def edit_params(self, dotted: str, value: object) -> None:
        path = self.root / "params.yaml"
        params = place = yaml.safe_load(path.read_text())
        *parents, key = dotted.split(".")
        for name in parents:
            place = place[name]
        place[key] = value
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def commit(self, subject: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-q", "-m", subject)


@pytest.fixture(scope="session")
def clone(tmp_path_factory) -> Clone:
    """The tracked files of the checkout, as they are now, in a repository of their own with smaller numbers."""
    root = tmp_path_factory.mktemp("clone") / "ecavatar"
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file() and name != "dvc.lock":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    (root / "params.yaml").write_text(yaml.safe_dump(shrink(params), sort_keys=False))
    scratch = Clone(root)
    scratch.run("git", "init", "-q", ".")
    scratch.commit("Start")
    return scratch


@pytest.fixture(scope="session")
def first_run(clone) -> subprocess.CompletedProcess[str]:
    """What `make repro` runs after set-up, once, from nothing; the results are committed."""
    done = clone.python("-m", "flows.repro")
    (clone.root.parent / "first_run.log").write_text(done.stdout + done.stderr)  # how long each stage took
    clone.commit("Run the pipeline")
    return done


@pytest.fixture(scope="session")
def built(clone, first_run) -> Clone:
    """The scratch clone after its first run."""
    return clone
