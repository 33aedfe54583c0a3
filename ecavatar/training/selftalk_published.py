"""The checkpoint that SelfTalk's authors published (`vocaset.pth`), as weights of ours.

It is a flat dict of tensors that holds four networks. Moving a face takes `audio_encoder`, `audio_feature_map`,
`transformer_decoder` and `vertice_map_r`; interpreter (`lip_map`, `transformer`, `lm_head`) and recogniser
(`text_encoder`), 60 % of the file, are never read. Sizes follow from the tensors' shapes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from ecavatar.errors import DataError
from ecavatar.models.selftalk import SelfTalk
from ecavatar.storage.files import atomic_path, sha256_file
from ecavatar.storage.torch_file import StoredTensor, open_torch_file
from ecavatar.training.weights import save_weights

FPS: Final = 30
"""Frames a second of SelfTalk on VOCASET."""
FACE_VERTICES: Final = 5023
"""FLAME's; what a checkpoint has beyond them is a mouth behind the face."""
UNUSED: Final = ("text_encoder.", "lip_map.", "transformer.", "lm_head.")
"""Networks of training."""

_RENAMED = {"audio_encoder.": "encoder.model.", "vertice_map_r.": "vertex_map."}
_OLD_NORM = {"conv.weight_g": "conv.parametrizations.weight.original0",
             "conv.weight_v": "conv.parametrizations.weight.original1"}  # fmt: skip
_STRIDES = [5, 2, 2, 2, 2, 2, 2]  # of every wav2vec2; weights do not tell
_HEADS, _HEAD_WIDTH = 4, 64  # of the decoder; features of one attention head of every wav2vec2
_DROPOUT = 0.1
_LISTED = 6


def open_published(path: Path) -> SelfTalk:
    """The facial animator of a published checkpoint, in evaluation mode; nothing in the file is run.

    Args:
        path: `vocaset.pth`, or one trained by the authors' code on another mesh at 30 frames a second.

    Raises:
        AssetMissingError: no such file.
        DataError: not such a checkpoint, or tensors are missing, surplus or of another shape (named). BIWI.pth is
            refused: it joins pairs of features, for 25 frames a second.
    """
    file = open_torch_file(path)
    stored = _needed(file.content, path)
    arguments = _arguments(stored, path)
    with torch.device("meta"):
        expected = SelfTalk(**arguments).state_dict()
    problems = [f"{name} is missing" for name in sorted(set(expected) - set(stored))]
    problems += [f"{name} is not known" for name in sorted(set(stored) - set(expected))]
    problems += [
        f"{name} has shape {stored[name].shape}, expected {tuple(tensor.shape)}"
        for name, tensor in sorted(expected.items())
        if name in stored and stored[name].shape != tuple(tensor.shape)
    ]
    if problems:
        listed = "\n  ".join(problems[:_LISTED])
        raise DataError(
            f"{path}: the weights do not fit SelfTalk, {len(problems)} problem(s):\n  {listed}\nDownload vocaset.pth "
            "again."
        )
    with torch.device("meta"):
        network = SelfTalk(**arguments)
    network.load_state_dict({name: _finite(file.read(stored[name]), name, path) for name in expected}, assign=True)
    return network.requires_grad_(requires_grad=False).eval()


def convert_published(source: Path, out: Path) -> dict[str, object]:
    """Write a published checkpoint as a weights folder that `LipSpeaker` and `Animator` load; it appears whole.

    Args:
        source: see `open_published`.
        out: folder to write: model.json, model.safetensors.

    Returns:
        The facts in model.json: topology, fps, source's SHA-256.

    Raises:
        AssetMissingError, DataError: see `open_published`.
    """
    network = open_published(source)
    facts: dict[str, object] = {"topology": "flame", "fps": FPS, "sha256": sha256_file(source), "published": True}
    with atomic_path(out) as directory:
        save_weights(directory, network, facts)
    return facts


def _needed(content: object, path: Path) -> dict[str, StoredTensor]:
    """The animator's tensors under our names."""
    if not isinstance(content, Mapping) or "vertice_map_r.weight" not in content:
        raise DataError(
            f"{path} is no checkpoint of SelfTalk: it has no vertice_map_r.weight. Expected vocaset.pth as published."
        )
    found = {}
    for key, value in content.items():
        if not str(key).startswith(UNUSED):
            if not isinstance(value, StoredTensor):
                raise DataError(f"{path}: {key} is no tensor. Expected vocaset.pth as published; download it again.")
            found[_our_name(str(key))] = value
    return found


def _our_name(key: str) -> str:
    for theirs, ours in _RENAMED.items():
        if key.startswith(theirs):
            key = ours + key.removeprefix(theirs)
    for old, new in _OLD_NORM.items():
        key = key.replace(old, new)
    return key


def _arguments(stored: Mapping[str, StoredTensor], path: Path) -> dict[str, Any]:
    """Constructor arguments that the shapes tell."""
    try:
        width = stored["encoder.model.encoder.layer_norm.weight"].shape[0]
        feature_dim, heard = stored["audio_feature_map.weight"].shape
        rows = stored["vertex_map.weight"].shape[0]
        encoder = _encoder_config(stored, width)
    except (KeyError, IndexError, ValueError) as error:
        raise DataError(f"{path}: the checkpoint lacks or garbles {error}. Download vocaset.pth again.") from None
    if heard != width:
        raise DataError(
            f"{path} joins {heard // max(width, 1)} features of the encoder a frame, as SelfTalk does for BIWI at 25 "
            "frames a second; expected a checkpoint for 30 frames a second, vocaset.pth."
        )
    if rows % 3 or feature_dim % _HEADS:
        raise DataError(f"{path}: {rows} outputs and {feature_dim} features; expected multiples of 3 and {_HEADS}.")
    n_vertices = min(rows // 3, FACE_VERTICES)
    return {
        "encoder": encoder, "frozen": "conv", "n_vertices": n_vertices, "feature_dim": feature_dim, "heads": _HEADS,
        "dropout": _DROPOUT, "output_scale_m": 1.0, "mouth": "regressed", "n_mouth": rows // 3 - n_vertices,
    }  # fmt: skip


def _encoder_config(stored: Mapping[str, StoredTensor], width: int) -> dict[str, Any]:
    """A wav2vec2 of these shapes; what shapes do not tell is the same in all published ones."""
    front = "encoder.model.feature_extractor.conv_layers."
    convolutions = [stored[f"{front}{index}.conv.weight"].shape for index in range(len(_STRIDES))]
    layers = {name.split(".")[4] for name in stored if name.startswith("encoder.model.encoder.layers.")}
    # the normalised dimension of weight_v is the kernel: (width, width / groups, kernel)
    positions = stored["encoder.model.encoder.pos_conv_embed.conv.parametrizations.weight.original1"].shape
    is_large = f"{front}1.layer_norm.weight" in stored
    return {
        "model_type": "wav2vec2", "hidden_size": width, "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "intermediate_size": stored["encoder.model.encoder.layers.0.feed_forward.intermediate_dense.weight"].shape[0],
        "conv_dim": [shape[0] for shape in convolutions], "conv_kernel": [shape[2] for shape in convolutions],
        "conv_stride": list(_STRIDES), "conv_bias": f"{front}0.conv.bias" in stored,
        "feat_extract_norm": "layer" if is_large else "group", "do_stable_layer_norm": is_large,
        "num_conv_pos_embeddings": positions[2], "num_conv_pos_embedding_groups": width // positions[1],
        "num_feat_extract_layers": len(_STRIDES),
    }  # fmt: skip


def _finite(tensor: Tensor, name: str, path: Path) -> Tensor:
    if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
        raise DataError(f"{path}: {name} holds numbers that are not finite. Download vocaset.pth again.")
    return tensor.float()
