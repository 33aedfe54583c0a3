"""Laws of EMICA's checkpoints: both packagings load strictly, other files are refused, nothing is executed."""

import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.reconstruction.emica.checkpoint import _predicts, convert_checkpoint, load_networks, open_checkpoint
from ecavatar.reconstruction.emica.networks import VARIANTS, meta_networks
from ecavatar.storage.files import sha256_file
from tests.fabricate_emica import emica_tensors, write_lightning, write_plain

WRITERS = pytest.mark.parametrize(
    ("write", "packaging"), [(write_plain, "plain"), (write_lightning, "lightning")], ids=["plain", "lightning"]
)


class Attack:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return emica_tensors(VARIANTS[0])


@pytest.mark.slow
@WRITERS
def test_a_converted_checkpoint_holds_the_networks_tensor_by_tensor(tmp_path, tensors, write, packaging):
    source, target = write(tmp_path / "emica.pt", tensors), tmp_path / "emica.safetensors"
    facts = convert_checkpoint(source, target)
    assert facts["packaging"] == packaging
    assert facts["tensors"] == 1579
    assert facts["parameters"] == 117_074_326
    assert len(str(facts["sha256"])) == 64
    with safe_open(target, framework="pt") as file:
        assert str(facts["sha256"]) in file.metadata()["ecavatar-emica-1"]
    first = sha256_file(target)
    convert_checkpoint(source, target)
    assert sha256_file(target) == first
    loaded = load_networks(target)
    assert loaded.basis == "flame2020"
    assert not loaded.networks.training
    state = loaded.networks.state_dict()
    assert list(state) == list(tensors)
    assert all(torch.equal(state[key], tensor) for key, tensor in tensors.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["emica.pt", "emica.safetensors"]


@WRITERS
def test_both_packagings_give_the_same_tensors(tmp_path, tensors, write, packaging):
    checkpoint = open_checkpoint(write(tmp_path / "emica.pt", tensors))
    assert checkpoint.packaging == packaging
    assert checkpoint.variant == VARIANTS[0]
    read = {key: checkpoint.file.read(stored) for key, stored in checkpoint.tensors.items()}
    meta_networks(VARIANTS[0]).load_state_dict(read, strict=True, assign=True)
    assert all(torch.equal(read[key], tensor) for key, tensor in tensors.items())


def test_what_is_left_aside_is_counted(tmp_path, tensors):
    checkpoint = open_checkpoint(write_lightning(tmp_path / "emica.ckpt", tensors))
    assert checkpoint.ignored == {
        "flameModel.generator": 1, "lip_reading_loss": 1, "renderer": 1, "shape_model": 2,
    }  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
@pytest.mark.parametrize("write", [write_plain, write_lightning])
def test_every_variant_is_recognised(tmp_path, variant, write):
    checkpoint = open_checkpoint(write(tmp_path / "emica.pt", emica_tensors(variant)))
    assert checkpoint.variant == variant
    assert checkpoint.basis == ("flame2023-nojaw" if variant.name == "no-jaw" else "flame2020")


@WRITERS
def test_a_hostile_checkpoint_is_refused_and_nothing_is_executed(tmp_path, tensors, write, packaging):
    mark = tmp_path / "was_run"
    attack = Attack(f"touch {mark}")
    if packaging == "lightning":
        source = write_lightning(tmp_path / "evil.ckpt", tensors, {"hyper_parameters": {"cfg": attack}})
    else:
        source = write_plain(tmp_path / "evil.ckpt", tensors | {"x": attack})
    with pytest.raises(DataError, match=r"evil\.ckpt: refused"):
        convert_checkpoint(source, tmp_path / "out.safetensors")
    assert not mark.exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_all_problems_are_told_in_one_message(tmp_path, tensors):
    broken = dict(tensors)
    del broken["mica_encoder.E_mica.arcface.fc.bias"]
    broken["deca_encoder.encoder.encoder.bn1.weight"] = torch.ones(65)
    broken["deca_encoder.encoder.encoder.fc.weight"] = torch.ones(2)
    broken["detail_encoder.weight"] = torch.ones(2)
    with pytest.raises(DataError) as caught:
        open_checkpoint(write_plain(tmp_path / "broken.pt", broken))
    message = str(caught.value)
    for said in ("4 problem(s)", "fc.bias is missing", "fc.weight is unexpected", "detail_encoder.weight is unexpected",
                 "bn1.weight has shape (65,), expected (64,)", "broken.pt"):  # fmt: skip
        assert said in message


def test_checkpoints_of_other_models_are_refused_with_what_was_seen(tmp_path, tensors):
    resnet = {key.removeprefix("deca_encoder.encoder.encoder."): value for key, value in tensors.items()
              if key.startswith("deca_encoder.encoder.encoder.")}  # fmt: skip
    deca = {"E_flame": {"layers.2.bias": torch.zeros(236)}, "E_detail": {"layers.2.bias": torch.zeros(128)}}
    wide = tensors | {
        "deca_encoder.encoder.layers.2.bias": torch.zeros(236),
        "deca_encoder.encoder.layers.2.weight": torch.zeros(1).expand(236, 1024),
    }
    twice = tensors | {f"ema.{key}": value for key, value in tensors.items()}
    mica = {"arcface": {"conv1.weight": torch.zeros(1)}, "flameModel": {"regressor.output.bias": torch.zeros(300)}}
    cases = {
        "mica_encoder is missing.*conv1.weight": resnet,
        "DECA": deca,
        "236 and 100 outputs.*DECA": wide,
        "is there 2 times": twice,
        "MICA's weights alone": mica,
        "a dictionary of tensors, found a list": [torch.ones(2)],
    }
    for number, (message, content) in enumerate(cases.items()):
        path = tmp_path / f"other{number}.pt"
        torch.save(content, path)
        with pytest.raises(DataError, match=message) as caught:
            open_checkpoint(path)
        assert path.name in str(caught.value)


@pytest.mark.slow
def test_weights_that_are_not_finite_are_refused_and_leave_nothing(tmp_path, tensors):
    key = "expression_encoder.encoder.layers.2.bias"
    source = write_plain(tmp_path / "nan.pt", tensors | {key: torch.full((100,), float("nan"))})
    with pytest.raises(DataError, match=f"{key} is not finite"):
        convert_checkpoint(source, tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["nan.pt"]


def _config(coarse: str, expression: str = "{expcode: 100}", model: str = "FLAME/generic_model.pkl") -> str:
    return (
        "model:\n"
        f"  shape_model: {{flame: {{flame_model_path: {model}}}}}\n"
        "  face_encoder:\n    encoders:\n"
        f"      expression_encoder: {{backbone: ResNet50, predicts: {expression}}}\n"
        "      mica_deca_encoder:\n        encoders:\n"
        f"          deca_encoder: {{predicts: {coarse}}}\n"
        "          mica_encoder: {predicts: {shape: 300}}\n"
    )


def test_the_configuration_gives_the_order_of_the_outputs_and_the_basis(tmp_path, tensors):
    (tmp_path / "checkpoints").mkdir()
    source = write_lightning(tmp_path / "checkpoints" / "last.ckpt", tensors)
    order = "{cam: 3, texcode: 50, globalpose: 3, lightcode: 27, jawpose: 3}"
    (tmp_path / "cfg.yaml").write_text(_config(order, model="assets/FLAME2023/flame2023.pkl"))
    checkpoint = open_checkpoint(source)
    assert checkpoint.variant.coarse == ("cam", "texcode", "globalpose", "lightcode", "jawpose")
    assert checkpoint.variant.expression == ("expcode",)
    assert (checkpoint.basis, checkpoint.basis_from) == ("flame2023", "cfg.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_config("{texcode: 50, jawpose: 3, globalpose: 3, cam: 3, detail: 27}"), "detail: 27"),
        (_config("{texcode: 50, jawpose: 6, globalpose: 3, cam: 3, lightcode: 24}"), "jawpose: 6"),
        (_config("{texcode: 50, globalpose: 3, cam: 3, lightcode: 27}"), "widths"),
        ("a: !!python/object/apply:os.system ['true']", "not readable as YAML"),
        ("just words", "not EMICA's configuration"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(tmp_path, tensors, text, message):
    source = write_plain(tmp_path / "emica.pt", tensors)
    (tmp_path / "cfg.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        open_checkpoint(source)


@pytest.mark.parametrize(
    ("name", "basis"),
    [
        ("EMICA-CVT_flame2020_notexture.pt", "flame2020"),
        ("EMICA-CVT_flame2023_notexture.pt", "flame2023"),
        ("emica_flame2023_no_jaw.pt", "flame2023-nojaw"),
        ("emica.pt", "flame2020"),
    ],
)
def test_the_basis_is_read_from_the_name(tmp_path, tensors, name, basis):
    assert open_checkpoint(write_plain(tmp_path / name, tensors)).basis == basis


def test_only_converted_files_are_loaded(tmp_path, tensors):
    with pytest.raises(AssetMissingError, match="assets add emica"):
        load_networks(tmp_path / "absent.safetensors")
    with pytest.raises(DataError, match="not a safetensors file"):
        load_networks(write_plain(tmp_path / "emica.pt", tensors))
    save_file({"w": torch.ones(2)}, tmp_path / "other.safetensors", {"model": "another"})
    with pytest.raises(DataError, match="found model"):
        load_networks(tmp_path / "other.safetensors")
    save_file({"w": torch.ones(2)}, tmp_path / "odd.safetensors", {"ecavatar-emica-1": '{"coarse": ["x"]}'})
    with pytest.raises(DataError, match="damaged"):
        load_networks(tmp_path / "odd.safetensors")


def test_a_configuration_that_repeats_or_holds_itself_is_read_in_no_time():
    doubled: dict = {"flame": {"x": 1}}
    for _ in range(60):
        doubled = {"a": doubled, "b": doubled}
    doubled["self"] = doubled
    assert _predicts(doubled, "deca_encoder") == {}
    doubled["deca_encoder"] = {"predicts": {"cam": 3}}
    assert _predicts({"model": doubled}, "deca_encoder") == {"cam": 3}


def test_weights_of_whole_numbers_are_refused(tmp_path):
    tensors = emica_tensors(VARIANTS[0])
    key = "deca_encoder.encoder.layers.0.bias"
    tensors[key] = tensors[key].to(torch.uint8)
    with pytest.raises(DataError, match=r"layers\.0\.bias holds torch\.uint8"):
        convert_checkpoint(write_plain(tmp_path / "a.pt", tensors), tmp_path / "emica.safetensors")
    assert not (tmp_path / "emica.safetensors").exists()
