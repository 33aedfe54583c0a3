"""Selecting from AffectNet's annotations against merely reading them, on 450,000 rows in the real CSV format.

    python -m bench.select

The reference is pyarrow's CSV reader with its defaults on the same two lists, all columns. Ours reads the labels,
checks paths, numbers and repetitions, cuts the levels and draws from the permutations of all categories, levels and of
the pool; no image is opened. Memory is the peak of a process of its own, as bytes per further row.
"""

import multiprocessing
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from bench._record import best_seconds, record
from ecavatar.config import SelectSettings
from ecavatar.corpora.affectnet import COLUMNS, IMAGE_FOLDERS, LIST_FOLDERS, LISTS, read_annotations
from ecavatar.emolib.selection import Selection, select
from ecavatar.seeding import stream

ROWS = {"train": 444_500, "val": 5_500}
FEW_ROWS = {"train": 43_900, "val": 1_100}
CODE_COUNTS = (74_874, 134_415, 25_459, 14_090, 6_378, 3_803, 24_882, 3_750, 33_088, 11_645, 82_415)
"""Images of each code 0..10 in the training list."""
SUBFOLDERS = 1_400
SUFFIXES = ("jpg", "JPG", "jpeg", "png")
DRAW = SelectSettings(per_level=500, levels="equal", near_duplicate_bits=0, pool=0, max_rejects=0)
"""Emolib's 12,000 at most; the pool is permuted, not listed."""
DRAW_AND_POOL = DRAW.model_copy(update={"pool": 81_223})
ROUNDS = 15
PROCESSES = 7

_ROWS_AT_ONCE = 10_000


def write_lists(root: Path, rows: dict[str, int]) -> None:
    """An AffectNet of 2017 without pictures: landmarks in every row, training.csv with a header."""
    (root / IMAGE_FOLDERS[0]).mkdir(parents=True)
    lists = root / LIST_FOLDERS[0]
    lists.mkdir()
    for split, count in rows.items():
        with (lists / LISTS[split]).open("wb") as file:
            if split == "train":
                file.write(",".join(COLUMNS).encode() + b"\n")
            for start in range(0, count, _ROWS_AT_ONCE):
                random = stream(0, "bench", split, start)
                file.write(_lines(random, min(_ROWS_AT_ONCE, count - start)))


def _lines(random: np.random.Generator, count: int) -> bytes:
    names = [
        f"{folder}/{random.bytes(28).hex()}.{SUFFIXES[suffix]}"
        for folder, suffix in zip(
            random.integers(1, SUBFOLDERS, count), random.integers(0, len(SUFFIXES), count), strict=True
        )
    ]
    codes = random.choice(len(CODE_COUNTS), count, p=np.array(CODE_COUNTS) / sum(CODE_COUNTS))
    ratings = np.where(codes[:, None] > 7, -2.0, np.round(np.clip(random.normal(0.1, 0.35, (count, 2)), -1, 1), 6))
    boxes = random.integers(0, 900, (count, 4))
    landmarks = [_texts(column) for column in np.round(random.uniform(20, 900, (136, count)), 2)]
    columns = [
        pa.array(names),
        *map(_texts, boxes.T),
        pc.binary_join_element_wise(*landmarks, ";"),
        _texts(codes),
        *map(_texts, ratings.T),
    ]
    return "".join(f"{line}\n" for line in pc.binary_join_element_wise(*columns, ",").to_pylist()).encode()


def _texts(numbers: np.ndarray) -> pa.Array:
    return pa.array(np.ascontiguousarray(numbers)).cast(pa.string())


def read_all_columns(root: Path) -> None:
    """The reference."""
    for name in LISTS.values():
        pa.csv.read_csv(root / LIST_FOLDERS[0] / name)


def read_and_draw(root: Path, settings: SelectSettings = DRAW) -> Selection:
    """What is measured; both lists are made with all their columns."""
    selection = select(read_annotations(root).labels, root, settings, 0, check=None)
    for drawn in (selection.listed, selection.pooled):
        for _ in drawn.pieces():
            pass
    return selection


def peak_bytes(work: str, root: Path) -> int:
    """The largest memory this process ever had, after `work`."""
    if work == "read":
        read_annotations(root)
    else:
        read_and_draw(root)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def bytes_per_row(work: str, few: Path, many: Path) -> float:
    """By how much the peak grows with each further row: medians, as the reader's threads hurry ahead by chance."""
    medians = []
    for root in (few, many):
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            medians.append(np.median([pool.apply(peak_bytes, (work, root)) for _ in range(PROCESSES)]))
    return float(medians[1] - medians[0]) / (sum(ROWS.values()) - sum(FEW_ROWS.values()))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        many, few = Path(folder) / "many", Path(folder) / "few"
        write_lists(many, ROWS)
        write_lists(few, FEW_ROWS)
        memory = {work: bytes_per_row(work, few, many) for work in ("read", "draw")}
        works = {
            "reference": lambda: read_all_columns(many),
            "read": lambda: read_annotations(many),
            "draw": lambda: read_and_draw(many),
            "draw_and_pool": lambda: read_and_draw(many, DRAW_AND_POOL),
        }
        rounds = [{name: best_seconds(work, 1) for name, work in works.items()} for _ in range(ROUNDS)]
        seconds = {name: min(times[name] for times in rounds) for name in works}
        megabytes = sum(path.stat().st_size for path in many.rglob("*.csv")) / 1e6
        selection = read_and_draw(many)
    record(
        "select",
        {
            "rows": sum(ROWS.values()),
            "lists_mb": round(megabytes),
            "pyarrow_reads_all_columns_s": round(seconds["reference"], 3),
            "read_annotations_s": round(seconds["read"], 3),
            "read_and_draw_s": round(seconds["draw"], 3),
            "read_draw_and_list_pool_s": round(seconds["draw_and_pool"], 3),
            "read_and_draw_ratio": round(seconds["draw"] / seconds["reference"], 2),
            "read_and_draw_ratio_at_most": 1.5,
            "read_draw_and_list_pool_ratio": round(seconds["draw_and_pool"] / seconds["reference"], 2),
            "drawn": len(selection.listed),
            "read_annotations_bytes_per_row": round(memory["read"]),
            "read_and_draw_bytes_per_row": round(memory["draw"]),
            "bytes_per_row_at_most": 200,
        },
        packages=("pyarrow", "pandas", "numpy"),
    )


if __name__ == "__main__":
    main()
