"""Laws of the draw from AffectNet."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ecavatar.config import SelectSettings
from ecavatar.emolib.selection import COLUMNS, ImageCheck, inspect_images, select
from ecavatar.emotion import Emotion
from ecavatar.errors import DataError

SETTINGS = SelectSettings(per_level=5, levels="equal", pool=30, max_rejects=0.5)


@pytest.fixture
def annotations() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    count = 400
    ids = [f"{i % 3}/{i:04d}.jpg" for i in rng.permutation(count)]
    return pd.DataFrame(
        {
            "source_id": ids,
            "path": ids,
            "split": np.where(np.arange(count) % 7 == 0, "val", "train"),
            "emotion_code": rng.integers(0, 11, count),
            "valence": rng.uniform(-1, 1, count),
            "arousal": np.where(rng.random(count) < 0.1, np.nan, rng.uniform(-1, 1, count)),
            **dict.fromkeys(("face_x", "face_y", "face_width", "face_height"), np.nan),
        }
    )


def _check(bad=(), same=()):
    """A stand-in for opening files: `bad` names are unreadable, `same` names share their bytes."""

    def check(paths):
        return [
            ImageCheck("", "cut short")
            if path.name in bad
            else ImageCheck("same" if path.name in same else hashlib.sha256(path.name.encode()).hexdigest(), "")
            for path in paths
        ]

    return check


def test_up_to_n_per_category_and_level_and_a_disjoint_pool_without_neutral(annotations, tmp_path):
    chosen = select(annotations, tmp_path, SETTINGS, 0, _check())
    counts = chosen.index.groupby(["emotion", "level"]).size()
    assert counts.max() == 5
    assert len(counts) == 24
    for emotion, facts in chosen.levels["emotions"].items():
        for level in "123":
            assert facts["drawn"][level] == min(5, facts["available"][level]) == counts[emotion, int(level)]
    assert len(chosen.pool) == 30
    assert "neutral" not in set(chosen.pool["emotion"])
    assert not set(chosen.pool["source_id"]) & set(chosen.index["source_id"])
    assert tuple(chosen.index.columns) == tuple(chosen.pool.columns) == COLUMNS
    assert chosen.index["item_id"].is_unique
    assert chosen.index["item_id"].is_monotonic_increasing


def test_only_categories_with_arousal_are_drawn(annotations, tmp_path):
    everything = select(annotations, tmp_path, SETTINGS.model_copy(update={"per_level": 1000}), 0, _check()).index
    usable = annotations[(annotations["emotion_code"] < 8) & annotations["arousal"].notna()]
    assert sorted(everything["source_id"]) == sorted(usable["source_id"])


def test_the_draw_depends_on_the_seed_but_not_on_the_order_of_the_lists(annotations, tmp_path):
    one = select(annotations, tmp_path, SETTINGS, 0, _check())
    shuffled = select(annotations.sample(frac=1, random_state=1), tmp_path, SETTINGS, 0, _check())
    other = select(annotations, tmp_path, SETTINGS, 1, _check())
    pd.testing.assert_frame_equal(one.index, shuffled.index)
    pd.testing.assert_frame_equal(one.pool, shuffled.pool)
    assert set(one.index["source_id"]) != set(other.index["source_id"])


def test_more_images_per_level_keep_those_already_drawn(annotations, tmp_path):
    few = select(annotations, tmp_path, SETTINGS.model_copy(update={"per_level": 2}), 0, _check()).index
    more = select(annotations, tmp_path, SETTINGS, 0, _check()).index
    assert set(few["source_id"]) <= set(more["source_id"])


def test_an_unreadable_image_gives_its_place_to_the_next_one(annotations, tmp_path):
    clean = select(annotations, tmp_path, SETTINGS.model_copy(update={"per_level": 3}), 0, _check()).index
    bad = {path.rsplit("/", 1)[-1] for path in clean["path"][::6]}
    chosen = select(annotations, tmp_path, SETTINGS.model_copy(update={"per_level": 3}), 0, _check(bad))
    assert len(chosen.index) == len(clean)
    assert not bad & {path.rsplit("/", 1)[-1] for path in chosen.index["path"]}
    assert {r.reason for r in chosen.rejects} == {"unreadable_image"}
    assert len(chosen.rejects) >= len(bad)
    assert chosen.examined == len(chosen.index) + len(chosen.pool) + len(chosen.rejects)


def test_of_images_with_the_same_bytes_only_one_is_drawn_anywhere(annotations, tmp_path):
    same = {path.rsplit("/", 1)[-1] for path in annotations["path"][:60]}
    settings = SETTINGS.model_copy(update={"per_level": 1000, "pool": 1000})
    chosen = select(annotations, tmp_path, settings, 0, _check(same=same))
    together = pd.concat([chosen.index, chosen.pool])
    assert (together["content_sha256"] == "same").sum() == 1
    assert together["content_sha256"].is_unique
    assert {r.reason for r in chosen.rejects} == {"duplicate_image"}


def test_paths_that_leave_the_corpus_are_rejected(annotations, tmp_path):
    annotations.loc[annotations["emotion_code"] == Emotion.HAPPY, "path"] = "../outside.jpg"
    chosen = select(annotations, tmp_path, SETTINGS, 0, _check())
    assert "happy" not in set(chosen.index["emotion"])
    assert chosen.rejects


def test_nothing_usable_is_an_error(annotations, tmp_path):
    with pytest.raises(DataError, match="none of 400"):
        select(annotations.assign(arousal=np.nan), tmp_path, SETTINGS, 0, _check())


def test_inspection_tells_good_images_from_bad_ones(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    good, bad, absent = inspect_images([tmp_path / name for name in ("good.png", "bad.png", "absent.png")])
    assert good.problem == ""
    assert good.content_sha256 == hashlib.sha256((tmp_path / "good.png").read_bytes()).hexdigest()
    assert bad.problem
    assert absent.problem
