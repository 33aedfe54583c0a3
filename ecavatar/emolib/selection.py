"""Which images of AffectNet become Emolib, and which become FuNet's pool.

Up to N images per category and level are drawn at random (section 3.3 of the paper): the first good ones of a seeded
permutation of each. The rest of every permutation is kept in order, so that an image that fails later still finds its
replacement (`ecavatar.emolib.redraw`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int, UInt8

from ecavatar.config import SelectSettings
from ecavatar.corpora.affectnet import image_paths, read_annotations
from ecavatar.emolib.draw import (
    CHECKS,
    LABELS,
    LIST_SCHEMA,
    ROWS_AT_ONCE,
    Check,
    Drawn,
    ImageCheck,
    Lottery,
    Queue,
    inspect_images,
)
from ecavatar.emolib.duplicates import KnownImages
from ecavatar.emolib.levels import arousal_levels, is_usable
from ecavatar.emotion import LEVELS, Emotion
from ecavatar.errors import DataError
from ecavatar.seeding import stream
from ecavatar.storage.files import write_json
from ecavatar.storage.names import name_order
from ecavatar.storage.parquet import open_writer
from ecavatar.storage.rejects import Reject, check_rejects, write_rejects
from ecavatar.storage.shards import input_hash

__all__ = ["COLUMNS", "ImageCheck", "Selection", "inspect_images", "select", "select_folder", "write_selection"]

STAGE = "select_images"
POOL = "pool"
COLUMNS = tuple(LIST_SCHEMA.names)
"""Columns of the two lists."""
RESERVE_SCHEMA = pa.schema([("cell", pa.string()), ("place", pa.int32()), ("pool_place", pa.int32()), *LABELS])
"""What was not drawn: `place` in the permutation of its `cell` (<emotion>_<level>), `pool_place` in the pool's, -1
where it cannot come into the pool."""
RESERVE, POOL_LIST, REJECTS, LEVEL_FACTS = "reserve.parquet", "pool.parquet", "rejects.parquet", "levels.json"
"""Files that lie beside the list of Emolib's images."""
SELECTION_KEY, BITS_KEY, LIST_KEY = "selection", "near_duplicate_bits", "list"
"""File-level texts: which selection a file belongs to, by which rule images are copies, and `emolib` or `pool`."""

_HISTOGRAM_BINS = 40
_EMOTIONS = [emotion.label for emotion in Emotion]
_BOX = ("face_x", "face_y", "face_width", "face_height")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """What is left of the permutations after the draw; labels are read when it is written."""

    table: "_Candidates"
    cells: tuple[str, ...]
    left: tuple[Queue, ...]
    """Of each cell."""
    pool_places: Int[np.ndarray, " annotations"]

    def pieces(self) -> Iterator[pa.Table]:
        """Tables of `RESERVE_SCHEMA`, in the order of cells and places; at least one."""
        rows = np.concatenate([queue.rows for queue in self.left])
        places = np.concatenate([queue.places for queue in self.left])
        cells = np.repeat(np.arange(len(self.cells)), [len(queue.rows) for queue in self.left])
        for start in range(0, max(1, len(rows)), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            columns = {
                "cell": pa.array([self.cells[cell] for cell in cells[part]], pa.string()),
                "place": pa.array(places[part], pa.int32()),
                "pool_place": pa.array(self.pool_places[rows[part]], pa.int32()),
            }
            labels = self.table.labels(rows[part])
            yield pa.table([columns.get(name, labels[name] if name in labels.column_names else None)
                            for name in RESERVE_SCHEMA.names], schema=RESERVE_SCHEMA)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was drawn."""

    listed: Drawn
    """Emolib's images, sorted by item_id."""
    pooled: Drawn
    """FuNet's images, sorted likewise; none is in Emolib's list, none is neutral."""
    reserve: Reserve
    """Everything that was not drawn."""
    rejects: list[Reject]
    levels: dict[str, object]
    """Rule, cuts and histogram of arousal, and counts per category and level, as json values."""
    examined: int
    """How many images were looked at."""
    near_duplicate_bits: int
    fingerprint: str
    """Of what was drawn; the same in all files of one selection."""

    @property
    def index(self) -> pd.DataFrame:
        """Emolib's list with its labels, columns `COLUMNS`; made anew each time."""
        return self.listed.table().to_pandas()

    @property
    def pool(self) -> pd.DataFrame:
        """FuNet's list, likewise."""
        return self.pooled.table().to_pandas()


def select(
    annotations: pd.DataFrame,
    root: Path,
    settings: SelectSettings,
    seed: int,
    check: Check | None = inspect_images,
) -> Selection:
    """Draw Emolib's images and the pool.

    Args:
        annotations: labels (or the larger table) of `ecavatar.corpora.affectnet.read_annotations`.
        root: the corpus folder that `path` is relative to.
        settings: how many, and by which rule.
        seed: the project's seed; each category and level has a stream of its own.
        check: how images are opened; give one that works in parallel for many. None opens none: then
            `content_sha256` and `perceptual_hash` are empty and no copy is noticed before the faces are reconstructed.

    Raises:
        DataError: no row has both a category and an arousal.
    """
    table = _Candidates(annotations, settings)
    lottery = Lottery(
        table.labels, root, check, KnownImages(settings.near_duplicate_bits), stage=STAGE, named_by="source_id"
    )
    cells = {
        name: Queue(stream(seed, "select", name).permutation(rows), np.arange(len(rows), dtype=np.int32))
        for name, rows in sorted(table.cells.items())
    }
    listed = lottery.draw(cells, dict.fromkeys(cells, settings.per_level)).sorted_by_id()
    pool_queue = _pool_queue(table, cells, seed)
    pooled = lottery.draw({POOL: pool_queue}, {POOL: settings.pool}).sorted_by_id()
    drawn = dict(zip(cells, np.bincount(listed.cell_of, minlength=len(cells)).tolist(), strict=True))
    return Selection(
        listed=listed,
        pooled=pooled,
        reserve=_reserve(table, cells, pool_queue, pooled),
        rejects=lottery.rejects,
        levels=_level_facts(table, settings, drawn),
        examined=lottery.examined,
        near_duplicate_bits=settings.near_duplicate_bits,
        fingerprint=_fingerprint(table, listed, pooled),
    )


def write_selection(index: Path, selection: Selection, rejects: list[Reject]) -> None:
    """Write the list of Emolib's images, and beside it pool, reserve, rejects and level facts; the list comes last.

    Args:
        index: the Parquet file of the list; give it a folder of its own.
        selection: what was drawn.
        rejects: all rejects, those of reading the annotations included.
    """
    texts = {SELECTION_KEY: selection.fingerprint, BITS_KEY: str(selection.near_duplicate_bits)}
    _write_pieces(index.with_name(RESERVE), RESERVE_SCHEMA, texts, selection.reserve.pieces())
    write_rejects(index.with_name(REJECTS), rejects)
    write_json(index.with_name(LEVEL_FACTS), selection.levels)
    for path, drawn, name in (
        (index.with_name(POOL_LIST), selection.pooled, POOL),
        (index, selection.listed, "emolib"),
    ):
        _write_pieces(path, LIST_SCHEMA, {**texts, LIST_KEY: name}, drawn.pieces())


def _write_pieces(path: Path, schema: pa.Schema, texts: Mapping[str, str], pieces: Iterable[pa.Table]) -> None:
    with open_writer(path, schema, texts) as writer:
        for piece in pieces:
            writer.write_table(piece)


def select_folder(
    affectnet: Path,
    out: Path,
    settings: SelectSettings,
    seed: int,
    *,
    annotations_only: bool = False,
    check: Check = inspect_images,
) -> Selection:
    """Select from an AffectNet folder and write the list `out` with its companions, see `write_selection`.

    Args:
        affectnet: the corpus as it ships.
        out: the list of Emolib's images (Parquet), in a folder of its own.
        settings: how many, and by which rule.
        seed: of the draw.
        annotations_only: open no image; see `select`.
        check: how images are opened.

    Raises:
        AssetMissingError, DataError: see `read_annotations`; or too many of the rows read, or of the images looked at,
            were rejected.
    """
    read = read_annotations(affectnet, need_images=not annotations_only)
    check_rejects(read.rejects, len(read.labels) + len(read.rejects), settings.max_rejects, STAGE)
    selection = select(read.labels, affectnet, settings, seed, None if annotations_only else check)
    check_rejects(selection.rejects, selection.examined, settings.max_rejects, STAGE)
    write_selection(out, selection, [*read.rejects, *selection.rejects])
    return selection


class _Candidates:
    """The usable rows of the annotations by cell, sorted by name: the draw must not depend on the order of lists."""

    def __init__(self, annotations: pd.DataFrame, settings: SelectSettings) -> None:
        usable = is_usable(annotations)
        if not usable.any():
            raise DataError(
                f"none of {len(annotations)} annotated images has one of the eight categories and an arousal."
            )
        self.annotations = annotations
        order = name_order(annotations["source_id"])
        self.rows = order[usable[order]].astype(np.int32)  # kept in many orders: half the memory
        rated = annotations[["emotion_code", "arousal"]].iloc[self.rows]
        self.levels, self.bounds = arousal_levels(rated, settings.levels, settings.per_level)
        self.codes, self.arousal = rated["emotion_code"].to_numpy(np.int8), rated["arousal"].to_numpy(np.float64)
        self._level_of = np.zeros(len(annotations), np.int8)
        self._level_of[self.rows] = self.levels
        self.cells = {
            _cell(emotion, level): self.rows[chosen]
            for emotion in self.bounds
            for level in LEVELS
            if len(chosen := np.flatnonzero((self.codes == int(emotion)) & (self.levels == level)))
        }
        self.emotional = self.rows[self.codes != Emotion.NEUTRAL]

    def source_ids(self, rows: Int[np.ndarray, " rows"]) -> pa.Array:
        """Names of rows of the annotations, as the corpus gives them."""
        return pa.array(self.annotations["source_id"].iloc[rows], from_pandas=True).cast(pa.string())

    def labels(self, rows: Int[np.ndarray, " rows"]) -> pa.Table:
        """Columns `LABELS` and, empty, `CHECKS` of rows of the annotations."""
        part = self.annotations.iloc[rows]
        columns = {name: part[name] for name in ("source_id", "split", "valence", "arousal")}
        columns["path"] = part["path"] if "path" in part else image_paths(part)
        columns |= {f"{name}_px": part[name] for name in _BOX}
        columns["emotion"] = pa.array(_EMOTIONS).take(pa.array(part["emotion_code"]))
        columns["level"] = self._level_of[rows]
        columns |= dict.fromkeys(CHECKS.names, pa.repeat("", len(rows)))
        fields = [*LABELS, *CHECKS]
        arrays = [pa.array(columns[field.name], from_pandas=True).cast(field.type) for field in fields]
        return pa.table(arrays, schema=pa.schema(fields))


def _cell(emotion: Emotion, level: int) -> str:
    return f"{emotion.label}_{level}"


def _pool_queue(table: _Candidates, cells: Mapping[str, Queue], seed: int) -> Queue:
    """The pool's permutation of all emotional images, without those that the draw for Emolib has looked at."""
    seen = np.zeros(len(table.annotations), bool)
    for queue in cells.values():
        seen[queue.rows[: queue.taken]] = True
    order = stream(seed, "select", POOL).permutation(table.emotional)
    places = np.flatnonzero(~seen[order]).astype(np.int32)
    return Queue(order[places], places)


def _reserve(table: _Candidates, cells: Mapping[str, Queue], pool_queue: Queue, pooled: Drawn) -> Reserve:
    places = np.full(len(table.annotations), -1, np.int32)
    places[pool_queue.rows] = pool_queue.places
    looked_at = slice(0, pool_queue.taken)
    refused = ~np.isin(pool_queue.places[looked_at], pooled.places)
    places[pool_queue.rows[looked_at][refused]] = -1
    left = tuple(Queue(queue.rows[queue.taken :], queue.places[queue.taken :]) for queue in cells.values())
    return Reserve(table=table, cells=tuple(cells), left=left, pool_places=places)


def _level_facts(table: _Candidates, settings: SelectSettings, drawn: Mapping[str, int]) -> dict[str, object]:
    edges = np.linspace(-1, 1, _HISTOGRAM_BINS + 1)
    return {
        "annotated": len(table.annotations),
        "usable": len(table.rows),
        "rule": settings.levels,
        "per_level": settings.per_level,
        "histogram": {"lowest": -1.0, "highest": 1.0, "bins": _HISTOGRAM_BINS},
        "emotions": {
            emotion.label: {
                "arousal": asdict(cut),
                "histogram": np.histogram(table.arousal[table.codes == int(emotion)], edges)[0].tolist(),
                "available": {str(level): len(table.cells.get(_cell(emotion, level), ())) for level in LEVELS},
                "drawn": {str(level): int(drawn.get(_cell(emotion, level), 0)) for level in LEVELS},
            }
            for emotion, cut in sorted(table.bounds.items())
        },
    }


def _fingerprint(table: _Candidates, *lists: Drawn) -> str:
    """Of item ids, source ids and, where images were opened, their bytes."""
    return input_hash(*(column for drawn in lists for column in (
        _joined(drawn.item_ids()), _joined(table.source_ids(drawn.rows)), drawn.checks)))  # fmt: skip


def _joined(texts: pa.Array) -> UInt8[np.ndarray, " bytes"]:
    joined = pc.binary_join(pa.ListArray.from_arrays([0, len(texts)], texts), "\n")
    return np.frombuffer(joined[0].as_buffer(), np.uint8)
