"""Laws of emotion windows and of their table."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecavatar.emotion import Emotion
from ecavatar.errors import ShapeError
from ecavatar.speech.track import EmotionTrack, EmotionWindow
from ecavatar.speech.track_table import cut_windows, read_tracks, write_tracks


@given(st.floats(0.05, 100), st.floats(0.1, 10))
def test_windows_cover_the_clip_and_the_last_is_never_a_scrap(duration: float, window: float) -> None:
    spans = cut_windows(duration, window)
    assert spans[0][0] == 0
    assert spans[-1][1] == duration
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    lengths = [end - start for start, end in spans]
    assert lengths[-1] >= min(duration, window / 2) - 1e-9
    assert lengths[-1] <= 1.5 * window + 1e-9
    assert lengths[:-1] == pytest.approx([window] * (len(spans) - 1))


def test_nothing_cannot_be_cut() -> None:
    with pytest.raises(ShapeError):
        cut_windows(0.0, 2.0)


def test_tracks_survive_the_file(tmp_path: Path) -> None:
    def window(start: float, emotion: Emotion) -> EmotionWindow:
        return EmotionWindow(start=start, end=start + 2, emotion=emotion, level=2, probabilities=(0.25, 0.75))

    tracks = {
        "b": EmotionTrack((window(0, Emotion.SAD), window(2, Emotion.HAPPY))),
        "a": EmotionTrack((window(0, Emotion.FEAR),)),
    }
    write_tracks(tmp_path / "t.parquet", tracks)
    assert read_tracks(tmp_path / "t.parquet") == tracks
