"""Drawing images from seeded permutations: what cannot be used, or was drawn before, gives its place to the next.

What is drawn depends on the permutations and on the images alone, never on how many are opened at once.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int

from ecavatar.emolib.duplicates import Hashes, KnownImages, Twin, hash_bytes, perceptual_hash
from ecavatar.errors import DataError
from ecavatar.reconstruction.images import ImageError, decode_image, read_image_bytes
from ecavatar.storage.files import resolve_inside
from ecavatar.storage.rejects import Reject

_TEXT, _NUMBER = pa.string(), pa.float64()
LABELS = pa.schema(
    [
        ("source_id", _TEXT),
        ("path", _TEXT),
        ("split", _TEXT),
        ("emotion", _TEXT),
        ("level", pa.int8()),
        ("valence", _NUMBER),
        ("arousal", _NUMBER),
        ("face_x_px", _NUMBER),
        ("face_y_px", _NUMBER),
        ("face_width_px", _NUMBER),
        ("face_height_px", _NUMBER),
    ]
)
"""What the corpus says about an image; `path` is relative to the corpus, `emotion` is the category's label."""
CHECKS = pa.schema([("content_sha256", _TEXT), ("perceptual_hash", _TEXT)])
"""What opening it told; both empty where it has not been opened."""
LIST_SCHEMA = pa.schema([("item_id", _TEXT), *LABELS, *CHECKS, ("place", pa.int32())])
"""A list of drawn images; `place` is the rank in the permutation that the image was drawn from."""

_IMAGES_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """What opening one image file told."""

    content_sha256: str = ""
    """Of the file's bytes; empty for an image that cannot be used."""
    perceptual_hash: str = ""
    """64 hexadecimal digits, see `ecavatar.emolib.duplicates`; empty for an image that cannot be used."""
    reason: str = ""
    """Short and countable; empty for a good image."""
    problem: str = ""
    """What exactly was seen; empty for a good image."""


Check = Callable[[Sequence[Path]], Sequence[ImageCheck]]
"""Opens images; give one that works in parallel where there are many."""
Labels = Callable[[Int[np.ndarray, " rows"]], pa.Table]
"""Columns `LABELS` and `CHECKS` of some candidates."""


@dataclass(slots=True)
class Queue:
    """The candidates of one cell in the order of its permutation; those before `taken` have been looked at."""

    rows: Int[np.ndarray, " candidates"]
    places: Int[np.ndarray, " candidates"]
    """Rank of each in the whole permutation; part of an item's id, so ids do not depend on what was rejected."""
    taken: int = 0

    def take(self, count: int) -> "Queue":
        """The next `count`, or all that are left."""
        part = slice(self.taken, self.taken + count)
        self.taken = min(self.taken + count, len(self.rows))
        return Queue(self.rows[part], self.places[part])


def inspect_images(paths: Sequence[Path]) -> list[ImageCheck]:
    """Open every image completely: its checksum and perceptual hash, or why it cannot be used."""
    return [_inspect(path) for path in paths]


class Lottery:
    """Draws candidates whose image can be used and is not a copy of one drawn before."""

    def __init__(
        self, labels: Labels, root: Path, check: Check | None, known: KnownImages, *, stage: str, named_by: str
    ) -> None:
        """Start with an empty list of rejects.

        Args:
            labels: tells the columns of candidates.
            root: the corpus folder that `path` is relative to.
            check: opens images; None takes every candidate unopened.
            known: images that were accepted before; those drawn are added.
            stage: what rejects name as their stage.
            named_by: column by which rejects name a candidate, `source_id` or `item_id`.
        """
        self._labels, self._root, self._check, self._known = labels, root, check, known
        self._stage, self._named_by = stage, named_by
        self.rejects: list[Reject] = []
        self.examined = 0

    def draw(self, queues: Mapping[str, Queue], wanted: Mapping[str, int]) -> pa.Table:
        """Up to `wanted` images of each cell, each cell in its own order.

        Returns:
            A table of `LIST_SCHEMA`, rounds of replacement after one another; item_id is <cell>_<place>.
        """
        names = list(queues)
        missing = np.array([wanted[name] for name in names], np.int64)
        drawn = [LIST_SCHEMA.empty_table()]
        while True:
            turn = [queues[name].take(int(count)) for name, count in zip(names, missing, strict=True)]
            cells = np.repeat(np.arange(len(names)), [len(part.rows) for part in turn])
            if not len(cells):
                return pa.concat_tables(drawn)
            tables, is_good = self._examined(names, cells, turn)
            missing = missing - np.bincount(cells[is_good], minlength=len(names))
            drawn += tables

    def _examined(
        self, names: Sequence[str], cells: Int[np.ndarray, " candidates"], turn: Sequence[Queue]
    ) -> tuple[list[pa.Table], Bool[np.ndarray, " candidates"]]:
        """The good candidates, some per table, and which ones are good."""
        rows, places = (np.concatenate([getattr(part, name) for part in turn]) for name in ("rows", "places"))
        self.examined += len(rows)
        tables: list[pa.Table] = []
        problems: list[tuple[str, str] | None] = []
        hashes = _Hashes()
        for start in range(0, len(rows), _IMAGES_AT_ONCE):
            part = slice(start, start + _IMAGES_AT_ONCE)
            ids = [f"{names[cell]}_{place:06d}" for cell, place in zip(cells[part], places[part], strict=True)]
            table, found = self._opened(self._listed(ids, places[part], self._labels(rows[part])))
            if self._check:
                hashes.add(table, found)
            tables.append(table)
            problems += found
            pa.default_memory_pool().release_unused()  # what making the table needed on the way
        hashes.admit_to(self._known, problems)
        is_good = np.array([problem is None for problem in problems], bool)
        for place, table in enumerate(tables):
            part = slice(place * _IMAGES_AT_ONCE, (place + 1) * _IMAGES_AT_ONCE)
            if not is_good[part].all():
                self._reject(table, problems[part])
                tables[place] = table.filter(pa.array(is_good[part]))
        return tables, is_good

    def _reject(self, records: pa.Table, problems: Sequence[tuple[str, str] | None]) -> None:
        subjects = records[self._named_by].to_pylist()
        told = zip(subjects, problems, strict=True)
        self.rejects += [Reject(subject, self._stage, *problem) for subject, problem in told if problem]

    def _listed(self, ids: Sequence[str], places: Int[np.ndarray, " rows"], labels: pa.Table) -> pa.Table:
        columns = {"item_id": pa.array(ids, _TEXT), "place": pa.array(places, pa.int32())}
        return pa.table([columns.get(name, labels[name] if name in labels.column_names else None)
                         for name in LIST_SCHEMA.names], schema=LIST_SCHEMA)  # fmt: skip

    def _opened(self, records: pa.Table) -> tuple[pa.Table, list[tuple[str, str] | None]]:
        """The records with their checks, and what is wrong with each; images that were opened before stay closed."""
        problems: list[tuple[str, str] | None] = [None] * records.num_rows
        unopened = np.flatnonzero(pc.equal(records["content_sha256"], "").to_numpy(zero_copy_only=False)).tolist()
        if self._check is None or not unopened:
            return records, problems
        paths: dict[int, Path] = {}
        relative = records["path"].to_pylist()
        for place in unopened:
            try:
                paths[place] = resolve_inside(self._root, relative[place])
            except DataError as error:
                problems[place] = ("bad_path", str(error))
        sums, hashes = records["content_sha256"].to_pylist(), records["perceptual_hash"].to_pylist()
        for place, check in zip(paths, self._check(list(paths.values())), strict=True):
            sums[place], hashes[place] = check.content_sha256, check.perceptual_hash
            problems[place] = (check.reason, check.problem) if check.reason else None
        for name, values in (("content_sha256", sums), ("perceptual_hash", hashes)):
            records = records.set_column(LIST_SCHEMA.get_field_index(name), name, pa.array(values, _TEXT))
        return records, problems


class _Hashes:
    """What the good ones of many candidates hash to, as bytes: a hundred thousand texts would be large."""

    def __init__(self) -> None:
        self.places: list[int] = []
        self.names: list[str] = []
        self.digests: list[Hashes] = []
        self.pictures: list[Hashes] = []
        self._seen = 0

    def add(self, records: pa.Table, problems: Sequence[tuple[str, str] | None]) -> None:
        """Append the next candidates, of which those without a problem are kept."""
        good = [place for place, problem in enumerate(problems) if problem is None]
        chosen = records.take(pa.array(good, pa.int64()))
        self.places += [self._seen + place for place in good]
        self.names += chosen["item_id"].to_pylist()
        self.digests.append(hash_bytes(chosen["content_sha256"].to_pylist()))
        self.pictures.append(hash_bytes(chosen["perceptual_hash"].to_pylist()))
        self._seen += records.num_rows

    def admit_to(self, known: KnownImages, problems: list[tuple[str, str] | None]) -> None:
        """Make them known, and write into `problems` which ones copy another."""
        if not self.names:
            return
        twins = known.admit(self.names, np.concatenate(self.digests), np.concatenate(self.pictures))
        for place, twin in zip(self.places, twins, strict=True):
            problems[place] = _copy_problem(twin) if twin else None


def _copy_problem(twin: Twin) -> tuple[str, str]:
    if twin.is_same_bytes:
        return "duplicate_image", f"the same bytes as {twin.name}"
    return "near_duplicate_image", f"{twin.bits} of 256 bits from {twin.name}"


def _inspect(path: Path) -> ImageCheck:
    try:
        data = read_image_bytes(path)
        picture = decode_image(data, str(path))
    except ImageError as error:
        return ImageCheck(reason=error.reason, problem=str(error))
    return ImageCheck(hashlib.sha256(data).hexdigest(), perceptual_hash(picture))
