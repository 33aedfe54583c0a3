"""EMICA's checkpoints: both packagings recognised, checked tensor by tensor, converted once to safetensors.

Packagings: the training framework's (`state_dict` among other things, long prefixes) and the plain state dict that
trackers pass on. In both, the networks are found by the ends of their keys, so any prefix will do.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.reconstruction.emica.networks import (
    SIZES,
    EmicaNetworks,
    Variant,
    meta_networks,
    variant_of_widths,
)
from ecavatar.storage.files import atomic_path, sha256_file
from ecavatar.storage.torch_file import StoredTensor, TorchFile, open_torch_file

FORMAT = "ecavatar-emica-1"
DEFAULT_BASIS = "flame2020"
NO_JAW_BASIS = "flame2023-nojaw"
PUBLISHED = "EMICA-CVT_flame2020_notexture"
_TREES = {
    "mica_encoder.": "E_mica.arcface.conv1.weight",
    "deca_encoder.": "encoder.encoder.conv1.weight",
    "expression_encoder.": "encoder.encoder.conv1.weight",
}
"""The networks' names, and the key by which each is found."""
_HEAD = "encoder.layers.2.bias"
_GENERATOR = "E_mica.flameModel.generator."
_IGNORED = ("shape_model", "renderer", "losses", "metrics")
"""Parts that may stand beside networks without prefix: FLAME, the renderer, losses. Beside prefixed ones, all may."""
_LISTED = 6
_COUNTER = "num_batches_tracked"  # the only whole numbers among the weights


@dataclass(frozen=True, slots=True)
class _Found:
    """The networks' tensors under the repackaged keys, and what was left aside."""

    tensors: dict[str, StoredTensor]
    ignored: dict[str, int]
    """Number of tensors by the first part of their key."""
    unexpected: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A user's checkpoint that was found to be whole; its weights are still in the file."""

    file: TorchFile
    tensors: dict[str, StoredTensor]
    """By repackaged key: exactly those of the variant's networks, in their order."""
    variant: Variant
    packaging: str
    """`lightning` (other things beside `state_dict`) or `plain`."""
    basis: str
    basis_from: str
    """What says so."""
    ignored: dict[str, int]
    """Tensors left aside, counted by the first part of their key."""


def open_checkpoint(source: Path) -> Checkpoint:
    """The user's checkpoint, recognised and checked by names and shapes; nothing in it is run.

    The file `cfg.yaml` beside the checkpoint, or beside its folder `checkpoints`, is read where there is one: it gives
    the order of the outputs and the face model. Otherwise the order follows from the widths of the last layers, and the
    basis from the names of file and folders (flame2020 where they say nothing; flame2023-nojaw without jaw outputs).

    Args:
        source: `*.ckpt` as trained or `*.pt` as repackaged.

    Raises:
        AssetMissingError: no such file.
        DataError: not such a checkpoint, of another model, or with missing, surplus or misshapen tensors; all problems
            in one message. See also `open_torch_file`.
    """
    file = open_torch_file(source)
    state, packaging = _state_dict(file)
    found = _found(state, source)
    config = _read_config(source)
    variant = _variant(found.tensors, config, source)
    _check(found, variant, source)
    basis, basis_from = _basis(variant, config, source)
    return Checkpoint(
        file=file,
        tensors={key: found.tensors[key] for key in meta_networks(variant).state_dict()},
        variant=variant,
        packaging=packaging,
        basis=basis,
        basis_from=basis_from,
        ignored=found.ignored,
    )


def convert_checkpoint(source: Path, target: Path) -> dict[str, object]:
    """Write the networks of the user's checkpoint as safetensors, whole or not at all; nothing in it is run.

    Args:
        source: see `open_checkpoint`.
        target: safetensors file to write: repackaged keys, float32.

    Returns:
        Facts for the asset's record: variant, packaging, basis and where it was read from, numbers of tensors and
        parameters, ignored parts, the source's SHA-256.

    Raises:
        AssetMissingError: no such file.
        DataError: see `open_checkpoint`; or a weight is not finite, or no floating-point number.
    """
    checkpoint = open_checkpoint(source)
    variant = checkpoint.variant
    facts: dict[str, str] = {
        "variant": variant.name,
        "packaging": checkpoint.packaging,
        "basis": checkpoint.basis,
        "basis_from": checkpoint.basis_from,
        "sha256": sha256_file(source),
    }
    orders = {"coarse": variant.coarse, "expression": variant.expression}
    description = json.dumps(facts | orders, sort_keys=True)  # one entry: safetensors writes several in any order
    with atomic_path(target) as temporary:
        save_file(_read_all(checkpoint), temporary, {FORMAT: description})
    counts = {
        "tensors": len(checkpoint.tensors),
        "parameters": sum(parameter.numel() for parameter in meta_networks(variant).parameters()),
    }
    return {**facts, **counts, "ignored": checkpoint.ignored}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedEmica:
    """Networks with their weights, in evaluation mode, and what their coefficients mean."""

    networks: EmicaNetworks
    basis: str


def load_networks(path: Path, device: torch.device | str = "cpu") -> LoadedEmica:
    """The networks that `convert_checkpoint` wrote.

    Raises:
        AssetMissingError: the file is not there.
        DataError: it is no converted checkpoint, or its tensors do not fit.
    """
    if not path.is_file():
        raise AssetMissingError(
            f"EMICA's networks not found at {path}. They need a licence: register at emote.is.tue.mpg.de, download "
            f"{PUBLISHED}, then run `ecavatar assets add emica FILE.ckpt`. Without them set reconstruct.backend to "
            "landmarks."
        )
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a safetensors file ({error}). {_CONVERT}") from None
    if FORMAT not in metadata:
        raise DataError(f"{path}: expected format {FORMAT}, found {', '.join(metadata) or 'none'}. {_CONVERT}")
    try:
        facts = json.loads(metadata[FORMAT])
        coarse, expression = tuple(facts["coarse"]), tuple(facts["expression"])
        networks = meta_networks(Variant(name=facts["variant"], coarse=coarse, expression=expression))
        basis = str(facts["basis"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: its description is damaged ({error!r}). {_CONVERT}") from None
    if problems := _shape_problems({key: tuple(tensor.shape) for key, tensor in tensors.items()}, networks):
        raise DataError(f"{path}: {_listed(problems)} {_CONVERT}")
    wrong = [key for key, tensor in tensors.items() if tensor.dtype != _dtype(key)]
    if wrong:
        raise DataError(f"{path}: {wrong[0]} holds {tensors[wrong[0]].dtype} numbers. {_CONVERT}")
    networks.load_state_dict(tensors, strict=True, assign=True)
    return LoadedEmica(networks=networks.requires_grad_(requires_grad=False).eval(), basis=basis)


_CONVERT = "Convert the published checkpoint again with `ecavatar assets add emica FILE`."


# --- what is in the file ----------------------------------------------------------------------------------------------


def _state_dict(file: TorchFile) -> tuple[dict[str, StoredTensor], str]:
    """The tensors by key, and the packaging: `lightning` or `plain`."""
    content = file.content
    if not isinstance(content, dict):
        raise DataError(f"{file.path}: expected a dictionary of tensors, found a {type(content).__name__}. {_EXPECTED}")
    packaging = "lightning" if isinstance(content.get("state_dict"), dict) else "plain"
    state = content["state_dict"] if packaging == "lightning" else content
    tensors = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, StoredTensor)}
    if not tensors:
        raise DataError(f"{file.path}: {_other_model(content)} {_EXPECTED}")
    return tensors, packaging


_EXPECTED = f"Expected an EMICA checkpoint such as {PUBLISHED} (.ckpt, or repackaged as .pt)."


def _found(state: Mapping[str, StoredTensor], source: Path) -> _Found:
    """Sort all tensors into networks, ignored parts and surplus."""
    prefixes = _prefixes(state, source)
    roots = {prefix.split(".", 1)[0] for prefix in prefixes.values()}
    is_bare = roots <= {tree.removesuffix(".") for tree in _TREES}
    tensors, ignored, unexpected = {}, Counter(), []
    for key, tensor in state.items():
        tree = next((tree for tree, prefix in prefixes.items() if key.startswith(prefix)), None)
        first = key.split(".", 1)[0]
        if tree is not None and key.removeprefix(prefixes[tree]).startswith(_GENERATOR):
            ignored["flameModel.generator"] += 1
        elif tree is not None:
            tensors[tree + key.removeprefix(prefixes[tree])] = tensor
        elif first in roots or (is_bare and first not in _IGNORED):
            unexpected.append(key)
        else:
            ignored[first] += 1
    return _Found(tensors, dict(sorted(ignored.items())), unexpected)


def _prefixes(state: Mapping[str, StoredTensor], source: Path) -> dict[str, str]:
    """What precedes each network's keys, its own name included."""
    found: dict[str, str] = {}
    problems = []
    for tree, first in _TREES.items():
        keys = [key for key in state if f".{key}".endswith(f".{tree}{first}")]
        if len(keys) == 1:
            found[tree] = keys[0].removesuffix(first)
        elif keys:
            problems.append(f"{tree.removesuffix('.')} is there {len(keys)} times ({', '.join(keys[:2])})")
        elif tree != "expression_encoder.":  # one variant has none
            problems.append(f"{tree.removesuffix('.')} is missing")
    if problems:
        raise DataError(f"{source}: {'; '.join(problems)}. {_other_model(state)} {_EXPECTED}")
    return found


def _other_model(content: Mapping[Any, Any]) -> str:
    """What the file seems to be instead."""
    keys = [key for key in content if isinstance(key, str)]
    if "arcface" in keys and "flameModel" in keys:
        return "These are MICA's weights alone, without EMICA's other encoders."
    if any(key.startswith("E_flame") for key in keys):
        return "These look like DECA's or EMOCA's weights (236 outputs), whose coefficients are others."
    heads = {
        key: value.shape
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, StoredTensor) and "bias" in key
    }
    last = f"; its last bias is {list(heads)[-1]} with {list(heads.values())[-1]} numbers" if heads else ""
    return f"The file holds {len(keys)} entries: {', '.join(keys[:4])}{' ...' if len(keys) > 4 else ''}{last}."


def _variant(tensors: Mapping[str, StoredTensor], config: Mapping[str, Any] | None, source: Path) -> Variant:
    widths = []
    for tree in ("deca_encoder.", "expression_encoder."):
        head = tensors.get(tree + _HEAD)
        has_tree = any(key.startswith(tree) for key in tensors)
        if has_tree and (head is None or len(head.shape) != 1):
            raise DataError(f"{source}: {tree}{_HEAD} is missing, so the outputs are unknown. {_EXPECTED}")
        widths.append(head.shape[0] if head is not None else 0)
    try:
        variant = variant_of_widths(*widths)
    except DataError as error:
        raise DataError(f"{source}: {error}") from None
    return variant if config is None else _ordered(variant, config, source)


def _check(found: _Found, variant: Variant, source: Path) -> None:
    """Refuse missing, surplus and misshapen tensors, all in one message."""
    shapes = {key: tensor.shape for key, tensor in found.tensors.items()}
    problems = [f"{key} is unexpected" for key in found.unexpected] + _shape_problems(shapes, meta_networks(variant))
    if problems:
        raise DataError(f"{source} does not fit EMICA's variant {variant.name}: {_listed(problems)} {_EXPECTED}")


def _shape_problems(shapes: Mapping[str, tuple[int, ...]], networks: EmicaNetworks) -> list[str]:
    expected = {key: tuple(tensor.shape) for key, tensor in networks.state_dict().items()}
    problems = [f"{key} is missing" for key in expected if key not in shapes]
    problems += [f"{key} is unexpected" for key in shapes if key not in expected]
    return problems + [
        f"{key} has shape {shape}, expected {expected[key]}"
        for key, shape in shapes.items()
        if key in expected and shape != expected[key]
    ]


def _dtype(key: str) -> torch.dtype:
    return torch.int64 if key.endswith(_COUNTER) else torch.float32


def _listed(problems: Sequence[str]) -> str:
    more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
    return f"{len(problems)} problem(s): {'; '.join(problems[:_LISTED])}{more}."


def _read_all(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """All tensors, float32 apart from counters, each in memory of its own.

    Raises:
        DataError: a weight is not finite, or no floating-point number.
    """
    result: dict[str, Tensor] = {}
    broken = []
    for key, stored in checkpoint.tensors.items():
        tensor = checkpoint.file.read(stored)
        is_counter = key.endswith(_COUNTER)
        if tensor.is_floating_point() == is_counter:
            raise DataError(f"{checkpoint.file.path}: {key} holds {tensor.dtype} numbers. {_EXPECTED}")
        result[key] = tensor.to(_dtype(key)).contiguous()
        if not is_counter and not bool(result[key].isfinite().all()):
            broken.append(f"{key} is not finite")
    if broken:
        raise DataError(f"{checkpoint.file.path}: {_listed(broken)} Copy or download it again.")
    return result


# --- cfg.yaml ---------------------------------------------------------------------------------------------------------


def _read_config(source: Path) -> dict[str, Any] | None:
    """The configuration beside the checkpoint, or None where there is none."""
    folders = [source.parent, *([source.parent.parent] if source.parent.name == "checkpoints" else [])]
    path = next((folder / "cfg.yaml" for folder in folders if (folder / "cfg.yaml").is_file()), None)
    if path is None:
        return None
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not readable as YAML: {error}. Repair or remove it.") from None
    if not isinstance(config, dict):
        raise DataError(f"{path} holds a {type(config).__name__}, not EMICA's configuration. Repair or remove it.")
    return config


def _ordered(variant: Variant, config: Mapping[str, Any], source: Path) -> Variant:
    """`variant` with its outputs in the order of the configuration's `predicts`.

    Raises:
        DataError: an output is unknown, has another size, or the widths differ from the checkpoint's.
    """
    orders = {}
    for encoder in ("deca_encoder", "expression_encoder"):
        predicts = _predicts(config, encoder)
        wrong = {name: size for name, size in predicts.items() if SIZES.get(name) != size}
        if wrong:
            problems = [f"{name}: {size if isinstance(size, int) else 'no number'}" for name, size in wrong.items()]
            raise DataError(
                f"{source}: cfg.yaml lets {encoder} predict {', '.join(problems[:_LISTED])}; known are {SIZES}. {_CFG}"
            )
        orders[encoder] = tuple(predicts)
    coarse, expression = orders["deca_encoder"] or variant.coarse, orders["expression_encoder"] or variant.expression
    ordered = Variant(name=variant.name, coarse=coarse, expression=expression)
    has_same = all(set(a) == set(b) for a, b in ((coarse, variant.coarse), (expression, variant.expression)))
    if not has_same or ordered.widths != variant.widths:
        raise DataError(
            f"{source}: cfg.yaml names outputs {coarse} and {expression}, but the checkpoint's widths {variant.widths} "
            f"are those of {variant.coarse} and {variant.expression}. {_CFG}"
        )
    return ordered


_CFG = "Give the cfg.yaml that came with this checkpoint, or remove it."


def _predicts(config: Mapping[str, Any], encoder: str) -> dict[str, Any]:  # Any: YAML
    """The mapping `predicts` of the encoder, wherever it is nested; empty if it is not there."""
    for section in _sections(config):
        part = section.get(encoder)
        if isinstance(part, dict) and isinstance(part.get("predicts"), dict) and part["predicts"]:
            return part["predicts"]
    return {}


def _sections(config: Any) -> Iterator[dict[Any, Any]]:  # Any: YAML
    """All mappings within mappings, outer ones first; each once, for YAML can repeat them without end."""
    waiting, seen = [config], set()
    while waiting:
        section = waiting.pop()
        if isinstance(section, dict) and id(section) not in seen:
            seen.add(id(section))
            yield section
            waiting.extend(reversed(section.values()))


def _basis(variant: Variant, config: Mapping[str, Any] | None, source: Path) -> tuple[str, str]:
    """What the coefficients mean, and what says so."""
    paths = [section["flame_model_path"] for section in _sections(config) if "flame_model_path" in section]
    texts = {"cfg.yaml": paths[0]} if paths and isinstance(paths[0], str) else {}
    texts |= {f"the name {name}": name for name in (source.name, *(p.name for p in source.absolute().parents[:2]))}
    for origin, text in texts.items():
        if year := re.search(r"flame[-_]?20(20|23)(?P<no_jaw>.*no[-_]?jaw)?", text.lower()):
            if year[1] == "20":
                return "flame2020", origin
            return (NO_JAW_BASIS if year["no_jaw"] or variant.name == "no-jaw" else "flame2023"), origin
    return (NO_JAW_BASIS, "no jaw among the outputs") if variant.name == "no-jaw" else (DEFAULT_BASIS, "default")
