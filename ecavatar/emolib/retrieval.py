"""The emotional face of Emolib whose identity is nearest (section 4.1 of the paper)."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from ecavatar.emolib.dataset import read_emolib, read_info
from ecavatar.emolib.schema import EmolibInfo
from ecavatar.emotion import Emotion, LabelPair
from ecavatar.errors import BasisError, DataError, ShapeError
from ecavatar.storage.parquet import vector_array


@dataclass(frozen=True, slots=True, kw_only=True)
class EmolibItem:
    """One face of the library."""

    item_id: str
    label: LabelPair
    shape: Float[np.ndarray, " shape_components"]
    expression: Float[np.ndarray, " expression_components"]
    jaw_pose: Float[np.ndarray, "3"]
    valence: float
    arousal: float
    shape_distance: float
    """Euclidean distance of the shape coefficients from what was asked for."""


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
        self,
        shape: Float[np.ndarray, " shape_components"],
        pair: LabelPair,
        *,
        when_empty: Literal["refuse", "nearest_level"] = "refuse",
    ) -> EmolibItem:
        """The item of `pair` whose shape coefficients are nearest to `shape`.

        Args:
            shape: all shape coefficients of the face, of the release's basis.
            pair: emotion category and level.
            when_empty: `nearest_level` takes the nearest level of the same category that has items (the lower of two
                equally near ones); `refuse` raises.

        Raises:
            DataError: no item has this label pair; the message names the levels that have.
            ShapeError: another number of coefficients than the release has.
        """
        shape = np.asarray(shape, np.float64)
        if shape.shape != (self.info.n_shape,):
            raise ShapeError(f"expected {self.info.n_shape} shape coefficients, got {shape.shape}.")
        if when_empty == "nearest_level":
            pair = self._nearest_pair(pair)
        rows = np.flatnonzero((self.emotions == pair.emotion) & (self.levels == pair.level))
        if not rows.size:
            raise DataError(self._missing(pair))
        distances = np.linalg.norm(self.shapes[rows] - shape, axis=1)
        best = int(distances.argmin())
        return self._item(int(rows[best]), float(distances[best]))

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

    def _item(self, row: int, distance: float) -> EmolibItem:
        values = self.table.slice(row, 1)
        return EmolibItem(
            item_id=values["item_id"][0].as_py(),
            label=LabelPair(Emotion(int(self.emotions[row])), int(self.levels[row])),
            shape=vector_array(values["shape"])[0],
            expression=vector_array(values["expression"])[0],
            jaw_pose=vector_array(values["jaw_pose"])[0],
            valence=float(values["valence"][0].as_py()),
            arousal=float(values["arousal"][0].as_py()),
            shape_distance=distance,
        )
