"""Laws of study `mouth`: what it measures, what it recommends, and that it makes the same files every time."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecavatar.config import RigSettings
from ecavatar.corpora.vocaset import Vocaset
from ecavatar.errors import DataError
from ecavatar.evaluation.mouth_findings import study_facts, study_page, write_mouth_study
from ecavatar.evaluation.mouth_study import (
    PATCHES_MM,
    SCAN_NOISE_MM,
    TRUE_JAW,
    angle_figures,
    gap_figures,
    incisor_vertex,
    jaw_truth,
    mouth_study,
    recommend,
)
from ecavatar.mouth.model import Part
from tests.fabricate_mouth import open_face, small_mouth
from tests.fabricate_talkers import FRAMES, write_talkers

SETTINGS = RigSettings(mouth="procedural", fps=30, patch_mm=0.0, max_rejects=0.1)
PATCHES = (0.0, 8.0, 15.0)


@pytest.fixture(scope="module")
def asset():
    return open_face()


@pytest.fixture(scope="module")
def corpus(asset, tmp_path_factory):
    return write_talkers(tmp_path_factory.mktemp("vocaset"), asset, np.radians(4))


@pytest.fixture(scope="module")
def study(corpus, asset):
    truth = jaw_truth(corpus / "truth.parquet", SETTINGS.fps)
    return mouth_study(Vocaset.open(corpus), asset, small_mouth(), truth, SETTINGS, 0, PATCHES)


def variant(study, patch, noise):
    rows = study.variants
    return rows[(rows["patch_mm"] == patch) & (rows["noise_mm"] == noise)].iloc[0]


def test_angle_figures_of_a_case_by_hand():
    measured, true = np.radians([0.0, 1.0, 2.0]), np.radians([1.0, 3.0, 5.0])
    figures = angle_figures([measured], [true])
    assert figures["gain"] == pytest.approx(2)
    assert figures["offset_deg"] == pytest.approx(1)
    assert figures["correlation"] == pytest.approx(1)
    assert figures["bias_deg"] == pytest.approx(-2)
    assert figures["mean_absolute_error_deg"] == pytest.approx(2)
    assert figures["max_absolute_error_deg"] == pytest.approx(3)
    assert figures["rmse_deg"] == pytest.approx(np.sqrt((1 + 4 + 9) / 3))
    assert figures["jitter_deg"] == pytest.approx(0, abs=1e-12)


def test_jitter_does_not_look_across_clips():
    assert angle_figures([np.zeros(5), np.ones(5)], None)["jitter_deg"] == 0


def test_a_jaw_that_never_moves_has_no_correlation():
    figures = angle_figures([np.zeros(4)], [np.arange(4.0)])
    assert np.isnan(figures["correlation"])
    assert np.isnan(figures["gain"])


def test_gap_figures_of_a_case_by_hand():
    gaps = np.array([[0, 0.003, -0.004], [0, 0.003, 0.004]])
    figures = gap_figures(gaps)
    assert figures["above_mean_mm"] == pytest.approx(3)
    assert figures["above_range_mm"] == pytest.approx(0)
    assert figures["behind_mean_mm"] == pytest.approx(0, abs=1e-12)
    assert figures["behind_range_mm"] == pytest.approx(8)
    assert figures["distance_mean_mm"] == pytest.approx(5)
    assert figures["in_front_share"] == 0.5


def test_the_angle_of_a_rigid_jaw_is_measured(study):
    row = variant(study, 0.0, 0.0)
    assert row["correlation"] > 0.9999
    assert row["frames"] == FRAMES
    assert row["rmse_deg"] < 0.1 * 8, "of 8 degrees"
    assert 0.85 < row["gain"] < 1.15, "the line turns about Q, the jaw about its joint"


def test_larger_patches_feel_less_noise(asset, tmp_path):
    still = mouth_study(
        Vocaset.open(write_talkers(tmp_path, asset, 0.0)), asset, small_mouth(), {}, SETTINGS, 0, PATCHES
    )
    assert all(variant(still, patch, 0.0)["jitter_deg"] < 1e-4 for patch in PATCHES)
    noisy = [variant(still, patch, SCAN_NOISE_MM)["jitter_deg"] for patch in PATCHES]
    assert noisy[0] > noisy[1] > noisy[2] > 0
    # two points with the noise's spread across a line of 0.1 m or so; differences of second order: 1, -2, 1
    assert noisy[0] == pytest.approx(np.degrees(np.sqrt(2 * 6) * SCAN_NOISE_MM / 1000 / 0.1), rel=0.5)


def test_teeth_turned_by_the_true_angle_are_where_they_should_be(study):
    gaps = study.gaps.set_index("variant")
    assert gaps.loc[TRUE_JAW, "incisor_error_max_mm"] == 0
    assert (gaps.drop(index=TRUE_JAW)["incisor_error_max_mm"] > 0).all()
    assert gaps["skin_frames"].dropna().tolist() == [4, 4], "2 clips of 0.4 s, every tenth frame, two variants"
    assert set(study.example.gaps) == set(study.gaps["variant"])
    assert study.example.clip_id.endswith("sentence21"), "the test clip is shown"


def test_the_recommended_patch_has_the_lowest_error_under_noise():
    rows = [(0.0, 0.0, 0.1), (0.0, 0.05, 0.4), (5.0, 0.0, 0.9), (5.0, 0.05, 0.3), (8.0, 0.0, 0.9), (8.0, 0.05, 0.3)]
    assert recommend(pd.DataFrame(rows, columns=["patch_mm", "noise_mm", "rmse_deg"])) == 5.0


def test_without_truth_nothing_is_recommended(corpus, asset):
    found = mouth_study(Vocaset.open(corpus), asset, small_mouth(), {}, SETTINGS, 0, (0.0, 8.0))
    assert found.recommended_mm is None
    assert not found.has_truth
    assert "rmse_deg" not in found.variants
    assert {"jitter_deg", "agreement_rms_deg"} <= set(found.variants)
    assert TRUE_JAW not in set(found.gaps["variant"])
    assert "not known" in study_page(found)
    assert study_facts(found)["recommended_patch_mm"] is None


def test_a_clip_that_is_not_finite_is_left_out_and_named(asset, tmp_path):
    root = write_talkers(tmp_path, asset, np.radians(4))
    meshes = np.load(root / "data_verts.npy")
    meshes[4, 7, 1] = np.nan
    np.save(root / "data_verts.npy", meshes)
    found = mouth_study(
        Vocaset.open(root), asset, small_mouth(), jaw_truth(root / "truth.parquet", 30), SETTINGS, 0, (0.0,)
    )
    assert list(found.left_out) == ["FaceTalk_170728_03272_TA_sentence01"]
    assert set(found.clips["clip_id"]) == {"FaceTalk_170809_00138_TA_sentence21"}
    assert "1 more have vertices that are not finite" in study_page(found)


def test_jaw_truth_is_empty_where_the_world_does_not_tell(tmp_path):
    assert jaw_truth(tmp_path / "vocaset.parquet", 30) == {}


def test_jaw_truth_keeps_every_other_frame_at_half_the_rate(corpus):
    whole, half = (jaw_truth(corpus / "truth.parquet", fps) for fps in (60, 30))
    assert all((half[name] == whole[name][::2]).all() for name in whole)


def test_truth_of_another_length_is_refused(corpus, asset):
    truth = {name: angles[:-1] for name, angles in jaw_truth(corpus / "truth.parquet", 30).items()}
    with pytest.raises(DataError, match="of another length, the first is FaceTalk_170728"):
        mouth_study(Vocaset.open(corpus), asset, small_mouth(), truth, SETTINGS, 0)


def test_the_papers_variant_cannot_be_left_out(corpus, asset):
    with pytest.raises(DataError, match="the paper's variant"):
        mouth_study(Vocaset.open(corpus), asset, small_mouth(), {}, SETTINGS, 0, (5.0,))
    assert 0.0 in PATCHES_MM


def test_the_incisor_is_found_with_and_without_tooth_numbers():
    mouth = small_mouth()
    numbered = incisor_vertex(mouth)
    assert mouth.tooth[numbered] in (31, 41)
    unnumbered = incisor_vertex(dataclasses.replace(mouth, tooth=np.zeros_like(mouth.tooth)))
    assert mouth.part[unnumbered] == Part.LOWER_TEETH
    assert mouth.vertices[unnumbered, 1] == mouth.vertices[numbered, 1]
    toothless = dataclasses.replace(mouth, part=np.full_like(mouth.part, Part.TONGUE), tooth=np.zeros_like(mouth.tooth))
    with pytest.raises(DataError, match="no lower teeth"):
        incisor_vertex(toothless)


def test_the_findings_have_the_same_bytes_every_time(study, corpus, asset, tmp_path: Path):
    again = mouth_study(
        Vocaset.open(corpus), asset, small_mouth(), jaw_truth(corpus / "truth.parquet", 30), SETTINGS, 0, PATCHES
    )
    write_mouth_study(tmp_path / "one", study)
    write_mouth_study(tmp_path / "other", again)
    one, other = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "other"))
    assert one == other
    assert set(one) == {
        "study.json", "variants.csv", "subjects.csv", "clips.csv", "gaps.csv", "README.md", "variants.png", "gap.png",
        "angles.png",
    }  # fmt: skip
    assert b"nan" not in one["README.md"].lower()
