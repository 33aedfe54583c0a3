"""VOCASET in both of its layouts: the same clips give the same arrays, and bad ones are named, counted or refused."""

import os
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from ecavatar.corpora.vocaset import Vocaset, first_bad_frame, vocaset_splits
from ecavatar.corpora.vocaset_layouts.meshes import map_floats
from ecavatar.errors import AssetMissingError, DataError, ShapeError
from ecavatar.storage.rejects import read_rejects, write_rejects
from tests.fabricate import SUBJECTS, write_vocaset_folders

FIRST = "FaceTalk_170728_03272_TA"
RAW = ("data_verts.npy", "subj_seq_to_idx.pkl", "raw_audio_fixed.pkl", "templates.pkl")


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.plan = (function, arguments)

    def __reduce__(self):
        return self.plan


@pytest.fixture
def raw(tmp_path, small_vocaset) -> Path:
    """A copy of the small VOCASET in VOCA's files, to be damaged."""
    shutil.copytree(small_vocaset, tmp_path / "raw")
    return tmp_path / "raw"


@pytest.fixture
def folders(tmp_path, small_vocaset) -> Path:
    """The small VOCASET in folders, to be damaged."""
    write_vocaset_folders(tmp_path / "folders", Vocaset.open(small_vocaset))
    return tmp_path / "folders"


def edit(path: Path, change) -> None:
    """Let `change` work on the content of a pickle."""
    value = pickle.loads(path.read_bytes())
    change(value)
    path.write_bytes(pickle.dumps(value, protocol=2))


def reasons(corpus: Vocaset) -> dict[str, str]:
    return {reject.item_id.removeprefix("FaceTalk_"): reject.reason for reject in corpus.rejects}


# --- both layouts ----------------------------------------------------------------------------------------------------


def test_both_layouts_give_the_same_corpus(small_vocaset, folders):
    one, other = Vocaset.open(small_vocaset), Vocaset.open(folders)
    assert one.clips == other.clips
    assert len(one.clips) == sum(map(len, SUBJECTS.values()))
    assert not other.rejects
    assert one.missing == other.missing
    assert one.nominal() == other.nominal()
    assert list(one.templates) == list(other.templates)
    for subject, template in one.templates.items():
        np.testing.assert_array_equal(template, other.templates[subject])
    for a, b in zip(one.clips, other.clips, strict=True):
        for fps in (60, 30, 20):
            np.testing.assert_array_equal(one.vertices(a, fps), other.vertices(b, fps))
        np.testing.assert_array_equal(one.audio(a)[0], other.audio(b)[0])
        assert one.audio(a)[1] == other.audio(b)[1]
        assert one.duration_mismatch(a) == other.duration_mismatch(b)
    assert one.durations().equals(other.durations())


def test_where_both_layouts_are_there_vocas_files_are_read(raw, folders):
    shutil.copytree(folders, raw, dirs_exist_ok=True)
    np.save(raw / "vertices_npy" / f"{FIRST}_sentence01.npy", np.zeros((3, 3), np.float32))
    corpus = Vocaset.open(raw)
    assert not corpus.rejects
    assert corpus.sound_files == [raw / "raw_audio_fixed.pkl"]
    (raw / "data_verts.npy").unlink()
    corpus = Vocaset.open(raw)
    assert reasons(corpus) == {f"{FIRST.removeprefix('FaceTalk_')}_sentence01": "bad_vertices"}
    assert len(corpus.sound_files) == 8


def test_what_each_layout_lacks_is_named(tmp_path, folders):
    with pytest.raises(AssetMissingError, match=r"data_verts\.npy.*vertices_npy/, wav/, templates\.pkl"):
        Vocaset.open(tmp_path / "nowhere")
    shutil.rmtree(folders / "wav")
    with pytest.raises(AssetMissingError, match=r"FaceFormer's folders wav/\. Unpack"):
        Vocaset.open(folders)


@pytest.mark.parametrize("layout", ["raw", "folders"])
@pytest.mark.parametrize("fps", [60, 30, 12])
def test_blocks_joined_are_the_clip(layout, fps, request):
    corpus = Vocaset.open(request.getfixturevalue(layout))
    for clip in corpus.clips[:2]:
        whole = corpus.vertices(clip, fps)
        for size in (1, 3, 7, 100):
            blocks = list(corpus.chunks(clip, fps, size))
            assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
            assert all(block.dtype == np.float32 and type(block) is np.ndarray for block in blocks)
            np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_bad_block_sizes_and_rates_are_refused_at_once(small_vocaset):
    corpus = Vocaset.open(small_vocaset)
    for fps, frames in ((25, 8), (0, 8), (30, 0)):
        with pytest.raises(ShapeError):
            corpus.chunks(corpus.clips[0], fps, frames)


@pytest.mark.parametrize("layout", ["raw", "folders"])
def test_mismatch_is_mesh_minus_sound(layout, request):
    root = request.getfixturevalue(layout)
    if layout == "raw":
        edit(
            root / "raw_audio_fixed.pkl",
            lambda v: v[FIRST].update(sentence01={"audio": np.zeros(100, "i2"), "sample_rate": 1000}),
        )
    else:
        soundfile.write(root / "wav" / f"{FIRST}_sentence01.wav", np.zeros(100), 1000, "PCM_16")
    corpus = Vocaset.open(root)
    assert corpus.duration_mismatch(corpus.clips[0]) == pytest.approx(corpus.clips[0].frames / 60 - 0.1)
    table = corpus.durations().set_index("clip_id")
    assert table.loc[corpus.clips[0].clip_id, "mismatch_s"] == pytest.approx(table["mesh_s"].iloc[0] - 0.1)


def test_missing_clips_are_those_of_the_sets_that_peers_have(raw):
    assert Vocaset.open(raw).missing == [
        "FaceTalk_170728_03272_TA_sentence03",
        "FaceTalk_170904_00128_TA_sentence02",
    ]
    template = Vocaset.open(raw).templates[FIRST]
    edit(raw / "templates.pkl", lambda v: v.update(FaceTalk_170731_00024_TA=template))  # sentence 05 is in no set
    assert "FaceTalk_170731_00024_TA_sentence21" in Vocaset.open(raw).missing
    edit(raw / "raw_audio_fixed.pkl", lambda v: v[FIRST].clear())
    corpus = Vocaset.open(raw)
    assert len(corpus.missing) == 3, "rejects are there"
    assert corpus.nominal() == {"train": (2, 320), "val": (2, 40), "test": (1, 40)}


def test_the_published_sets_have_the_published_sizes():
    assert {name: split.nominal_clips for name, split in vocaset_splits().items()} == {
        "train": 320, "val": 40, "test": 40,
    }  # fmt: skip


def test_links_out_of_the_corpus_are_not_followed(raw, folders, tmp_path):
    outside = tmp_path / "outside.npy"
    (raw / "data_verts.npy").rename(outside)
    (raw / "data_verts.npy").symlink_to(outside)
    with pytest.raises(DataError, match="leads out of"):
        Vocaset.open(raw)
    for folder, suffix, sentence in (("vertices_npy", "npy", "01"), ("wav", "wav", "02")):
        path = folders / folder / f"{FIRST}_sentence{sentence}.{suffix}"
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    assert sorted(reasons(Vocaset.open(folders)).values()) == ["bad_audio", "bad_vertices"]
    (tmp_path / "linked").symlink_to(folders)
    assert len(Vocaset.open(tmp_path / "linked").clips) == 6, "the corpus itself may be a link"
    shutil.move(folders / "wav", tmp_path / "wav")
    (folders / "wav").symlink_to(tmp_path / "wav")
    with pytest.raises(DataError, match="leads out of"):
        Vocaset.open(folders)


# --- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_any_float_and_order_are_mapped(tmp_path, dtype, order):
    array = np.asarray(np.random.default_rng(1).normal(size=(5, 6)), dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    mapped = map_floats(tmp_path / "a.npy")
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, array)


def test_float64_meshes_in_either_order_are_read_as_float32(folders, small_vocaset):
    path = folders / "vertices_npy" / f"{FIRST}_sentence01.npy"
    np.save(path, np.asfortranarray(np.load(path).astype(np.float64)))
    corpus, truth = Vocaset.open(folders), Vocaset.open(small_vocaset)
    np.testing.assert_array_equal(corpus.vertices(corpus.clips[0]), truth.vertices(truth.clips[0]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros((3, 4, 3), np.float16), "expected float32 or float64, got float16"),
        (np.zeros((3, 4, 3), np.int64), "expected float32 or float64, got int64"),
        (np.zeros((3, 4, 3), np.complex64), "expected float32 or float64, got complex64"),
        (np.zeros((3, 4, 3), "f4,f4"), "expected float32 or float64"),
        (np.zeros((3, 12), np.float32), r"must hold \(rows, vertices, 3\) numbers, got \(3, 12\)"),
        (np.zeros((3, 4, 2), np.float32), r"got \(3, 4, 2\)"),
    ],
)
def test_an_array_of_another_kind_is_refused(raw, content, words):
    np.save(raw / "data_verts.npy", content)
    with pytest.raises(DataError, match=rf"data_verts\.npy.*{words}"):
        Vocaset.open(raw)


def test_an_array_of_objects_is_refused_and_nothing_runs(raw, folders, tmp_path):
    witness = tmp_path / "witness"
    bomb = np.array([Calls(os.system, f"touch {witness}")], dtype=object)
    np.save(raw / "data_verts.npy", bomb, allow_pickle=True)
    with pytest.raises(DataError, match="expected float32 or float64, got object"):
        Vocaset.open(raw)
    np.save(folders / "vertices_npy" / f"{FIRST}_sentence01.npy", bomb, allow_pickle=True)
    assert list(reasons(Vocaset.open(folders)).values()) == ["bad_vertices"]
    assert not witness.exists()


def test_a_truncated_array_is_named_with_both_sizes(raw):
    path = raw / "data_verts.npy"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 1000)
    with pytest.raises(DataError, match=rf"data_verts\.npy is cut short.*expected {size} bytes, got {size - 1000}"):
        Vocaset.open(raw)
    with path.open("r+b") as file:
        file.truncate(size + 4)
    with pytest.raises(DataError, match=rf"longer than it says.*expected {size} bytes, got {size + 4}"):
        Vocaset.open(raw)


HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }"


def npy(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        b"", b"PK\x03\x04", b"\x93NUMPY\x09\x00", npy("__import__('os').abort()"), npy("(" * 5000), npy("'a" * 9),
        npy(HEADER % "(99999999999999999999, 3, 3)"), npy(HEADER % "(-1, 3, 3)"), npy(HEADER % "(2.5, 3, 3)"),
        npy(HEADER % "5"), npy("{}"), npy(HEADER % "(2, 3, 3)")[:30],
    ],
)  # fmt: skip
def test_made_up_headers_are_refused(raw, content):
    (raw / "data_verts.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"data_verts\.npy"):
        Vocaset.open(raw)


@given(st.binary(max_size=200))
def test_no_bytes_after_the_magic_do_more_than_raise_our_errors(tmp_path_factory, tail):
    path = tmp_path_factory.getbasetemp() / "fuzzed.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + tail)
    with pytest.raises(DataError):
        map_floats(path)


def test_the_first_frame_that_is_not_finite_is_found():
    block = np.zeros((9, 4, 3), np.float32)
    assert first_bad_frame(block) is None
    block[2] = 3e38  # the sum overflows, the numbers are finite
    assert first_bad_frame(block) is None
    block[7, 1, 2], block[5, 3, 0] = np.nan, -np.inf
    assert first_bad_frame(block) == 5
    block[4, 0, :2] = np.inf, -np.inf
    assert first_bad_frame(block) == 4
    assert first_bad_frame(block[:0]) is None


def test_numbers_beyond_float32_become_bad_frames(folders):
    path = folders / "vertices_npy" / f"{FIRST}_sentence01.npy"
    meshes = np.load(path).astype(np.float64)
    meshes[6, 10] = 1e300
    np.save(path, meshes)
    corpus = Vocaset.open(folders)
    assert first_bad_frame(corpus.vertices(corpus.clips[0], 60)) == 6


# --- pickles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RAW[1:])
def test_a_hostile_pickle_is_refused_and_nothing_runs(raw, tmp_path, name):
    witness = tmp_path / "witness"
    bomb = {FIRST: Calls(os.system, f"touch {witness}")}
    (raw / name).write_bytes(pickle.dumps(bomb, protocol=2))
    with pytest.raises(DataError, match=rf"{name}: refused: the pickle wants \w+\.system"):
        Vocaset.open(raw)
    assert not witness.exists()


@pytest.mark.parametrize("name", RAW[1:])
@pytest.mark.parametrize("value", [[1, 2], {3: {}}, {FIRST: [1]}, {FIRST: None}])
def test_a_pickle_of_another_form_is_named(raw, name, value):
    (raw / name).write_bytes(pickle.dumps(value, protocol=2))
    with pytest.raises(DataError, match=rf"{name}"):
        Vocaset.open(raw)


def test_all_bad_templates_are_named(raw):
    def spoil(templates):
        first, second, third, _ = templates
        templates[first] = templates[first][:-1]
        templates[second] = np.full_like(templates[second], np.nan)
        templates[third] = templates[third].astype(np.float16)

    edit(raw / "templates.pkl", spoil)
    with pytest.raises(DataError) as error:
        Vocaset.open(raw)
    for words in ("(225, 3) instead of (226, 3)", "226 vertices are not finite", "float16 instead of"):
        assert words in str(error.value)
    (raw / "templates.pkl").write_bytes(pickle.dumps({}, protocol=2))
    with pytest.raises(DataError, match="no subject at all"):
        Vocaset.open(raw)


# --- clips that cannot be used ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ({}, "no_frames"), (None, "no_frames"), ([0, 1], "no_frames"), ({0: 0, 2: 1}, "frame_gap"),
        ({1: 0, 2: 1}, "frame_gap"), ({0: -1}, "row_out_of_range"), ({0: 10**30}, "row_out_of_range"),
        ({0: "0"}, "bad_index"), ({"0": 0}, "bad_index"), ({0: 0.5}, "bad_index"), ({0: None}, "bad_index"),
    ],
)  # fmt: skip
def test_clips_with_a_broken_index_are_set_aside(raw, frames, reason):
    edit(raw / "subj_seq_to_idx.pkl", lambda v: v[FIRST].update(sentence01=frames))
    corpus = Vocaset.open(raw)
    assert list(reasons(corpus).values()) == [reason]
    assert len(corpus.clips) == 7


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        (None, "no_audio"), ({}, "no_audio"), ({"audio": np.zeros(0, "i2"), "sample_rate": 1}, "no_audio"),
        ({"audio": np.zeros(4, "i2"), "sample_rate": 0}, "bad_audio"),
        ({"audio": np.zeros(4, "i2"), "sample_rate": "22000"}, "bad_audio"),
        ({"audio": np.array([None] * 4), "sample_rate": 1}, "bad_audio"),
        ({"audio": [1, 2], "sample_rate": 1}, "bad_audio"),
        ({"audio": np.zeros((4, 9), "i2"), "sample_rate": 1}, "bad_audio"),
        ({"audio": np.array([40000, 0]), "sample_rate": 1}, "bad_audio"),
        ({"audio": np.array([np.nan, 0]), "sample_rate": 1}, "bad_audio"),
    ],
)  # fmt: skip
def test_clips_with_broken_sound_in_the_pickle_are_set_aside(raw, sound, reason):
    edit(raw / "raw_audio_fixed.pkl", lambda v: v[FIRST].update(sentence01=sound))
    assert list(reasons(Vocaset.open(raw)).values()) == [reason]


def test_two_channels_and_wider_integers_mean_the_same_sound(raw):
    mono = np.array([0, 16384, -32768, 1], np.int64)
    for audio in (mono, mono[:, None], np.stack([mono, mono], axis=1), mono.astype("i2"), mono / 32768):
        sound = {"audio": audio, "sample_rate": np.int64(22000)}
        edit(raw / "raw_audio_fixed.pkl", lambda v, sound=sound: v[FIRST].update(sentence01=sound))
        corpus = Vocaset.open(raw)
        samples, rate = corpus.audio(corpus.clips[0])
        np.testing.assert_array_equal(samples, np.array([0, 0.5, -1, 1 / 32768], np.float32))
        assert (rate, type(rate), samples.dtype) == (22000, int, np.float32)


def test_rejects_of_any_name_can_be_written(raw, tmp_path):
    odd = {"\ud800": {0: 0}, "a\0b": {0: 0}, "\n" * 5: {0: 0}, ("x", 1): {0: 0}}
    edit(raw / "subj_seq_to_idx.pkl", lambda v: v[FIRST].update(odd))
    corpus = Vocaset.open(raw)
    write_rejects(tmp_path / "rejects.parquet", corpus.rejects)
    assert list(read_rejects(tmp_path / "rejects.parquet")["reason"]) == ["odd_name"] * 4


@pytest.mark.parametrize("name", ["sentence1", "sentence001", "../sentence01", "sentence01\n", "", "Sentence01", 3])
def test_odd_sentence_names_are_set_aside(raw, name):
    edit(raw / "subj_seq_to_idx.pkl", lambda v: v[FIRST].update({name: {0: 0}}))
    assert list(reasons(Vocaset.open(raw)).values()) == ["odd_name"]


def test_damaged_files_of_single_clips_are_set_aside(folders):
    meshes, sound = folders / "vertices_npy", folders / "wav"
    first, second, third, fourth, *_ = sorted(path.stem for path in meshes.glob("*.npy"))
    with (meshes / f"{first}.npy").open("r+b") as file:
        file.truncate(5000)
    np.save(meshes / f"{second}.npy", np.zeros((0, 678), np.float32))
    np.save(meshes / f"{third}.npy", np.zeros((4, 675), np.float32))
    (sound / f"{fourth}.wav").write_bytes(b"RIFF no sound")
    np.save(meshes / "FaceTalk_170000_00000_TA_sentence01.npy", np.zeros((4, 678), np.float32))
    shutil.copy(sorted(sound.glob("*.wav"))[-1], sound / "FaceTalk_170000_00000_TA_sentence01.wav")
    np.save(meshes / "notes.npy", np.zeros(3))
    (meshes / "._hidden_sentence01.npy").write_bytes(b"left by a file system")
    corpus = Vocaset.open(folders)
    short = [name.removeprefix("FaceTalk_") for name in (first, second, third, fourth)]
    assert reasons(corpus) == dict(
        zip(short, ("bad_vertices", "no_frames", "bad_vertices", "bad_audio"), strict=True)
    ) | {
        "170000_00000_TA_sentence01": "no_template",
        "notes": "odd_name",
    }
    details = [reject.detail for reject in corpus.rejects]
    assert any("expected 678 numbers a frame, got 675" in detail for detail in details)
    assert any("cut short" in detail for detail in details)
    assert not any(str(folders) in detail for detail in details), "rejects are the same on every machine"


def test_a_truncated_sound_file_is_set_aside_and_one_of_open_length_is_not(folders):
    first, second, *_ = sorted((folders / "wav").glob("*.wav"))
    content = first.read_bytes()
    first.write_bytes(content[: len(content) // 2])
    second.write_bytes(b"RIFF\xff\xff\xff\xff" + second.read_bytes()[8:])
    corpus = Vocaset.open(folders)
    assert [reject.item_id for reject in corpus.rejects] == [first.stem]
    assert f"expected {len(content)} bytes, got {len(content) // 2}" in corpus.rejects[0].detail


def test_sound_files_that_are_missing_or_empty_are_set_aside(folders):
    first, second, *_ = sorted((folders / "wav").glob("*.wav"))
    first.unlink()
    soundfile.write(second, np.zeros(0), 22000, "PCM_16")
    assert list(reasons(Vocaset.open(folders)).values()) == ["no_audio", "no_audio"]


def test_sound_files_of_other_kinds_are_read_and_samples_that_are_no_numbers_are_set_aside(folders):
    first, second, third, *_ = sorted((folders / "wav").glob("*.wav"))
    soundfile.write(first, np.array([[0.5, 0.0], [-0.5, 0.5]]), 22000, "PCM_16")
    soundfile.write(second, np.array([0.0, np.nan]), 22000, "FLOAT")
    soundfile.write(third, np.array([0.1, -0.7]), 22000, "DOUBLE")
    corpus = Vocaset.open(folders)
    np.testing.assert_array_equal(corpus.audio(corpus.clips[0])[0], np.array([0.25, 0.0], np.float32))
    np.testing.assert_array_equal(corpus.audio(corpus.clips[1])[0], np.array([0.1, -0.7], np.float32))
    assert list(reasons(corpus).values()) == ["bad_audio"]
    first.unlink()
    with pytest.raises(DataError, match=first.name):
        corpus.audio(corpus.clips[0])
