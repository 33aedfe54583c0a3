"""Scores become emotions and levels, and tracks survive json."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecavatar.emotion import EMOTION2VEC_LABELS, Emotion
from ecavatar.errors import DataError, ShapeError
from ecavatar.speech.track import (
    RECOGNISED,
    EmotionTrack,
    EmotionWindow,
    from_json,
    level_of,
    to_json,
    track_from_scores,
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
