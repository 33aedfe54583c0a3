"""Laws of EMICA's networks: the published names, shapes and counts, and the published arithmetic."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import ResNetConfig, ResNetModel

from ecavatar.errors import DataError, ShapeError
from ecavatar.reconstruction.emica.networks import (
    SIZES,
    VARIANTS,
    ArcFaceBlock,
    EmicaNetworks,
    MappingNetwork,
    ResNet50,
    meta_networks,
    variant_of_widths,
)
from tests.fabricate_emica import lightning_key


@pytest.fixture(scope="module")
def listed(shared_data: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Repackaged key -> Lightning key and shape, as the project's reference lists them."""
    path = shared_data.parent / "reference" / "emica_expected_keys.tsv"
    if not path.is_file():
        pytest.skip("../shared/reference/emica_expected_keys.tsv is not beside this checkout")
    rows = [line.split("\t") for line in path.read_text().splitlines() if not line.startswith("#")]
    return {
        plain: (lightning, () if shape == "scalar" else tuple(map(int, shape.split("x"))))
        for plain, lightning, shape in rows
    }


def _parameters(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_keys_and_shapes_are_the_published_ones(listed):
    state = meta_networks(VARIANTS[0]).state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == {k: shape for k, (_, shape) in listed.items()}
    assert {key: lightning_key(key) for key in state} == {key: lightning for key, (lightning, _) in listed.items()}


def test_counts_are_the_published_ones():
    networks = meta_networks(VARIANTS[0])
    assert _parameters(networks.deca_encoder) == 25_694_358
    assert _parameters(networks.expression_encoder) == 25_708_708
    assert _parameters(networks.mica_encoder.E_mica["arcface"]) == 65_156_160
    assert _parameters(networks.mica_encoder.E_mica["flameModel"]) == 515_100
    state = networks.state_dict()
    assert len(state) == 1579
    assert sum(tensor.numel() for tensor in state.values()) == 117_250_458
    assert len(networks.mica_encoder.E_mica["arcface"].state_dict()) == 925


@pytest.mark.parametrize(
    ("widths", "name"),
    [((86, 100), "jaw-coarse"), ((83, 103), "jaw-expression"), ((186, 0), "single"), ((83, 100), "no-jaw")],
)
def test_a_variant_is_known_by_its_widths_and_splits_all_outputs(widths, name):
    variant = variant_of_widths(*widths)
    assert variant.name == name
    assert variant.widths == widths
    given = [*variant.coarse, *variant.expression]
    assert sorted(given) == sorted(set(SIZES) - ({"jawpose"} if name == "no-jaw" else set()))


@pytest.mark.parametrize("widths", [(236, 0), (86, 103), (86, 0), (1000, 100)])
def test_other_widths_are_refused_with_what_was_seen(widths):
    with pytest.raises(DataError, match=f"{widths[0]} and {widths[1]} outputs"):
        variant_of_widths(*widths)


@pytest.mark.slow
def test_resnet_agrees_with_an_independent_one():
    torch.manual_seed(3)
    theirs, ours = ResNetModel(ResNetConfig()).eval(), ResNet50().eval()
    state = {}
    for key, tensor in theirs.state_dict().items():
        parts = key.split(".")
        leaf = parts[-1]
        norm = "convolution" not in parts
        if parts[0] == "embedder":
            name = "bn1" if norm else "conv1"
        else:
            place = f"layer{int(parts[2]) + 1}.{parts[4]}"
            inner = (
                f"{'bn' if norm else 'conv'}{int(parts[6]) + 1}" if parts[5] == "layer" else f"downsample.{int(norm)}"
            )
            name = f"{place}.{inner}"
        if leaf == "running_mean":
            tensor = torch.randn(tensor.shape) * 0.1
        elif leaf == "running_var":
            tensor = torch.rand(tensor.shape) + 0.5
        state[f"{name}.{leaf}"] = tensor
        theirs.state_dict()[key].copy_(tensor)
    ours.load_state_dict(state, strict=True)
    image = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        expected, found = theirs(image).pooler_output.flatten(1), ours(image)
    assert expected.std() > 0.01
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_arcface_block_does_what_its_paper_says(stride):
    torch.manual_seed(0)
    block, x = ArcFaceBlock(4, 4 if stride == 1 else 6, stride).eval(), torch.randn(2, 4, 8, 8)

    def norm(layer, values):
        return functional.batch_norm(values, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=1e-5)

    for layer in (block.bn1, block.bn2, block.bn3):
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
    inner = functional.conv2d(norm(block.bn1, x), block.conv1.weight, padding=1)
    inner = functional.prelu(norm(block.bn2, inner), block.prelu.weight)
    inner = norm(block.bn3, functional.conv2d(inner, block.conv2.weight, stride=stride, padding=1))
    shortcut = x
    if stride == 2:
        projection, layer = block.downsample
        shortcut = norm(layer, functional.conv2d(x, projection.weight, stride=2))
    assert torch.allclose(block(x), inner + shortcut, atol=1e-6)


def test_mapping_network_ends_without_activation():
    torch.manual_seed(0)
    network, embedding = MappingNetwork(), torch.randn(3, 512)
    hidden = embedding
    for layer in network.network:
        hidden = layer(hidden)
        hidden = torch.where(hidden > 0, hidden, 0.2 * hidden)
    assert torch.allclose(network(embedding), network.output(hidden), atol=1e-6)


def test_wrong_sizes_of_pictures_are_refused():
    with torch.device("meta"):
        networks = EmicaNetworks(VARIANTS[0])
        with pytest.raises(ShapeError, match="224"):
            networks(torch.zeros(1, 3, 112, 112), torch.zeros(1, 3, 112, 112))
        with pytest.raises(ShapeError, match="112"):
            networks(torch.zeros(2, 3, 224, 224), torch.zeros(1, 3, 112, 112))
