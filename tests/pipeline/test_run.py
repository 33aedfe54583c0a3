"""Laws of a stage's command line and of how it ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from prefect import flow

from ecavatar.errors import ConfigError, DataError
from flows import _run
from flows._server import local_server, stop_server

ROOT = Path(__file__).resolve().parents[2]

STAGE = textwrap.dedent(
    '''
    """Two stages for tests."""
    import sys
    from pathlib import Path
    from prefect import flow
    from ecavatar.errors import DataError
    from flows._run import main, seed, shard_task, stage_settings, wait_all, workers

    TRIES = Path(sys.argv[0]).with_name("tries")

    @shard_task
    def square(number: int, how: str) -> int:
        if number == 3 and how != "well":
            with TRIES.open("a") as file:
                file.write("x")
        if number == 3 and how == "mistake":
            raise DataError("item 3 is damaged. Copy it again.")
        if number == 3 and how == "bug":
            raise RuntimeError("a defect")
        return number * number

    @flow(name="squares")
    def squares(profile: str, how: str = "well") -> str:
        """Square some numbers."""
        stage_settings(profile), seed()
        return f"sum {sum(wait_all([square.submit(n, how) for n in range(10)]))}"

    if __name__ == "__main__":
        main(squares)
    '''
)


@pytest.fixture(scope="module")
def stage_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("stage") / "squares_stage.py"
    path.write_text(STAGE)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="module")
def server(home):
    before = os.environ.get("PREFECT_HOME")
    os.environ["PREFECT_HOME"] = str(home)
    try:
        with local_server() as api:
            yield api
        assert not (home / "server.pid").exists()
        assert processes_with(str(home)) == []
    finally:
        os.environ.pop("PREFECT_HOME") if before is None else os.environ.update(PREFECT_HOME=before)


def processes_with(text):
    """Command lines and environments of running processes that mention `text`, this one's apart."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                if text.encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes())
            except OSError:
                continue
    return found


def run_stage(stage_file, home, *arguments, api=None):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(home)}
    environment.pop("PREFECT_API_URL", None)
    environment |= {"PREFECT_API_URL": api} if api else {}
    command = [sys.executable, str(stage_file), "squares", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_stage_opens_and_closes_with_one_line_each(stage_file, home, server):
    done = run_stage(stage_file, home, "--profile", "sample", api=server)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0] == "squares@sample well: started"
    assert lines[1].startswith("squares@sample well: done in ")
    assert lines[1].endswith(" s: sum 285")
    assert len(lines) == 2


@pytest.mark.slow
def test_a_mistake_is_one_message_without_traceback_or_second_try(stage_file, home, server):
    tries = stage_file.with_name("tries")
    tries.unlink(missing_ok=True)
    done = run_stage(stage_file, home, "--profile", "sample", "--how", "mistake", api=server)
    assert done.returncode == 2
    assert done.stderr == "error: squares@sample mistake: item 3 is damaged. Copy it again.\n"
    assert tries.read_text() == "x"


@pytest.mark.slow
def test_a_bug_is_tried_twice_then_told_once_with_its_traceback(stage_file, home, server):
    tries = stage_file.with_name("tries")
    tries.unlink(missing_ok=True)
    done = run_stage(stage_file, home, "--profile", "sample", "--how", "bug", api=server)
    assert done.returncode == 1
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert "RuntimeError: a defect" in done.stderr
    assert tries.read_text() == "xx"


@pytest.mark.slow
def test_a_stage_works_without_a_server_and_leaves_no_process(stage_file, tmp_path):
    done = run_stage(stage_file, tmp_path, "--profile", "sample")
    assert (done.returncode, done.stderr) == (0, "")
    deadline = time.monotonic() + 10
    while (left := processes_with(str(tmp_path))) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


@pytest.mark.slow
def test_a_server_left_by_a_killed_run_is_replaced_and_stopped(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    script = "from flows._server import local_server\nwith local_server():\n    print('up', flush=True)\n    input()\n"
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(processes_with(str(tmp_path))) == 1
    stop_server()
    assert processes_with(str(tmp_path)) == []


def test_a_pid_file_that_names_another_process_is_not_trusted(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with subprocess.Popen(["sleep", "60"]) as bystander:
        (tmp_path / "server.pid").write_text(str(bystander.pid))
        stop_server()
        assert bystander.poll() is None
        assert not (tmp_path / "server.pid").exists()
        bystander.kill()


def test_params_are_checked_before_any_server_starts(stage_file, tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text() + "\nprofilez: [sample]\n")
    started = time.monotonic()
    done = run_stage(stage_file, tmp_path, "--profile", "sample", "--params", str(params))
    assert done.returncode == 2
    assert "profilez: unknown key; did you mean 'profiles'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - started < 10


@flow(name="first")
def first(profile: str, corpus: str) -> None:
    """Do the first thing."""


@flow(name="second")
def second(profile: str) -> None:
    """Do the second thing."""


def test_help_names_stages_options_and_an_example(capsys):
    with pytest.raises(SystemExit) as ended:
        _run.run((first, second), ["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "Do the first thing." in text
    assert "example: python -m flows." in text
    with pytest.raises(SystemExit):
        _run.run((first, second), ["first", "--help"])
    assert "--corpus" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "label"), [
    (["first", "--profile", "sample", "--corpus", "mead"], "first@sample mead"),
    (["second", "--profile", "full", "--workers", "3"], "second@full"),
])  # fmt: skip
def test_the_stage_that_is_named_runs_with_its_options(arguments, label, monkeypatch):
    seen = []
    monkeypatch.setattr(
        _run, "_run_stage", lambda flow, label, options: seen.append((flow.name, label, options["profile"]))
    )
    assert _run.run((first, second), arguments) == 0
    assert seen == [(arguments[0], label, arguments[2])]


@pytest.mark.parametrize(
    "arguments",
    [[], ["third"], ["second"], ["second", "--profile", "tiny"], ["first", "--profile", "sample"],
     ["second", "--profile", "sample", "--workers", "0"]],
)  # fmt: skip
def test_wrong_options_end_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        _run.run((first, second), arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_an_interruption_says_how_to_go_on(capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert _run.guarded(interrupted, "x") == 1
    assert "run the same command again" in capsys.readouterr().err


def test_a_mistake_that_our_own_code_turned_into_a_bug_stays_a_bug(capsys):
    def work():
        raise RuntimeError("defect") from DataError("inner")

    assert _run.guarded(work, "x") == 1
    assert "RuntimeError: defect" in capsys.readouterr().err


def test_dvc_is_refused_inside_a_stage(monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "predict@sample-neutral")
    with pytest.raises(ConfigError, match="inside the DVC stage 'predict@sample-neutral'"):
        _run.refuse_inside_stage()
    monkeypatch.delenv("DVC_STAGE")
    _run.refuse_inside_stage()


def test_unfinished_work_is_kept_for_the_same_code_and_dropped_for_other_code(tmp_path, monkeypatch):
    shard = tmp_path / "data/sample/faces/pool/part-00000-of-00001.parquet"
    half = shard.with_name(".part.parquet.tmp-1-0")

    def attempt():
        _run.forget_outdated_attempts("reconstruct_faces", "sample", tmp_path)

    def leave():
        shard.parent.mkdir(parents=True, exist_ok=True)
        shard.write_text("done")
        half.write_text("half")

    leave()
    attempt()
    assert not shard.exists(), "nobody knows which code made it"
    leave()
    attempt()
    assert shard.exists()
    assert not half.exists()
    monkeypatch.setattr(_run, "source_fingerprint", lambda: "other code")
    attempt()
    assert not shard.exists()
    _run.forget_outdated_attempts("select_images", "sample", tmp_path)
