"""numpy's files whose arrays hold objects, and torch tensors in them, read without running anything they say."""

import os
import pickle
import sys
import types

import numpy as np
import pytest
import torch

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.storage.unpickle import load_npy, load_npz, load_pickle


class Calls:
    def __init__(self, function, *arguments):
        self.plan = (function, arguments)

    def __reduce__(self):
        return self.plan


@pytest.mark.parametrize("value", [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))])
def test_plain_arrays_come_back_equal(tmp_path, value):
    np.save(tmp_path / "a.npy", value)
    np.savez(tmp_path / "a.npz", first=value, second=value + 1)
    np.testing.assert_array_equal(load_npy(tmp_path / "a.npy"), value)
    np.testing.assert_array_equal(load_npz(tmp_path / "a.npz")["second"], value + 1)
    assert list(load_npz(tmp_path / "a.npz", {"first"})) == ["first"]


def test_a_dict_saved_by_numpy_comes_back(tmp_path):
    np.save(tmp_path / "a.npy", {"lmk_face_idx": np.arange(3), "names": ["a"]}, allow_pickle=True)
    back = load_npy(tmp_path / "a.npy").item()
    np.testing.assert_array_equal(back["lmk_face_idx"], [0, 1, 2])
    assert back["names"] == ["a"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.bool])
def test_torch_tensors_become_equal_arrays(tmp_path, dtype):
    whole = torch.arange(24).reshape(2, 3, 4).to(dtype)
    for tensor in (whole, whole[1, :, 1:3], whole.transpose(0, 2), whole[:0], whole[0, 0, 0]):
        np.save(tmp_path / "a.npy", {"t": tensor}, allow_pickle=True)
        back = load_npy(tmp_path / "a.npy").item()["t"]
        assert isinstance(back, np.ndarray)
        np.testing.assert_array_equal(back, tensor.numpy())


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path):
    storage = torch.arange(4).untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.int64, _internal=True)
    for size, stride in (((5,), (1,)), ((2, 2), (3, 1)), ((10**6, 10**6), (0, 0)), ((2,), (-1,))):
        hostile = Calls(torch._utils._rebuild_tensor_v2, typed, 0, size, stride, False, None)
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(hostile, protocol=2))
        with pytest.raises(DataError, match="refused: a tensor of size"):
            load_pickle(tmp_path / "a.pkl")


def test_a_hostile_pickle_inside_a_storage_or_an_array_is_not_run(tmp_path):
    witness = tmp_path / "witness"
    bomb = Calls(os.system, f"touch {witness}")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Calls(torch.storage._load_from_bytes, pickle.dumps(bomb)), 2))
    np.save(tmp_path / "a.npy", np.array([bomb], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=np.array([bomb], dtype=object))
    for load, name in ((load_pickle, "a.pkl"), (load_npy, "a.npy"), (load_npz, "a.npz")):
        with pytest.raises(DataError, match=rf"{name}: refused.*system"):
            load(tmp_path / name)
    assert not witness.exists()


def test_a_chumpy_selection_is_the_values_it_picks(tmp_path, monkeypatch):
    classes = {}
    for module, name in (("chumpy.ch", "Ch"), ("chumpy.reordering", "Select")):
        stub = types.ModuleType(module)
        classes[name] = type(name, (), {"__module__": module})
        setattr(stub, name, classes[name])
        monkeypatch.setitem(sys.modules, module, stub)
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    whole, part = classes["Ch"](), classes["Select"]()
    whole.x = np.arange(12.0).reshape(3, 4)
    part.a, part.idxs, part.preferred_shape = whole, np.array([11, 0, 5, 6]), (2, 2)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(part, protocol=2))
    np.testing.assert_array_equal(load_pickle(tmp_path / "a.pkl").x, [[11, 0], [5, 6]])


def test_damaged_and_missing_files_are_named(tmp_path):
    np.save(tmp_path / "good.npy", np.arange(9.0))
    content = (tmp_path / "good.npy").read_bytes()
    for damaged in (b"", b"no array", content[:-8], content[:20]):
        (tmp_path / "a.npy").write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.npy is not a readable npy file"):
            load_npy(tmp_path / "a.npy")
    (tmp_path / "a.npz").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match=r"a\.npz is not a readable npz file"):
        load_npz(tmp_path / "a.npz")
    for load in (load_npy, load_npz):
        with pytest.raises(AssetMissingError, match="not found"):
            load(tmp_path / "none")
