"""The unpickler reads the field's data files and runs nothing they say."""

import builtins
import collections
import os
import pickle
import sys
import types

import numpy as np
import pytest
from scipy import sparse

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.storage.unpickle import ChumpyArray, CscMatrix, load_pickle


def dump(path, value, protocol=2):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_plain_values_come_back_equal(tmp_path, protocol):
    value = {
        "v": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "objects": np.array([{"a": np.arange(2)}, None], dtype=object),
        "scalar": np.float32(1.5),
        "plain": [1, "two", b"three", 4.0, (True, None), {5}, collections.OrderedDict(a=1)],
    }
    back = load_pickle(dump(tmp_path / "a.pkl", value, protocol))
    np.testing.assert_array_equal(back["v"], value["v"])
    np.testing.assert_array_equal(back["fortran"], value["fortran"])
    np.testing.assert_array_equal(back["objects"][0]["a"], [0, 1])
    assert back["scalar"] == value["scalar"]
    assert back["plain"] == value["plain"]


def test_python_2_byte_strings_are_read(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"(dp0\nS'caf\\xe9'\np1\nI7\ns.")
    assert load_pickle(tmp_path / "a.pkl") == {"café": 7}
    assert load_pickle(tmp_path / "a.pkl", encoding="bytes") == {b"caf\xe9": 7}


def test_sparse_matrices_become_records_with_the_same_values(tmp_path):
    matrix = sparse.csc_matrix(np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]]))
    back = load_pickle(dump(tmp_path / "a.pkl", matrix))
    assert isinstance(back, CscMatrix)
    np.testing.assert_array_equal(back.to_dense(), matrix.toarray())


def test_an_inconsistent_sparse_matrix_is_refused():
    broken = CscMatrix(data=np.ones(2), indices=np.array([0, 9]), indptr=np.array([0, 1, 2]), shape=(2, 2))
    with pytest.raises(DataError, match="outside"):
        broken.to_dense()
    with pytest.raises(DataError, match="inconsistent"):
        CscMatrix(data=np.ones(2), indices=np.array([0]), indptr=np.array([0, 1, 2]), shape=(2, 2)).to_dense()


def test_chumpy_arrays_are_read_without_chumpy(tmp_path, monkeypatch):
    module = types.ModuleType("chumpy.ch")
    ch = type("Ch", (), {"__module__": "chumpy.ch"})
    module.Ch = ch
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    value = ch()
    value.x = np.arange(3.0)
    for protocol in (0, 2, 4):
        back = load_pickle(dump(tmp_path / "a.pkl", {"shapedirs": value}, protocol))["shapedirs"]
        assert isinstance(back, ChumpyArray)
        np.testing.assert_array_equal(back.x, np.arange(3.0))


class Calls:
    def __init__(self, function, *arguments):
        self.plan = (function, arguments)

    def __reduce__(self):
        return self.plan


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "system"), (builtins.eval, "eval"), (builtins.getattr, "getattr"), (np.load, "load")],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_calls_are_refused_by_name_and_not_made(tmp_path, function, name, protocol):
    witness = tmp_path / "witness"
    hostile = dump(tmp_path / "a.pkl", {"x": [Calls(function, f"touch {witness}")]}, protocol)
    with pytest.raises(DataError, match=rf"a\.pkl: refused: the pickle wants \w+\.{name}"):
        load_pickle(hostile)
    assert not witness.exists()


def test_dotted_names_do_not_reach_behind_what_is_allowed(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x15ndarray.__class__.mro\x93.")
    with pytest.raises(DataError, match="refused"):
        load_pickle(tmp_path / "a.pkl")


def test_encode_serves_latin1_only(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"c_codecs\nencode\n(Vabc\nVlatin1\ntR.")
    assert load_pickle(tmp_path / "a.pkl") == b"abc"
    (tmp_path / "a.pkl").write_bytes(b"c_codecs\nencode\n(Vabc\nVrot13\ntR.")
    with pytest.raises(DataError, match="refused"):
        load_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x05", pickle.dumps(np.arange(9))[:-20]])
def test_damaged_files_are_named(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.pkl is not a readable pickle"):
        load_pickle(tmp_path / "a.pkl")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AssetMissingError, match="not found"):
        load_pickle(tmp_path / "none.pkl")
