"""Laws of the three intensity levels."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecavatar.emolib.levels import arousal_levels, equal_thirds, is_usable
from ecavatar.emotion import Emotion
from ecavatar.errors import DataError


def test_equal_thirds_of_a_hand_made_range():
    cut = equal_thirds(np.array([-0.5, 0.1, 1.0]))
    assert (cut.lowest, cut.first_cut, cut.second_cut, cut.highest) == (-0.5, 0.0, 0.5, 1.0)
    assert cut.level(np.array([-0.5, -0.001, 0.0, 0.499, 0.5, 1.0])).tolist() == [1, 1, 2, 2, 3, 3]


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=60))
def test_levels_rise_with_arousal_and_reach_both_ends(values):
    arousal = np.array(values)
    cut = equal_thirds(arousal)
    levels = cut.level(arousal)
    assert (np.diff(levels[np.argsort(arousal, kind="stable")]) >= 0).all()
    assert levels[arousal.argmin()] == 1
    can_be_cut = cut.lowest < cut.first_cut < cut.second_cut < cut.highest
    assert levels[arousal.argmax()] == (3 if can_be_cut else 1)


def test_equal_values_are_level_1():
    assert equal_thirds(np.full(4, 0.3)).level(np.full(4, 0.3)).tolist() == [1, 1, 1, 1]
    nearly = np.array([0.0, 5e-324])  # no float lies between
    assert equal_thirds(nearly).level(nearly).tolist() == [1, 1]


def test_values_outside_the_range_are_refused():
    with pytest.raises(DataError, match="outside"):
        equal_thirds(np.array([0.0, 0.5])).level(np.array([0.6]))
    with pytest.raises(DataError, match="-2"):
        equal_thirds(np.array([0.0, -2.0]))


def test_unannotated_and_uncertain_rows_never_move_the_cuts():
    rows = pd.DataFrame(
        {
            "emotion_code": [1, 1, 1, 1, 8, 9, 10, 1],
            "arousal": [-0.3, 0.0, 0.3, -2.0, -1.0, 1.0, 1.0, np.nan],
        }
    )
    good = is_usable(rows)
    assert good.tolist() == [True] * 3 + [False] * 5
    levels, bounds = arousal_levels(rows[good])
    assert levels.tolist() == [1, 2, 3]
    assert (bounds[Emotion.HAPPY].lowest, bounds[Emotion.HAPPY].highest) == (-0.3, 0.3)
    with pytest.raises(DataError, match="is_usable"):
        arousal_levels(rows)


def test_each_category_has_cuts_of_its_own():
    rows = pd.DataFrame({"emotion_code": [0, 0, 6, 6], "arousal": [-0.9, 0.0, 0.0, 0.9]})
    levels, bounds = arousal_levels(rows)
    assert levels.tolist() == [1, 3, 1, 3]
    assert set(bounds) == {Emotion.NEUTRAL, Emotion.ANGER}
