"""Drawing images from seeded permutations: what cannot be used, or was drawn before, gives its place to the next.

What is drawn depends on the permutations and on the images alone, never on how many are opened at once.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int, UInt8

from ecavatar.emolib.duplicates import HASH_BYTES, KnownImages, Twin, hash_bytes, hash_texts, perceptual_hash
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

ROWS_AT_ONCE = 8192
"""Rows per row group of lists and of the reserve, so that a few candidates are read without the others."""


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
Problem = tuple[str, str]
"""Reason, short and countable, and what exactly was seen."""


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """Images that a lottery drew; their labels are read when they are asked for."""

    cells: tuple[str, ...]
    cell_of: Int[np.ndarray, " images"]
    """Which of `cells` each was drawn for."""
    rows: Int[np.ndarray, " images"]
    """Of the candidates."""
    places: Int[np.ndarray, " images"]
    """Rank in the permutation of its cell."""
    checks: UInt8[np.ndarray, "images 64"]
    """Bytes of content_sha256 and of perceptual_hash; of no column where images stayed closed."""
    labels: Labels

    def __len__(self) -> int:
        return len(self.rows)

    def item_ids(self) -> pa.Array:
        """<cell>_<place> of each."""
        names = pa.array(self.cells, _TEXT).take(pa.array(self.cell_of))
        return pc.binary_join_element_wise(names, pc.utf8_lpad(pa.array(self.places).cast(_TEXT), 6, "0"), "_")

    def take(self, places: Int[np.ndarray, " chosen"]) -> "Drawn":
        """Some of them, in this order."""
        chosen = {name: getattr(self, name)[places] for name in ("cell_of", "rows", "places", "checks")}
        return Drawn(cells=self.cells, **chosen, labels=self.labels)

    def sorted_by_id(self) -> "Drawn":
        """The same images in the order of their item ids."""
        return self.take(pc.sort_indices(self.item_ids()).to_numpy())

    def pieces(self) -> Iterator[pa.Table]:
        """Tables of `LIST_SCHEMA` with all of them in order; at least one."""
        for start in range(0, max(1, len(self)), ROWS_AT_ONCE):
            yield self.take(np.arange(start, min(start + ROWS_AT_ONCE, len(self)))).table()

    def table(self) -> pa.Table:
        """All of them as one table of `LIST_SCHEMA`."""
        columns = dict(zip([*LABELS.names, *CHECKS.names], self.labels(self.rows).columns, strict=True))
        columns |= {"item_id": self.item_ids(), "place": pa.array(self.places, pa.int32())}
        if self.checks.shape[1]:
            halves = np.split(self.checks, 2, axis=1)
            columns |= {name: hash_texts(half) for name, half in zip(CHECKS.names, halves, strict=True)}
        return pa.table([columns[name] for name in LIST_SCHEMA.names], schema=LIST_SCHEMA)


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

    def draw(self, queues: Mapping[str, Queue], wanted: Mapping[str, int]) -> Drawn:
        """Up to `wanted` images of each cell, each cell in its own order; rounds of replacement after one another."""
        names = tuple(queues)
        missing = np.array([wanted[name] for name in names], np.int64)
        rounds = [self._drawn(names, np.zeros(0, np.int16), Queue(np.zeros(0, np.int64), np.zeros(0, np.int32)))]
        while True:
            turn = [queues[name].take(int(count)) for name, count in zip(names, missing, strict=True)]
            cells = np.repeat(np.arange(len(names), dtype=np.int16), [len(part.rows) for part in turn])
            if not len(cells):
                break
            rows, places = (np.concatenate([getattr(part, name) for part in turn]) for name in ("rows", "places"))
            rounds.append(self._examined(self._drawn(names, cells, Queue(rows, places))))
            missing = missing - np.bincount(rounds[-1].cell_of, minlength=len(names))
        joined = {
            name: np.concatenate([getattr(part, name) for part in rounds])
            for name in ("cell_of", "rows", "places", "checks")
        }
        return Drawn(cells=names, **joined, labels=self._labels)

    def _drawn(self, cells: tuple[str, ...], cell_of: Int[np.ndarray, " images"], candidates: Queue) -> Drawn:
        checks = np.zeros((len(cell_of), 2 * HASH_BYTES if self._check else 0), np.uint8)
        rows, places = candidates.rows, candidates.places
        return Drawn(cells=cells, cell_of=cell_of, rows=rows, places=places, checks=checks, labels=self._labels)

    def _examined(self, candidates: Drawn) -> Drawn:
        """The good ones of them, with what opening them told."""
        self.examined += len(candidates)
        if self._check is None:
            return candidates
        problems: list[Problem | None] = []
        for start in range(0, len(candidates), ROWS_AT_ONCE):
            part = slice(start, min(start + ROWS_AT_ONCE, len(candidates)))
            problems += self._opened(candidates.rows[part], candidates.checks[part], self._check)
            pa.default_memory_pool().release_unused()  # what making the table needed on the way
        self._find_copies(candidates, problems)
        is_good = np.array([problem is None for problem in problems], bool)
        self._reject(candidates.take(np.flatnonzero(~is_good)), [problem for problem in problems if problem])
        return candidates if is_good.all() else candidates.take(np.flatnonzero(is_good))

    def _opened(
        self, rows: Int[np.ndarray, " rows"], checks: UInt8[np.ndarray, "rows 64"], check: Check
    ) -> list[Problem | None]:
        """Write what images hash to into `checks`; return what is wrong with each. Those opened before stay closed."""
        records = self._labels(rows)
        problems: list[Problem | None] = [None] * len(rows)
        sums, hashes, relative = (records[name].to_pylist() for name in (*CHECKS.names, "path"))
        paths: dict[int, Path] = {}
        for place in np.flatnonzero([not text for text in sums]).tolist():
            try:
                paths[place] = resolve_inside(self._root, relative[place])
            except DataError as error:
                problems[place] = ("bad_path", str(error))
        for place, found in zip(paths, check(list(paths.values())) if paths else (), strict=True):
            sums[place], hashes[place] = found.content_sha256, found.perceptual_hash
            problems[place] = (found.reason, found.problem) if found.reason else None
        good = [place for place, problem in enumerate(problems) if problem is None]
        halves = (hash_bytes([texts[place] for place in good]) for texts in (sums, hashes))
        checks[good] = np.concatenate(list(halves), axis=1)
        return problems

    def _find_copies(self, candidates: Drawn, problems: list[Problem | None]) -> None:
        """Make the good candidates known, and write into `problems` which ones copy another."""
        good = np.flatnonzero([problem is None for problem in problems])
        chosen = candidates.take(good)
        digests, pictures = np.split(chosen.checks, 2, axis=1)
        twins = self._known.admit(chosen.item_ids().to_pylist(), digests, pictures)
        for place, twin in zip(good.tolist(), twins, strict=True):
            problems[place] = _copy_problem(twin) if twin else None

    def _reject(self, bad: Drawn, problems: Sequence[Problem]) -> None:
        subjects = [subject for piece in bad.pieces() for subject in piece[self._named_by].to_pylist()]
        told = zip(subjects, problems, strict=True)
        self.rejects += [Reject(subject, self._stage, *problem) for subject, problem in told]


def _copy_problem(twin: Twin) -> Problem:
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
