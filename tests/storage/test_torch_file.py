"""Laws of reading other people's torch files: the same numbers as torch, and nothing is run."""

import collections
import contextlib
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.storage.torch_file import StoredTensor, Unknown, open_torch_file

FORMATS = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])


class Settings:
    """Something a training framework might pickle beside the weights."""

    def __init__(self):
        self.optimiser, self.rates = "adam", [0.1, 0.2]

    def __setstate__(self, state):
        raise RuntimeError("run while reading")


class Attack:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class KeepsTensor:
    def __init__(self):
        self.weights = torch.ones(3)


def _save(path, value, *, is_zip=True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=is_zip)
    return path


def _rewrite(source, target, change) -> Path:
    """A copy of a zip with some entries changed: `change` gives name -> bytes or None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change.get(entry.filename, old.read(entry)))
        for name in set(change) - set(old.namelist()):
            new.writestr(name, change[name])
    return target


@FORMATS
def test_tensors_come_back_as_torch_wrote_them(tmp_path, is_zip):
    base = torch.randn(6, 5)
    tensors = {
        "contiguous": base, "view": base[1:4, ::2], "transposed": base.T, "scalar": torch.tensor(7),
        "half": base.half(), "double": base.double(), "bfloat": base.bfloat16(), "bool": base > 0, "empty": base[:0],
        "int8": torch.arange(5, dtype=torch.int8), "expanded": torch.tensor([3.0]).expand(4, 1000, 1000),
        "parameter": torch.nn.Parameter(base.clone()),
    }  # fmt: skip
    file = open_torch_file(_save(tmp_path / "w.pt", tensors, is_zip=is_zip))
    for name, expected in tensors.items():
        found = file.read(file.content[name])
        assert found.dtype == expected.dtype, name
        assert torch.equal(found, expected), name
    assert file.read(file.content["expanded"]).untyped_storage().nbytes() == 4  # no memory for what is one number


@FORMATS
def test_plain_values_and_nesting_survive_and_classes_become_inert(tmp_path, is_zip):
    network = torch.nn.BatchNorm1d(4)
    content = {
        "state_dict": network.state_dict(), "epoch": 3, "rate": 0.5, "names": ["a", ("b", None)], "big": 2**70,
        "ordered": collections.OrderedDict([("x", 1)]), "settings": Settings(), "kind": torch.float32,
        "default": collections.defaultdict(list, a=[1]), "set": {1, 2}, "text": "é", "bytes": b"\x00\xff", 5: True,
    }  # fmt: skip
    found = open_torch_file(_save(tmp_path / "c.ckpt", content, is_zip=is_zip)).content
    assert list(found["state_dict"]) == list(network.state_dict())
    assert all(isinstance(tensor, StoredTensor) for tensor in found["state_dict"].values())
    for name in ("epoch", "rate", "names", "big", "ordered", "default", "text", 5):
        assert found[name] == content[name], name
    assert isinstance(found["settings"], Unknown)
    assert found["settings"].name.endswith(".Settings")


@FORMATS
@pytest.mark.parametrize("place", ["alone", "state_dict", "hyper_parameters"])
def test_a_hostile_file_is_refused_and_nothing_is_executed(tmp_path, is_zip, place):
    mark = tmp_path / "was_run"
    attack = Attack(f"touch {mark}")
    content = attack if place == "alone" else {"state_dict": {"w": torch.ones(2)}, place: attack}
    path = _save(tmp_path / "evil.pt", content, is_zip=is_zip)
    with pytest.raises(DataError, match=r"evil\.pt: refused.*system.*Nothing was run"):
        open_torch_file(path)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["eval", "exec", "__import__"])
def test_calls_of_the_interpreter_are_refused(tmp_path, name):
    source = _save(tmp_path / "good.pt", {"w": torch.ones(2)})
    call = f"cbuiltins\n{name}\n(V1\ntR.".encode()
    with pytest.raises(DataError, match=rf"builtins\.{name}"):
        open_torch_file(_rewrite(source, tmp_path / "bad.pt", {"good/data.pkl": call}))


@FORMATS
def test_a_tensor_inside_an_unknown_object_is_refused(tmp_path, is_zip):
    with pytest.raises(DataError, match="KeepsTensor"):
        open_torch_file(_save(tmp_path / "w.pt", {"model": KeepsTensor()}, is_zip=is_zip))


def test_entries_that_torch_never_writes_are_refused(tmp_path):
    source = _save(tmp_path / "good.pt", {"w": torch.ones(2)})
    for name in ("good/../../etc/passwd", "/good/data/1", "good/data/x.py", "other/data/1", "good/data/../data/0"):
        with pytest.raises(DataError, match="never writes"):
            open_torch_file(_rewrite(source, tmp_path / "bad.pt", {name: b"\0" * 8}))
    with pytest.raises(DataError, match="TorchScript"):
        open_torch_file(_rewrite(source, tmp_path / "bad.pt", {"good/code/x.py": b""}))


def test_compressed_entries_are_refused(tmp_path):
    source = _save(tmp_path / "good.pt", {"w": torch.ones(2)})
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    with pytest.raises(DataError, match="compressed"):
        open_torch_file(tmp_path / "bomb.pt")


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    source = _save(tmp_path / "good.pt", {"w": torch.ones(200)})
    with zipfile.ZipFile(source) as archive:
        pickled = archive.read("good/data.pkl")
    longer = pickled.replace(b"K\x00K\xc8\x85", b"K\x00K\xc9\x85")  # the tensor's shape says 201
    assert longer != pickled
    with pytest.raises(DataError, match="beyond its storage"):
        open_torch_file(_rewrite(source, tmp_path / "bad.pt", {"good/data.pkl": longer}))
    with pytest.raises(DataError, match="should have 800 bytes"):
        open_torch_file(_rewrite(source, tmp_path / "bad.pt", {"good/data/0": b"\0" * 796}))


@FORMATS
def test_every_truncation_is_told(tmp_path, is_zip):
    whole = _save(tmp_path / "whole.pt", {"w": torch.ones(50), "s": Settings()}, is_zip=is_zip).read_bytes()
    path = tmp_path / "cut.pt"
    for length in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.pt"):
            open_torch_file(path)


def test_damaged_pickles_are_told_and_never_crash(tmp_path):
    source = _save(tmp_path / "good.pt", {"w": torch.ones(50), "s": Settings(), "n": [1, {2: 3}]})
    with zipfile.ZipFile(source) as archive:
        pickled = archive.read("good/data.pkl")
    generator = np.random.default_rng(4)
    for _ in range(300):
        broken = bytearray(pickled)
        for place in generator.integers(0, len(pickled), 3):
            broken[place] = generator.integers(0, 256)
        path = _rewrite(source, tmp_path / "bad.pt", {"good/data.pkl": bytes(broken)})
        with contextlib.suppress(DataError):  # anything else would be a crash
            open_torch_file(path)


def test_other_files_are_refused_by_name(tmp_path):
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"w": 1}))
    (tmp_path / "text.pt").write_text("no weights")
    for name in ("plain.pkl", "text.pt"):
        with pytest.raises(DataError, match=rf"{name} is not a file of torch\.save"):
            open_torch_file(tmp_path / name)
    with pytest.raises(AssetMissingError, match=r"absent\.pt"):
        open_torch_file(tmp_path / "absent.pt")
