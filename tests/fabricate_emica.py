"""Random EMICA checkpoints in both published packagings: right names and shapes, usable numbers, a few megabytes.

All weights are windows into three small stretches of noise, so that a file of 117 million numbers stays small. The
normalisation layers carry the spread that such weights give, so signals neither vanish nor explode, and the camera's
bias puts a face into the middle of the crop.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ecavatar.reconstruction.emica.networks import N_SHAPE, SIZES, EmicaNetworks, Variant, meta_networks

CAMERA = (8.0, 0.0, 0.0)
_AFTER = {"bn1": "conv1", "bn2": "conv2", "bn3": "conv3", "downsample.1": "downsample.0"}
_AFTER_IN_ARCFACE_BLOCK = {"bn2": "conv1", "bn3": "conv2", "downsample.1": "downsample.0"}
_STEP = 97


class TrainingSettings:
    """Stands for the arbitrary objects that a training framework pickles; reading it would be noticed."""

    def __init__(self) -> None:
        self.losses = {"lip_reading": 0.5}

    def __setstate__(self, state: dict) -> None:
        raise RuntimeError("an object of the checkpoint was built")


class FixedOutputs(nn.Module):
    """In place of networks: gives the same outputs, by their names there, for whatever it sees; None leaves one out."""

    def __init__(self, **outputs: Sequence[float] | np.ndarray | None) -> None:
        super().__init__()
        sizes = {"shapecode": N_SHAPE} | {name: size for name, size in SIZES.items() if name != "texcode"}
        chosen = {name: outputs.get(name, np.zeros(size)) for name, size in sizes.items()}
        self.outputs = {
            name: torch.as_tensor(np.asarray(values), dtype=torch.float32)
            for name, values in chosen.items()
            if values is not None
        }

    def forward(self, crops: Tensor, faces: Tensor) -> dict[str, Tensor]:
        """The outputs, once per face."""
        return {name: values.expand(len(crops), -1) for name, values in self.outputs.items()}


def emica_tensors(variant: Variant, seed: int = 0) -> dict[str, Tensor]:
    """The tensors of one variant by repackaged key."""
    shapes = {key: tuple(tensor.shape) for key, tensor in meta_networks(variant).state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(300_000, generator=generator)
    scaled = {"conv": noise, "regressor": noise * 0.08, "layers.0": noise * 0.02, "layers.2": noise * 0.002}
    return {key: _tensor(key, shape, shapes, scaled, variant) for key, shape in shapes.items()}


def random_networks(variant: Variant, seed: int = 0) -> EmicaNetworks:
    """Networks with these tensors, in evaluation mode."""
    networks = meta_networks(variant)
    networks.load_state_dict(emica_tensors(variant, seed), strict=True, assign=True)
    return networks.eval()


def lightning_key(key: str) -> str:
    """The key of the training framework's packaging."""
    is_expression = key.startswith("expression_encoder.")
    return f"face_encoder.{key}" if is_expression else f"face_encoder.mica_deca_encoder.{key}"


def write_plain(path: Path, tensors: dict[str, Tensor]) -> Path:
    """The packaging of trackers: nothing but tensors."""
    torch.save(tensors, path)
    return path


def write_lightning(path: Path, tensors: dict[str, Tensor], extra: dict | None = None) -> Path:
    """The packaging of the training framework: objects, optimiser states, FLAME and losses beside the networks."""
    beside = {
        "shape_model.flame.v_template": torch.zeros(1).expand(5023, 3),
        "shape_model.flame.faces_tensor": torch.zeros(1, dtype=torch.long).expand(9976, 3),
        "renderer.uv_coords": torch.zeros(1).expand(1, 5023, 2),
        "face_encoder.mica_deca_encoder.mica_encoder.E_mica.flameModel.generator.betas": torch.zeros(1, 300),
        "lip_reading_loss.model.weight": torch.zeros(3),
    }
    content = {
        "epoch": 11,
        "pytorch-lightning_version": "1.4.9",
        "state_dict": {lightning_key(key): tensor for key, tensor in tensors.items()} | beside,
        "optimizer_states": [{"state": {0: {"step": 5, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}],
        "hyper_parameters": {"cfg": TrainingSettings()},
    }
    torch.save(content | (extra or {}), path)
    return path


def _tensor(
    key: str, shape: tuple[int, ...], shapes: dict[str, tuple[int, ...]], noise: dict[str, Tensor], variant: Variant
) -> Tensor:
    layer, _, leaf = key.rpartition(".")
    if leaf == "num_batches_tracked":
        return torch.tensor(1000)
    if leaf == "running_var":
        return torch.tensor(_spread(layer, shapes)).expand(shape)
    if leaf == "weight" and len(shape) > 1:
        kind = next((kind for kind in noise if kind in key), "conv")
        return _windows(noise[kind], shape)
    if leaf == "weight":
        is_branch_end = layer.endswith("bn3") or "prelu" in layer
        return torch.tensor(0.3 if is_branch_end else 1.0).expand(shape)
    if key == "deca_encoder.encoder.layers.2.bias":
        return _with_camera(torch.zeros(shape), variant)
    return torch.zeros(1).expand(shape)


def _windows(noise: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor whose rows are overlapping windows into the noise."""
    inner = [math.prod(shape[axis + 1 :]) for axis in range(1, len(shape))]
    return noise.as_strided(shape, (_STEP, *inner))


def _spread(layer: str, shapes: dict[str, tuple[int, ...]]) -> float:
    """Variance of what reaches a normalisation layer: the number of inputs of the layer before it."""
    is_arcface_block = ".arcface.layer" in layer
    parent, name = layer.rsplit(".", 1)
    if name == "1":
        parent, name = layer.removesuffix("downsample.1").removesuffix("."), "downsample.1"
    if name == "features":
        return float(math.prod(shapes[f"{parent}.fc.weight"][1:]))
    before = (_AFTER_IN_ARCFACE_BLOCK if is_arcface_block else _AFTER).get(name)
    inputs = shapes.get(f"{parent}.{before}.weight", (1, 1))
    return float(math.prod(inputs[1:]))


def _with_camera(bias: Tensor, variant: Variant) -> Tensor:
    first = sum(SIZES[name] for name in variant.coarse[: variant.coarse.index("cam")])
    bias[first : first + 3] = torch.tensor(CAMERA)
    return bias
