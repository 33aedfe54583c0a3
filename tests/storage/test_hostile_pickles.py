"""Pickles and archives made to crash, hang or fill the memory: refused in no time, by both readers."""

import pickle
import resource
import struct
import time
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest

from ecavatar.errors import DataError
from ecavatar.storage.arrays import read_arrays, write_arrays
from ecavatar.storage.torch_file import open_torch_file
from ecavatar.storage.unpickle import CscMatrix, array_of, load_npy, load_npz, load_pickle

DOUBLED = b"N\x85q\x00" + b"".join(b"h%ch%c\x86q%c" % (k, k, k + 1) for k in range(60))
"""A tuple of two tuples of two tuples ...: 2**60 of them in 400 bytes."""
DEEP = b")" + b"\x85" * 200_000
NESTING = {
    "doubled tuple as key": b"\x80\x02}" + DOUBLED + b"Ns.",
    "doubled tuple in a set": b"\x80\x04\x8f(" + DOUBLED + b"\x90.",
    "doubled tuple as storage": b"\x80\x02" + DOUBLED + b"Q.",
    "deep tuple as key": b"\x80\x02}" + DEEP + b"Ns.",
    "deep tuple as storage": b"\x80\x02" + DEEP + b"Q.",
}
BUILT = {
    "bytearray": b"cbuiltins\nbytearray\n(J\x00\x00\x00\x70tR.",
    "ndarray by shape": b"cnumpy\nndarray\n((I100000000\nI9\ntVf8\ntR.",
    "ndarray by __new__": b"\x80\x02cnumpy\nndarray\n(I100000000\nI9\nt\x85\x81.",
    "dtype with fields": b"cnumpy\ndtype\n(]\x8c\x01a\x8c\x01O\x86atR.",
    "dtype of no size": b"cnumpy\ndtype\n(VS0\ntR.",
    "extension code": b"\x80\x02\x82\x01.",
    "bytes longer than the file": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"a.",
    "state for a set": b"\x80\x04cbuiltins\nset\n)R}b.",
    "an object by INST": b"(ios\nsystem\n.",
    "an object by OBJ": b"(cos\nsystem\nVls\no.",
}


@contextmanager
def cheap():
    """What happens here takes less than 5 s and 300 MB more than was ever taken before."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.perf_counter() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


@pytest.mark.parametrize("attack", NESTING.values(), ids=NESTING)
def test_tuples_without_end_are_refused_by_both_readers(tmp_path, attack):
    (tmp_path / "a.pkl").write_bytes(attack)
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", attack)
    for load, name in ((load_pickle, "a.pkl"), (open_torch_file, "a.pt")):
        with cheap(), pytest.raises(DataError, match="tuples nested"):
            load(tmp_path / name)


@pytest.mark.parametrize("attack", BUILT.values(), ids=BUILT)
def test_nothing_is_built_but_what_a_data_file_holds(tmp_path, attack):
    (tmp_path / "a.pkl").write_bytes(attack)
    with cheap(), pytest.raises(DataError, match=r"a\.pkl"):
        load_pickle(tmp_path / "a.pkl")


def test_a_memo_index_reserves_no_memory(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02Nr\xff\xff\xff\x07.")
    with cheap():
        assert load_pickle(tmp_path / "a.pkl") is None


@pytest.mark.parametrize(
    "state",
    [
        (3, "|", None, ("a",), {"a": (np.dtype("f8"), 10**6)}, 8, 1, 0),  # a field outside the item
        (3, "|", (np.dtype("O"), (2,)), None, None, 16, 1, 0),
        (3, "|", None, None, None, 10**9, 1, 0),
        (3, "|", None, None, None, -1, -1, 63),  # claims to hold objects
    ],
)
def test_a_made_up_dtype_is_refused(tmp_path, state):
    parts = pickle.dumps(state, 2)[2:-1]
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02cnumpy\ndtype\n(X\x02\x00\x00\x00f8I00\nI01\ntR" + parts + b"b.")
    with pytest.raises(DataError, match="refused: a made-up"):
        load_pickle(tmp_path / "a.pkl")


def test_byte_orders_and_empty_values_of_old_pickles_survive(tmp_path):
    value = {"big": np.arange(3, dtype=">i4"), "none": np.zeros((0, 3)), "text": np.array(["ab", "c"]), "bytes": b""}
    for protocol in (0, 2, 5):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(value, protocol))
        back = load_pickle(tmp_path / "a.pkl")
        for name, expected in value.items():
            np.testing.assert_array_equal(back[name], expected)
            assert np.asarray(back[name]).dtype.kind == np.asarray(expected).dtype.kind


def test_lists_that_share_lists_do_not_become_an_endless_array():
    nested: list = [0.0] * 1000
    for _ in range(3):
        nested = [nested] * 1000
    with cheap(), pytest.raises(DataError, match="nested lists of more than"):
        array_of(nested)
    with pytest.raises(DataError, match="deeper"):
        array_of([[[[[1]]]]])
    with pytest.raises(DataError, match="no array"):
        array_of([[1], [1, 2]])
    np.testing.assert_array_equal(array_of([[1, 2], [3, 4]]), [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    "change",
    [
        {"indptr": np.array(0)},
        {"indptr": np.array([0, 2**63 - 1, 2])},
        {"indptr": np.array([0.0, 1.0, 2.0])},
        {"indptr": np.array([1, 2, 2])},
        {"indices": np.array(["a", "b"])},
        {"data": np.ones((2, 2))},
        {"data": np.array([None, None])},
    ],
)
def test_a_sparse_matrix_of_wrong_parts_is_refused(change):
    parts = {"data": np.ones(2), "indices": np.array([0, 1]), "indptr": np.array([0, 1, 2]), "shape": (2, 2)}
    np.testing.assert_array_equal(CscMatrix(**parts).to_dense(), np.eye(2))
    with pytest.raises(DataError, match="sparse matrix"):
        CscMatrix(**parts | change).to_dense()


def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as member:
            for _ in range(40):
                member.write(bytes(1 << 24))
        archive.writestr("y.npy", b"")
    for load in (load_npz, read_arrays):
        with cheap(), pytest.raises(DataError, match="bytes of arrays, more than"):
            load(tmp_path / "a.npz")


def test_a_name_given_twice_and_a_negative_shape_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(4))
    content = (tmp_path / "a.npy").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
        archive.writestr("x", content)
    with pytest.raises(DataError, match="x twice"):
        load_npz(tmp_path / "a.npz")
    (tmp_path / "a.npy").write_bytes(content.replace(b"(4,)", b"(-4,)").replace(b"} ", b"}", 1))
    with pytest.raises(DataError, match="shape"):
        load_npy(tmp_path / "a.npy")


def test_files_of_other_kinds_are_no_files_of_arrays(tmp_path):
    np.save(tmp_path / "plain.npy", np.arange(3))
    np.savez(tmp_path / "objects.npz", facts=np.frombuffer(b"{}", np.uint8), x=np.array([None]))
    np.savez(tmp_path / "deep.npz", facts=np.frombuffer(b"[" * 100_000, np.uint8))
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("facts", "{}")
    for name in ("plain.npy", "objects.npz", "deep.npz", "text.npz"):
        with pytest.raises(DataError, match=name):
            read_arrays(tmp_path / name)
    write_arrays(tmp_path / "good.npz", {"x": np.arange(3.0)}, {"a": 1})
    assert read_arrays(tmp_path / "good.npz")[1] == {"a": 1}
