"""Steps of the optimiser: every item once, groups that do not depend on how they are cut, like lengths together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecavatar.training.steps import plan_epoch, shares_of
from tests.fabricate_training import FramesObjective


@given(
    items=st.integers(1, 80), batch=st.integers(1, 9), batches=st.integers(1, 5), bucket=st.booleans(),
    epoch=st.integers(0, 3),
)  # fmt: skip
def test_every_item_comes_once_in_full_batches(items, batch, batches, bucket, epoch):
    lengths = [(7 * item) % 13 for item in range(items)] if bucket else None
    steps = plan_epoch(items, 1, "x", epoch, batch=batch, batches=batches, lengths=lengths)
    assert sorted(item for step in steps for piece in step for item in piece) == list(range(items))
    assert len(steps) == -(-items // (batch * batches))
    sizes = [[len(piece) for piece in step] for step in steps]
    assert sum(sum(step) < batch * batches for step in sizes) <= 1
    assert all(size == batch for step in sizes for size in step[:-1])
    whole = plan_epoch(items, 1, "x", epoch, batch=batch * batches, batches=1, lengths=lengths)
    assert [[item for piece in step for item in piece] for step in steps] == [step[0] for step in whole]


def test_buckets_hold_like_lengths_in_another_order_every_epoch():
    lengths = [(37 * item) % 101 for item in range(96)]

    def spread(bucketed):
        steps = plan_epoch(96, 1, "x", 0, batch=6, batches=1, lengths=lengths if bucketed else None)
        return sum(max(lengths[i] for i in step[0]) - min(lengths[i] for i in step[0]) for step in steps)

    assert spread(True) < 0.15 * spread(False)
    first, again, second = (plan_epoch(96, 1, "x", e, batch=6, batches=1, lengths=lengths) for e in (0, 0, 1))
    assert first == again != second
    means = [sum(lengths[i] for i in step[0]) for step in first]
    assert means != sorted(means), "steps must not come in order of length"


def test_shares_of_a_step_add_up_to_one_for_every_loss():
    objective = FramesObjective()
    shares = shares_of(objective, [[0, 1], [2], [3, 4, 5]])
    for name in ("", "place", "speed"):
        assert sum(share[name] for share in shares) == pytest.approx(1)
    frames = objective.lengths()
    assert shares[1]["place"] == pytest.approx(frames[2] / sum(frames[:6]))
    assert shares[1]["speed"] == pytest.approx((frames[2] - 1) / (sum(frames[:6]) - 6))
    assert shares[1][""] == pytest.approx(1 / 6)


def test_a_loss_that_no_batch_has_anything_for_counts_nothing():
    objective = FramesObjective()
    objective.weight = lambda items: {"text": 0}
    assert [share["text"] for share in shares_of(objective, [[0], [1]])] == [0, 0]
