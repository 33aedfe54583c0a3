"""VOCATeeth as a PyTorch data set: windows are cuts of their clips, workers change nothing, padding is marked."""

import pickle

import numpy as np
import pytest
import soxr
import torch
from torch.utils.data import DataLoader

from ecavatar.errors import DataError, ShapeError
from ecavatar.vocateeth.windows import SubjectMouths, TeethClips, pad_clips


def test_whole_clips_are_what_is_stored(teeth):
    items = TeethClips(teeth)
    assert len(items) == len(teeth.clips)
    for item, clip in zip((items[k] for k in range(len(items))), teeth.clips, strict=True):
        np.testing.assert_array_equal(item.vertices, teeth.heads(clip))
        np.testing.assert_array_equal(item.audio, teeth.audio(clip)[0])
        np.testing.assert_array_equal(item.angles, teeth.angles(clip))
        np.testing.assert_allclose(item.times, np.arange(clip.frames) / 30, atol=1e-6)
        still = teeth.joined(clip.subject, teeth.templates()[clip.subject][None], np.zeros(1, np.float32))[0]
        np.testing.assert_array_equal(item.template, still)
    assert items[-1].clip_id == teeth.clips[-1].clip_id
    with pytest.raises(IndexError):
        items[len(items)]


def test_windows_cover_each_clip_at_their_stride_and_are_cuts_of_it(teeth):
    windows = TeethClips(teeth, "train", seconds=0.2, stride=0.1, mouth=False)
    clips = {clip.clip_id: clip for clip in teeth.of_split("train")}
    found = [(item.clip_id, item.first_frame) for item in (windows[k] for k in range(len(windows)))]
    assert found == [(clip.clip_id, first) for clip in clips.values() for first in range(0, clip.frames - 5, 3)]
    for item in (windows[k] for k in range(len(windows))):
        clip, first = clips[item.clip_id], item.first_frame
        np.testing.assert_array_equal(item.vertices, teeth.vertices(clip)[first : first + 6])
        start = round(first * 22000 / 30)
        expected = teeth.audio(clip)[0][start : start + 4400]
        np.testing.assert_array_equal(item.audio[: len(expected)], expected)
        assert len(item.audio) == 4400
        assert not item.audio[len(expected) :].any()
        assert item.template.shape == (teeth.n_vertices, 3)


def test_resampled_windows_are_cuts_of_the_resampled_clip(teeth):
    windows = TeethClips(teeth, "val", seconds=0.1, sample_rate_hz=16000)
    item, clip = windows[1], teeth.of_split("val")[0]
    whole = soxr.resample(teeth.audio(clip)[0], 22000, 16000, quality="HQ")
    assert item.sample_rate_hz == 16000
    np.testing.assert_array_equal(item.audio, whole[1600:3200])


def test_workers_and_pickles_give_the_same_items_in_the_same_order(teeth):
    windows = TeethClips(teeth, seconds=0.2)
    alone = [windows[k] for k in range(len(windows))]
    assert not pickle.loads(pickle.dumps(windows))._templates
    loader = DataLoader(windows, batch_size=3, num_workers=2, collate_fn=pad_clips, multiprocessing_context="fork")
    batches = list(loader)
    assert [name for batch in batches for name in batch.clip_ids] == [item.clip_id for item in alone]
    torch.testing.assert_close(
        torch.cat([batch.vertices for batch in batches]), torch.stack([item.vertices for item in alone]), rtol=0, atol=0
    )
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(windows))[4].vertices, alone[4].vertices)


def test_padding_is_zero_and_masked(teeth):
    items = [TeethClips(teeth)[k] for k in (0, 1)]
    batch = pad_clips(items)
    assert batch.vertices.shape[1] == max(len(item.times) for item in items)
    for k, item in enumerate(items):
        assert int(batch.frame_mask[k].sum()) == len(item.times)
        assert int(batch.audio_mask[k].sum()) == len(item.audio)
        assert torch.equal(batch.vertices[k][batch.frame_mask[k]], item.vertices)
        assert torch.equal(batch.audio[k][batch.audio_mask[k]], item.audio)
        assert not batch.vertices[k][~batch.frame_mask[k]].any()
    assert len(items[0].times) != len(items[1].times)


def test_mouths_added_to_a_batch_of_faces_are_those_read_with_it(teeth):
    faces, heads = (pad_clips([TeethClips(teeth, mouth=mouth)[k] for k in (0, 3, 6)]) for mouth in (False, True))
    joined = SubjectMouths(teeth)(faces.vertices, faces.angles, faces.subjects)
    is_frame = heads.frame_mask
    torch.testing.assert_close(joined[is_frame], heads.vertices[is_frame], rtol=0, atol=1e-6)
    with pytest.raises(DataError, match="nobody"):
        SubjectMouths(teeth)(faces.vertices, faces.angles, ["nobody"] * 3)
    with pytest.raises(ShapeError):
        SubjectMouths(teeth)(faces.vertices, faces.angles[:, 1:], faces.subjects)


def test_what_cannot_be_cut_or_joined_is_refused(teeth):
    for wrong, match in (
        ({"seconds": 9.0}, "the longest has"),
        ({"seconds": 0.0}, "less than a frame"),
        ({"seconds": float("nan")}, "cannot be cut"),
        ({"seconds": 0.5, "stride": float("inf")}, "cannot be cut"),
        ({"stride": 1.0}, "Give seconds"),
        ({"sample_rate_hz": 0}, "positive"),
    ):
        with pytest.raises(DataError, match=match):
            TeethClips(teeth, **wrong)
    with pytest.raises(DataError, match="holdout"):
        TeethClips(teeth, "holdout")
    with pytest.raises(ShapeError, match="one batch differ"):
        pad_clips([TeethClips(teeth)[0], TeethClips(teeth, mouth=False)[0]])
    with pytest.raises(DataError):
        pad_clips([])
