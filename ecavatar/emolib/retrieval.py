"""The emotional face of Emolib whose identity is nearest (section 4.1 of the paper).

A release need not have items for every label pair: Table 1 has them all, a small sample may not, and contempt, which
recognition never asks for, may be asked for by a user. A missing level is refused, or replaced by the nearest one of
the same category where the caller allows it. A missing category is always refused: no emotion stands for another.
"""

import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from scipy.spatial.distance import cdist

from ecavatar.emolib.dataset import read_emolib, read_info
from ecavatar.emolib.schema import EmolibInfo
from ecavatar.emotion import Emotion, LabelPair
from ecavatar.errors import AssetMissingError, BasisError, DataError, ShapeError
from ecavatar.storage.files import read_json
from ecavatar.storage.parquet import vector_array

WhenEmpty = Literal["refuse", "nearest_level"]
"""What to do where a label pair has no items: raise, or take the nearest level of the same category that has some (the
lower of two equally near ones)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmolibItem:
    """One face of the library."""

    item_id: str
    label: LabelPair
    """The item's own."""
    asked: LabelPair
    """What was asked for."""
    shape: Float[np.ndarray, " shape_components"]
    expression: Float[np.ndarray, " expression_components"]
    jaw_pose: Float[np.ndarray, "3"]
    valence: float
    arousal: float
    shape_distance: float
    """Euclidean distance of the shape coefficients from what was asked for."""

    @property
    def is_substituted(self) -> bool:
        """Whether the item has another level than was asked for."""
        return self.label != self.asked


@dataclass(frozen=True, slots=True, kw_only=True)
class EmolibIndex:
    """An Emolib release in memory, ready to be searched."""

    info: EmolibInfo
    table: pa.Table
    """Sorted by item_id: the first of equally near items wins."""
    shapes: Float[np.ndarray, "items shape_components"]
    emotions: Int[np.ndarray, " items"]
    levels: Int[np.ndarray, " items"]

    @classmethod
    def open(cls, directory: Path) -> Self:
        """The release in `directory`.

        Raises:
            AssetMissingError: no release there.
            DataError: it is damaged or of another schema version.
        """
        info, table = read_info(directory), read_emolib(directory)
        return cls(
            info=info,
            table=table,
            shapes=vector_array(table["shape"]).astype(np.float64),
            emotions=table["emotion_code"].to_numpy().astype(np.int64),
            levels=table["level"].to_numpy().astype(np.int64),
        )

    def require_basis(self, basis: str) -> None:
        """Refuse a face model whose coefficients mean something else.

        Raises:
            BasisError: `basis` is not the release's.
        """
        if basis != self.info.basis:
            raise BasisError(
                f"this Emolib holds coefficients of basis {self.info.basis!r}, the face model is {basis!r}. "
                "Rebuild Emolib with this face model, or use the model it was built with."
            )

    def counts(self) -> dict[LabelPair, int]:
        """How many items each label pair has; pairs without items are absent."""
        pairs = Counter(zip(self.emotions.tolist(), self.levels.tolist(), strict=True))
        return {LabelPair(Emotion(code), level): count for (code, level), count in sorted(pairs.items())}

    def nearest(
        self, shape: Float[np.ndarray, " shape_components"], pair: LabelPair, *, when_empty: WhenEmpty = "refuse"
    ) -> EmolibItem:
        """The item of `pair` whose shape coefficients are nearest to `shape`; see `nearest_many`."""
        return self.nearest_many(np.asarray(shape)[None], [pair], when_empty=when_empty)[0]

    def nearest_many(
        self,
        shapes: Float[np.ndarray, "faces shape_components"],
        pairs: Sequence[LabelPair],
        *,
        when_empty: WhenEmpty = "refuse",
    ) -> list[EmolibItem]:
        """For each face the item of its label pair whose shape coefficients are nearest.

        The distance is Euclidean, in float64; the first by item_id of equally near items wins.

        Args:
            shapes: all shape coefficients of each face, of the release's basis.
            pairs: emotion category and level for each face.
            when_empty: what to do for a pair without items.

        Raises:
            DataError: no item has a label pair, or its category; the message names what there is. Or a shape is not
                finite.
            ShapeError: another number of coefficients than the release has, or not one pair for each face.
        """
        shapes = self._checked(shapes, pairs)
        places: dict[LabelPair, list[int]] = defaultdict(list)
        for place, pair in enumerate(pairs):
            places[pair].append(place)
        found: dict[int, EmolibItem] = {}
        for asked, faces in places.items():
            rows = self._rows(self._nearest_pair(asked) if when_empty == "nearest_level" else asked)
            distances = cdist(shapes[faces], self.shapes[rows])
            best = distances.argmin(axis=1)
            for face, column, distance in zip(faces, best, distances.min(axis=1), strict=True):
                found[face] = self._item(int(rows[column]), asked, float(distance))
        return [found[place] for place in range(len(pairs))]

    def _checked(self, shapes: np.ndarray, pairs: Sequence[LabelPair]) -> np.ndarray:
        shapes = np.asarray(shapes, np.float64)
        if shapes.ndim != 2 or shapes.shape[1] != self.info.n_shape:
            raise ShapeError(
                f"this Emolib has {self.info.n_shape} shape coefficients for each face, got {shapes.shape[1:]}. "
                "Reconstruct the face with the face model and number of components that Emolib was built with."
            )
        if len(pairs) != len(shapes):
            raise ShapeError(f"expected one label pair for each face, got {len(pairs)} for {len(shapes)} faces.")
        if not np.isfinite(shapes).all():
            bad = int(np.flatnonzero(~np.isfinite(shapes).all(axis=1))[0])
            raise DataError(f"face {bad} has shape coefficients that are not finite numbers. Reconstruct it again.")
        return shapes

    def _rows(self, pair: LabelPair) -> np.ndarray:
        rows = np.flatnonzero((self.emotions == pair.emotion) & (self.levels == pair.level))
        if not rows.size:
            raise DataError(self._missing(pair))
        return rows

    def _nearest_pair(self, pair: LabelPair) -> LabelPair:
        levels = np.unique(self.levels[self.emotions == pair.emotion])
        if not levels.size:
            raise DataError(self._missing(pair))
        return LabelPair(pair.emotion, int(levels[np.abs(levels - pair.level).argmin()]))

    def _missing(self, pair: LabelPair) -> str:
        counts = self.counts()
        levels = [str(p.level) for p in counts if p.emotion == pair.emotion]
        emotions = sorted({p.emotion for p in counts})
        there = (
            f"its levels are: {', '.join(levels)}"
            if levels
            else f"its categories are: {', '.join(emotion.label for emotion in emotions)}"
        )
        return f"Emolib has no face for {pair.emotion.label} level {pair.level}; {there}. Choose one of them."

    def _item(self, row: int, asked: LabelPair, distance: float) -> EmolibItem:
        values = self.table.slice(row, 1)
        return EmolibItem(
            item_id=values["item_id"][0].as_py(),
            label=LabelPair(Emotion(int(self.emotions[row])), int(self.levels[row])),
            asked=asked,
            shape=vector_array(values["shape"])[0],
            expression=vector_array(values["expression"])[0],
            jaw_pose=vector_array(values["jaw_pose"])[0],
            valence=float(values["valence"][0].as_py()),
            arousal=float(values["arousal"][0].as_py()),
            shape_distance=distance,
        )


def face_shape(path: Path) -> tuple[Float[np.ndarray, " shape_components"], str | None]:
    """The shape coefficients of a face in a file, and their basis where the file names it.

    Args:
        path: a folder of `ecavatar face` or its coefficients.json; an npz with `shape` and optionally `basis`; or an
            npy that is the vector itself.

    Raises:
        AssetMissingError: no such file.
        DataError: another kind of file, without a shape, or one that is no vector of finite numbers.
    """
    file = path / "coefficients.json" if path.is_dir() else path
    if not file.is_file():
        raise AssetMissingError(f"{file} not found. `ecavatar face PHOTO --out DIR` writes a face's coefficients.")
    readers = {".json": _from_json, ".npz": _from_npz, ".npy": _from_npy}
    if file.suffix not in readers:
        raise DataError(f"{file}: expected a face as {', '.join(readers)}, or a folder of `ecavatar face`.")
    numbers, basis = readers[file.suffix](file)
    try:
        shape = np.asarray(numbers, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{file}: `shape` must be a vector of finite numbers ({error}). Write it again.") from None
    shape = shape[0] if shape.ndim == 2 and len(shape) == 1 else shape
    if shape.ndim != 1 or not len(shape) or not np.isfinite(shape).all():
        raise DataError(
            f"{file}: `shape` must be a vector of finite numbers, got an array of shape {shape.shape} with "
            f"{np.count_nonzero(~np.isfinite(shape))} that are not finite. Write it again."
        )
    return shape, basis


def _from_json(file: Path) -> tuple[object, str | None]:
    value = read_json(file)
    if not isinstance(value, dict) or "shape" not in value:
        raise DataError(f"{file} has no `shape`; expected coefficients.json of `ecavatar face`.")
    basis = value.get("basis")
    return value["shape"], None if basis is None else str(basis)


def _from_npz(file: Path) -> tuple[object, str | None]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            if "shape" not in archive:
                raise DataError(f"{file} has no `shape`; it has {', '.join(archive.files) or 'nothing'}.")
            return archive["shape"], str(archive["basis"]) if "basis" in archive else None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} is not a readable npz of plain arrays ({error}). Write it again.") from None


def _from_npy(file: Path) -> tuple[object, str | None]:
    try:
        return np.load(file, allow_pickle=False), None
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{file} is not a readable npy of plain numbers ({error}). Write it again.") from None
