"""FuNet's closed-form start."""

import numpy as np
import pytest
import torch

from ecavatar.errors import DataError
from ecavatar.face.regions import FusionRegions
from ecavatar.models.funet import FuNet, blend
from ecavatar.training.warm_start import solve_linear_layers, start_linear, warm_start

V = 12
REGIONS = FusionRegions(lips=np.arange(0, 3), chin=np.arange(3, 6), face=np.arange(6, 9), outside=np.arange(9, 12))


def examples(count, rank=6):
    """Meshes that vary in `rank` directions each, as faces do."""
    basis = torch.randn(2, rank, V, 3, generator=torch.Generator().manual_seed(1))
    weights = torch.randn(2, count, rank, generator=torch.Generator().manual_seed(count))
    lip, emotional = 0.01 * torch.einsum("knr,krvc->knvc", weights, basis)
    return lip, emotional, blend(lip, emotional, REGIONS)


@pytest.mark.parametrize("residual", ["none", "lip"])
def test_unseen_meshes_are_fused_nearly_as_the_closed_form_does(residual):
    torch.manual_seed(0)
    network = FuNet(n_vertices=V, channels=[4, 4, 2], hidden=16, residual=residual)
    network.set_normalisation(*examples(200))
    warm_start(network, *examples(200))
    lip, emotional, expected = examples(50)
    error = (network(lip, emotional) - expected).square().mean().sqrt()
    assert error < 0.1 * expected.std()


def test_convolutions_start_linear():
    torch.manual_seed(0)
    network = FuNet(n_vertices=V, channels=[4, 4, 2], hidden=16)
    x = torch.randn(64, 1, V, 6)
    start_linear(network, x)
    y, zero = network.convolutions(x), network.convolutions(0 * x)
    half = network.convolutions(0.5 * x)
    torch.testing.assert_close(half - zero, 0.5 * (y - zero), atol=0.02, rtol=0.02)


def test_linear_layers_are_the_least_squares_solution_when_the_hidden_layer_is_wide_enough():
    torch.manual_seed(0)
    network = FuNet(n_vertices=V, channels=[2, 2, 2], hidden=40)
    features, true_map = torch.randn(500, V * 6), torch.randn(V * 6, V * 3)
    target = features @ true_map + 3
    solve_linear_layers(network, features, target)
    torch.testing.assert_close(network.spread(network.gather(features)), target, atol=0.02, rtol=0.02)


def test_too_few_examples_are_refused():
    with pytest.raises(DataError, match="two examples"):
        warm_start(FuNet(n_vertices=V, channels=[2, 2, 2], hidden=4), *examples(1))
