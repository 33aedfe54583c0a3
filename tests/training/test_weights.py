"""Weights files: what is saved loads, byte for byte the same, and nothing else does."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.models.funet import FuNet
from ecavatar.training.weights import load_weights, save_weights


def network(hidden=4):
    torch.manual_seed(0)
    return FuNet(n_vertices=9, channels=[2, 3, 2], hidden=hidden)


def test_a_network_comes_back_in_evaluation_mode_with_its_facts(tmp_path):
    first = network()
    first.output_scale.fill_(0.25)
    save_weights(tmp_path, first, {"topology": "small"})
    second, facts = load_weights(tmp_path, FuNet)
    assert facts == {"topology": "small"}
    assert not second.training
    lip, emotional = torch.randn(2, 3, 9, 3)
    assert torch.equal(first.eval()(lip, emotional), second(lip, emotional))


def test_equal_networks_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        save_weights(tmp_path / name, network(), {"z": 1, "a": 2})
    for file in ("model.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_what_does_not_fit_is_named(tmp_path):
    save_weights(tmp_path, network(), {})
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["extra"] = tensors.pop("gather.bias")
    tensors["spread.bias"] = torch.zeros(5)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(DataError) as caught:
        load_weights(tmp_path, FuNet)
    for part in ("gather.bias is missing", "extra is not part", "spread.bias has shape (5,), expected (27,)"):
        assert part in str(caught.value)


def test_missing_broken_or_foreign_files_are_refused(tmp_path):
    with pytest.raises(AssetMissingError):
        load_weights(tmp_path, FuNet)
    save_weights(tmp_path, network(), {})
    description = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(description | {"class": "SelfTalk"}))
    with pytest.raises(DataError, match="expected FuNet"):
        load_weights(tmp_path, FuNet)
    wrong = description | {"arguments": description["arguments"] | {"depth": 3}}
    (tmp_path / "model.json").write_text(json.dumps(wrong))
    with pytest.raises(DataError, match="arguments"):
        load_weights(tmp_path, FuNet)
    (tmp_path / "model.json").write_text(json.dumps(description))
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    with pytest.raises(DataError, match="safetensors"):
        load_weights(tmp_path, FuNet)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(AssetMissingError, match="safetensors"):
        load_weights(tmp_path, FuNet)
