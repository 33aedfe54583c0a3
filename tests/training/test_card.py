"""The model card says what made the weights and whose data is in them, in the same bytes every time."""

import json

import pytest
import torch
import yaml

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.models.funet import FuNet
from ecavatar.training.card import write_model_card
from ecavatar.training.weights import load_weights, save_weights

FACTS = {"topology": "open-head", "data_hash": "ab12", "epoch": 3, "figures": {"val_loss": 0.123456, "val_lve_m2": 2}}


def write(directory, funet_settings, facts=FACTS):
    torch.manual_seed(0)
    network = FuNet(n_vertices=9, channels=[2, 3, 2], hidden=4)
    save_weights(directory, network, facts)
    save_weights(directory, network, facts | {"epoch": 7}, stem="last")
    write_model_card(directory, funet_settings, 11)
    return (directory / "README.md").read_text()


def test_a_card_names_data_settings_figures_and_every_file(tmp_path, funet_settings):
    text = write(tmp_path, funet_settings)
    count = json.loads((tmp_path / "model.json").read_text())["parameters"]
    for line in (
        "Hash of data and settings: `ab12`.", "Seed 11. ", "| `training.learning_rate` | 0.01 |",
        "| `chin_lip` | 0.35 |", "| `val_loss` | 0.1235 |", "`open-head`",
        f"| `model.safetensors` | FuNet | {count:,} | 3 |",
        f"| `last.safetensors` | FuNet | {count:,} | 7 |",
    ):  # fmt: skip
        assert line in text
    for heading in ("Intended use", "Limits", "Licence", "Training data"):
        assert f"## {heading}\n" in text
    assert "{" not in text
    assert "| `training.patience` | null |" in text
    load_weights(tmp_path, FuNet)


def test_equal_training_gives_an_equal_card(tmp_path, funet_settings):
    assert write(tmp_path / "a", funet_settings) == write(tmp_path / "b", funet_settings)


def test_only_weights_from_free_data_may_be_passed_on(tmp_path, funet_settings):
    for topology, licence in (("open-head", "apache-2.0"), ("flame", "other"), ("small", "other")):
        text = write(tmp_path / topology, funet_settings, FACTS | {"topology": topology})
        head = yaml.safe_load(text.split("---")[1])
        assert head["license"] == licence
        assert ("Keep these weights to yourself" in text) == (licence == "other")


def test_weights_that_do_not_say_their_data_get_no_card(tmp_path, funet_settings):
    with pytest.raises(AssetMissingError):
        write_model_card(tmp_path, funet_settings, 1)
    with pytest.raises(DataError, match="without data_hash"):
        write(tmp_path, funet_settings, {name: FACTS[name] for name in ("topology", "figures")})
    assert not (tmp_path / "README.md").exists()
