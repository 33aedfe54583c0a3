"""What a release changes of the one before, whatever is released: ids, columns, tags, and the text that tells it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_LISTED = 20
"""Ids that the text names of each kind; changes.json has them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdChanges:
    """Ids by what happened to their rows, each sorted."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    """In both, with another value in a column that both have."""
    kept: int
    """How many are in both and equal."""


class Changes(Protocol):
    """What a release changes of the one before, whatever the product."""

    @property
    def items(self) -> IdChanges:
        """Its smallest pieces that have a name."""
        ...

    @property
    def breaking(self) -> tuple[str, ...]:
        """Why programs and numbers made for the release before may not fit; such a change asks for a major version."""
        ...

    def to_json(self) -> dict[str, object]:
        """Everything, as json values."""
        ...

    def as_markdown(self, previous: str, current: str) -> str:
        """CHANGES.md: what version `current` changes of version `previous`, for people."""
        ...


Compare = Callable[[Path, Path], Changes]
"""What the release in the second folder changes of the one in the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnChanges:
    """config/column by what happened to it, each sorted."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    retyped: tuple[str, ...]

    @classmethod
    def between(cls, before: Mapping[str, str], after: Mapping[str, str]) -> "ColumnChanges":
        """The changes from one mapping of config/column to type to another."""
        both = set(before) & set(after)
        return cls(
            added=tuple(sorted(set(after) - set(before))),
            removed=tuple(sorted(set(before) - set(after))),
            retyped=tuple(sorted(name for name in both if before[name] != after[name])),
        )

    @property
    def breaking(self) -> list[str]:
        """What a program that reads the release before would stumble over."""
        gone = [f"column {name} is gone" for name in self.removed]
        return gone + [f"column {name} has another type" for name in self.retyped]

    @property
    def facts(self) -> list[str]:
        """One line for each kind of change that there is."""
        columns = {
            "columns added": self.added,
            "columns removed": self.removed,
            "columns of another type": self.retyped,
        }
        return [f"{what}: {', '.join(names)}" for what, names in columns.items() if names]


def tag_changes(
    before: Mapping[str, object], after: Mapping[str, object], names: Sequence[str]
) -> dict[str, tuple[object, object]]:
    """Before and after of what releases say about themselves, where it changed."""
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def tag_facts(tags: Mapping[str, tuple[object, object]]) -> list[str]:
    """One line for each changed tag."""
    return [f"{name}: {before}, now {after}" for name, (before, after) in sorted(tags.items())]


def value_facts(what: str, changed_columns: Mapping[str, int]) -> list[str]:
    """How many pieces have another value, by column; no line where none has."""
    counted = (f"{name} ({count})" for name, count in sorted(changed_columns.items()))
    return [f"{what} with another value, by column: {', '.join(counted)}"] if changed_columns else []


def changes_text(
    title: str,
    breaking: Sequence[str],
    *,
    counted: Mapping[str, IdChanges],
    facts: Sequence[str],
    listed: Mapping[str, Sequence[str]],
    table: Sequence[str],
) -> str:
    """CHANGES.md, for people.

    Args:
        title: the first heading.
        breaking: why the release does not fit what was made for the one before.
        counted: one row of the first table each.
        facts: one bullet each.
        listed: ids to name, by what happened to them; empty ones are left out.
        table: lines of a Markdown table that ends the text.
    """
    lines = [f"# {title}", ""]
    if breaking:
        lines += ["Not compatible with the release before:", "", *(f"- {reason}" for reason in breaking), ""]
    lines += ["| | added | removed | changed | unchanged |", "|---|--:|--:|--:|--:|"]
    for name, ids in counted.items():
        lines.append(f"| {name} | {len(ids.added)} | {len(ids.removed)} | {len(ids.changed)} | {ids.kept} |")
    lines += ["", *(f"- {fact}" for fact in facts), ""]
    for what, ids in listed.items():
        lines += [_named(what, ids), ""] if ids else []
    return "\n".join([*lines, *table]) + "\n"


def before_and_after(before: float | None, after: float | None) -> str:
    """A table's cell: one number where nothing changed; whole numbers in full, others with three digits."""
    texts = ["-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
             for value in (before, after)]  # fmt: skip
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} → {texts[1]}"


def _named(what: str, ids: Sequence[str]) -> str:
    more = f", and {len(ids) - _LISTED} more (changes.json)" if len(ids) > _LISTED else ""
    return f"{what}: {', '.join(f'`{name}`' for name in ids[:_LISTED])}{more}."
