"""Laws of comparing two VOCATeeth."""

import json
import shutil

import numpy as np
import pytest

from ecavatar.config import RigSettings
from ecavatar.errors import AssetMissingError, ConfigError, DataError
from ecavatar.storage.files import read_json, write_json
from ecavatar.storage.release import Previous, assemble_release
from ecavatar.storage.version import Version
from ecavatar.vocateeth.build import rig_folder
from ecavatar.vocateeth.compare import COMPARED, compare
from ecavatar.vocateeth.licence import write_free
from ecavatar.vocateeth.verify import verify_vocateeth
from tests.fabricate_mouth import small_mouth


@pytest.fixture(scope="module")
def changed(tmp_path_factory, raw, head, mouth):
    """Built of a corpus in which one clip is another and another is lost; with a larger patch in no clip's hash."""
    root = tmp_path_factory.mktemp("changed")
    shutil.copytree(raw, root / "raw")
    meshes = np.load(root / "raw" / "data_verts.npy")
    meshes[4] += 0.001 * head.skinning[:, 2:3]  # frame 4 of the first clip: the jaw somewhere else
    np.save(root / "raw" / "data_verts.npy", meshes)
    import pickle

    sounds = pickle.loads((root / "raw" / "raw_audio_fixed.pkl").read_bytes())
    del sounds["FaceTalk_170811_03275_TA"]["sentence22"]
    (root / "raw" / "raw_audio_fixed.pkl").write_bytes(pickle.dumps(sounds, protocol=2))
    settings = RigSettings(mouth="procedural", fps=30, patch_mm=0.0, max_rejects=0.5)
    rig_folder(root / "raw", root / "teeth", head, settings, mouth)
    return root / "teeth"


def test_a_dataset_differs_in_nothing_from_itself(teeth):
    changes = compare(teeth.directory, teeth.directory)
    assert (changes.items.kept, changes.subjects.kept) == (8, 4)
    for ids in (changes.items, changes.subjects):
        assert ids.added == ids.removed == ids.changed == ()
    assert not changes.tags
    assert not changes.changed_columns
    assert changes.breaking == ()
    assert all(one.before == one.after for one in changes.statistics)


def test_added_removed_and_changed_clips_are_found(teeth, changed):
    changes = compare(teeth.directory, changed)
    assert changes.items.removed == ("FaceTalk_170811_03275_TA_sentence22",)
    assert changes.items.changed == ("FaceTalk_170728_03272_TA_sentence01",)
    assert changes.items.kept == 6
    assert changes.changed_columns == {"angle": 1, "vertices": 1}
    assert changes.subjects.kept == 4
    assert changes.breaking == ()
    assert compare(changed, teeth.directory).items.added == changes.items.removed
    angles = next(one for one in changes.statistics if one.name.startswith("angle"))
    assert angles.before != angles.after


def test_another_mouth_changes_the_fits_and_does_not_break(teeth, tmp_path, raw, head):
    settings = RigSettings(mouth="procedural", fps=30, patch_mm=0.0, max_rejects=0.5)
    rig_folder(raw, tmp_path / "other", head, settings, small_mouth(1.01))
    changes = compare(teeth.directory, tmp_path / "other")
    assert changes.items.kept == 8
    assert len(changes.subjects.changed) == 4
    assert set(changes.tags) == {"mouth_sha256"}
    assert changes.breaking == ()


def test_lost_columns_other_vertices_and_frames_break_what_used_the_release(teeth, tmp_path):
    write_free(teeth.directory, tmp_path / "free")
    changes = compare(teeth.directory, tmp_path / "free")
    assert changes.items.kept == 8  # by the columns that both have
    assert "column faces/vertices is gone" in changes.breaking
    assert any(reason.startswith("format vocateeth-2 became") for reason in changes.breaking)
    for key, value in (("topology", "flame"), ("fps", 60)):
        other = shutil.copytree(teeth.directory, tmp_path / key)
        write_json(other / "info.json", read_json(other / "info.json") | {key: value})
        assert [reason.split()[0] for reason in compare(teeth.directory, other).breaking] == [key]


def test_three_small_files_are_all_that_is_read(teeth, changed, tmp_path):
    for name in COMPARED:
        shutil.copyfile(teeth.directory / name, tmp_path / name)
    assert compare(tmp_path, changed) == compare(teeth.directory, changed)


def test_a_release_tells_what_it_changes(teeth, changed, tmp_path):
    before = Previous(version=Version.parse("1.0.0"), directory=teeth.directory)
    how = {"name": "vocateeth", "origin": {}, "compare": compare, "previous": before}
    assemble_release(changed, tmp_path / "out", version=Version.parse("1.1.0"), **how)
    assert verify_vocateeth(tmp_path / "out") == []
    text = (tmp_path / "out" / "CHANGES.md").read_text()
    assert text.startswith("# Changes from 1.0.0 to 1.1.0\n")
    assert "| clips | 0 | 1 | 1 | 6 |" in text
    assert "Clips removed: `FaceTalk_170811_03275_TA_sentence22`." in text
    assert "clips with another value, by column: angle (1), vertices (1)" in text
    stored = read_json(tmp_path / "out" / "changes.json")["changes"]
    assert stored == json.loads(json.dumps(compare(teeth.directory, changed).to_json()))
    write_free(changed, tmp_path / "free")
    with pytest.raises(ConfigError, match=r"Call it 2\.0\.0"):
        assemble_release(tmp_path / "free", tmp_path / "no", version=Version.parse("1.1.0"), **how)


def test_what_is_no_dataset_is_refused(teeth, tmp_path):
    with pytest.raises(AssetMissingError):
        compare(tmp_path / "absent", teeth.directory)
    for name in COMPARED:
        write_json(tmp_path / name, {})
    with pytest.raises(DataError, match="can be compared"):
        compare(tmp_path, teeth.directory)
