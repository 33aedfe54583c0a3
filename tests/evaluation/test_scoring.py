"""Laws of scoring and of its summary."""

from pathlib import Path

import numpy as np
import pytest

from ecavatar.animation.motion import Motion
from ecavatar.animation.predictions import read_predictions, write_predictions
from ecavatar.errors import DataError
from ecavatar.evaluation.scoring import ClipFacts, compare, score_clip, score_table, summarise
from ecavatar.evaluation.truth import correlation

LIPS = np.array([0, 1])


def still(frames: int, offset: float, fps: float = 30) -> Motion:
    template = np.zeros((4, 3), np.float32)
    vertices = np.full((frames, 4, 3), 0, np.float32)
    vertices[:, :, 0] = offset
    return Motion(vertices=vertices, fps=fps, topology="toy", template=template)


def facts(subject: str, clip_id: str) -> ClipFacts:
    return ClipFacts(corpus="vocaset", subject=subject, clip_id=clip_id, emotion="neutral", level=1)


def test_a_clip_is_scored_over_the_frames_both_sides_have() -> None:
    score = score_clip(facts("a", "a1"), "m", still(8, 0.002), still(10, 0), lips=LIPS)
    assert (score.frames, score.trimmed_frames, score.eve_m2) == (8, 2, None)
    assert score.lve_m2 == pytest.approx(4e-6)


def test_frame_rates_are_never_mixed() -> None:
    with pytest.raises(DataError, match="fps"):
        score_clip(facts("a", "a1"), "m", still(8, 0, 25), still(8, 0, 30), lips=LIPS)


def test_the_mean_is_pooled_over_frames_not_clips() -> None:
    scores = [
        score_clip(facts("a", "long"), "m", still(30, 0.001), still(30, 0), lips=LIPS),
        score_clip(facts("b", "short"), "m", still(10, 0.003), still(10, 0), lips=LIPS),
        score_clip(facts("a", "long"), "neutral", still(30, 0.002), still(30, 0), lips=LIPS),
        score_clip(facts("b", "short"), "neutral", still(10, 0.002), still(10, 0), lips=LIPS),
    ]
    summary = summarise(score_table(scores), samples=200, seed=0)
    lve = summary["vocaset"]["m"]["lve_m2"]
    assert lve["mean"] == pytest.approx((30 * 1e-6 + 10 * 9e-6) / 40)
    assert lve["ci95_low"] <= lve["mean"] <= lve["ci95_high"]
    assert (lve["n_clips"], lve["n_frames"], lve["n_subjects"]) == (2, 40, 2)
    assert "eve_m2" not in summary["vocaset"]["m"]
    assert compare(summary, "neutral")["vocaset"]["m.lve_m2"] == pytest.approx(3e-6 / 4e-6)


def test_predictions_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "vocaset" / "a.parquet"
    written = {"a2": still(3, 0.5), "a1": still(5, 0.25)}
    write_predictions(path, written.items())
    read = dict(read_predictions(path))
    assert list(read) == ["a1", "a2"]
    for clip_id, motion in written.items():
        assert np.array_equal(read[clip_id].vertices, motion.vertices)
        assert np.array_equal(read[clip_id].template, motion.template)
        assert (read[clip_id].fps, read[clip_id].topology) == (motion.fps, motion.topology)


def test_clips_of_different_people_do_not_share_a_file(tmp_path: Path) -> None:
    other = Motion(vertices=np.zeros((2, 4, 3)), fps=30, topology="toy", template=np.ones((4, 3), np.float32))
    with pytest.raises(DataError, match="neutral face"):
        write_predictions(tmp_path / "x.parquet", [("a", still(2, 0)), ("b", other)])
    assert not (tmp_path / "x.parquet").exists()


def test_correlation_is_pearsons() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 5, 7, 3))
    expected = ((one - one.mean()) * (other - other.mean())).mean() / (one.std() * other.std())
    assert correlation(one, other) == pytest.approx(expected)
