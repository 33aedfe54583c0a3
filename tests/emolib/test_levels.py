"""Laws of the three intensity levels."""

import hashlib
import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ecavatar.config import SelectSettings
from ecavatar.emolib.levels import arousal_levels, balanced_cuts, equal_thirds, is_usable, quantile_thirds
from ecavatar.emolib.selection import ImageCheck, select
from ecavatar.emotion import LEVELS, Emotion
from ecavatar.errors import ConfigError, DataError

RULES = {"equal": equal_thirds, "quantile": quantile_thirds, "balanced": lambda values: balanced_cuts(values, 4)}
some_values = st.lists(st.floats(-1, 1) | st.integers(-4, 4).map(lambda n: n / 4), min_size=1, max_size=40)
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
TABLE_1 = {
    Emotion.NEUTRAL: (500, 500, 500),
    Emotion.HAPPY: (500, 500, 500),
    Emotion.SAD: (500, 500, 359),
    Emotion.SURPRISE: (262, 500, 500),
    Emotion.FEAR: (108, 500, 500),
    Emotion.DISGUST: (205, 500, 424),
    Emotion.ANGER: (500, 500, 500),
    Emotion.CONTEMPT: (378, 500, 500),
}


def sizes(cut, values):
    return [int((cut.level(values) == level).sum()) for level in LEVELS]


def test_equal_thirds_of_a_hand_made_range():
    cut = equal_thirds(np.array([-0.5, 0.1, 1.0]))
    assert (cut.lowest, cut.first_cut, cut.second_cut, cut.highest) == (-0.5, 0.0, 0.5, 1.0)
    assert cut.level(np.array([-0.5, -0.001, 0.0, 0.499, 0.5, 1.0])).tolist() == [1, 1, 2, 2, 3, 3]


@each_rule
@given(values=some_values)
def test_levels_rise_with_arousal_and_equal_values_share_one(rule, values):
    arousal = np.array(values)
    levels = rule(arousal).level(arousal)
    assert set(levels.tolist()) <= set(LEVELS)
    assert levels[arousal.argmin()] == 1
    assert (np.diff(levels[np.argsort(arousal, kind="stable")]) >= 0).all()
    assert len(np.unique(np.column_stack([arousal, levels]), axis=0)) == len(np.unique(arousal))


@each_rule
@given(values=some_values, seed=st.integers(0, 99))
def test_cuts_do_not_depend_on_the_order_of_the_rows(rule, values, seed):
    assert rule(np.random.default_rng(seed).permutation(values)) == rule(np.array(values))


@each_rule
@given(value=st.floats(-1, 1), count=st.integers(1, 9))
@example(value=1.0, count=1)
def test_one_row_or_equal_rows_are_level_1(rule, value, count):
    assert rule(np.full(count, value)).level(np.full(count, value)).tolist() == [1] * count


def test_values_too_near_for_cuts_are_level_1():
    nearly = np.array([0.0, 5e-324])  # no float lies between
    assert equal_thirds(nearly).level(nearly).tolist() == [1, 1]


@given(some_values)
def test_equal_thirds_reach_level_3_wherever_they_can_be_cut(values):
    arousal = np.array(values)
    cut = equal_thirds(arousal)
    can_be_cut = cut.lowest < cut.first_cut < cut.second_cut < cut.highest
    assert cut.level(arousal)[arousal.argmax()] == (3 if can_be_cut else 1)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40, unique=True))
def test_quantiles_of_distinct_values_differ_by_one_image_at_most(values):
    counts = sizes(quantile_thirds(np.array(values)), np.array(values))
    assert max(counts) - min(counts) <= 1


@given(some_values)
def test_quantiles_place_a_value_by_the_share_below_it(values):
    arousal = np.array(values)
    below = (arousal[None, :] < arousal[:, None]).sum(axis=1)
    assert quantile_thirds(arousal).level(arousal).tolist() == (1 + 3 * below // len(values)).tolist()


@given(st.lists(st.integers(-8, 8), min_size=1, max_size=40))
def test_quantiles_only_look_at_ranks(numbers):
    values = np.array(numbers) / 8
    bent = np.exp(values - 1)
    assert quantile_thirds(values).level(values).tolist() == quantile_thirds(bent).level(bent).tolist()


@given(st.lists(st.integers(-8, 8).map(lambda n: n / 8), min_size=1, max_size=14), st.integers(1, 5))
def test_balanced_cuts_are_the_nearest_that_leave_enough_in_every_level(values, wanted):
    arousal = np.array(values)
    thirds, cut = equal_thirds(arousal), balanced_cuts(arousal, wanted)
    best = None
    options = [sorted({third, *values}) for third in (thirds.first_cut, thirds.second_cut)]
    pairs = [(a, b) for a, b in itertools.product(*options) if a <= b]
    smallest = {
        pair: min(
            int((arousal < pair[0]).sum()),
            int(((arousal >= pair[0]) & (arousal < pair[1])).sum()),
            int((arousal >= pair[1]).sum()),
        )
        for pair in pairs
    }
    enough = min(wanted, max(smallest.values()))
    if enough == 0:
        assert cut == thirds
        return
    best = min(
        abs(a - thirds.first_cut) + abs(b - thirds.second_cut) for (a, b), size in smallest.items() if size >= enough
    )
    assert min(sizes(cut, arousal)) >= enough
    moved = abs(cut.first_cut - thirds.first_cut) + abs(cut.second_cut - thirds.second_cut)
    assert moved == pytest.approx(best, abs=1e-12)


@given(some_values)
def test_balanced_cuts_are_the_paper_s_where_every_level_has_enough(values):
    arousal = np.array(values)
    thirds = equal_thirds(arousal)
    assert balanced_cuts(arousal, max(1, min(sizes(thirds, arousal)))) == thirds or 0 in sizes(thirds, arousal)


def test_balanced_cuts_move_only_the_cut_of_the_rare_level():
    arousal = np.concatenate([[-0.6, -0.3], np.linspace(-0.19, 0.59, 40), np.linspace(0.21, 0.6, 20)])
    thirds, cut = equal_thirds(arousal), balanced_cuts(arousal, 10)
    assert sizes(thirds, arousal)[0] == 2
    assert sizes(cut, arousal)[0] == 10
    assert cut.first_cut > thirds.first_cut
    assert cut.second_cut == thirds.second_cut


def test_values_outside_the_range_are_refused():
    with pytest.raises(DataError, match="outside"):
        equal_thirds(np.array([0.0, 0.5])).level(np.array([0.6]))
    for rule in RULES.values():
        with pytest.raises(DataError, match="-2"):
            rule(np.array([0.0, -2.0]))
        with pytest.raises(DataError, match="at least one"):
            rule(np.array([]))


@pytest.mark.parametrize("rule", RULES)
def test_unannotated_and_uncertain_rows_never_move_the_cuts(rule):
    rows = pd.DataFrame(
        {
            "emotion_code": [1, 1, 1, 1, 8, 9, 10, 1],
            "arousal": [-0.3, 0.0, 0.3, -2.0, -1.0, 1.0, 1.0, np.nan],
        }
    )
    good = is_usable(rows)
    assert good.tolist() == [True] * 3 + [False] * 5
    levels, bounds = arousal_levels(rows[good], rule)
    assert levels.tolist() == [1, 2, 3]
    assert (bounds[Emotion.HAPPY].lowest, bounds[Emotion.HAPPY].highest) == (-0.3, 0.3)
    with pytest.raises(DataError, match="is_usable"):
        arousal_levels(rows, rule)


def test_each_category_has_cuts_of_its_own():
    rows = pd.DataFrame({"emotion_code": [0, 0, 6, 6], "arousal": [-0.9, 0.0, 0.0, 0.9]})
    levels, bounds = arousal_levels(rows)
    assert levels.tolist() == [1, 3, 1, 3]
    assert set(bounds) == {Emotion.NEUTRAL, Emotion.ANGER}


def test_an_unknown_rule_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match="'thirds'; expected one of: equal, quantile, balanced"):
        arousal_levels(pd.DataFrame({"emotion_code": [0], "arousal": [0.0]}), "thirds")


def _available(emotion: Emotion) -> np.ndarray:
    """As many arousal values in each third of -0.6..0.9 as Table 1 says, more than 500 where it says 500."""
    counts = [
        count if count < 500 else 500 + 37 * (emotion + 1) * level for level, count in enumerate(TABLE_1[emotion], 1)
    ]
    inside = [
        np.linspace(-0.6 + 0.5 * third, -0.1 + 0.5 * third, count, endpoint=third == 2)
        for third, count in enumerate(counts)
    ]
    return np.concatenate(inside)


def test_availability_as_in_table_1_gives_table_1(tmp_path):
    rows = pd.concat([pd.DataFrame({"emotion_code": int(e), "arousal": _available(e)}) for e in Emotion])
    rows = rows.sample(frac=1, random_state=0).reset_index(drop=True)
    ids = [f"{n % 900}/{n:06d}.jpg" for n in range(len(rows))]
    rows = rows.assign(source_id=ids, path=ids, split="train", valence=0.0)
    rows[["face_x", "face_y", "face_width", "face_height"]] = np.nan
    settings = SelectSettings(per_level=500, levels="equal", near_duplicate_bits=0, pool=0, max_rejects=0)
    chosen = select(rows, tmp_path, settings, 0, _all_good).index
    counts = chosen.groupby(["emotion", "level"]).size()
    assert {e: tuple(int(counts[e.label, level]) for level in LEVELS) for e in Emotion} == TABLE_1
    assert len(chosen) == 10_736


def _all_good(paths):
    digests = [hashlib.sha256(path.name.encode()).hexdigest() for path in paths]
    return [ImageCheck(content_sha256=digest, perceptual_hash=digest) for digest in digests]
