"""A self-contained report page: inline style, embedded pictures, no network."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from ecavatar.evaluation.published import ECAVATAR_TABLE_3, PublishedRow
from ecavatar.storage.files import atomic_path


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureEntry:
    """One picture of the page."""

    title: str
    caption: str
    path: Path

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.path.read_bytes()).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything the report page shows.

    Attributes:
        profile: `sample` or `full`.
        built: name and size of each product, in pipeline order.
        counts: emotion -> images per level (three numbers).
        available: usable annotations in the same form, where a category has any.
        table_1: the paper's counts in the same form.
        rejects: (stage, reason, count).
        benchmark: corpus -> method -> metric -> figures.
        findings: sentences on what the numbers show, made from the numbers.
        speech: figures of the stand-in speech models (empty in `full`).
        figures: pictures in reading order.
        mouths: the mouth facts of `ecavatar.evaluation.mouth_report`; empty: no table of them.
    """

    profile: str
    built: Sequence[tuple[str, str]]
    counts: Mapping[str, Sequence[int]]
    available: Mapping[str, Sequence[int]]
    table_1: Mapping[str, Sequence[int]]
    rejects: Sequence[tuple[str, str, int]]
    benchmark: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]
    findings: Sequence[str]
    speech: Mapping[str, object]
    figures: Sequence[FigureEntry]
    published: Sequence[PublishedRow] = ECAVATAR_TABLE_3
    mouths: Mapping[str, Any] = field(default_factory=dict)


def write_report(path: Path, page: Page) -> None:
    """Write `page` as one HTML file, whole or not at all."""
    source = resources.files("ecavatar.evaluation").joinpath("report.html.j2").read_text()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["e5"] = lambda value: f"{value * 1e5:.3g}"
    with atomic_path(path) as temporary:
        temporary.write_text(environment.from_string(source).render(page=page), encoding="utf-8")
