"""FuNet's pairs: seeded, split without leaks, and stored as indices."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from ecavatar.config import PairsSettings
from ecavatar.errors import BasisError, DataError, SplitLeakError
from ecavatar.storage.parquet import read_table, write_table
from ecavatar.training.pairs import FacePool, draw_pairs, read_pairs
from ecavatar.vocateeth.dataset import VocaTeeth

FACES = [f"face{index:02d}" for index in range(12)]
SETTINGS = PairsSettings(train=50, validation=8, validation_faces=0.25)


@pytest.fixture(scope="module")
def teeth(world):
    return VocaTeeth.open(world / "vocateeth")


def test_neither_faces_nor_subjects_cross_from_training_to_validation(teeth):
    pairs = draw_pairs(teeth, FACES, SETTINGS, seed=0)
    subjects = {clip.clip_id: clip.split for clip in teeth.clips}
    assert {subjects[clip_id] for clip_id in pairs["train"].clip_ids} == {"train"}
    assert {subjects[clip_id] for clip_id in pairs["validation"].clip_ids} == {"val"}
    assert len(set(pairs["validation"].item_ids)) == 3
    assert set(pairs["train"].item_ids) | set(pairs["validation"].item_ids) == set(FACES)
    assert not set(pairs["train"].item_ids) & set(pairs["validation"].item_ids)


def test_pairs_depend_on_seed_and_names_only(teeth):
    first = draw_pairs(teeth, FACES, SETTINGS, seed=0)["train"]
    again = draw_pairs(teeth, FACES[::-1], SETTINGS, seed=0)["train"]
    other = draw_pairs(teeth, FACES, SETTINGS, seed=1)["train"]
    assert first.item_ids == again.item_ids
    assert np.array_equal(first.frames, again.frames)
    assert first.item_ids != other.item_ids


def test_everything_is_used_once_before_anything_is_used_twice(teeth):
    frames = sum(clip.frames for clip in teeth.of_split("train"))
    pairs = draw_pairs(teeth, FACES, SETTINGS.model_copy(update={"train": frames}), seed=0)["train"]
    assert len({(clip, int(frame)) for clip, frame in zip(pairs.clip_ids, pairs.frames, strict=True)}) == frames
    counts = np.unique(pairs.item_ids, return_counts=True)[1]
    assert np.ptp(counts) <= 1


def test_a_pool_without_faces_is_refused(teeth):
    with pytest.raises(DataError, match="1 face"):
        draw_pairs(teeth, FACES[:1], SETTINGS, seed=0)


def test_stored_pairs_are_checked_when_read(world, teeth, tmp_path):
    pairs = read_pairs(world / "pairs", teeth)
    assert (len(pairs["train"]), len(pairs["validation"])) == (20, 5)
    shutil.copytree(world / "pairs", tmp_path / "pairs")
    table = read_table(tmp_path / "pairs" / "validation.parquet")
    leaking = table.set_column(2, "item_id", pa.array([pairs["train"].item_ids[0]] * 5))
    write_table(tmp_path / "pairs" / "validation.parquet", leaking)
    with pytest.raises(SplitLeakError):
        read_pairs(tmp_path / "pairs", teeth)
    write_table(tmp_path / "pairs" / "validation.parquet", table.slice(0, 0))
    with pytest.raises(DataError, match="no validation pairs"):
        read_pairs(tmp_path / "pairs", teeth)
    info = json.loads((tmp_path / "pairs" / "info.json").read_text())
    (tmp_path / "pairs" / "info.json").write_text(json.dumps(info | {"vocateeth": "other"}))
    with pytest.raises(DataError, match="another VOCATeeth"):
        read_pairs(tmp_path / "pairs", teeth)


def test_coefficients_of_another_basis_are_refused(world, small_face):
    pool = FacePool.open(world / "pool")
    pool.require_basis(world / "pool", small_face)
    with pytest.raises(BasisError):
        pool.require_basis(world / "pool", replace(small_face, basis="flame2020"))
