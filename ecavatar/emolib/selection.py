"""Which images of AffectNet become Emolib, and which become FuNet's pool.

Up to N images per category and level are drawn at random (section 3.3 of the paper). An image that cannot be used gives
its place to the next one of the same draw, so a corrupt file costs nothing but its own row in the rejects.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ecavatar.config import SelectSettings
from ecavatar.emolib.levels import LevelBounds, arousal_levels, is_usable
from ecavatar.emotion import LEVELS, Emotion
from ecavatar.errors import DataError, EcavatarError
from ecavatar.reconstruction.images import read_image
from ecavatar.seeding import stream
from ecavatar.storage.files import resolve_inside
from ecavatar.storage.rejects import Reject

STAGE = "select_images"
_BOX = ("face_x", "face_y", "face_width", "face_height")
COLUMNS = (
    "item_id", "source_id", "path", "split", "emotion", "level", "valence", "arousal",
    *(f"{name}_px" for name in _BOX), "content_sha256",
)  # fmt: skip
"""Columns of the two lists; `path` is relative to the corpus, `emotion` is the category's label."""


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """What opening one image file told."""

    content_sha256: str
    """Of the file's bytes; empty where it cannot be read."""
    problem: str
    """Why it cannot be used; empty for a good image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was drawn."""

    index: pd.DataFrame
    """Emolib's images, columns `COLUMNS`, sorted by item_id."""
    pool: pd.DataFrame
    """FuNet's images, the same columns; none is in the index, none is neutral."""
    rejects: list[Reject]
    levels: dict[str, object]
    """Cuts of arousal and counts per category and level, as json values."""
    examined: int
    """How many images were opened."""


Check = Callable[[Sequence[Path]], Sequence[ImageCheck]]


def inspect_images(paths: Sequence[Path]) -> list[ImageCheck]:
    """Open every image completely: its checksum, or why it cannot be used."""
    return [_inspect(path) for path in paths]


def select(
    annotations: pd.DataFrame, root: Path, settings: SelectSettings, seed: int, check: Check = inspect_images
) -> Selection:
    """Draw Emolib's images and the pool.

    Args:
        annotations: table of `ecavatar.corpora.affectnet.read_annotations`.
        root: the corpus folder that `path` is relative to.
        settings: how many, and by which rule.
        seed: the project's seed; each category and level has a stream of its own.
        check: how images are opened; give one that works in parallel for many.

    Raises:
        DataError: no row has both a category and an arousal.
    """
    usable = annotations.loc[is_usable(annotations)].sort_values(by="source_id").reset_index(drop=True)
    if usable.empty:
        raise DataError(f"none of {len(annotations)} annotated images has one of the eight categories and an arousal.")
    usable["level"], bounds = arousal_levels(usable)
    lottery = _Lottery(usable, root, check)
    cells = {name: stream(seed, "select", name).permutation(rows) for name, rows in _cells(usable).items()}
    drawn = lottery.draw(cells, settings.per_level)
    others = np.setdiff1d(np.flatnonzero(usable["emotion_code"] != Emotion.NEUTRAL), lottery.seen)
    pool = lottery.draw({"pool": stream(seed, "select", "pool").permutation(others)}, settings.pool)["pool"]
    return Selection(
        index=_listed(usable, lottery, drawn),
        pool=_listed(usable, lottery, {"pool": pool}),
        rejects=lottery.rejects,
        levels=_level_facts(annotations, usable, bounds, drawn),
        examined=len(lottery.seen),
    )


class _Lottery:
    """Draws rows in a given order and replaces those whose image cannot be used."""

    def __init__(self, table: pd.DataFrame, root: Path, check: Check) -> None:
        self.table, self.root, self.check = table, root, check
        self.rejects: list[Reject] = []
        self.seen: list[int] = []
        self.hashes: dict[str, int] = {}
        self.hash_of: dict[int, str] = {}

    def draw(self, cells: Mapping[str, np.ndarray], wanted: int) -> dict[str, list[int]]:
        """Up to `wanted` usable rows of each cell, in the cell's order; the same for any way of checking."""
        queues = {cell: list(map(int, rows)) for cell, rows in cells.items()}
        drawn: dict[str, list[int]] = {cell: [] for cell in cells}
        while True:
            turn = [(cell, row) for cell, queue in queues.items() for row in _taken(queue, wanted - len(drawn[cell]))]
            if not turn:
                return drawn
            for (cell, row), is_good in zip(turn, self._examine([row for _, row in turn]), strict=True):
                if is_good:
                    drawn[cell].append(row)

    def _examine(self, rows: list[int]) -> list[bool]:
        self.seen += rows
        checks: dict[int, ImageCheck] = {}
        paths: dict[int, Path] = {}
        for row in rows:
            try:
                paths[row] = resolve_inside(self.root, self.table.at[row, "path"])
            except DataError as error:
                checks[row] = ImageCheck("", str(error))
        checks |= dict(zip(paths, self.check(list(paths.values())), strict=True))
        return [self._judge(row, checks[row]) for row in rows]

    def _judge(self, row: int, check: ImageCheck) -> bool:
        source_id = self.table.at[row, "source_id"]
        if check.problem:
            self.rejects.append(Reject(source_id, STAGE, "unreadable_image", check.problem))
            return False
        first = self.hashes.setdefault(check.content_sha256, row)
        if first != row:
            same = self.table.at[first, "source_id"]
            self.rejects.append(Reject(source_id, STAGE, "duplicate_image", f"the same bytes as {same}"))
            return False
        self.hash_of[row] = check.content_sha256
        return True


def _taken(queue: list[int], count: int) -> list[int]:
    head = queue[:count]
    del queue[:count]
    return head


def _cell(emotion: Emotion, level: int) -> str:
    return f"{emotion.label}_{level}"


def _cells(usable: pd.DataFrame) -> dict[str, np.ndarray]:
    """Rows of each category and level that has any."""
    codes, levels = usable["emotion_code"].to_numpy(), usable["level"].to_numpy()
    pairs = sorted(set(zip(codes.tolist(), levels.tolist(), strict=True)))
    return {_cell(Emotion(c), level): np.flatnonzero((codes == c) & (levels == level)) for c, level in pairs}


def _listed(usable: pd.DataFrame, lottery: _Lottery, drawn: Mapping[str, list[int]]) -> pd.DataFrame:
    """The drawn rows as a list of `COLUMNS`."""
    ids = {row: f"{cell}_{place:06d}" for cell, rows in drawn.items() for place, row in enumerate(rows)}
    table = usable.loc[list(ids)].rename(columns={name: f"{name}_px" for name in _BOX})
    table["item_id"] = list(ids.values())
    table["emotion"] = [Emotion(int(code)).label for code in table["emotion_code"]]
    table["content_sha256"] = [lottery.hash_of[row] for row in ids]
    return table[list(COLUMNS)].sort_values(by="item_id").reset_index(drop=True)


def _level_facts(
    annotations: pd.DataFrame,
    usable: pd.DataFrame,
    bounds: Mapping[Emotion, LevelBounds],
    drawn: Mapping[str, list[int]],
) -> dict[str, object]:
    available = {cell: len(rows) for cell, rows in _cells(usable).items()}
    return {
        "annotated": len(annotations),
        "usable": len(usable),
        "emotions": {
            emotion.label: {
                "arousal": asdict(cut),
                "available": {str(level): available.get(_cell(emotion, level), 0) for level in LEVELS},
                "drawn": {str(level): len(drawn.get(_cell(emotion, level), [])) for level in LEVELS},
            }
            for emotion, cut in sorted(bounds.items())
        },
    }


def _inspect(path: Path) -> ImageCheck:
    try:
        read_image(path)
        return ImageCheck(hashlib.sha256(path.read_bytes()).hexdigest(), "")
    except EcavatarError as error:
        return ImageCheck("", str(error))
