"""Memory of drawing images and of replacing those that fail, as the corpus and the lists grow tenfold.

    python -m bench.select_memory

Each size runs in a process of its own, with stand-ins for opening and reconstructing images. Counted is the peak above
what the process held before: for `select` the annotations are there already. Everything beside labels should be flat.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from bench._record import record
from ecavatar.config import SelectSettings
from ecavatar.emolib.draw import ImageCheck
from ecavatar.emolib.redraw import fill_lists, merge_rounds, records_path, rejects_path
from ecavatar.emolib.selection import select, write_selection
from ecavatar.storage.parquet import read_table, vector_column
from ecavatar.storage.rejects import Reject, write_rejects
from ecavatar.storage.shards import shard_path, write_shard

SIZES = (45_000, 450_000)
"""Annotated images; the larger number is AffectNet's."""
_DRAWN_SHARE = (500 / 450_000, 81_223 / 450_000)
_SHARDS = 64
_FAILURES = 0.05
_COEFFICIENTS = 440
_RUNS = 3
"""Medians are taken: what readers' threads hold at the same moment is chance."""


def main() -> None:
    """Measure, or be one of the measured processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stage", choices=("select", "redraw"))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rows", type=int)
    options = parser.parse_args()
    if options.stage == "select":
        print(_select(options.folder, options.rows))
    elif options.stage == "redraw":
        print(_redraw(options.folder))
    else:
        record("select_memory", _measured(), packages=["pyarrow", "pandas", "numpy"])


def _measured() -> dict[str, object]:
    peaks: dict[str, list[float]] = {"select": [], "redraw": []}
    with tempfile.TemporaryDirectory() as scratch:
        for rows in SIZES:
            folder = Path(scratch) / str(rows)
            folder.mkdir()
            _annotations(rows).to_parquet(folder / "annotations.parquet")
            runs = [{stage: _peak_of(stage, folder, rows) for stage in peaks} for _ in range(_RUNS)]
            for stage, found in peaks.items():
                found.append(float(np.median([run[stage] for run in runs])))
    grown = SIZES[1] - SIZES[0]
    figures: dict[str, object] = {"annotated_rows": list(SIZES), "bytes_per_row_at_most": 200}
    for stage, (small, large) in peaks.items():
        figures[f"{stage}_peak_mib"] = [round(small / 2**20, 1), round(large / 2**20, 1)]
        figures[f"{stage}_growth_bytes_per_row"] = round((large - small) / grown, 1)
    return figures


def _peak_of(stage: str, folder: Path, rows: int) -> float:
    """Bytes, of a process of its own."""
    options = ["--stage", stage, "--folder", str(folder), "--rows", str(rows)]
    command = [sys.executable, "-m", "bench.select_memory", *options]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _annotations(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    names = pd.Series([f"{n % 1200}/{hashlib.sha224(b'%d' % n).hexdigest()}.jpg" for n in range(rows)])
    table = {"source_id": names, "path": "Manually_Annotated/Manually_Annotated_Images/" + names, "split": "train"}
    table |= {"emotion_code": rng.integers(0, 11, rows), "valence": 0.0, "arousal": rng.uniform(-1, 1, rows)}
    return pd.DataFrame({**table, **dict.fromkeys(("face_x", "face_y", "face_width", "face_height"), 10.0)})


def _select(folder: Path, rows: int) -> int:
    table = pd.read_parquet(folder / "annotations.parquet")
    per_level, pool = (max(1, round(rows * share)) for share in _DRAWN_SHARE)
    settings = SelectSettings(per_level=per_level, levels="equal", near_duplicate_bits=8, pool=pool, max_rejects=1)
    before = _start_counting()
    selection = select(table, folder, settings, 0, _check)
    write_selection(folder / "index.parquet", selection, selection.rejects)
    return _peak() - before


def _redraw(folder: Path) -> int:
    shutil.rmtree(folder / "work", ignore_errors=True)  # of an earlier run
    before = _start_counting()
    filling = fill_lists(
        folder / "index.parquet", folder, folder / "work", run=_run, shards=_SHARDS, max_rejects=1, check=_check
    )
    for name, rounds in filling.rounds.items():
        merge_rounds(rounds, folder / name, _SHARDS)
    return _peak() - before


def _check(paths: list[Path]) -> list[ImageCheck]:
    sums = [hashlib.sha256(path.name.encode()).hexdigest() for path in paths]
    return [ImageCheck(text, text) for text in sums]


def _run(directory: Path, parts: int) -> None:
    """Faces of the real size for all but a few records."""
    for part in range(parts):
        records = read_table(records_path(directory, part))
        rng = np.random.default_rng(part)
        is_lost = rng.random(records.num_rows) < _FAILURES
        lost = records.filter(pa.array(is_lost, pa.bool_()))["item_id"].to_pylist()
        write_rejects(rejects_path(directory, part), [Reject(item, "bench", "no_face", "") for item in lost])
        kept = records.filter(pa.array(~is_lost, pa.bool_()))
        faces = kept.append_column("shape", vector_column(rng.normal(size=(kept.num_rows, _COEFFICIENTS))))
        write_shard(shard_path(directory, part, parts), "bench", lambda table=faces: table)


def _start_counting() -> int:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
