"""Laws of the vertex errors."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.multimodal.lve import lip_vertex_error as torchmetrics_lve

from ecavatar.errors import ShapeError
from ecavatar.evaluation.confidence import subject_bootstrap
from ecavatar.evaluation.vertex_error import emotional_vertex_error, lip_vertex_error, trim_to_shorter


def test_lip_error_is_the_largest_squared_distance_of_each_frame() -> None:
    truth = np.zeros((2, 4, 3))
    predicted = truth.copy()
    predicted[0, 1] = [3e-3, 4e-3, 0]  # 5 mm
    predicted[0, 2] = [1e-3, 0, 0]
    predicted[1, 3] = [1.0, 0, 0]  # outside the lips
    assert lip_vertex_error(predicted, truth, np.array([1, 2])) == pytest.approx([25e-6, 0])


def test_mean_lip_error_agrees_with_torchmetrics() -> None:
    rng = np.random.default_rng(3)
    predicted, truth = rng.normal(size=(2, 17, 40, 3))
    lips = np.array([2, 5, 9, 31])
    oracle = torchmetrics_lve(torch.tensor(predicted), torch.tensor(truth), lips.tolist())
    assert lip_vertex_error(predicted, truth, lips).mean() == pytest.approx(float(oracle), rel=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_emotional_error_ignores_identity(seed: int) -> None:
    rng = np.random.default_rng(seed)
    motion = rng.normal(size=(3, 6, 3))
    one, other = rng.normal(size=(2, 6, 3))
    region = np.array([0, 4])
    assert emotional_vertex_error(one + motion, one, other + motion, other, region).max() < 1e-20


def test_frame_counts_must_be_cut_on_purpose() -> None:
    predicted, truth = np.zeros((5, 2, 3)), np.zeros((7, 2, 3))
    with pytest.raises(ShapeError, match="trim_to_shorter"):
        lip_vertex_error(predicted, truth, np.array([0]))
    short, cut, dropped = trim_to_shorter(predicted, truth)
    assert (len(short), len(cut), dropped) == (5, 5, 2)


def test_bootstrap_resamples_subjects_and_contains_the_mean() -> None:
    clips = pd.DataFrame({"subject": list("aabbcc"), "frames": [10, 20] * 3, "lve": [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]})
    low, high = subject_bootstrap(clips, "lve", samples=2000, seed=0)
    assert low < 2 < high
    assert low >= 1
    assert high <= 3
    alone = subject_bootstrap(clips[clips.subject == "b"], "lve", samples=50, seed=0)
    assert alone == (2.0, 2.0)
