"""Building VOCATeeth: the same bytes however it is done, bad clips counted, nothing of others removed."""

import errno
import json
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ecavatar.corpora.vocaset import Vocaset
from ecavatar.errors import AssetMissingError, DataError, SplitLeakError
from ecavatar.storage.manifest import verify_manifest
from ecavatar.storage.rejects import read_rejects
from ecavatar.vocateeth import build
from ecavatar.vocateeth.build import clear_leftovers, finish_vocateeth, pcm16, rig_folder, subjects_of, write_subject
from ecavatar.vocateeth.dataset import AUDIO, FACES, VocaTeeth
from tests.fabricate_mouth import open_face, small_mouth

BAD = "FaceTalk_170728_03272_TA_sentence02"


def content(directory: Path) -> dict[str, bytes]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def write_one(directory: Path, raw: Path, subject: str, settings) -> bool:
    return write_subject(directory, Vocaset.open(raw), subject, open_face(), small_mouth(), settings)


@pytest.fixture
def spoilt(tmp_path, raw):
    """A copy of `raw` with a vertex that is no number in frame 6 (at 60 a second) of one clip."""
    root = tmp_path / "spoilt"
    shutil.copytree(raw, root)
    meshes = np.load(root / "data_verts.npy")
    rows = pickle.loads((root / "subj_seq_to_idx.pkl").read_bytes())[BAD.rpartition("_")[0]]["sentence02"]
    meshes[rows[6], 4000, 1] = np.nan
    np.save(root / "data_verts.npy", meshes)
    return root


def test_serial_threads_and_processes_give_the_same_bytes(tmp_path, teeth, raw, vocaset, head, mouth, rig_settings):
    told = []
    rig_folder(
        raw, tmp_path / "threads", head, rig_settings, mouth, workers=3, progress=lambda *counts: told.append(counts)
    )
    assert told == [(k, 4) for k in range(5)]
    pooled = tmp_path / "processes"
    with ProcessPoolExecutor(2) as pool:
        tasks = [pool.submit(write_one, pooled, raw, name, rig_settings) for name in subjects_of(vocaset)[::-1]]
        assert all(task.result() for task in tasks)
    finish_vocateeth(pooled, vocaset, head, mouth, rig_settings)
    expected = content(teeth.directory)
    assert content(tmp_path / "threads") == expected
    assert content(pooled) == expected
    assert verify_manifest(pooled) == []


def test_finished_parts_are_kept_and_other_input_makes_them_anew(tmp_path, teeth, raw, head, mouth, rig_settings):
    directory = tmp_path / "vocateeth"
    shutil.copytree(teeth.directory, directory)
    vocaset = Vocaset.open(raw)
    subject = subjects_of(vocaset)[0]
    assert not write_subject(directory, vocaset, subject, head, mouth, rig_settings)
    assert write_subject(directory, vocaset, subject, head, small_mouth(1.01), rig_settings)
    assert write_subject(directory, vocaset, subject, head, mouth, rig_settings.model_copy(update={"patch_mm": 5.0}))
    assert write_subject(directory, vocaset, subject, head, mouth, rig_settings)
    sound = sorted((directory / AUDIO).iterdir())[0]
    sound.write_bytes(b"torn")
    assert write_subject(directory, vocaset, subject, head, mouth, rig_settings)
    assert content(directory) == content(teeth.directory)


def test_a_killed_attempt_goes_on_and_leaves_no_half_dataset(
    monkeypatch, tmp_path, teeth, raw, head, mouth, rig_settings
):
    out, made = tmp_path / "out", []

    def writes(*arguments):
        if len(made) == 2:
            raise OSError("killed")
        made.append(arguments[2])
        return write_subject(*arguments)

    monkeypatch.setattr(build, "write_subject", writes)
    with pytest.raises(OSError, match="killed"):
        rig_folder(raw, out, head, rig_settings, mouth)
    monkeypatch.undo()
    with pytest.raises(AssetMissingError):
        VocaTeeth.open(out)
    kept = {path: path.stat().st_mtime_ns for path in sorted((out / FACES).iterdir())}
    assert len(kept) == 2
    rig_folder(raw, out, head, rig_settings, mouth)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert content(out) == content(teeth.directory)


def test_a_full_disk_is_told_and_finished_subjects_are_kept(
    monkeypatch, tmp_path, raw, vocaset, head, mouth, rig_settings, teeth
):
    out, real = tmp_path / "out", pq.ParquetWriter.write_table
    write_subject(out, vocaset, subjects_of(vocaset)[0], head, mouth, rig_settings)
    finished = content(out)

    def full(_self, *_arguments, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(DataError, match="finished subjects were kept"):
        rig_folder(raw, out, head, rig_settings, mouth)
    assert content(out) == finished
    monkeypatch.setattr(pq.ParquetWriter, "write_table", real)
    rig_folder(raw, out, head, rig_settings, mouth)
    assert content(out) == content(teeth.directory)


def test_a_frame_that_is_not_finite_rejects_its_clip_by_name(tmp_path, spoilt, head, mouth, rig_settings):
    counts = rig_folder(spoilt, tmp_path / "out", head, rig_settings, mouth)
    assert (counts["clips"], counts["rejects"]) == (7, 1)
    reject = read_rejects(tmp_path / "out" / "rejects.parquet").iloc[0]
    assert (reject["item_id"], reject["reason"]) == (BAD, "not_finite")
    assert "frame 3 at 30 frames a second" in reject["detail"]
    stored, vocaset = VocaTeeth.open(tmp_path / "out"), Vocaset.open(spoilt)
    raws = {clip.clip_id: clip for clip in vocaset.clips}
    assert BAD in raws
    assert BAD not in {clip.clip_id for clip in stored.clips}
    for clip in stored.clips:
        np.testing.assert_array_equal(stored.vertices(clip), vocaset.vertices(raws[clip.clip_id], 30))
    strict = rig_settings.model_copy(update={"max_rejects": 0.1})
    with pytest.raises(DataError, match="1 x not_finite"):
        rig_folder(spoilt, tmp_path / "out", head, strict, mouth)


def test_a_corpus_of_broken_frames_only_is_an_error_even_where_all_rejects_are_allowed(
    tmp_path, raw, head, mouth, rig_settings
):
    shutil.copytree(raw, tmp_path / "raw")
    frames = np.load(tmp_path / "raw" / "data_verts.npy")
    frames[:, 7] = np.nan
    np.save(tmp_path / "raw" / "data_verts.npy", frames)
    lenient = rig_settings.model_copy(update={"max_rejects": 1.0})
    with pytest.raises(DataError, match=r"all were rejected, the first .*_sentence\d\d: frame 0 at 30"):
        rig_folder(tmp_path / "raw", tmp_path / "out", head, lenient, mouth)


def test_a_subject_without_a_sound_clip_left_is_an_empty_part(tmp_path, spoilt, head, mouth, rig_settings):
    meshes = np.load(spoilt / "data_verts.npy")
    rows = pickle.loads((spoilt / "subj_seq_to_idx.pkl").read_bytes())[BAD.rpartition("_")[0]]["sentence01"]
    meshes[rows[0], 0] = np.inf
    np.save(spoilt / "data_verts.npy", meshes)
    assert rig_folder(spoilt, tmp_path / "out", head, rig_settings, mouth)["clips"] == 6
    stored = VocaTeeth.open(tmp_path / "out")
    assert len(stored.templates()) == 4
    assert all(np.isfinite(stored.heads(clip)).all() for clip in stored.clips)


def test_clips_that_the_corpus_lacks_are_named(tmp_path, raw, head, mouth, rig_settings):
    root = tmp_path / "raw"
    shutil.copytree(raw, root)
    recordings = pickle.loads((root / "raw_audio_fixed.pkl").read_bytes())
    del recordings["FaceTalk_170728_03272_TA"]["sentence02"]
    (root / "raw_audio_fixed.pkl").write_bytes(pickle.dumps(recordings, protocol=2))
    counts = rig_folder(root, tmp_path / "out", head, rig_settings, mouth)
    info = json.loads((tmp_path / "out" / "info.json").read_text())
    assert info["rejected"] == [BAD]
    assert info["missing"] == ["FaceTalk_170728_03272_TA_sentence03", "FaceTalk_170904_00128_TA_sentence02"]
    assert (counts["rejects"], counts["missing"]) == (1, 2)


def test_sound_of_floats_is_rounded_to_16_bits_and_said_so(tmp_path, raw, head, mouth, rig_settings):
    root = tmp_path / "raw"
    shutil.copytree(raw, root)
    recordings = pickle.loads((root / "raw_audio_fixed.pkl").read_bytes())
    entry = recordings["FaceTalk_170728_03272_TA"]["sentence02"]
    entry["audio"] = np.linspace(-1.2, 1.0, len(entry["audio"])).astype(np.float32)
    (root / "raw_audio_fixed.pkl").write_bytes(pickle.dumps(recordings, protocol=2))
    rig_folder(root, tmp_path / "out", head, rig_settings, mouth)
    assert json.loads((tmp_path / "out" / "info.json").read_text())["audio_rounded"] == [BAD]
    stored = VocaTeeth.open(tmp_path / "out")
    clip = next(clip for clip in stored.clips if clip.clip_id == BAD)
    expected = np.clip(entry["audio"], -1, 1 - 2**-15)
    np.testing.assert_allclose(stored.audio(clip)[0], expected, atol=2**-16)


def test_whole_samples_survive_sixteen_bits_and_others_are_told():
    every = np.arange(-32768, 32768) / 32768
    steps, is_rounded = pcm16(every.astype(np.float32))
    np.testing.assert_array_equal(steps, np.arange(-32768, 32768))
    assert not is_rounded
    assert pcm16(np.array([0.5, 1e-5], np.float32))[1]
    assert pcm16(np.array([1.0], np.float32))[0][0] == 32767


def test_a_folder_of_something_else_is_left_alone(tmp_path, raw, vocaset, head, mouth, rig_settings):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match=r"thesis\.tex"):
        rig_folder(raw, tmp_path, head, rig_settings, mouth)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(DataError, match="subjects"):
        write_subject(tmp_path, vocaset, "nobody", head, mouth, rig_settings)


def test_a_corpus_in_other_units_or_of_another_frame_rate_is_refused_before_anything_is_written(
    tmp_path, raw, head, mouth, rig_settings
):
    thinned, scaled = tmp_path / "thinned", tmp_path / "scaled"
    for root in (thinned, scaled):
        shutil.copytree(raw, root)
    recordings = pickle.loads((raw / "raw_audio_fixed.pkl").read_bytes())
    for entry in (entry for sentences in recordings.values() for entry in sentences.values()):
        entry["audio"] = np.tile(entry["audio"], 2)
    (thinned / "raw_audio_fixed.pkl").write_bytes(pickle.dumps(recordings, protocol=2))
    templates = pickle.loads((raw / "templates.pkl").read_bytes())
    millimetres = {name: 1000 * mesh for name, mesh in templates.items()}
    (scaled / "templates.pkl").write_bytes(pickle.dumps(millimetres, protocol=2))
    for root, match in ((thinned, "60 frames a second"), (scaled, "millimetres")):
        with pytest.raises(DataError, match=match):
            rig_folder(root, tmp_path / "out", head, rig_settings, mouth)
    assert not (tmp_path / "out").exists()


def test_leftovers_go_and_parts_of_the_same_subjects_stay(tmp_path, teeth, vocaset):
    directory = tmp_path / "vocateeth"
    shutil.copytree(teeth.directory, directory)
    parts = {name for name in content(directory) if name.startswith("data/")}
    for name in ("part-00000-of-00012.parquet", "data/faces/part-00000-of-00005.parquet", "data/audio/.a.tmp-1-2"):
        (directory / name).write_bytes(b"old")
    clear_leftovers(directory, vocaset)
    assert set(content(directory)) == parts


def test_a_subject_in_two_splits_is_refused(monkeypatch, tmp_path, teeth, vocaset, head, mouth, rig_settings):
    directory = tmp_path / "vocateeth"
    shutil.copytree(teeth.directory, directory)
    collect = build._collect

    def leaking(*arguments):
        found = collect(*arguments)
        found[0]["clips"][0]["split"], found[0]["clips"][1]["split"] = "train", "test"
        return found

    monkeypatch.setattr(build, "_collect", leaking)
    with pytest.raises(SplitLeakError, match="one set only"):
        finish_vocateeth(directory, vocaset, head, mouth, rig_settings)
