"""Arrays with facts: the same content gives the same bytes, and foreign files are refused."""

import numpy as np
import pytest

from ecavatar.errors import DataError
from ecavatar.storage.arrays import read_arrays, write_arrays


def test_what_is_written_comes_back_and_order_does_not_change_the_bytes(tmp_path):
    arrays = {"b": np.arange(6, dtype=np.int32).reshape(2, 3), "a": np.linspace(0, 1, 4), "none": np.zeros((0, 2))}
    write_arrays(tmp_path / "x.npz", arrays, {"name": "größe", "n": 3})
    write_arrays(tmp_path / "y.npz", dict(reversed(arrays.items())), {"n": 3, "name": "größe"})
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "y.npz").read_bytes()
    back, facts = read_arrays(tmp_path / "x.npz")
    assert facts == {"name": "größe", "n": 3}
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype


def test_objects_and_the_reserved_name_are_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(ValueError, match="Object arrays"):
        write_arrays(tmp_path / "x.npz", {"a": np.array([None])}, {})
    with pytest.raises(DataError, match="facts"):
        write_arrays(tmp_path / "x.npz", {"facts": np.zeros(1)}, {})
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_foreign_files_are_refused(tmp_path):
    write_arrays(tmp_path / "x.npz", {"a": np.arange(1000)}, {})
    content = (tmp_path / "x.npz").read_bytes()
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "list.npz", facts=np.frombuffer(b"[]", np.uint8))
    for name, damaged in (("cut.npz", content[:-300]), ("text.npz", b"text"), ("empty.npz", b"")):
        (tmp_path / name).write_bytes(damaged)
    for name in ("cut.npz", "text.npz", "empty.npz", "other.npz", "list.npz"):
        with pytest.raises(DataError, match=name):
            read_arrays(tmp_path / name)
