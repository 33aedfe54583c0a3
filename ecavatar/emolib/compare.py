"""What is different between two Emolib releases: items, photographs, columns, and numbers per emotion and level.

Items are numbered within their category and level, so another selection renumbers them; the same comparison by
photograph (`source_id`) tells what really came and went. Rows are compared by hashes of their values, batch by batch:
memory holds a few hundred bytes a row, never the coefficients.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ecavatar.emolib.schema import INFO
from ecavatar.emotion import LEVELS, Emotion
from ecavatar.errors import AssetMissingError, DataError
from ecavatar.storage.changes import (
    ColumnChanges,
    IdChanges,
    before_and_after,
    changes_text,
    tag_changes,
    tag_facts,
    value_facts,
)
from ecavatar.storage.files import read_json

_BATCH = 256  # rows hashed at a time
_TAGS = ("source", "topology", "topology_sha256", "basis", "backend", "near_duplicate_bits")
_BREAKING_TAGS = ("topology", "topology_sha256", "basis")
_MEANS = {"valence": "valence", "arousal": "arousal"}
_NORMS = {"shape": "shape_norm", "expression": "expression_norm", "jaw_pose": "jaw_angle_rad"}


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatistics:
    """Numbers of one category and level; means leave unknown values out and are None without any."""

    items: int
    valence: float | None
    arousal: float | None
    shape_norm: float | None
    expression_norm: float | None
    jaw_angle_rad: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupChange:
    """One category and level before and after."""

    emotion: str
    level: int
    before: GroupStatistics
    after: GroupStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseChanges:
    """What a release changes of the one before."""

    schema_before: str
    schema_after: str
    tags: Mapping[str, tuple[object, object]]
    """Before and after of what the release says about itself (basis, backend, ...), where it changed."""
    items: IdChanges
    sources: IdChanges
    """As `items`, by photograph; its item_id apart."""
    changed_columns: Mapping[str, int]
    """Items with another value, by column."""
    columns_added: tuple[str, ...]
    """config/column; so are the next two."""
    columns_removed: tuple[str, ...]
    columns_retyped: tuple[str, ...]
    groups: tuple[GroupChange, ...]
    """Every category and level that either release has, in AffectNet's order."""

    @property
    def breaking(self) -> tuple[str, ...]:
        """Why programs and numbers made for the release before may not fit; such a change asks for a major version."""
        reasons = []
        if self.schema_before.split(".")[0] != self.schema_after.split(".")[0]:
            reasons.append(f"schema version {self.schema_before} became {self.schema_after}")
        reasons += self._columns.breaking
        reasons += [f"{name} {self.tags[name][0]} became {self.tags[name][1]}"
                    for name in _BREAKING_TAGS if name in self.tags and self.tags[name][0] is not None]  # fmt: skip
        return tuple(reasons)

    def to_json(self) -> dict[str, object]:
        """Everything, as json values."""
        return {**asdict(self), "breaking": list(self.breaking)}

    def as_markdown(self, previous: str, current: str) -> str:
        """CHANGES.md: what version `current` changes of version `previous`, for people."""
        sources = self.sources
        facts = [f"schema version: {self.schema_before}, now {self.schema_after}", *tag_facts(self.tags)]
        return changes_text(
            f"Changes from {previous} to {current}",
            self.breaking,
            counted={"items": self.items, "photographs": sources},
            facts=[*facts, *self._columns.facts, *value_facts("items", self.changed_columns)],
            listed={
                "Photographs added": sources.added,
                "Photographs removed": sources.removed,
                "Photographs with other values": sources.changed,
            },
            table=_table(self.groups),
        )

    @property
    def _columns(self) -> ColumnChanges:
        return ColumnChanges(added=self.columns_added, removed=self.columns_removed, retyped=self.columns_retyped)


def compare(previous: Path, current: Path) -> ReleaseChanges:
    """What the release in folder `current` changes of the one in `previous`; schema versions may differ.

    Raises:
        AssetMissingError: one of them is no release.
        DataError: damaged, or without item_id or source_id.
    """
    before, after = _Release.open(previous), _Release.open(current)
    types = [release.column_types() for release in (before, after)]
    columns = ColumnChanges.between(*types)
    common = [name for name, kind in types[1].items() if types[0].get(name) == kind]
    mine = [name.removeprefix("coefficients/") for name in common if name.startswith("coefficients/")]
    frames = [release.fingerprints(mine) for release in (before, after)]
    items = [frame.set_index("item_id").drop(columns="source_id") for frame in frames]
    sources = [_by_source(frame) for frame in frames]
    both = items[1].index.intersection(items[0].index)
    differs = items[0].loc[both].ne(items[1].loc[both])
    return ReleaseChanges(
        schema_before=before.schema_version,
        schema_after=after.schema_version,
        tags=tag_changes(before.info, after.info, _TAGS),
        items=_id_changes(*items),
        sources=_id_changes(*sources),
        changed_columns={str(name): int(count) for name, count in differs.sum().items() if count},
        columns_added=columns.added,
        columns_removed=columns.removed,
        columns_retyped=columns.retyped,
        groups=_group_changes(before.statistics(), after.statistics()),
    )


def _table(groups: Sequence[GroupChange]) -> list[str]:
    lines = [
        "Means before and now, by category and level:",
        "",
        "| emotion | level | items | arousal | valence | shape norm | expression norm | jaw angle (rad) |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    names = ("items", "arousal", "valence", "shape_norm", "expression_norm", "jaw_angle_rad")
    for group in groups:
        cells = [before_and_after(getattr(group.before, name), getattr(group.after, name)) for name in names]
        lines.append(f"| {group.emotion} | {group.level} | {' | '.join(cells)} |")
    return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class _Release:
    """A release of any schema version, by its files alone."""

    directory: Path
    info: Mapping[str, Any]  # json

    @classmethod
    def open(cls, directory: Path) -> "_Release":
        info = read_json(directory / INFO)
        if not isinstance(info, dict) or not isinstance(info.get("schema_version"), str):
            raise DataError(f"{directory / INFO} names no schema version; it is not of an Emolib release.")
        release = cls(directory=directory, info=info)
        if not release.files("coefficients"):
            raise AssetMissingError(f"no Emolib in {directory}: data/coefficients holds no .parquet file.")
        missing = {"item_id", "source_id"} - set(release._schema("coefficients").names)
        if missing:
            raise DataError(f"{directory} has no column {' and '.join(sorted(missing))}, so it cannot be compared.")
        return release

    @property
    def schema_version(self) -> str:
        return self.info["schema_version"]

    def files(self, config: str) -> list[Path]:
        return sorted((self.directory / "data" / config).glob("*.parquet"))

    def column_types(self) -> dict[str, str]:
        """The type of every config/column; those beside coefficients as meta/info.json tells, for they may be far."""
        types = {f"coefficients/{field.name}": str(field.type) for field in self._schema("coefficients")}
        try:
            for config, columns in self.info.get("columns", {}).items():
                if config != "coefficients":
                    types |= {f"{config}/{column['name']}": f"{column['kind']}{column['shape']}" for column in columns}
        except (AttributeError, KeyError, TypeError) as error:
            raise DataError(f"{self.directory / INFO} describes its columns in another way ({error!r}).") from None
        return types

    def fingerprints(self, columns: Sequence[str]) -> pd.DataFrame:
        """item_id and source_id as they are, and a 64-bit hash of every other of `columns`, one row per item."""
        ids = ["item_id", "source_id"]
        pieces = [
            pd.DataFrame(
                {name: batch[name].to_pylist() if name in ids else _hashes(batch[name]) for name in batch.column_names}
            )
            for batch in self._batches(list(dict.fromkeys([*ids, *columns])))
        ]
        frame = pd.concat(pieces, ignore_index=True)
        if frame["item_id"].duplicated().any():
            raise DataError(f"{self.directory} has an item_id twice; export the release again.")
        return frame

    def statistics(self) -> dict[tuple[str, int], GroupStatistics]:
        names = set(self._schema("coefficients").names)
        wanted = [name for name in (*_MEANS, *_NORMS) if name in names]
        pieces = []
        for batch in self._batches(["emotion", "level", *wanted]):
            values = {"emotion": batch["emotion"].to_pylist(), "level": batch["level"].to_pylist()}
            values |= {_MEANS[name]: _floats(batch[name])[:, 0] for name in wanted if name in _MEANS}
            values |= {_NORMS[name]: np.linalg.norm(_floats(batch[name]), axis=1) for name in wanted if name in _NORMS}
            pieces.append(pd.DataFrame(values))
        grouped = pd.concat(pieces, ignore_index=True).groupby(["emotion", "level"])
        return {(str(key[0]), int(key[1])): _statistics(group) for key, group in grouped}

    def _schema(self, config: str) -> pa.Schema:
        path = self.files(config)[0]
        try:
            return pq.read_schema(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path} is not a readable Parquet file: {error}.") from None

    def _batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for path in self.files("coefficients"):
            try:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(_BATCH, columns=list(columns)):
                        yield batch.select(list(columns))
            except (pa.ArrowException, OSError, KeyError) as error:
                raise DataError(f"{path} cannot be compared: {error}.") from None


def _hashes(column: pa.Array) -> np.ndarray:
    """A 64-bit hash of each value; nulls have one of their own."""
    digests = [b"\0" * 8 if row is None else hashlib.blake2b(row, digest_size=8).digest() for row in _rows(column)]
    return np.frombuffer(b"".join(digests), "<u8")


def _rows(column: pa.Array) -> Iterator[bytes | None]:
    """The bytes of each value: text as UTF-8, numbers and lists of numbers as in memory with -0 as 0."""
    is_known = column.is_valid().to_pylist()
    known = column.drop_null()
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = (text.encode() for text in known.to_pylist())
    else:
        numbers = _numbers(known)
        values = (row.tobytes() for row in numbers)
    yield from (next(values) if there else None for there in is_known)


def _numbers(known: pa.Array) -> np.ndarray:
    """Values without nulls as one row each."""
    count = len(known)
    while pa.types.is_fixed_size_list(known.type):
        known = known.flatten()
    flat = known.to_numpy(zero_copy_only=False)
    if flat.dtype.kind not in "fiub":
        raise pa.ArrowInvalid(f"a column of {known.type} is not of a release")
    return (flat + 0 if flat.dtype.kind == "f" else flat).reshape(count, -1) if count else flat.reshape(0, 1)


def _floats(column: pa.Array) -> np.ndarray:
    """Values as rows of float64, NaN where null."""
    numbers = _numbers(column.drop_null()).astype(np.float64)
    values = np.full((len(column), numbers.shape[1]), np.nan)
    values[column.is_valid().to_numpy(zero_copy_only=False)] = numbers
    return values


def _by_source(frame: pd.DataFrame) -> pd.DataFrame:
    """Hashes by photograph; those of several items of one photograph are added, so their order does not matter."""
    sums = frame.drop(columns="item_id").groupby("source_id").sum()
    return pd.DataFrame(sums)


def _id_changes(before: pd.DataFrame, after: pd.DataFrame) -> IdChanges:
    both = after.index.intersection(before.index)
    differs = before.loc[both].ne(after.loc[both]).any(axis=1)
    return IdChanges(
        added=tuple(sorted(after.index.difference(before.index))),
        removed=tuple(sorted(before.index.difference(after.index))),
        changed=tuple(sorted(both[differs.to_numpy()])),
        kept=int((~differs).sum()),
    )


def _statistics(group: pd.DataFrame) -> GroupStatistics:
    names = [*_MEANS.values(), *_NORMS.values()]
    means = {name: float(group[name].mean()) if name in group else math.nan for name in names}
    known = {name: None if math.isnan(mean) else float(f"{mean:.9g}") for name, mean in means.items()}
    return GroupStatistics(items=len(group), **known)


def _group_changes(
    before: Mapping[tuple[str, int], GroupStatistics], after: Mapping[tuple[str, int], GroupStatistics]
) -> tuple[GroupChange, ...]:
    none = GroupStatistics(
        items=0, valence=None, arousal=None, shape_norm=None, expression_norm=None, jaw_angle_rad=None
    )
    keys = [(emotion.label, level) for emotion in Emotion for level in LEVELS]
    return tuple(
        GroupChange(emotion=key[0], level=key[1], before=before.get(key, none), after=after.get(key, none))
        for key in keys
        if key in before or key in after
    )
