"""Faces until the lists are full: an image whose face cannot be found is replaced by the next of its permutation.

Emolib is filled first, the pool after it, in rounds: the drawn images are reconstructed, and for those that failed the
next ones are drawn, until each category and level has as many faces as images were selected or its permutation is
exhausted. Which images a round draws follows from which ones failed, so neither shards nor workers can change it. A
round is a directory of shards; those that are finished are not computed again.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int

from ecavatar.config import ReconstructSettings
from ecavatar.corpora.affectnet import corpus_landmarks
from ecavatar.emolib.draw import CHECKS, LABELS, ROWS_AT_ONCE, Check, Lottery, Queue, inspect_images
from ecavatar.emolib.duplicates import KnownImages
from ecavatar.emolib.selection import (
    BITS_KEY,
    LIST_KEY,
    POOL,
    POOL_LIST,
    RESERVE,
    SELECTION_KEY,
)
from ecavatar.errors import AssetMissingError, DataError
from ecavatar.face.model import FaceAsset
from ecavatar.reconstruction.landmarks import FaceLandmarker
from ecavatar.reconstruction.table import STAGE, ReadLandmarks, Reconstructor, read_record_image
from ecavatar.storage.files import clean_stale, resolve_inside, sha256_file
from ecavatar.storage.parquet import read_row_group, read_table, table_metadata, write_table
from ecavatar.storage.rejects import Reject, check_rejects, read_rejects, write_rejects
from ecavatar.storage.shards import HASH_KEY, input_hash, list_shards, shard_path, split_rows, write_shard

EMOLIB = "emolib"
WORK = "work"
"""Below the output: rounds that are not merged yet; gone when all is done."""
NOT_HASHED = frozenset({"shards", "max_rejects"})
"""Reconstruction settings that change no face."""

RunRound = Callable[[Path, int], None]
"""Makes all parts of the round in a directory, that many; see `reconstruct_part`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """What the rounds gave."""

    rounds: Mapping[str, Sequence[Path]]
    """Directories of each list, in order."""
    faces: Mapping[str, int]
    """How many faces each list has."""
    replacements: int
    """How many images were drawn in place of others."""
    rejects: list[Reject]


def fill_lists(
    index: Path, images: Path, work: Path, *, run: RunRound, shards: int, max_rejects: float, check: Check
) -> Filling:
    """Reconstruct Emolib's list and the pool's, replacing what fails.

    An image that Emolib takes from the pool, or that copies a new one of Emolib, leaves the pool.

    Args:
        index: Emolib's list as `write_selection` wrote it, with its companions beside it.
        images: the corpus folder that `path` is relative to.
        work: rounds are made below it.
        run: reconstructs a round.
        shards: into how many parts a round is cut.
        max_rejects: largest share of rejected images, looked at after every round.
        check: opens images that are drawn now.

    Raises:
        AssetMissingError: a file of the selection is missing.
        DataError: the files belong to different selections, or too many images were rejected.
    """
    rounds = _Rounds(work, run, shards, max_rejects)
    reserve, known = _Reserve(index), KnownImages(_near_bits(index))
    emolib = _emolib_hand(index, reserve)
    rounds.fill(EMOLIB, emolib, _lottery(emolib, images, check, known))
    pool = _pool_hand(_companion(index, POOL_LIST), reserve, emolib)
    rounds.fill(POOL, pool, _lottery(pool, images, check, known))
    return rounds.filling()


def reconstruct_index(
    index: Path,
    images: Path,
    out: Path,
    asset: FaceAsset,
    settings: ReconstructSettings,
    *,
    emica: Path | None = None,
    check: Check = inspect_images,
    progress: Callable[[int, int], None] | None = None,
) -> Filling:
    """Reconstruct one list of images into `out`: part-*.parquet sorted by item_id, and rejects.parquet.

    Where `index` is Emolib's list and its reserve lies beside it, what fails is replaced; any other table with
    `item_id` and `path` is taken as it is. Started again after it was killed, it goes on where it stopped.

    Args:
        index: the list (Parquet).
        images: the folder that `path` is relative to.
        out: a directory; other files in it stay.
        asset: the face model.
        settings: backend, shards and the largest share of rejects.
        emica: the converted checkpoint, where the backend is `emica`.
        check: opens images that are drawn as replacements.
        progress: told the images done and drawn so far after each part.

    Raises:
        AssetMissingError, DataError: see `fill_lists`; or the table lacks a column, or names an item twice.
    """
    reconstructor = Reconstructor(asset, settings, emica)
    made_from = input_hash(
        settings.model_dump(exclude=set(NOT_HASHED)), *(getattr(asset, field.name) for field in fields(asset)), emica
    )
    counts: dict[str, int] = Counter()

    def run(directory: Path, parts: int) -> None:
        counts["drawn"] += sum(read_table(records_path(directory, part), ["item_id"]).num_rows for part in range(parts))
        for part in range(parts):
            counts["done"] += reconstruct_part(directory, part, parts, reconstructor, images, made_from)
            if progress:
                progress(counts["done"], counts["drawn"])

    rounds = _Rounds(out / WORK, run, settings.shards, settings.max_rejects)
    if table_metadata(index).get(LIST_KEY) == EMOLIB and index.with_name(RESERVE).is_file():
        hand = _emolib_hand(index, _Reserve(index))
        rounds.fill(EMOLIB, hand, _lottery(hand, images, check, KnownImages(_near_bits(index))))
    else:
        rounds.run_once(EMOLIB, _plain_records(index))
    filling = rounds.filling()
    merge_rounds(filling.rounds[EMOLIB], out, settings.shards)
    write_rejects(out / "rejects.parquet", filling.rejects)
    clean_work(out)
    return filling


def reconstruct_part(
    directory: Path, part: int, parts: int, reconstructor: Reconstructor, images: Path, made_from: str
) -> int:
    """Reconstruct one part of a round, unless it is finished; rejects are written first, so finished faces have theirs.

    Args:
        directory: of the round.
        part: which one.
        parts: of how many.
        reconstructor: finds the faces.
        images: the folder that `path` is relative to.
        made_from: `input_hash` of everything beside the records that the faces depend on.

    Returns:
        How many records the part has.
    """
    records = read_table(records_path(directory, part))

    def make() -> pa.Table:
        with FaceLandmarker() as landmarker:
            landmarks = _corpus_landmarks(reconstructor.settings, images, records)
            faces = reconstructor.faces(records, read_record_image(images), landmarker, landmarks)
        write_rejects(rejects_path(directory, part), faces.rejects)
        return faces.table

    pictures = [] if "content_sha256" in records.column_names else _checksums(images, records["path"].to_pylist())
    hash = input_hash(records.to_pylist(), made_from, *pictures)
    write_shard(shard_path(directory, part, parts), hash, make, reconstructor.tags)
    return records.num_rows


def records_path(directory: Path, part: int) -> Path:
    """Where the images that one part of a round is made from lie."""
    return directory / f"records-{part:05d}.parquet"


def rejects_path(directory: Path, part: int) -> Path:
    """Where the rejects of one part of a round lie."""
    return directory / f"rejects-{part:05d}.parquet"


def merge_rounds(rounds: Sequence[Path], directory: Path, shards: int) -> None:
    """The faces of all rounds as parts of one dataset, sorted by item_id; one part is in memory at a time."""
    parts = [path for one in rounds for path in list_shards(one)]
    ids = [read_table(path, ["item_id"])["item_id"] for path in parts]
    part_of = np.repeat(np.arange(len(parts)), [len(column) for column in ids])
    row_of = np.concatenate([np.arange(len(column)) for column in ids])
    order = pc.sort_indices(pa.chunked_array([chunk for column in ids for chunk in column.chunks], ids[0].type))
    ranges = split_rows(len(order), shards)
    texts = [table_metadata(path) for path in parts]
    made_from = input_hash([text[HASH_KEY] for text in texts])
    tags = {name: text for name, text in texts[0].items() if name != HASH_KEY}
    paths = [shard_path(directory, number, len(ranges)) for number in range(len(ranges))]
    for path, rows in zip(paths, ranges, strict=True):
        chosen = order[rows.start : rows.stop].to_numpy()
        gather = partial(_gathered, parts, part_of[chosen], row_of[chosen])
        write_shard(path, input_hash(made_from, path.name), gather, tags)
    names = {path.name for path in paths}
    clean_stale(directory, {e.name for e in directory.iterdir() if not e.match("part-*.parquet") or e.name in names})


def clean_work(out: Path) -> None:
    """Remove the rounds below `out`."""
    if (out / WORK).is_dir():
        clean_stale(out, {entry.name for entry in out.iterdir()} - {WORK})


class _Rounds:
    """Rounds of reconstruction below one directory, and what they rejected."""

    def __init__(self, work: Path, run: RunRound, shards: int, max_rejects: float) -> None:
        self.work, self.run, self.shards, self.max_rejects = work, run, shards, max_rejects
        self.rounds: dict[str, list[Path]] = {}
        self.faces: dict[str, int] = Counter()
        self.replacements = 0
        self.rejects: list[Reject] = []

    def fill(self, name: str, hand: "_Hand", lottery: Lottery) -> None:
        """Draw and reconstruct until the hand has what it wants or nothing is left."""
        missing = dict(hand.wanted)
        while True:
            drawn = lottery.draw(hand.queues, missing).sorted_by_id()
            prepared = self._prepared(name, len(drawn), lambda rows, drawn=drawn: drawn.take(rows).table())
            self.rejects += lottery.rejects
            lottery.rejects = []
            if prepared is None:
                return
            kept = self._reconstructed(name, *prepared)
            missing = {cell: count - kept[cell] for cell, count in missing.items()}

    def run_once(self, name: str, records: pa.Table) -> None:
        """Reconstruct these records and replace none."""
        order = pc.sort_indices(records["item_id"]).to_numpy()
        prepared = self._prepared(name, records.num_rows, lambda rows: records.take(pa.array(order[rows])))
        if prepared:
            self._reconstructed(name, *prepared)

    def _prepared(
        self, name: str, count: int, records: Callable[[Int[np.ndarray, " rows"]], pa.Table]
    ) -> tuple[Path, int] | None:
        """Directory and number of parts of a further round; None when nothing is to do (a first one is made anyway).

        Args:
            name: of the list.
            count: how many records the round has.
            records: tells some of them, of all in the order of item_id.
        """
        done = self.rounds.setdefault(name, [])
        if done and not count:
            return None
        self.replacements += count if done else 0
        directory = self.work / f"{name}-{len(done):03d}"
        ranges = split_rows(count, self.shards)
        names = [path(directory, part).name for part in range(len(ranges)) for path in (records_path, rejects_path)]
        clean_stale(
            directory, {*names, *(shard_path(directory, part, len(ranges)).name for part in range(len(ranges)))}
        )
        for part, rows in enumerate(ranges):
            write_table(records_path(directory, part), records(np.arange(rows.start, rows.stop)))
        return directory, len(ranges)

    def _reconstructed(self, name: str, directory: Path, parts: int) -> Mapping[str, int]:
        """How many faces each cell got in this round."""
        self.run(directory, parts)
        self.rounds[name].append(directory)
        kept = Counter()
        for part in range(parts):
            ids = read_table(shard_path(directory, part, parts), ["item_id"])["item_id"].to_pylist()
            kept.update(item_id.rsplit("_", 1)[0] for item_id in ids)
            rows = read_rejects(rejects_path(directory, part)).itertuples(index=False)
            self.rejects += [Reject(*row) for row in rows]
        self.faces[name] += kept.total()
        total = sum(self.faces.values()) + len(self.rejects)
        check_rejects(self.rejects, total, self.max_rejects, STAGE)
        return kept

    def filling(self) -> Filling:
        return Filling(rounds=self.rounds, faces=dict(self.faces), replacements=self.replacements, rejects=self.rejects)


class _Lazy:
    """Some columns of a table of which a few rows at a time are read."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema = path, schema

    def take(self, rows: Int[np.ndarray, " rows"]) -> pa.Table:
        """Some rows, in this order."""
        groups = rows // ROWS_AT_ONCE
        tables = [self.schema.empty_table()]
        for group in np.unique(groups).tolist():
            within = rows[groups == group] % ROWS_AT_ONCE
            tables.append(read_row_group(self.path, group, self.schema.names).take(pa.array(within)))
        return pa.concat_tables(tables).take(pa.array(_places_after(groups)))


class _Reserve(_Lazy):
    """What was not drawn; its order is in memory."""

    def __init__(self, index: Path) -> None:
        super().__init__(_companion(index, RESERVE), LABELS)
        order = read_table(self.path, ["cell", "place", "pool_place"])
        cells = order["cell"].combine_chunks().dictionary_encode()
        self.cells: list[str] = cells.dictionary.to_pylist()
        self.cell_of: Int[np.ndarray, " rows"] = cells.indices.to_numpy()
        self.places: Int[np.ndarray, " rows"] = order["place"].to_numpy()
        self.pool_places: Int[np.ndarray, " rows"] = order["pool_place"].to_numpy()

    def of_cell(self, name: str) -> Int[np.ndarray, " rows"]:
        """Rows of one cell, in the order of their places."""
        code = self.cells.index(name) if name in self.cells else -1
        return np.flatnonzero(self.cell_of == code)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hand:
    """The images of one list and, after them in each permutation, those of the reserve."""

    listed: _Lazy
    n_listed: int
    reserve: _Reserve
    queues: Mapping[str, Queue]
    """Rows count through the list first, then through the reserve."""
    wanted: Mapping[str, int]

    def labels(self, rows: Int[np.ndarray, " rows"]) -> pa.Table:
        """Columns `LABELS` and `CHECKS`; the reserve's images have not been opened."""
        is_listed = rows < self.n_listed
        rest = self.reserve.take(rows[~is_listed] - self.n_listed)
        for field in CHECKS:
            rest = rest.append_column(field, pa.repeat("", rest.num_rows))
        return pa.concat_tables([self.listed.take(rows[is_listed]), rest]).take(pa.array(_places_after(~is_listed)))

    def taken_from_reserve(self) -> Bool[np.ndarray, " rows"]:
        """Which rows of the reserve have been looked at."""
        seen = np.zeros(self.n_listed + len(self.reserve.places), bool)
        for queue in self.queues.values():
            seen[queue.rows[: queue.taken]] = True
        return seen[self.n_listed :]


def _emolib_hand(index: Path, reserve: _Reserve) -> _Hand:
    listed = read_table(index, ["emotion", "level", "place"])
    names = pc.binary_join_element_wise(listed["emotion"], listed["level"].cast(pa.string()), "_")
    cell_of, places = np.array(names.to_pylist(), dtype=object), listed["place"].to_numpy()
    queues = {}
    for name in sorted(set(cell_of.tolist())):
        rows = np.flatnonzero(cell_of == name)
        queues[name] = _queue(rows, places, reserve.of_cell(name), reserve.places)
    return _Hand(
        listed=_listed(index),
        n_listed=len(places),
        reserve=reserve,
        queues=queues,
        wanted=dict(Counter(cell_of.tolist())),
    )


def _pool_hand(path: Path, reserve: _Reserve, emolib: _Hand) -> _Hand:
    """The pool's list without what Emolib has taken."""
    places, is_taken = read_table(path, ["place"])["place"].to_numpy(), emolib.taken_from_reserve()
    rows = np.flatnonzero(~np.isin(places, reserve.pool_places[is_taken]))
    rest = np.flatnonzero((reserve.pool_places >= 0) & ~is_taken & ~np.isin(reserve.pool_places, places))
    queues = {POOL: _queue(rows, places, rest, reserve.pool_places)}
    return _Hand(listed=_listed(path), n_listed=len(places), reserve=reserve, queues=queues, wanted={POOL: len(places)})


def _queue(
    rows: Int[np.ndarray, " rows"],
    places: Int[np.ndarray, " listed"],
    rest: Int[np.ndarray, " rest"],
    rest_places: Int[np.ndarray, " reserve"],
) -> Queue:
    """Rows of the list, then rows of the reserve, each in the order of their places."""
    rows, rest = rows[np.argsort(places[rows])], rest[np.argsort(rest_places[rest])]
    return Queue(np.concatenate([rows, rest + len(places)]), np.concatenate([places[rows], rest_places[rest]]))


def _listed(path: Path) -> _Lazy:
    return _Lazy(path, pa.schema([*LABELS, *CHECKS]))


def _places_after(groups: np.ndarray) -> Int[np.ndarray, " rows"]:
    """Where each row stands after rows were collected group by group."""
    return np.argsort(np.argsort(groups, kind="stable"), kind="stable")


def _lottery(hand: _Hand, images: Path, check: Check, known: KnownImages) -> Lottery:
    return Lottery(hand.labels, images, check, known, stage=STAGE, named_by="item_id")


def _companion(index: Path, name: str) -> Path:
    """The file beside the list, made sure to belong to the same selection."""
    path = index.with_name(name)
    if table_metadata(path).get(SELECTION_KEY) != table_metadata(index).get(SELECTION_KEY):
        raise DataError(f"{path} and {index} belong to different selections. Select again, each into its own folder.")
    return path


def _near_bits(index: Path) -> int:
    text = table_metadata(index).get(BITS_KEY, "")
    if not text.isdecimal():
        raise DataError(f"{index} does not say when two images are copies. Select again.")
    return int(text)


def _corpus_landmarks(settings: ReconstructSettings, images: Path, records: pa.Table) -> ReadLandmarks | None:
    """What the corpus says about its faces, where the backend crops by it."""
    if settings.backend != "emica" or settings.emica.crop != "corpus" or "source_id" not in records.column_names:
        return None
    found = corpus_landmarks(images, records["source_id"].to_pylist())
    return lambda record: found.get(str(record["source_id"]))


def _checksums(images: Path, paths: Sequence[str]) -> list[str]:
    """SHA-256 of each picture, empty for one that is not there: a list of one's own does not state them."""
    sums = []
    for path in paths:
        try:
            sums.append(sha256_file(resolve_inside(images, path)))
        except (AssetMissingError, DataError):
            sums.append("")  # its reconstruction becomes a reject
    return sums


def _plain_records(index: Path) -> pa.Table:
    records = read_table(index)
    missing = [name for name in ("item_id", "path") if name not in records.column_names]
    if missing:
        raise DataError(f"{index} lacks {' and '.join(missing)}; a list of images names each one and its path.")
    if len(records["item_id"].unique()) != records.num_rows:
        raise DataError(f"an item_id occurs twice in {index}; give every image a name of its own.")
    return records


def _gathered(parts: Sequence[Path], part_of: Int[np.ndarray, " rows"], row_of: Int[np.ndarray, " rows"]) -> pa.Table:
    tables = [read_table(parts[0]).slice(0, 0)]
    for part in np.unique(part_of).tolist():
        rows = pa.array(np.sort(row_of[part_of == part]))
        tables = [*tables, read_table(parts[part]).take(rows)]
    return pa.concat_tables(tables).combine_chunks().sort_by("item_id")
