"""What the report tells of VOCATeeth: facts that follow from the dataset, and its figures."""

from pathlib import Path

import numpy as np
import pytest

from ecavatar.config import RigSettings
from ecavatar.corpora.vocaset import Vocaset
from ecavatar.evaluation.mouth_report import draw_mouths, mouth_facts, widest_frames
from ecavatar.evaluation.report import Page, write_report
from ecavatar.vocateeth.build import finish_vocateeth, subjects_of, write_subject
from ecavatar.vocateeth.dataset import VocaTeeth
from tests.fabricate_mouth import open_face, small_mouth
from tests.fabricate_talkers import SPEAKERS, write_talkers

SETTINGS = RigSettings(mouth="procedural", fps=30, patch_mm=0.0, max_rejects=0.1)


@pytest.fixture(scope="module")
def asset():
    return open_face()


@pytest.fixture(scope="module")
def teeth(asset, tmp_path_factory):
    vocaset = Vocaset.open(write_talkers(tmp_path_factory.mktemp("vocaset"), asset, np.radians(4)))
    directory, mouth = tmp_path_factory.mktemp("teeth"), small_mouth()
    for subject in subjects_of(vocaset):
        write_subject(directory, vocaset, subject, asset, mouth, SETTINGS)
    finish_vocateeth(directory, vocaset, asset, mouth, SETTINGS)
    return VocaTeeth.open(directory)


def test_the_widest_frame_is_the_one_with_the_largest_angle(teeth):
    widest = widest_frames(teeth)
    assert list(widest) == sorted(SPEAKERS)
    for clip in teeth.clips:
        frame = widest[clip.subject]
        assert frame.angle == teeth.angles(clip).max() == teeth.angles(clip)[frame.frame]


def test_mouth_facts_tell_every_subject(teeth):
    facts = mouth_facts(teeth)
    assert (facts["name"], facts["licence"]) == ("small", "CC0-1.0")
    subjects = facts["subjects"]
    assert isinstance(subjects, dict)
    assert [row["split"] for _, row in sorted(subjects.items())] == ["train", "test"]
    assert all(row["clips"] == 1 and row["scale"] > 0 and 6 < row["widest_deg"] < 9 for row in subjects.values())
    assert facts["duration_mismatch_s"]["largest"] == pytest.approx(0, abs=1e-3)  # pyright: ignore[reportIndexIssue]


def test_the_page_has_a_row_for_every_mouth(teeth, tmp_path: Path):
    page = Page(
        profile="sample", built=[], counts={}, available={}, table_1={}, rejects=[], benchmark={}, findings=[],
        speech={}, figures=[], mouths=mouth_facts(teeth),
    )  # fmt: skip
    write_report(tmp_path / "report.html", page)
    text = (tmp_path / "report.html").read_text()
    assert all(f"<td>{subject}</td>" in text for subject in SPEAKERS)
    assert "Mouth “small” (CC0-1.0)" in text


def test_figures_have_the_same_bytes_every_time(teeth, asset, tmp_path: Path):
    drawn = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        entries = list(draw_mouths(teeth, asset, 64, tmp_path / name))
        drawn.append({entry.path.name: entry.path.read_bytes() for entry in entries})
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) == {"rig.png", "angles.png", "talking.png", "turntable.png", "subjects.png"}
