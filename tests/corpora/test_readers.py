"""Readers of the corpora: real layouts, real blemishes."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from ecavatar.corpora import mead, ravdess, vocaset
from ecavatar.emotion import Emotion
from ecavatar.errors import AssetMissingError, DataError, ShapeError

TRAIN, TEST = "FaceTalk_170728_03272_TA", "FaceTalk_170809_00138_TA"


def _vocaset(root: Path, index: dict, audio: dict, rows: int = 12) -> Path:
    vertices = np.arange(rows * 4 * 3, dtype=np.float32).reshape(rows, 4, 3)
    np.save(root / "data_verts.npy", vertices)
    templates = {subject: np.zeros((4, 3)) for subject in (TRAIN, TEST)}
    for name, value in (("subj_seq_to_idx", index), ("raw_audio_fixed", audio), ("templates", templates)):
        (root / f"{name}.pkl").write_bytes(pickle.dumps(value, protocol=2))
    return root


def _sound(n: int = 4) -> dict:
    return {"audio": np.array([0, 16384, -32768, 1][:n], dtype=np.int16), "sample_rate": 22000}


def test_vocaset_gives_every_second_frame_from_the_first_on(tmp_path: Path) -> None:
    index = {TRAIN: {"sentence01": {frame: frame + 3 for frame in range(6)}}}
    corpus = vocaset.Vocaset.open(_vocaset(tmp_path, index, {TRAIN: {"sentence01": _sound()}}))
    (clip,) = corpus.clips
    assert clip.clip_id == f"{TRAIN}_sentence01"
    at_60, at_30 = corpus.vertices(clip, 60), corpus.vertices(clip)
    assert np.array_equal(at_60, np.load(tmp_path / "data_verts.npy")[3:9])
    assert np.array_equal(at_30, at_60[::2])
    with pytest.raises(ShapeError, match="does not divide"):
        corpus.vertices(clip, 25)


def test_vocaset_reads_rows_that_do_not_lie_side_by_side(tmp_path: Path) -> None:
    index = {TRAIN: {"sentence01": {0: 7, 1: 2, 2: 5}}}
    corpus = vocaset.Vocaset.open(_vocaset(tmp_path, index, {TRAIN: {"sentence01": _sound()}}))
    assert np.array_equal(corpus.vertices(corpus.clips[0], 60), np.load(tmp_path / "data_verts.npy")[[7, 2, 5]])


def test_vocaset_sound_is_mono_float_between_minus_one_and_one(tmp_path: Path) -> None:
    index = {TRAIN: {"sentence01": {0: 0}}}
    corpus = vocaset.Vocaset.open(_vocaset(tmp_path, index, {TRAIN: {"sentence01": _sound()}}))
    samples, rate = corpus.audio(corpus.clips[0])
    assert rate == 22000
    assert samples.dtype == np.float32
    assert np.allclose(samples, [0, 0.5, -1, 1 / 32768])


def test_vocaset_follows_the_published_split(tmp_path: Path) -> None:
    index = {s: {"sentence05": {0: 0}, "sentence25": {0: 1}} for s in (TRAIN, TEST)}
    audio = {s: {"sentence05": _sound(), "sentence25": _sound()} for s in (TRAIN, TEST)}
    corpus = vocaset.Vocaset.open(_vocaset(tmp_path, index, audio))
    assert {c.clip_id.replace("FaceTalk_", "")[:6] + c.sentence[-2:]: c.split for c in corpus.clips} == {
        "17072805": "train",
        "17072825": "train",
        "17080905": "",
        "17080925": "test",
    }
    splits = vocaset.vocaset_splits()
    assert [len(splits[name].subjects) for name in ("train", "val", "test")] == [8, 2, 2]
    assert len({subject for split in splits.values() for subject in split.subjects}) == 12


def test_vocaset_sets_unusable_clips_aside(tmp_path: Path) -> None:
    index = {
        TRAIN: {"sentence01": {}, "sentence02": {0: 0, 2: 1}, "sentence03": {0: 99}, "sentence04": {0: 1}},
        "stranger": {"sentence01": {0: 0}},
    }
    audio = {TRAIN: {f"sentence0{n}": _sound() for n in (1, 2, 3)}, "stranger": {"sentence01": _sound()}}
    corpus = vocaset.Vocaset.open(_vocaset(tmp_path, index, audio))
    assert not corpus.clips
    reasons = [reject.reason for reject in corpus.rejects]
    assert reasons == ["no_frames", "frame_gap", "row_out_of_range", "no_audio", "no_template"]


def test_vocaset_names_every_missing_file_and_refuses_foreign_pickles(tmp_path: Path) -> None:
    with pytest.raises(AssetMissingError, match=r"data_verts.npy.*templates.pkl"):
        vocaset.Vocaset.open(tmp_path)
    _vocaset(tmp_path, {}, {})
    (tmp_path / "templates.pkl").write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(DataError):
        vocaset.Vocaset.open(tmp_path)


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_ravdess_joins_the_modalities_of_a_take(tmp_path: Path) -> None:
    root = _touch(
        tmp_path,
        "Video_Speech_Actor_07/Actor_07/01-01-03-02-01-02-07.mp4",
        "Audio/Actor_07/03-01-03-02-01-02-07.wav",
        "Actor_08/01-01-02-01-02-01-08.mp4",
        "Actor_08/01-02-03-01-02-01-08.mp4",
    )
    happy, calm = sorted(ravdess.list_clips(root), key=lambda clip: clip.subject)
    assert happy.clip_id == "01-03-02-01-02-07"
    assert (happy.emotion, happy.level, happy.subject) == (Emotion.HAPPY, 3, "Actor_07")
    assert happy.video is not None
    assert (happy.video.suffix, happy.audio.suffix) == (".mp4", ".wav")
    assert (calm.emotion, calm.level, calm.sentence) == (Emotion.NEUTRAL, 2, "Dogs are sitting by the door")
    assert calm.audio == calm.video


def test_ravdess_sets_odd_files_aside(tmp_path: Path) -> None:
    root = _touch(tmp_path, "01-01-01-01-01-01-01.mp4", "01-01-09-01-01-01-01.mp4", "a.mp4", "02-01-04-01-01-01-01.mp4")
    listing = ravdess.read_listing(root)
    assert len(listing.clips) == 1
    assert sorted(reject.reason for reject in listing.rejects) == ["bad_name", "bad_name", "no_audio"]
    with pytest.raises(AssetMissingError):
        ravdess.list_clips(tmp_path / "nowhere")


def test_mead_knows_a_take_by_its_folders(tmp_path: Path) -> None:
    root = _touch(
        tmp_path,
        "M003/video/front/angry/level_2/005.mp4",
        "M003/audio/angry/level_2/005.m4a",
        "W009/W009/2/front/surprised/level_3/001.mp4",
        "W009/W009/audio/surprised/level_3/001.m4a",
        "M003/video/left_30/angry/level_2/006.mp4",
        "M003/video/front/angry/level_2/007.mp4",
        "M003/video/front/bored/level_2/001.mp4",
    )
    listing = mead.read_listing(root)
    assert [clip.clip_id for clip in listing.clips] == ["M003_angry_level_2_005", "W009_surprised_level_3_001"]
    assert [(clip.emotion, clip.level) for clip in listing.clips] == [(Emotion.ANGER, 2), (Emotion.SURPRISE, 3)]
    assert all(clip.video is not None for clip in listing.clips)
    assert sorted(reject.reason for reject in listing.rejects) == ["bad_path", "no_audio"]
    with pytest.raises(AssetMissingError):
        mead.list_clips(tmp_path / "nowhere")
