"""Published checkpoints open with their own weights, or not at all."""

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.speech.encoder import SpeechEncoder
from ecavatar.speech.pretrained import expects_normalised, open_pretrained
from ecavatar.speech.recogniser import CtcRecogniser
from tests.fabricate_speech import FAMILIES, PUBLISHED_IN_2021, old_names, publish, speechlike, tiny


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["safetensors", "bin", "old bin"])
@pytest.mark.parametrize("is_old", [False, True])
def test_every_spelling_of_a_checkpoint_opens_with_the_same_weights(
    tmp_path: Path, family: str, kind: Literal["safetensors", "bin", "old bin"], *, is_old: bool
) -> None:
    model = tiny(family, "layer", with_letters=True)
    state = old_names(model.state_dict()) if is_old else model.state_dict()
    assert any("weight_g" in name for name in state) == is_old
    publish(tmp_path, model, state=state, kind=kind, config=PUBLISHED_IN_2021 if is_old else None)
    samples = speechlike(8000, 1)[None]
    expected = model.base_model(samples).last_hidden_state
    encoder = SpeechEncoder.load(tmp_path).eval()
    torch.testing.assert_close(encoder(samples, None, None), expected, rtol=0, atol=0)
    hidden, logits = CtcRecogniser.load(tmp_path).hidden_and_logits(samples)
    torch.testing.assert_close(hidden, expected, rtol=0, atol=0)
    torch.testing.assert_close(logits, model(samples).logits, rtol=0, atol=0)


def test_an_encoder_without_a_head_opens_by_its_plain_names(tmp_path: Path) -> None:
    model = tiny("hubert")
    publish(tmp_path, model, state=old_names(model.state_dict()), kind="bin")
    samples = speechlike(8000, 1)[None]
    torch.testing.assert_close(
        SpeechEncoder.load(tmp_path)(samples, None, None), model(samples).last_hidden_state, rtol=0, atol=0
    )


def test_sharded_safetensors_open(tmp_path: Path) -> None:
    model = tiny("hubert")
    model.save_pretrained(tmp_path, max_shard_size="5KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    opened = open_pretrained(tmp_path, "test").model.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(opened[name], value, rtol=0, atol=0)


def test_half_precision_files_open_in_float32(tmp_path: Path) -> None:
    model = tiny("hubert")
    publish(tmp_path, model, state={name: value.half() for name, value in model.state_dict().items()},
            config={"dtype": "float16"})  # fmt: skip
    encoder = SpeechEncoder.load(tmp_path)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert encoder(speechlike(8000, 1)[None], None, 10).dtype == torch.float32


def test_a_missing_mask_embedding_is_zero_not_random(tmp_path: Path) -> None:
    model = tiny("wav2vec2")
    state = {name: value for name, value in model.state_dict().items() if name != "masked_spec_embed"}
    publish(tmp_path, model, state=state)
    assert not SpeechEncoder.load(tmp_path).model.masked_spec_embed.any()


def test_an_opened_encoder_predicts_until_told_to_train(tmp_path: Path) -> None:
    encoder = SpeechEncoder.load(publish(tmp_path, tiny("hubert")))
    assert not any(part.training for part in encoder.modules())
    assert encoder.train().model.training


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, True),
        ({"preprocessor_config.json": {"do_normalize": True}}, True),
        ({"preprocessor_config.json": {"do_normalize": False, "sampling_rate": 16000}}, False),
        ({"preprocessor_config.json": {"feature_extractor": {"do_normalize": False}}}, False),
        ({"processor_config.json": {"feature_extractor": {"do_normalize": False}}}, False),
    ],
)
def test_the_level_follows_the_processor_s_files(tmp_path: Path, files: dict[str, Any], *, expected: bool) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert expects_normalised(tmp_path) is expected


def test_encoder_and_recogniser_take_the_level_from_the_directory(tmp_path: Path) -> None:
    publish(tmp_path, tiny("wavlm", with_letters=True))
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    assert not SpeechEncoder.load(tmp_path).normalises
    assert not CtcRecogniser.load(tmp_path).normalises


# --- from the hub -----------------------------------------------------------------------------------------------------


def fake_hub(monkeypatch: pytest.MonkeyPatch, files: Path, *, is_down: bool = False) -> list[str]:
    """A hub that holds `files`; the names asked for."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    asked = []

    def download(repository: str, name: str) -> str:
        asked.append(f"{repository}/{name}")
        if is_down:
            raise LocalEntryNotFoundError("no connection, and not in the cache")
        if not (files / name).is_file():
            raise EntryNotFoundError("404")
        return str(files / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_hub_id_opens_from_the_files_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Literal["safetensors", "bin"]
) -> None:
    model = tiny("hubert", with_letters=True)
    publish(tmp_path, model, kind=kind)
    asked = fake_hub(monkeypatch, tmp_path)
    samples = speechlike(8000, 1)[None]
    hidden, _ = CtcRecogniser.load("owner/name").hidden_and_logits(samples)
    torch.testing.assert_close(hidden, model.base_model(samples).last_hidden_state, rtol=0, atol=0)
    assert ("owner/name/pytorch_model.bin" in asked) == (kind == "bin"), "one copy of the weights is enough"


def test_shards_of_a_hub_id_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny("hubert").save_pretrained(tmp_path, max_shard_size="5KB")
    asked = fake_hub(monkeypatch, tmp_path)
    SpeechEncoder.load("owner/name")
    assert {f"owner/name/{path.name}" for path in tmp_path.glob("model-*.safetensors")} <= set(asked)


@pytest.mark.parametrize("is_down", [False, True])
def test_an_unknown_hub_id_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_down: bool) -> None:
    fake_hub(monkeypatch, tmp_path, is_down=is_down)
    with pytest.raises(AssetMissingError, match="owner/name"):
        SpeechEncoder.load("owner/name")


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source", ["no/such/directory", Path("nowhere"), Path("owner/name"), "./here", "models/hubert"]
)
def test_a_missing_directory_is_named_and_nothing_is_asked_or_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], source: str | Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    asked = fake_hub(monkeypatch, tmp_path)
    for load in (SpeechEncoder.load, CtcRecogniser.load):
        with pytest.raises(AssetMissingError, match=str(source)):
            load(source)
    assert not asked
    assert capfd.readouterr() == ("", "")


def damage(directory: Path, how: str) -> None:
    """Spoil a good directory."""
    config = json.loads((directory / "config.json").read_text())
    if how == "other kind":
        config["model_type"] = "bert"
    elif how == "odd width":
        config["hidden_size"] = 15
    elif how == "no number":
        config["hidden_size"] = "wide"
    elif how == "other width":
        config["intermediate_size"] = 48
    elif how == "deeper":
        config["num_hidden_layers"] = 3
    (directory / "config.json").write_text("{" if how == "no json" else "[]" if how == "a list" else json.dumps(config))
    if how == "garbage":
        (directory / "model.safetensors").write_bytes(b"garbage " * 9)
    elif how == "cut":
        os.truncate(directory / "model.safetensors", 9000)
    elif how == "other rate":
        (directory / "preprocessor_config.json").write_text('{"sampling_rate": 8000}')


@pytest.mark.parametrize(
    "how",
    [
        "other kind",
        "odd width",
        "no number",
        "other width",
        "deeper",
        "no json",
        "a list",
        "garbage",
        "cut",
        "other rate",
    ],
)
def test_a_damaged_directory_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str], how: str) -> None:
    publish(tmp_path, tiny("hubert", with_letters=True))
    damage(tmp_path, how)
    for load in (SpeechEncoder.load, CtcRecogniser.load):
        with pytest.raises(DataError, match=tmp_path.name) as caught:
            load(tmp_path)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", ""), "no library prints"


@pytest.mark.parametrize("lacking", ["config.json", "model.safetensors"])
def test_a_lacking_file_is_named(tmp_path: Path, lacking: str) -> None:
    publish(tmp_path, tiny("hubert", with_letters=True))
    (tmp_path / lacking).unlink()
    with pytest.raises(AssetMissingError, match=tmp_path.name):
        SpeechEncoder.load(tmp_path)


def test_code_in_a_checkpoint_never_runs(tmp_path: Path) -> None:
    publish(tmp_path, tiny("hubert"), kind="bin", config={"auto_map": {"AutoModel": "evil.Model"}})
    flag = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(flag)!r}, 'w')\nclass Model: pass\n")

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(flag),)

    SpeechEncoder.load(tmp_path)
    torch.save({"x": torch.zeros(1), "y": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match="pytorch_model"):
        SpeechEncoder.load(tmp_path)
    assert not flag.exists()


def test_a_model_without_letters_is_no_recogniser(tmp_path: Path) -> None:
    publish(tmp_path / "a", tiny("hubert"))
    with pytest.raises(DataError, match="lm_head"):
        CtcRecogniser.load(tmp_path / "a")
    shutil.copytree(publish(tmp_path / "b", tiny("hubert", with_letters=True)), tmp_path / "c")
    (tmp_path / "c" / "vocab.json").unlink()
    with pytest.raises(AssetMissingError, match=r"vocab\.json"):
        CtcRecogniser.load(tmp_path / "c")
