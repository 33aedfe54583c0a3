"""VOCATeeth on disk: what is written reads back, clip by clip, and names what is missing."""

import pickle
import shutil

import numpy as np
import pytest

from ecavatar.config import RigSettings
from ecavatar.corpora.vocaset import Vocaset
from ecavatar.errors import DataError, TopologyError
from ecavatar.mouth.rig import ChinRig
from ecavatar.storage.manifest import verify_manifest
from ecavatar.storage.rejects import read_rejects
from ecavatar.vocateeth import dataset
from ecavatar.vocateeth.dataset import VocaTeeth, finish_vocateeth, missing_clips, subjects_of, write_subject

SETTINGS = RigSettings(fps=30, patch_mm=0.0, max_rejects=0.5)


def rigged(directory, root, asset, order=1):
    vocaset = Vocaset.open(root)
    for subject in subjects_of(vocaset)[::order]:
        write_subject(directory, vocaset, subject, asset, SETTINGS)
    finish_vocateeth(directory, vocaset, asset, SETTINGS)
    return vocaset, VocaTeeth.open(directory)


@pytest.fixture(scope="module")
def teeth(tmp_path_factory, small_vocaset, small_face):
    return rigged(tmp_path_factory.mktemp("teeth") / "vocateeth", small_vocaset, small_face)


def test_every_clip_reads_back_alone_with_the_angles_of_its_rig(teeth, small_face):
    vocaset, stored = teeth
    for clip, raw in zip(stored.clips, vocaset.clips, strict=True):
        assert (clip.clip_id, clip.split) == (raw.clip_id, raw.split)
        expected = vocaset.vertices(raw, 30)
        np.testing.assert_array_equal(stored.vertices(clip), expected)
        rig = ChinRig.fit(vocaset.templates[clip.subject], small_face, SETTINGS)
        np.testing.assert_allclose(stored.angles(clip), rig.angles(expected), atol=1e-7)
        assert np.ptp(stored.angles(clip)) > 0.05


def test_clips_that_cross_row_groups_read_alone(monkeypatch, tmp_path, teeth):
    _, stored = teeth
    clip = stored.clips[1]
    expected = stored.vertices(clip)
    moved = tmp_path / "regrouped"
    shutil.copytree(stored.directory, moved)
    for part in moved.glob("part-*.parquet"):
        table = dataset.read_table(part)
        dataset.write_table(part, table, row_group_size=4)
    monkeypatch.setattr(dataset, "_GROUP", 4)
    np.testing.assert_array_equal(VocaTeeth.open(moved).vertices(clip), expected)


def test_templates_and_splits(teeth):
    vocaset, stored = teeth
    for subject, template in stored.templates().items():
        np.testing.assert_array_equal(template, vocaset.templates[subject])
    assert len(stored.of_split("train")) == 4
    assert len(stored.of_split("val")) == 2
    assert len(stored.of_split("test")) == 1
    assert {clip.split for clip in stored.clips} == {"train", "val", "test", ""}
    with pytest.raises(DataError, match="clips by split"):
        stored.of_split("holdout")
    with pytest.raises(TopologyError):
        stored.require_topology("flame")


def test_same_bytes_in_any_order_and_finished_parts_are_kept(tmp_path, teeth, small_vocaset, small_face):
    _, stored = teeth
    vocaset, other = rigged(tmp_path / "vocateeth", small_vocaset, small_face, order=-1)
    assert other.fingerprint() == stored.fingerprint()
    assert verify_manifest(other.directory) == []
    subject = subjects_of(vocaset)[0]
    assert not write_subject(other.directory, vocaset, subject, small_face, SETTINGS)
    changed = SETTINGS.model_copy(update={"patch_mm": 30.0})
    assert write_subject(other.directory, vocaset, subject, small_face, changed)


def test_missing_and_broken_clips_are_named_and_counted(tmp_path, small_vocaset, small_face):
    root = tmp_path / "raw"
    shutil.copytree(small_vocaset, root)
    recordings = pickle.loads((root / "raw_audio_fixed.pkl").read_bytes())
    del recordings["FaceTalk_170728_03272_TA"]["sentence02"]
    (root / "raw_audio_fixed.pkl").write_bytes(pickle.dumps(recordings, protocol=2))
    vocaset, stored = rigged(tmp_path / "vocateeth", root, small_face)
    assert read_rejects(stored.directory / "rejects.parquet")["item_id"].tolist() == [
        "FaceTalk_170728_03272_TA_sentence02"
    ]
    assert missing_clips(vocaset) == ["FaceTalk_170728_03272_TA_sentence03", "FaceTalk_170904_00128_TA_sentence02"]
    strict = SETTINGS.model_copy(update={"max_rejects": 0.05})
    with pytest.raises(DataError, match="no_audio"):
        finish_vocateeth(stored.directory, vocaset, small_face, strict)


def test_an_unfinished_dataset_is_refused(tmp_path, teeth, small_vocaset, small_face):
    _, stored = teeth
    broken = tmp_path / "broken"
    shutil.copytree(stored.directory, broken)
    sorted(broken.glob("part-*.parquet"))[1].unlink()
    with pytest.raises(DataError, match="lacks 1 of 4"):
        VocaTeeth.open(broken)
    with pytest.raises(DataError, match="subjects"):
        write_subject(broken, Vocaset.open(small_vocaset), "nobody", small_face, SETTINGS)
