"""Laws of motions and of the transitions between emotions."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecavatar.animation.motion import Motion, read_motion, resampled, write_motion
from ecavatar.animation.transitions import transition_weights
from ecavatar.errors import ConfigError, DataError, ShapeError, TopologyError


def straight_motion(frames: int, fps: float) -> Motion:
    time = np.arange(frames, dtype=np.float32)[:, None, None] / fps
    vertices = np.broadcast_to(time, (frames, 5, 3)).astype(np.float32)
    return Motion(vertices=vertices, fps=fps, topology="toy", template=np.zeros((5, 3), np.float32))


def test_motion_survives_the_file_bit_for_bit(tmp_path: Path) -> None:
    motion = straight_motion(7, 30)
    write_motion(tmp_path / "m.npz", motion)
    again = read_motion(tmp_path / "m.npz")
    assert np.array_equal(again.vertices, motion.vertices)
    assert (again.fps, again.topology) == (30, "toy")
    (tmp_path / "bad.npz").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="not a motion"):
        read_motion(tmp_path / "bad.npz")


def test_motions_of_other_topologies_are_refused() -> None:
    with pytest.raises(TopologyError):
        straight_motion(2, 30).require_topology("flame")
    with pytest.raises(ShapeError):
        Motion(vertices=np.zeros((2, 5, 3)), fps=30, topology="toy", template=np.zeros((4, 3)))


@given(st.sampled_from([24.0, 25.0, 30.0, 60.0]))
def test_resampling_keeps_time(fps: float) -> None:
    motion = straight_motion(61, 30)
    frames = int(2 * fps) + 1
    again = resampled(motion, fps, frames)
    assert again.vertices[:, 0, 0] == pytest.approx(np.arange(frames) / fps, abs=1e-5)


@given(st.integers(1, 5), st.floats(0.0, 0.5), st.sampled_from([25.0, 30.0]))
def test_transition_weights_mix_at_most_two_neighbours_and_sum_to_one(
    windows: int, transition: float, fps: float
) -> None:
    weights = transition_weights(
        [2.0 * k for k in range(windows)], 2.0 * windows, round(2 * windows * fps), fps, transition
    )
    assert weights.sum(axis=1) == pytest.approx(1)
    assert weights.min() >= 0
    assert ((weights > 0).sum(axis=1) <= 2).all()
    assert weights[0, 0] == 1
    assert weights[-1, -1] == 1


def test_transition_is_one_linear_blend_across_the_border() -> None:
    weights = transition_weights([0, 2], 4, 120, 30, 0.2)[:, 1]
    blend = 12
    assert weights[60 - 6 : 60 + 6] == pytest.approx(np.arange(1, blend + 1) / blend)
    assert (weights[:54] == 0).all()
    assert (weights[66:] == 1).all()
    assert np.abs(np.diff(weights)).max() <= 1 / blend + 1e-12  # no jump back


def test_windows_too_short_for_two_transitions_are_refused() -> None:
    with pytest.raises(ConfigError, match="shorter than two transitions"):
        transition_weights([0, 0.5], 1.0, 30, 30, 0.3)
