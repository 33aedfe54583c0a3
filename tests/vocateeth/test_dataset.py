"""VOCATeeth on disk: what was recorded reads back, clip by clip and frame by frame, with its mouth."""

import json
import pickle
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from ecavatar.errors import AssetMissingError, DataError, TopologyError
from ecavatar.mouth.fit import fit_mouth, pose_mouth
from ecavatar.mouth.penetration import measure_penetration, outer_skin
from ecavatar.mouth.rig import ChinRig
from ecavatar.storage.parquet import read_table
from ecavatar.vocateeth.dataset import VocaTeeth, read_rows


@pytest.fixture
def copied(tmp_path, teeth):
    directory = tmp_path / "copied"
    shutil.copytree(teeth.directory, directory)
    return directory


def test_every_face_reads_back_to_the_bit_with_the_angle_of_its_rig(teeth, vocaset, head, rig_settings):
    assert len(teeth.clips) == len(vocaset.clips) == 8
    for clip, raw in zip(teeth.clips, vocaset.clips, strict=True):
        assert (clip.clip_id, clip.subject, clip.split) == (raw.clip_id, raw.subject, raw.split)
        expected = vocaset.vertices(raw, 30)
        assert teeth.vertices(clip).tobytes() == expected.tobytes()
        rig = ChinRig.fit(vocaset.templates[clip.subject], head, rig_settings)
        np.testing.assert_allclose(teeth.angles(clip), rig.angles(expected), atol=1e-7)
        assert np.ptp(teeth.angles(clip)) > 0.05


def test_any_frames_of_a_clip_are_those_of_the_whole_clip(teeth):
    clip = teeth.clips[1]
    whole = teeth.heads(clip)
    for start, stop in ((0, 1), (3, 7), (clip.frames - 1, clip.frames), (0, clip.frames)):
        np.testing.assert_array_equal(teeth.heads(clip, start, stop), whole[start:stop])
        np.testing.assert_array_equal(teeth.vertices(clip, start, stop), whole[start:stop, : teeth.n_vertices])
        np.testing.assert_array_equal(teeth.angles(clip, start, stop), teeth.angles(clip)[start:stop])
    for start, stop in ((-1, 2), (4, 4), (0, clip.frames + 1)):
        with pytest.raises(DataError, match=f"0..{clip.frames - 1}"):
            teeth.heads(clip, start, stop)


def test_the_mouth_on_disk_is_the_fitted_one_within_a_micrometre(teeth, vocaset, head, mouth, rig_settings):
    clip = teeth.clips[0]
    template = vocaset.templates[clip.subject]
    rig = ChinRig.fit(template, head, rig_settings)
    angles = rig.angles(vocaset.vertices(vocaset.clips[0], 30))
    exact = pose_mouth(mouth, fit_mouth(mouth, template, head), angles)
    read = teeth.heads(clip)[:, teeth.n_vertices :]
    assert abs(read.astype(np.float64) - exact).max() < 1e-6
    assert np.ptp(read[:, mouth.follows_jaw], axis=0).max() > 1e-3
    assert np.ptp(read[:, ~mouth.follows_jaw], axis=0).max() == 0


def test_templates_fits_and_penetration_stand_with_each_subject(teeth, vocaset, head, mouth):
    table = read_table(teeth.directory / "templates.parquet").to_pylist()
    for subject, template in teeth.templates().items():
        assert template.tobytes() == vocaset.templates[subject].tobytes()
    for row in table:
        template = vocaset.templates[row["subject"]]
        expected, stored = fit_mouth(mouth, template, head), teeth.fit(row["subject"])
        assert stored.scale == expected.scale
        for name in ("rotation", "translation", "axis", "pivot"):
            np.testing.assert_array_equal(getattr(stored, name), getattr(expected, name))
        out = measure_penetration(template, outer_skin(head), expected.closed(mouth))
        assert (row["penetration_deepest_m"], row["penetration_vertices"]) == (out.deepest_m, out.vertices)
    with pytest.raises(DataError, match="nobody"):
        teeth.fit("nobody")


def test_sound_is_the_recorded_one_to_the_bit(teeth, vocaset, raw):
    recordings = pickle.loads((raw / "raw_audio_fixed.pkl").read_bytes())
    for clip, heard in zip(teeth.clips, vocaset.clips, strict=True):
        samples, rate = teeth.samples(clip)
        assert samples.dtype == np.int16
        np.testing.assert_array_equal(samples, recordings[heard.subject][heard.sentence]["audio"])
        np.testing.assert_array_equal(teeth.audio(clip)[0], vocaset.audio(heard)[0])
        assert rate == vocaset.audio(heard)[1] == 22000
        assert clip.duration_mismatch_s == pytest.approx(vocaset.duration_mismatch(heard), abs=1e-6)


def test_splits_and_topology(teeth, head, mouth):
    assert [len(teeth.of_split(name)) for name in ("train", "val", "test")] == [4, 2, 1]
    assert {clip.split for clip in teeth.clips} == {"train", "val", "test", ""}
    with pytest.raises(DataError, match="clips by split"):
        teeth.of_split("holdout")
    teeth.require_topology(head.topology)
    with pytest.raises(TopologyError):
        teeth.require_topology("flame")
    triangles = teeth.faces()
    np.testing.assert_array_equal(triangles[: len(head.faces)], head.faces)
    np.testing.assert_array_equal(triangles[len(head.faces) :], mouth.faces + head.n_vertices)


def test_a_clip_is_a_row_group_of_each_part(teeth):
    for part, (faces, sounds) in enumerate(zip(teeth.parts, teeth.sounds, strict=True)):
        own = [clip for clip in teeth.clips if clip.part == part]
        groups = pq.ParquetFile(faces).metadata
        assert [groups.row_group(k).num_rows for k in range(groups.num_row_groups)] == [clip.frames for clip in own]
        assert pq.ParquetFile(sounds).num_row_groups == len(own)
        for clip in own:
            assert set(read_rows(faces, clip.row_group, ["clip_id"], 0, clip.frames)["clip_id"].to_pylist()) == {
                clip.clip_id
            }


def test_an_opened_dataset_can_be_pickled(teeth):
    again = pickle.loads(pickle.dumps(teeth))
    np.testing.assert_array_equal(again.heads(again.clips[2], 1, 3), teeth.heads(teeth.clips[2], 1, 3))


def test_missing_parts_and_other_formats_are_refused(copied):
    with pytest.raises(AssetMissingError, match="nowhere"):
        VocaTeeth.open(copied / "nowhere")
    info = json.loads((copied / "info.json").read_text())
    (copied / "info.json").write_text(json.dumps(info | {"format": "vocateeth-1"}))
    with pytest.raises(DataError, match=r"'vocateeth-1'. Run rig_mouths again"):
        VocaTeeth.open(copied)
    (copied / "info.json").write_text(json.dumps({key: value for key, value in info.items() if key != "clips"}))
    with pytest.raises(DataError, match=r"info\.json is damaged.*clips"):
        VocaTeeth.open(copied)
    (copied / "info.json").write_text(json.dumps(info))
    sorted((copied / "data" / "audio").iterdir())[1].unlink()
    with pytest.raises(DataError, match="lacks 1 of 4"):
        VocaTeeth.open(copied)


@pytest.mark.parametrize("kind", ["faces", "audio"])
def test_a_damaged_part_is_named(copied, kind):
    stored = VocaTeeth.open(copied)
    part = sorted((copied / "data" / kind).iterdir())[0]
    content = bytearray(part.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    part.write_bytes(content)
    with pytest.raises(DataError, match=f"{part.name} is damaged"):
        stored.heads(stored.clips[0]) if kind == "faces" else stored.audio(stored.clips[0])
    part.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=f"{part.name} is damaged"):
        stored.heads(stored.clips[0]) if kind == "faces" else stored.audio(stored.clips[0])


def test_parts_in_each_others_place_are_not_read_as_something_else(copied):
    stored = VocaTeeth.open(copied)
    for kind in ("faces", "audio"):
        first, second = sorted((copied / "data" / kind).iterdir())[:2]
        first.rename(copied / "aside")
        second.rename(first)
        (copied / "aside").rename(second)
    for read in (stored.vertices, stored.audio):
        with pytest.raises(DataError, match="is damaged"):
            read(stored.clips[0])
