"""How a measurement is taken and kept: minima of repetitions, one json with machine and versions per benchmark."""

import datetime
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from ecavatar.storage.files import write_json

REPORTS = Path("reports") / "bench"


def best_seconds(work: Callable[[], object], repetitions: int = 5) -> float:
    """Shortest of several runs, in seconds: a busy neighbour only ever makes a run longer."""

    def once() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return min(once() for _ in range(repetitions))


def record(name: str, figures: Mapping[str, object], packages: Sequence[str] = ()) -> None:
    """Print `figures` and write them to reports/bench/<name>.json with command, date, device and versions.

    Args:
        name: module below bench/; also the file's name. A run on a GPU adds the device to it, so both are kept.
        figures: what was measured, units in the keys; json values.
        packages: distributions whose version matters, torch apart.
    """
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    facts = {
        "command": f"python -m bench.{name}",
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": {"cpus": len(os.sched_getaffinity(0)), "architecture": platform.machine(), "gpu": gpu},
        "versions": {"python": platform.python_version(), "torch": torch.__version__}
        | {package: importlib.metadata.version(package) for package in packages},
        "figures": dict(figures),
    }
    for key, value in figures.items():
        print(f"{key}: {value}")
    path = REPORTS / f"{name}{'-gpu' if gpu else ''}.json"
    write_json(path, facts)
    print(f"written: {path}")
