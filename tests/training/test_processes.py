"""Training in processes of its own: two at once are one with twice the batch, and one that was killed goes on."""

import csv
import json
import signal
import subprocess
import sys

import pytest

from tests.fabricate_training import FramesObjective, record


def run(repository, directory, what, processes=1):
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    module = ["tests.fabricate_training", str(directory), what]
    command = [sys.executable, "-m", *(launcher if processes > 1 else []), *module]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=240, check=False)


def found(directory, rank=0):
    return json.loads((directory / f"{rank}.json").read_text())


@pytest.fixture(scope="module")
def several(tmp_path_factory, repository):
    """What two processes with a batch of 2 left."""
    directory = tmp_path_factory.mktemp("several")
    done = run(repository, directory, "several", processes=2)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(tmp_path, several):
    """Clips of unlike length, two losses with denominators of their own, clipping, an incomplete last step."""
    one = record(tmp_path / "one", FramesObjective(), batch=4)
    two = found(several / "plain")
    for expected, row in zip(one.rows, two["rows"], strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
    assert two["rows"] != one.rows, "the same bytes would mean that no second process took part"
    for name, tensor in one.last.items():
        assert two["last"][name] == pytest.approx(tensor.numpy(), abs=1e-6)


@pytest.mark.slow
def test_all_processes_end_alike_and_the_main_one_writes(several):
    first, second = (found(several / "plain", rank) for rank in (0, 1))
    assert (first["is_main"], second["is_main"]) == (True, False)
    for name in ("best", "last", "rows"):
        assert first[name] == second[name]
    assert first["batches"] + second["batches"] == 6 * 11
    assert sorted(path.name for path in (several / "plain").iterdir()) == [
        "0.json", "1.json", "checkpoint.pt", "curve.csv",
    ]  # fmt: skip
    with (several / "plain" / "curve.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == list("0123456")


@pytest.mark.slow
def test_two_processes_go_on_where_they_were_stopped_with_their_own_random_state(several):
    whole, resumed = found(several / "whole"), found(several / "resumed")
    for name in ("best", "last", "rows"):
        assert resumed[name] == whole[name]
    assert 0 < resumed["batches"] < whole["batches"]
    assert whole["rows"] != found(several / "plain")["rows"], "dropout must have been on"


@pytest.mark.slow
def test_every_process_names_the_broken_batch(several):
    first, second = ((several / "poisoned" / f"{rank}.txt").read_text() for rank in (0, 1))
    assert first == second
    named = first.split("items ")[1].split(".")[0].split(",")
    assert "7" in named
    assert len(named) <= 2


@pytest.mark.slow
def test_a_run_killed_by_the_system_goes_on_to_the_same_bytes(tmp_path, repository):
    """kill -9 amid the second epoch, amid an accumulated step; dropout, patience and bucketing are on."""
    whole, directory = tmp_path / "whole", tmp_path / "killed"
    record(whole, FramesObjective(dropout=0.2))
    killed = run(repository, directory, "killed")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [path.name for path in directory.iterdir()] == ["checkpoint.pt"]
    done = run(repository, directory, "dropped")
    assert done.returncode == 0, done.stderr
    assert found(directory)["batches"] == found(whole)["batches"] - 11
    assert (directory / "curve.csv").read_bytes() == (whole / "curve.csv").read_bytes()
    for name in ("best", "last"):
        assert found(directory)[name] == found(whole)[name]
