"""What is different between two VOCATeeth: clips, subjects, columns, and the numbers of the training clips.

Told by info.json, stats.json and contents.json alone, so that nothing else need be fetched; `ecavatar verify` makes
sure that they say what the data say.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ecavatar.errors import DataError
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
from ecavatar.vocateeth.dataset import INFO
from ecavatar.vocateeth.facts import CONTENTS, STATS

COMPARED = (INFO, STATS, CONTENTS)
"""The files that are read."""
_TAGS = ("format", "topology", "fps", "native_fps", "patch_mm", "mouth", "mouth_sha256", "topology_sha256")
_BREAKING_TAGS = ("format", "topology", "fps", "topology_sha256")
_MEASURED = {
    "angle (rad)": "angle_rad",
    "length of a clip (s)": "clip_s",
    "length of its sound (s)": "sound_s",
    "meshes minus sound (s)": "duration_mismatch_s",
}
Numbers = Mapping[str, float | int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticChange:
    """A number of the training clips before and now."""

    name: str
    before: Numbers
    """mean, std, min, max and count."""
    after: Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class TeethChanges:
    """What a release changes of the one before."""

    tags: Mapping[str, tuple[object, object]]
    """Before and after of what the dataset says about itself (format, topology, mouth, ...), where it changed."""
    items: IdChanges
    """Clips, by the hashes of their angles, meshes and sound."""
    subjects: IdChanges
    """By the hashes of template and fit."""
    changed_columns: Mapping[str, int]
    """Clips with another value, by column."""
    columns: ColumnChanges
    statistics: tuple[StatisticChange, ...]

    @property
    def breaking(self) -> tuple[str, ...]:
        """Why programs and numbers made for the release before may not fit; such a change asks for a major version."""
        tags = [
            f"{name} {self.tags[name][0]} became {self.tags[name][1]}" for name in _BREAKING_TAGS if name in self.tags
        ]
        return (*self.columns.breaking, *tags)

    def to_json(self) -> dict[str, object]:
        """Everything, as json values."""
        return {**asdict(self), "breaking": list(self.breaking)}

    def as_markdown(self, previous: str, current: str) -> str:
        """CHANGES.md: what version `current` changes of version `previous`, for people."""
        return changes_text(
            f"Changes from {previous} to {current}",
            self.breaking,
            counted={"clips": self.items, "subjects": self.subjects},
            facts=[*tag_facts(self.tags), *self.columns.facts, *value_facts("clips", self.changed_columns)],
            listed={
                "Clips added": self.items.added,
                "Clips removed": self.items.removed,
                "Clips with other values": self.items.changed,
                "Subjects with another template or fit": self.subjects.changed,
            },
            table=_table(self.statistics),
        )


def compare(previous: Path, current: Path) -> TeethChanges:
    """What the VOCATeeth in folder `current` changes of the one in `previous`; formats may differ.

    Raises:
        AssetMissingError: one of them is none, or lacks stats.json or contents.json.
        DataError: damaged.
    """
    before, after = _Described.open(previous), _Described.open(current)
    items, changed = _id_changes(before.clips, after.clips)
    subjects, _ = _id_changes(before.subjects, after.subjects)
    return TeethChanges(
        tags=tag_changes(before.tags, after.tags, _TAGS),
        items=items,
        subjects=subjects,
        changed_columns=changed,
        columns=ColumnChanges.between(before.columns, after.columns),
        statistics=tuple(
            StatisticChange(name=name, before=before.numbers[name], after=after.numbers[name]) for name in _MEASURED
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Described:
    """What is compared, of any format."""

    tags: Mapping[str, object]
    clips: Mapping[str, Mapping[str, str]]
    subjects: Mapping[str, Mapping[str, str]]
    columns: Mapping[str, str]
    numbers: Mapping[str, Numbers]

    @classmethod
    def open(cls, directory: Path) -> "_Described":
        info, stats, contents = (read_json(directory / name) for name in COMPARED)
        try:
            numbers = {
                name: {what: stats[key][what] for what in ("mean", "std", "min", "max", "count")}
                for name, key in _MEASURED.items()
            }
            return cls(
                tags={name: (info | contents).get(name) for name in _TAGS},
                clips={str(name): dict(hashes) for name, hashes in contents["clips"].items()},
                subjects={str(name): dict(hashes) for name, hashes in contents["subjects"].items()},
                columns=_column_types(contents["tables"]),
                numbers=numbers,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{directory} is no VOCATeeth that can be compared: {', '.join(COMPARED)} lack {error}. Fetch or build "
                "it again."
            ) from None


def _column_types(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:  # Any: json
    return {f"{table}/{column}": str(kind) for table, columns in tables.items() for column, kind in columns.items()}


def _id_changes(
    before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]
) -> tuple[IdChanges, dict[str, int]]:
    """What happened to the ids, and how many have another value, by column; columns of one side alone do not count."""
    columns: dict[str, int] = {}
    changed, both = set(), sorted(set(before) & set(after))
    for name in both:
        for column in sorted(set(before[name]) & set(after[name])):
            if before[name][column] != after[name][column]:
                columns[column] = columns.get(column, 0) + 1
                changed.add(name)
    changes = IdChanges(
        added=tuple(sorted(set(after) - set(before))),
        removed=tuple(sorted(set(before) - set(after))),
        changed=tuple(sorted(changed)),
        kept=len(both) - len(changed),
    )
    return changes, columns


def _table(statistics: tuple[StatisticChange, ...]) -> list[str]:
    names = ("count", "mean", "std", "min", "max")
    lines = ["Training clips before and now:", "", f"| | {' | '.join(names)} |", f"|---|{'--:|' * len(names)}"]
    for one in statistics:
        cells = [before_and_after(one.before[name], one.after[name]) for name in names]
        lines.append(f"| {one.name} | {' | '.join(cells)} |")
    return lines
