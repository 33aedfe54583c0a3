"""Pictures and plots of the report: matplotlib on files, one look for all of them.

Every function writes one PNG, whole or not at all, with the same bytes for the same input.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from ecavatar.storage.files import atomic_path

BLUE, ORANGE, GREY, GREEN = "#2f6db3", "#d9822b", "#8a8f98", "#3d8c57"
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


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
    with matplotlib.rc_context(_STYLE):
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
        _save(figure, path)


def write_errors(path: Path, summary: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> None:
    """Mean error and 95 % interval of every method, one panel per corpus and metric, unit 1e-5 m^2."""
    panels = [
        (corpus, metric)
        for corpus, methods in summary.items()
        for metric in sorted({m for figures in methods.values() for m in figures})
    ]
    with matplotlib.rc_context(_STYLE):
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
        _save(figure, path)


def write_arousal(path: Path, candidates: pd.DataFrame, cuts: Mapping[str, Sequence[float]]) -> None:
    """Arousal of the usable annotations per category, with the cuts between the levels.

    Args:
        path: PNG to write.
        candidates: columns `emotion` (name) and `arousal`.
        cuts: per emotion the inner level borders.
    """
    names = list(cuts)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(10, 4), layout="constrained")
        for number, name in enumerate(names, start=1):
            axes = figure.add_subplot(2, (len(names) + 1) // 2, number)
            axes.hist(candidates.loc[candidates["emotion"] == name, "arousal"], bins=24, range=(-1, 1), color=BLUE)
            for cut in cuts[name]:
                axes.axvline(cut, color=ORANGE, lw=1.4)
            axes.set_title(name, fontsize=9)
        figure.supxlabel("arousal (orange: borders between levels)")
        _save(figure, path)


def write_jaw(
    path: Path,
    clip_id: str,
    angle: Float[np.ndarray, " frames"],
    fps: float,
    sound: tuple[Float[np.ndarray, " samples"], int],
) -> None:
    """The chin angle of one clip over its waveform."""
    samples, rate = sound
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 3), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        time = np.arange(len(angle)) / fps
        upper.plot(time, np.degrees(angle), color=BLUE)
        upper.set(ylabel="chin angle, degrees", title=clip_id)
        lower.plot(np.arange(len(samples)) / rate, samples, color=GREY, lw=0.4)
        lower.set(xlabel="seconds", ylabel="sound", yticks=[])
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
