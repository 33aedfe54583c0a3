"""Pictures and plots of the report: matplotlib on files, one look for all of them.

Every function writes one PNG, whole or not at all, with the same bytes for the same input.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image, ImageDraw, ImageFont

from ecavatar.emotion import LEVELS, Emotion
from ecavatar.evaluation.published import TABLE_1
from ecavatar.storage.files import atomic_path

BLUE, ORANGE, GREY, GREEN = "#2f6db3", "#d9822b", "#8a8f98", "#3d8c57"
LEVEL_COLOURS = ("#a9c8e8", "#5a93cf", "#1f4e8c")
"""Levels 1, 2 and 3."""
_PAPER = "#c9ced6"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
"""The look of every plot, for `matplotlib.rc_context`."""


def write_sheet(
    path: Path,
    pictures: Sequence[Sequence[UInt8[np.ndarray, "height width 3"]]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
) -> None:
    """A labelled grid of equally large pictures; an empty cell is an array of size 0."""
    height, width = next(p.shape[:2] for row in pictures for p in row if p.size)
    left, top = 84, 22
    sheet = Image.new("RGB", (left + width * len(columns), top + height * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for column, label in enumerate(columns):
        draw.text((left + width * (column + 0.5), top / 2), label, fill="black", font=font, anchor="mm")
    for row, label in enumerate(rows):
        draw.text((left - 8, top + height * (row + 0.5)), label, fill="black", font=font, anchor="rm")
        for column, picture in enumerate(pictures[row]):
            if picture.size:
                sheet.paste(Image.fromarray(picture), (left + width * column, top + height * row))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def write_curves(path: Path, curves: Mapping[str, pd.DataFrame], *, x: str, columns: Sequence[str]) -> None:
    """Training curves side by side, one panel per network, logarithmic where all values are positive."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(curves), 3.0), layout="constrained")
        for panel, (name, table) in enumerate(sorted(curves.items()), start=1):
            axes = figure.add_subplot(1, len(curves), panel)
            for colour, column in zip((BLUE, ORANGE, GREEN), [c for c in columns if c in table], strict=False):
                drawn = table[[x, column]].dropna()
                axes.plot(drawn[x], drawn[column], label=column, color=colour, lw=1.6)
                if np.all(drawn[column].to_numpy() > 0):
                    axes.set_yscale("log")
            axes.set(title=name, xlabel=x)
            axes.legend()
        save_figure(figure, path)


def write_errors(path: Path, summary: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> None:
    """Mean error and 95 % interval of every method, one panel per corpus and metric, unit 1e-5 m^2."""
    panels = [
        (corpus, metric)
        for corpus, methods in summary.items()
        for metric in sorted({m for figures in methods.values() for m in figures})
    ]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.4 * len(panels), 2.8), layout="constrained")
        for number, (corpus, metric) in enumerate(panels, start=1):
            axes = figure.add_subplot(1, len(panels), number)
            rows = [(name, figures[metric]) for name, figures in summary[corpus].items() if metric in figures]
            means = np.array([row["mean"] for _, row in rows]) * 1e5
            low, high = (np.array([row[key] for _, row in rows]) * 1e5 for key in ("ci95_low", "ci95_high"))
            errors = np.clip(np.stack([means - low, high - means]), 0, None)
            colours = [ORANGE if name.startswith("ours") else BLUE if name == "selftalk" else GREY for name, _ in rows]
            axes.barh([name for name, _ in rows], means, xerr=errors, color=colours, ecolor="#333333", capsize=3)
            axes.set(title=f"{corpus}: {metric.split('_')[0].upper()}", xlabel="1e-5 m² (lower is better)")
        save_figure(figure, path)


def write_arousal(path: Path, levels: Mapping[str, Any]) -> None:
    """Arousal of the usable annotations per category, one colour per level, with the cuts between them.

    Args:
        path: PNG to write.
        levels: the level facts of `ecavatar.emolib.selection`.
    """
    bins = levels["histogram"]
    edges = np.linspace(bins["lowest"], bins["highest"], bins["bins"] + 1)
    emotions = {emotion.label: levels["emotions"].get(emotion.label) for emotion in Emotion}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 4.6), layout="constrained")
        panels = figure.subplots(2, 4, sharex=True).ravel()
        for axes, (name, row) in zip(panels, emotions.items(), strict=True):
            axes.set_title(name, fontsize=10, fontweight="bold", loc="left", pad=16 if row else None)
            if row is None:
                axes.text(0.5, 0.5, "no annotations", ha="center", va="center", transform=axes.transAxes, color=GREY)
                continue
            _draw_levels(axes, edges, row)
        shown = [Patch(color=colour, label=f"level {n}") for n, colour in zip(LEVELS, LEVEL_COLOURS, strict=True)]
        figure.legend(handles=shown, loc="outside upper right", ncols=3, fontsize=8)
        figure.supxlabel("annotated arousal (dotted: lowest and highest)", fontsize=9)
        figure.supylabel("annotations", fontsize=9)
        save_figure(figure, path)


def _draw_levels(axes: Axes, edges: Float[np.ndarray, " edges"], row: Mapping[str, Any]) -> None:
    """One category's histogram; a bin that holds a cut is coloured on both sides of it."""
    arousal, counts = row["arousal"], np.array(row["histogram"])
    cuts = [arousal[name] for name in ("first_cut", "second_cut") if arousal[name] <= arousal["highest"]]
    borders = [edges[0], *cuts, *[edges[-1]] * (len(LEVELS) - len(cuts))]
    for colour, low, high in zip(LEVEL_COLOURS, borders[:-1], borders[1:], strict=True):
        left, right = np.clip(edges[:-1], low, high), np.clip(edges[1:], low, high)
        axes.bar(left, counts, width=right - left, align="edge", color=colour, linewidth=0)
    for cut in cuts:
        axes.axvline(cut, color="#333333", lw=1.0)
    for end in (arousal["lowest"], arousal["highest"]):
        axes.axvline(end, color="#333333", lw=0.6, ls=":")
    told = "cut at " + " and ".join(f"{cut:+.2f}" for cut in cuts) if cuts else "all one level"
    axes.text(0, 1.02, told, fontsize=8, color="#5b6270", transform=axes.transAxes)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, max(1, counts.max()) * 1.08))
    axes.set_xticks([-1, -0.5, 0, 0.5, 1], ["-1", "-0.5", "0", "0.5", "1"])
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.tick_params(labelsize=8)


def write_fill(path: Path, levels: Mapping[str, Any], items: Mapping[str, Mapping[str, int]]) -> None:
    """How full each category and level is, beside the paper's Table 1: as shares of what is drawn at most.

    Args:
        path: PNG to write.
        levels: the level facts of `ecavatar.emolib.selection`.
        items: emotion -> level -> items of the finished Emolib.
    """
    cap, names = levels["per_level"], [emotion.label for emotion in Emotion]
    paper_cap = max(max(counts) for counts in TABLE_1.values())
    places = np.arange(len(names))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 3.1), layout="constrained")
        panels = figure.subplots(1, len(LEVELS), sharey=True)
        for axes, level, colour in zip(panels, LEVELS, LEVEL_COLOURS, strict=True):
            _draw_shares(axes, places - 0.2, [items[name][str(level)] for name in names], cap, colour)
            _draw_shares(axes, places + 0.2, [TABLE_1[e][level - 1] for e in Emotion], paper_cap, _PAPER)
            axes.set(title=f"level {level}", xlim=(0, 1.16), yticks=places, yticklabels=names)
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.set_xticks([0, 0.5, 1])
            axes.grid(visible=False, axis="y")
            axes.tick_params(length=0)
        panels[0].invert_yaxis()
        shown = [
            Patch(color="#5a7fb0", label=f"here, of at most {cap}"),
            Patch(color=_PAPER, label=f"the paper, of at most {paper_cap}"),
        ]
        figure.legend(handles=shown, loc="outside lower center", ncols=2, fontsize=8)
        save_figure(figure, path)


def _draw_shares(axes: Axes, places: Float[np.ndarray, " bars"], counts: Sequence[int], cap: int, colour: str) -> None:
    axes.barh(places, [count / cap for count in counts], 0.36, color=colour, linewidth=0)
    for place, count in zip(places, counts, strict=True):
        ink = GREY if colour == _PAPER else "black"
        axes.text(count / cap + 0.015, place, f"{count}", va="center", fontsize=7.5, color=ink)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a plot as PNG, whole or not at all, without the marks that differ from version to version."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
