"""Scores become emotions and levels, and tracks survive json."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecavatar.emotion import EMOTION2VEC_LABELS, Emotion
from ecavatar.errors import AssetMissingError, ConfigError, DataError, ShapeError
from ecavatar.speech.track import (
    RECOGNISED,
    EmotionTrack,
    EmotionWindow,
    LabelRule,
    from_json,
    level_of,
    read_track,
    to_json,
    track_from_scores,
    write_track,
)


def scores(**given_scores: float) -> np.ndarray:
    return np.array([[given_scores.get(label, 0.0) for label in (*EMOTION2VEC_LABELS[:-1], "unk")]])


def test_other_and_unknown_are_dropped_and_the_rest_renormalised() -> None:
    (window,) = track_from_scores(scores(other=0.5, unk=0.2, sad=0.2, happy=0.1), [(0, 2)]).windows
    assert window.emotion is Emotion.SAD
    assert window.probabilities[RECOGNISED.index(Emotion.SAD)] == pytest.approx(2 / 3)
    assert sum(window.probabilities) == pytest.approx(1)
    assert window.level == 2


@pytest.mark.parametrize(
    ("probability", "level"), [(1 / 7, 1), (0.42, 1), (0.44, 2), (0.71, 2), (0.72, 3), (1.0, 3), (0.0, 1)]
)
def test_levels_are_equal_thirds_from_chance_to_certainty(probability: float, level: int) -> None:
    assert level_of(probability) == level


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_more_probable_emotion_is_never_weaker(a: float, b: float) -> None:
    assert level_of(max(a, b)) >= level_of(min(a, b))


@given(st.lists(st.lists(st.floats(0.01, 1), min_size=9, max_size=9), min_size=1, max_size=4))
def test_json_gives_the_track_back(rows: list[list[float]]) -> None:
    track = track_from_scores(np.array(rows), [(float(i), i + 1.0) for i in range(len(rows))])
    assert from_json(json.loads(json.dumps(to_json(track)))) == track


def test_a_track_written_by_hand_needs_no_probabilities() -> None:
    track = from_json({"windows": [{"start": 0, "end": 1, "emotion": "contempt", "level": 2}]})
    assert track.windows[0].emotion is Emotion.CONTEMPT
    assert track.windows[0].probabilities == ()


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"format": "other", "windows": []},
        {"windows": []},
        {"windows": [{"start": 0, "end": 1, "emotion": "bored", "level": 1}]},
        {"windows": [{"start": 0, "end": 1, "emotion": "happy", "level": 4}]},
        {"windows": [{"start": 0, "end": 1, "emotion": "happy"}]},
        {"windows": [{"start": 1, "end": 1, "emotion": "happy", "level": 1}]},
        {"windows": ["happy"]},
        {"windows": [{"start": 0, "end": 1, "emotion": "happy", "level": 1.5}]},
        {"windows": [{"start": 0, "end": 1, "emotion": "happy", "level": True}]},
        {"windows": [{"start": 0, "end": float("nan"), "emotion": "happy", "level": 1}]},
        {"windows": [{"start": 1, "end": 2, "emotion": "happy", "level": 1}]},
        {"windows": [{"start": 0, "end": 1, "emotion": "happy", "level": 1, "probabilities": {"happy": 1.0}}]},
        {"windows": [{"start": 0, "end": 1, "emotion": ["happy"], "level": 1}]},
        {"windows": {}},
        [],
        None,
    ],
)
def test_broken_tracks_are_refused(value: dict) -> None:
    with pytest.raises(DataError):
        from_json(value)


def test_gaps_between_windows_are_refused() -> None:
    first = EmotionWindow(start=0, end=1, emotion=Emotion.HAPPY, level=1, probabilities=())
    later = EmotionWindow(start=1.5, end=2, emotion=Emotion.SAD, level=1, probabilities=())
    with pytest.raises(DataError, match="gap"):
        EmotionTrack((first, later))


def test_scores_that_say_nothing_are_refused() -> None:
    with pytest.raises(DataError):
        track_from_scores(scores(other=1.0), [(0, 1)])
    with pytest.raises(DataError):
        track_from_scores(scores(sad=float("nan"), happy=1.0), [(0, 1)])
    with pytest.raises(ShapeError):
        track_from_scores(np.ones((2, 9)), [(0, 1)])


def entry(start: float, end: float, emotion: str = "happy", level: object = 1) -> dict:
    return {"start": start, "end": end, "emotion": emotion, "level": level}


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ([entry(0, 2), entry(1.5, 3)], "overlap between 2 s, where a window ends, and 1.5 s"),
        ([entry(0, 1), entry(1.5, 3)], "gap between 1 s"),
        ([entry(0.5, 3)], "first window starts at 0.5 s"),
        ([entry(0, 1, level=0)], "window 0: level 0 is not 1, 2 or 3"),
        (
            [entry(0, 1), entry(1, 2, "bored"), entry(2, 3, level=9)],
            "window 1: unknown emotion 'bored'; window 2: level 9",
        ),
        ([entry(0, 1) | {"levle": 2}], "unknown key 'levle'"),
        ([{"start": 0, "emotion": "sad"}], "end is missing; window 0: level is missing"),
        ([entry(0, "one")], "end must be a finite number, got 'one'"),  # type: ignore[arg-type]
    ],
)
def test_every_mistake_of_a_hand_made_track_is_named(tmp_path: Path, windows: list, message: str) -> None:
    path = tmp_path / "track.json"
    path.write_text(json.dumps({"windows": windows}))
    with pytest.raises(DataError) as caught:
        read_track(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_recognised_track_can_be_written_edited_and_fed_back(tmp_path: Path) -> None:
    path = tmp_path / "track.json"
    track = track_from_scores(np.vstack([scores(sad=1.0), scores(happy=1.0)]), [(0, 2), (2, 3.5)])
    write_track(path, track)
    assert read_track(path) == track
    edited = json.loads(path.read_text())
    edited["windows"][1] |= {"emotion": "contempt", "level": 3}
    path.write_text(json.dumps(edited))
    back = read_track(path, duration=3.5)
    assert [(w.emotion, w.level) for w in back.windows] == [(Emotion.SAD, 3), (Emotion.CONTEMPT, 3)]


def test_a_track_must_end_with_its_speech(tmp_path: Path) -> None:
    path = tmp_path / "track.json"
    path.write_text(json.dumps({"windows": [entry(0, 2)]}))
    assert read_track(path, duration=2.04).duration == 2.04
    with pytest.raises(DataError, match=r"ends at 2 s and the speech at 5 s"):
        read_track(path, duration=5.0)
    path.write_text("{")
    with pytest.raises(DataError, match="not valid json"):
        read_track(path)
    with pytest.raises(AssetMissingError):
        read_track(tmp_path / "none.json")


def test_without_renormalising_the_dropped_classes_weaken_the_level() -> None:
    given_scores = scores(other=0.5, sad=0.4, happy=0.1)
    (plain,) = track_from_scores(given_scores, [(0, 2)], LabelRule(renormalise=False)).windows
    (divided,) = track_from_scores(given_scores, [(0, 2)]).windows
    assert plain.emotion is divided.emotion is Emotion.SAD
    assert plain.probabilities[RECOGNISED.index(Emotion.SAD)] == pytest.approx(0.4)
    assert (plain.level, divided.level) == (1, 3)


def test_the_end_points_of_the_level_line_are_settings() -> None:
    rule = LabelRule(lowest=0.2, highest=0.8)
    assert [level_of(p, rule) for p in (0.0, 0.2, 0.39, 0.41, 0.59, 0.61, 0.8, 1.0)] == [1, 1, 1, 2, 2, 3, 3, 3]
    for lowest, highest in ((0.8, 0.2), (0.5, 0.5), (-0.1, 1.0), (0.0, 1.1), (float("nan"), 1.0)):
        with pytest.raises(ConfigError, match="lowest"):
            LabelRule(lowest=lowest, highest=highest)
