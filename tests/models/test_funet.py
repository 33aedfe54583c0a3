"""FuNet's network, losses and closed form."""

import numpy as np
import pytest
import torch

from ecavatar.errors import DataError, ShapeError
from ecavatar.face.regions import FusionRegions
from ecavatar.models.funet import TERMS, FuNet, FusionLoss, blend

V = 12
REGIONS = FusionRegions(lips=np.arange(0, 3), chin=np.arange(3, 6), face=np.arange(6, 9), outside=np.arange(9, 12))


def meshes(count=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, count, V, 3, generator=generator) * 0.1


def test_full_size_has_the_papers_number_of_parameters():
    with torch.device("meta"):  # nothing is allocated
        network = FuNet(n_vertices=5023, channels=[256, 128, 64], hidden=8192)
    assert sum(parameter.numel() for parameter in network.parameters()) == 371_616_478


def test_convolutions_keep_the_picture_and_their_order_is_table_2():
    network = FuNet(n_vertices=V, channels=[5, 4, 3], hidden=7)
    widths = [m.out_channels for m in network.convolutions.modules() if isinstance(m, torch.nn.Conv2d)]
    assert widths == [5, 4, 4, 4, 4, 4, 4, 4, 3, 1]
    assert network.convolutions(torch.zeros(2, 1, V, 6)).shape == (2, 1, V, 6)


def test_blend_minimises_the_loss():
    lip, emotional = meshes()
    loss = FusionLoss(REGIONS)
    fused = blend(lip, emotional, REGIONS).requires_grad_()
    loss(fused, lip, emotional)["loss"].backward()
    assert fused.grad.abs().max() < 1e-8
    lowest = loss(fused, lip, emotional)["loss"]
    for seed in range(5):
        other = fused + 0.01 * meshes(seed=seed + 1)[0]
        assert loss(other, lip, emotional)["loss"] > lowest


def test_losses_by_hand():
    lip, emotional, fused = torch.zeros(1, V, 3), torch.full((1, V, 3), 2.0), torch.ones(1, V, 3)
    parts = FusionLoss(REGIONS)(fused, lip, emotional)
    assert {name: value.item() for name, value in parts.items()} == pytest.approx(
        {"lip": 3, "chin": 3, "expression": 3, "identity": 3, "loss": 12}
    )
    assert FusionLoss(REGIONS, reduction="sum")(fused, lip, emotional)["loss"].item() == pytest.approx(36)


@pytest.mark.parametrize("term", TERMS)
def test_a_switched_off_term_leaves_the_total(term):
    lip, emotional = meshes()
    parts = FusionLoss(REGIONS, terms=[name for name in TERMS if name != term])(lip * 0.5, lip, emotional)
    assert parts["loss"].item() == pytest.approx(sum(parts[name].item() for name in TERMS if name != term), rel=1e-6)


def test_normalisation_is_inverted_and_travels_with_the_weights():
    lip, emotional = meshes(50)
    network = FuNet(n_vertices=V, channels=[2, 2, 2], hidden=4)
    network.set_normalisation(lip, emotional, blend(lip, emotional, REGIONS))
    for parameter in network.spread.parameters():
        torch.nn.init.zeros_(parameter)
    expected = blend(lip, emotional, REGIONS).mean(dim=0).expand(50, V, 3)
    torch.testing.assert_close(network(lip, emotional), expected, atol=1e-6, rtol=0)
    assert {"lip_mean", "output_scale"} <= set(network.state_dict())


def test_residual_starts_from_the_lip_mesh():
    lip, emotional = meshes()
    network = FuNet(n_vertices=V, channels=[2, 2, 2], hidden=4, residual="lip")
    for parameter in network.spread.parameters():
        torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(network(lip, emotional), lip)


def test_wrong_input_is_refused():
    lip, emotional = meshes()
    network = FuNet(n_vertices=V, channels=[2, 2, 2], hidden=4)
    with pytest.raises(ShapeError):
        network(lip, emotional[:, :-1])
    with pytest.raises(ShapeError):
        blend(lip, emotional[:2], REGIONS)
    with pytest.raises(DataError):
        FusionLoss(REGIONS, terms=[])
    with pytest.raises(DataError):
        FusionLoss(REGIONS, terms=["mouth"])
    with pytest.raises(DataError):
        FuNet(n_vertices=V, channels=[2, 2], hidden=4)
    with pytest.raises(DataError, match="vary"):
        network.set_normalisation(lip * 0, emotional * 0, lip * 0)
