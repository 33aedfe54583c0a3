"""Laws of the order of names."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecavatar.storage.names import name_order, repeated_names

some_names = st.lists(
    st.text(st.sampled_from("ab/\0é世"), max_size=12) | st.sampled_from(["1191/3a0", "1191/3a08", "1191/3a0807"]),
    max_size=30,
)


@given(some_names)
def test_names_are_ordered_as_python_sorts_them_and_equal_ones_keep_their_order(names):
    expected = sorted(range(len(names)), key=lambda row: names[row])
    assert name_order(pd.Series(names, dtype="str")).tolist() == expected


@given(some_names)
def test_a_name_is_repeated_where_an_earlier_row_has_it(names):
    assert repeated_names(pd.Series(names, dtype="str")).tolist() == [
        name in names[:row] for row, name in enumerate(names)
    ]


@given(some_names, st.integers(0, 5))
def test_a_part_of_a_column_is_ordered_like_a_column_of_its_own(names, start):
    column = pa.chunked_array([pa.array(names[:3], pa.string()), pa.array(names[3:], pa.string())]).slice(start)
    assert name_order(column).tolist() == name_order(pd.Series(names[start:], dtype="str")).tolist()


@pytest.mark.parametrize("alike", [True, False])
def test_many_names_come_out_sorted(alike):
    rng = np.random.default_rng(0)
    names = [f"{'train_set/images/' if alike else ''}{number}.jpg" for number in rng.integers(0, 3000, 5000)]
    assert [names[row] for row in name_order(pd.Series(names))] == sorted(names)
    assert repeated_names(pd.Series(names)).sum() == 5000 - len(set(names))
