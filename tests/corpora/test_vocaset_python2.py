"""VOCASET's pickles byte by byte as Python 2 and numpy 1 write them: no pickler of today is asked.

Protocol 2 (binary) and protocol 0 (text, Python 2's default); byte strings where Python 3 has text, numpy's old module
names, and numbers as int, long and numpy scalars.
"""

import struct
from collections.abc import Mapping

import numpy as np
import pytest

from ecavatar.corpora.vocaset import Vocaset
from ecavatar.storage.unpickle import load_pickle

SUBJECT = "FaceTalk_170728_03272_TA"
_CODES = {"int16": "i2", "int64": "i8", "float32": "f4", "float64": "f8"}


class Binary:
    """Protocol 2 without memo, one opcode after the other."""

    start = b"\x80\x02"

    def text(self, value: bytes) -> bytes:
        if len(value) < 256:
            return b"U" + bytes([len(value)]) + value  # SHORT_BINSTRING
        return b"T" + struct.pack("<i", len(value)) + value  # BINSTRING

    def whole(self, value: int) -> bytes:
        if 0 <= value < 256:
            return b"K" + bytes([value])  # BININT1
        if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)  # BININT
        return b"\x8a\x08" + struct.pack("<q", value)  # LONG1: Python 2's long

    def truth(self, value: bool) -> bytes:
        return b"\x88" if value else b"\x89"  # NEWTRUE, NEWFALSE


class Text(Binary):
    """Protocol 0: what `pickle.dump(value, file)` wrote in Python 2."""

    start = b""

    def text(self, value: bytes) -> bytes:
        inner = "".join(chr(b) if 32 <= b < 127 and chr(b) not in "'\\" else f"\\x{b:02x}" for b in value)
        return f"S'{inner}'\n".encode()

    def whole(self, value: int) -> bytes:
        return f"I{value}\n".encode() if abs(value) < 2**31 else f"L{value}L\n".encode()

    def truth(self, value: bool) -> bytes:
        return b"I01\n" if value else b"I00\n"


def dump(value: object, write: Binary) -> bytes:
    return write.start + _value(value, write) + b"."


def _value(value: object, write: Binary) -> bytes:
    if isinstance(value, np.ndarray):
        return _array(value, write)
    if isinstance(value, np.generic):
        content = _dtype(value.dtype, write) + write.text(value.tobytes())
        return b"cnumpy.core.multiarray\nscalar\n(" + content + b"tR"
    if isinstance(value, Mapping):
        pairs = b"".join(_value(key, write) + _value(item, write) + b"s" for key, item in value.items())
        return b"(d" + pairs
    if isinstance(value, str):
        return write.text(value.encode("latin1"))
    assert isinstance(value, int)
    return write.whole(value)


def _dtype(dtype: np.dtype, write: Binary) -> bytes:
    made = b"cnumpy\ndtype\n(" + write.text(_CODES[dtype.name].encode()) + write.whole(0) + write.whole(1) + b"tR"
    end = write.whole(-1) * 2 + write.whole(0)
    return made + b"(" + write.whole(3) + write.text(b"<") + b"NNN" + end + b"tb"


def _array(array: np.ndarray, write: Binary) -> bytes:
    empty = b"(cnumpy\nndarray\n(" + write.whole(0) + b"t" + write.text(b"b") + b"tR"
    shape = b"(" + b"".join(write.whole(size) for size in array.shape) + b"t"
    is_fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    content = write.text(array.tobytes("F" if is_fortran else "C"))
    state = write.whole(1) + shape + _dtype(array.dtype, write) + write.truth(is_fortran) + content
    return b"cnumpy.core.multiarray\n_reconstruct\n" + empty + b"(" + state + b"tb"


@pytest.fixture(params=[Binary(), Text()], ids=["protocol 2", "protocol 0"])
def write(request) -> Binary:
    return request.param


@pytest.mark.parametrize("dtype", list(_CODES))
def test_arrays_of_python_2_come_back_equal(tmp_path, write, dtype):
    values = np.random.default_rng(3).integers(-30000, 30000, (50, 7)).astype(dtype)
    for array in (values, np.asfortranarray(values), values[:0], values[0]):
        (tmp_path / "a.pkl").write_bytes(dump({"audio": array, "sample_rate": np.int64(22000)}, write))
        back = load_pickle(tmp_path / "a.pkl")
        assert back["audio"].dtype == array.dtype
        np.testing.assert_array_equal(back["audio"], array)
        assert back["sample_rate"] == 22000


def test_a_corpus_of_python_2_is_read(tmp_path, write):
    draw = np.random.default_rng(4)
    meshes, template = draw.normal(size=(6, 4, 3)).astype("f4"), draw.normal(size=(4, 3))
    sound = np.array([0, 39, 92, 10, 13, 255, -32768, 32767], np.int16)  # quote, backslash, line ends
    np.save(tmp_path / "data_verts.npy", meshes)
    index = {"sentence01": {0: 2, 1: 3}, "sentence02": {0: np.int64(5), 1: np.int64(4)}, "sentence03": {0: 2**40}}
    recordings = {
        "sentence01": {"audio": sound, "sample_rate": 22000},
        "sentence02": {"audio": sound[::-1].copy(), "sample_rate": np.int64(48000)},
        "sentence03": {"audio": sound, "sample_rate": 22000},
    }
    contents = {"subj_seq_to_idx": index, "raw_audio_fixed": recordings, "templates": template}
    for name, value in contents.items():
        (tmp_path / f"{name}.pkl").write_bytes(dump({SUBJECT: value}, write))
    corpus = Vocaset.open(tmp_path)
    first, second = corpus.clips
    assert [reject.reason for reject in corpus.rejects] == ["row_out_of_range"]
    np.testing.assert_array_equal(corpus.templates[SUBJECT], template.astype("f4"))
    np.testing.assert_array_equal(corpus.vertices(first, 60), meshes[[2, 3]])
    np.testing.assert_array_equal(corpus.vertices(second, 60), meshes[[5, 4]])
    np.testing.assert_array_equal(corpus.audio(first)[0], sound.astype("f4") / 32768)
    assert corpus.audio(second)[1] == 48000
