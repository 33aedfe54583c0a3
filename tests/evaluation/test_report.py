"""The report page and its figures: self-contained, the same bytes every time."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from ecavatar.emotion import Emotion
from ecavatar.evaluation.figures import write_arousal, write_curves, write_errors, write_fill, write_sheet
from ecavatar.evaluation.report import FigureEntry, Page, write_report

ERRORS = {
    "vocaset": {
        "neutral": {
            "lve_m2": {"mean": 4e-5, "ci95_low": 3e-5, "ci95_high": 5e-5, "n_clips": 2, "n_frames": 9, "n_subjects": 2}
        },
        "selftalk": {
            "lve_m2": {"mean": 1e-5, "ci95_low": 1e-5, "ci95_high": 2e-5, "n_clips": 2, "n_frames": 9, "n_subjects": 2}
        },
    }
}

CUTS = {"lowest": -0.4, "first_cut": -0.1, "second_cut": 0.2, "highest": 0.5}
LEVELS = {
    "per_level": 2,
    "histogram": {"lowest": -1.0, "highest": 1.0, "bins": 4},
    "emotions": {"happy": {"arousal": CUTS, "histogram": [0, 3, 2, 0]}},
}
"""Level facts of a corpus in which only one category is annotated."""


def draw_all(out: Path) -> list[Path]:
    out.mkdir()
    picture = np.full((24, 24, 3), 128, np.uint8)
    write_sheet(out / "sheet.png", [[picture, np.zeros((0, 0, 3), np.uint8)]], rows=["r"], columns=["a", "b"])
    write_errors(out / "errors.png", ERRORS)
    curve = pd.DataFrame({"epoch": [1, 2], "train_loss": [1.0, 0.5]})
    write_curves(out / "curves.png", {"net": curve}, x="epoch", columns=["train_loss", "absent"])
    write_arousal(out / "arousal.png", LEVELS)
    write_fill(out / "levels.png", LEVELS, {e.label: {"1": 1, "2": 0, "3": 2} for e in Emotion})
    return sorted(out.iterdir())


def test_figures_have_the_same_bytes_every_time(tmp_path: Path) -> None:
    one, other = draw_all(tmp_path / "one"), draw_all(tmp_path / "other")
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in other]


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    figure = draw_all(tmp_path / "figures")[0]
    page = Page(
        profile="sample",
        built=[("Emolib", "1 face")],
        counts={"happy": [1, 2, 3]},
        available={"happy": [4, 5, 6]},
        table_1={"happy": (500, 500, 500)},
        rejects=[("select", "<broken>", 1)],
        benchmark=ERRORS,
        findings=["all well"],
        speech={"character_error_rate": 0.2},
        figures=[FigureEntry(title="T", caption="C", path=figure)],
    )
    write_report(tmp_path / "report.html", page)
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "http" not in text
    assert "&lt;broken&gt;" in text
    assert "<broken>" not in text
    assert "2.74" in text, "the published row stands beside ours"
    assert ">4<" in text, "errors are shown in 1e-5 m^2"
    assert '<td>3 <span class="quiet">of 6</span></td><td>6</td>' in text, (
        "items beside what was available, and their sum"
    )
