"""Tiny HuBERT, wav2vec2 and WavLM models with random weights, and directories as the hub publishes them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from ecavatar.sample.speech_recognisers import write_tokenizer
from ecavatar.seeding import stream

FAMILIES = ("hubert", "wav2vec2", "wavlm")
Norm = Literal["group", "layer"]

TINY = {
    "vocab_size": 32,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
    "pad_token_id": 0,
}

PUBLISHED_IN_2021 = {
    "feat_extract_dropout": 0.0,
    "gradient_checkpointing": False,
    "mask_channel_length": 10,
    "mask_channel_prob": 0.0,
    "mask_channel_selection": "static",
    "no_mask_time_overlap": False,
    "tokenizer_class": "Wav2Vec2CTCTokenizer",
    "transformers_version": "4.10.0.dev0",
}
"""Entries of old config.json files that today's transformers no longer knows."""


def tiny(family: str, norm: Norm = "group", *, with_letters: bool = False, seed: int = 3) -> PreTrainedModel:
    """Random weights; `layer` as in the large models (conv bias, layer norms first), `group` as in the base ones."""
    import transformers

    name = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "wavlm": "WavLM"}[family]
    is_large = norm == "layer"
    config = getattr(transformers, f"{name}Config")(
        **TINY, feat_extract_norm=norm, do_stable_layer_norm=is_large, conv_bias=is_large
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return getattr(transformers, f"{name}{'ForCTC' if with_letters else 'Model'}")(config).eval()


def speechlike(n: int, seed: int) -> Tensor:
    """(n,) noise of variance 1."""
    return torch.from_numpy(stream(seed, "speechlike").standard_normal(n).astype(np.float32))


def old_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weight norm as torch spelled it until 2023."""
    new_to_old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    renamed = {}
    for name, value in state.items():
        for new, old in new_to_old.items():
            name = name.replace(new, old)
        renamed[name] = value.clone()
    return renamed


def publish(
    directory: Path,
    model: PreTrainedModel,
    *,
    state: Mapping[str, Tensor] | None = None,
    kind: Literal["safetensors", "bin", "old bin"] = "safetensors",
    config: Mapping[str, Any] | None = None,
) -> Path:
    """`model` as a hub directory, with letters and processor; `state` and `config` replace and extend its own."""
    directory.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(directory)
    entries = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(entries | dict(config or {})))
    tensors = {name: value.clone() for name, value in (model.state_dict() if state is None else state).items()}
    if kind == "safetensors":
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    else:
        path = directory / "pytorch_model.bin"
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "bin")
    write_tokenizer(directory)
    return directory
