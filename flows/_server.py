"""One Prefect server for the length of a run, started in the background and always stopped."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from ecavatar.errors import EcavatarError

_START_SECONDS = 180.0  # 4-10 s idle; a cold start on a busy machine was seen to take 40 s
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.2


class ServerError(EcavatarError, RuntimeError):
    """The local Prefect server did not come up."""


@contextlib.contextmanager
def local_server() -> Iterator[str]:
    """Address of the API of a Prefect server on this machine, which ends with the block.

    A server that an earlier, killed run left behind is stopped first.

    Raises:
        ServerError: it does not start, or does not answer in time.
    """
    stop_server()
    port = _free_port()
    started = _prefect("server", "start", "--background", "--port", str(port))
    try:
        if started.returncode:
            raise ServerError(
                f"Prefect's server did not start:\n{started.stdout}{started.stderr}\n"
                "Plain `dvc repro` works without it; `ecavatar doctor` shows the installed versions."
            )
        api = f"http://127.0.0.1:{port}/api"
        _await_health(api)
        yield api
    finally:
        stop_server()


def stop_server() -> None:
    """Stop the background server of this checkout, if there is one, and wait until it is gone."""
    pid_file = _home() / "server.pid"
    if not pid_file.is_file():
        return
    pid = _server_pid(pid_file)
    if pid is None:  # nothing of Prefect's runs under that number, so `prefect server stop` must not signal it
        pid_file.unlink(missing_ok=True)
        return
    _prefect("server", "stop")
    deadline = time.monotonic() + _STOP_SECONDS
    while _is_server(pid) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    if _is_server(pid):
        os.kill(pid, 9)


def _home() -> Path:
    return Path(os.environ["PREFECT_HOME"])  # set by flows/__init__.py unless the caller has chosen one


def _prefect(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "prefect", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _await_health(api: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"{api}/health", timeout=5).close()
            return
        time.sleep(_POLL_SECONDS)
    raise ServerError(f"Prefect's server gave no answer at {api}/health within {_START_SECONDS:.0f} s. Try again.")


def _server_pid(pid_file: Path) -> int | None:
    text = pid_file.read_text().strip()
    return int(text) if text.isdecimal() and _is_server(int(text)) else None


def _is_server(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"prefect.server" in command
