"""Weights on disk: safetensors beside a json that says how to build the network and what it was trained on.

`<stem>.safetensors` holds the tensors, `<stem>.json` the network's class, its constructor arguments and facts
(topology, basis, data hash, ...). Neither holds code, times or paths, so equal training gives equal bytes.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.storage.files import atomic_path, read_json, write_json

_FORMAT = "ecavatar-weights-1"
Network = TypeVar("Network", bound=nn.Module)


class Restorable(Protocol):
    """A network that can say with which arguments it was built."""

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments, json values only."""
        ...

    def state_dict(self) -> Mapping[str, Tensor]:
        """All parameters and persistent buffers."""
        ...


def save_weights(directory: Path, model: Restorable, facts: Mapping[str, Any], stem: str = "model") -> None:
    """Write a network, each of its two files whole or not at all (tensors first).

    Args:
        directory: made when missing.
        model: `arguments()` must rebuild it.
        facts: json values that a user of the weights has to know.
        stem: file name without ending.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_path(Path(directory) / f"{stem}.safetensors") as temporary:
        temporary.write_bytes(save(tensors))
    description = {
        "format": _FORMAT,
        "class": type(model).__name__,
        "arguments": model.arguments(),
        "facts": dict(facts),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
    }
    write_json(Path(directory) / f"{stem}.json", description)


@dataclasses.dataclass(frozen=True, slots=True)
class Weights:
    """What a weights directory holds."""

    arguments: dict[str, Any]
    facts: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    """Of the tensors, by name."""
    path: Path
    """Where they are."""

    def copy_into(self, state: Mapping[str, Tensor]) -> None:
        """Fill a network's tensors, each of which the file holds, one by one: little more than the network is held."""
        with torch.no_grad():
            for name, target in state.items():
                with safe_open(
                    self.path, "pt"
                ) as file:  # opened anew each time, so that pages that were read are freed
                    target.copy_(file.get_tensor(name))


def read_weights(directory: Path, class_name: str, stem: str = "model") -> Weights:
    """Description and tensors' shapes of a network of this class.

    Raises:
        AssetMissingError: a file is missing.
        DataError: a file is broken, or holds a network of another class.
    """
    description = read_json(Path(directory) / f"{stem}.json")
    if description.get("format") != _FORMAT or description.get("class") != class_name:
        raise DataError(
            f"{directory}: expected {class_name} in format {_FORMAT}, found {description.get('class')!r} in "
            f"{description.get('format')!r}. Give the directory that its training stage wrote."
        )
    path = Path(directory) / f"{stem}.safetensors"
    if not path.is_file():
        raise AssetMissingError(f"{path} not found. Run the training stage again.")
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a whole safetensors file ({error}). Run the training stage again.") from None
    return Weights(description["arguments"], description["facts"], shapes, path)


def load_weights(directory: Path, cls: type[Network], stem: str = "model") -> tuple[Network, dict[str, Any]]:
    """The network written by `save_weights`, in evaluation mode on the CPU, and its facts.

    Raises:
        AssetMissingError: a file is missing.
        DataError: a file is broken, the class differs, or tensors are missing, surplus or of another shape (named).
    """
    weights = read_weights(directory, cls.__name__, stem)
    try:
        model = cls(**weights.arguments)
    except TypeError as error:
        raise DataError(f"{directory}: the arguments do not fit {cls.__name__} ({error}). Train it again.") from None
    expected = model.state_dict()
    problems = [f"{name} is missing" for name in sorted(set(expected) - set(weights.shapes))]
    problems += [f"{name} is not part of the network" for name in sorted(set(weights.shapes) - set(expected))]
    problems += [
        f"{name} has shape {shape}, expected {tuple(expected[name].shape)}"
        for name, shape in sorted(weights.shapes.items())
        if name in expected and tuple(expected[name].shape) != shape
    ]
    if problems:
        listed = "\n  ".join(problems[:8])
        raise DataError(f"{directory}: weights do not fit {cls.__name__}, {len(problems)} problem(s):\n  {listed}")
    weights.copy_into(expected)
    return model.eval(), weights.facts
