"""Laws of the draw from AffectNet."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ecavatar.config import SelectSettings
from ecavatar.corpora.affectnet import COLUMNS as CSV_COLUMNS
from ecavatar.corpora.affectnet import IMAGE_FOLDERS, LIST_FOLDERS
from ecavatar.emolib.draw import ImageCheck, inspect_images
from ecavatar.emolib.selection import (
    COLUMNS,
    LIST_KEY,
    RESERVE_SCHEMA,
    SELECTION_KEY,
    select,
    select_folder,
    write_selection,
)
from ecavatar.emotion import Emotion
from ecavatar.errors import DataError
from ecavatar.storage.parquet import table_metadata

ROOT = Path("corpus")
SETTINGS = SelectSettings(per_level=5, levels="equal", near_duplicate_bits=8, pool=30, max_rejects=0.5)


def _annotations(count: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
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


@pytest.fixture
def annotations() -> pd.DataFrame:
    return _annotations(400)


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _check(bad=(), same=(), near=()):
    """A stand-in for opening files: `bad` names are unreadable, `same` share their bytes, `near` their picture."""

    def check(paths):
        return [
            ImageCheck(reason="unreadable_image", problem="cut short")
            if path.name in bad
            else ImageCheck(
                _sum("same" if path.name in same else path.name),
                _sum("picture" if path.name in near or path.name in same else path.name),
            )
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


@pytest.mark.parametrize(("kind", "reason"), [("same", "duplicate_image"), ("near", "near_duplicate_image")])
def test_of_copies_only_one_is_drawn_anywhere(annotations, tmp_path, kind, reason):
    copies = {path.rsplit("/", 1)[-1] for path in annotations["path"][:60]}
    settings = SETTINGS.model_copy(update={"per_level": 3, "pool": 1000})
    chosen = select(annotations, tmp_path, settings, 0, _check(**{kind: copies}))
    together = pd.concat([chosen.index, chosen.pool])
    assert together["perceptual_hash"].is_unique
    assert together["content_sha256"].is_unique
    is_copy = together["path"].str.rsplit("/", n=1).str[-1].isin(copies)
    assert is_copy.sum() == 1
    assert {r.reason for r in chosen.rejects} == {reason}
    assert all(r.detail.endswith(together.loc[is_copy, "item_id"].item()) for r in chosen.rejects)


def test_pictures_within_the_given_bits_are_copies_and_beyond_them_not(annotations, tmp_path):
    def check(paths):
        flipped = {path: 1 << int(path.stem) % 256 for path in paths}  # any two differ in 2 bits
        return [ImageCheck(_sum(path.name), f"{bit:064x}") for path, bit in flipped.items()]

    few = annotations[annotations["source_id"].str[2:6].astype(int) < 256]
    for bits, kept in ((1, False), (2, True)):
        settings = SETTINGS.model_copy(update={"near_duplicate_bits": bits})
        chosen = select(few, tmp_path, settings, 0, check)
        assert (len(chosen.index) == 1) is kept


def test_paths_that_leave_the_corpus_are_rejected(annotations, tmp_path):
    annotations.loc[annotations["emotion_code"] == Emotion.HAPPY, "path"] = "../outside.jpg"
    chosen = select(annotations, tmp_path, SETTINGS, 0, _check())
    assert "happy" not in set(chosen.index["emotion"])
    assert {r.reason for r in chosen.rejects} == {"bad_path"}


def test_nothing_usable_is_an_error(annotations, tmp_path):
    with pytest.raises(DataError, match="none of 400"):
        select(annotations.assign(arousal=np.nan), tmp_path, SETTINGS, 0, _check())


def test_a_category_with_one_row_is_all_level_1(annotations, tmp_path):
    happy = annotations.index[annotations["emotion_code"] == Emotion.HAPPY]
    alone = annotations.drop(happy[1:]).assign(arousal=lambda table: table["arousal"].fillna(0.5))
    chosen = select(alone, tmp_path, SETTINGS, 0, _check())
    assert chosen.index.loc[chosen.index["emotion"] == "happy", "level"].tolist() == [1]
    assert chosen.levels["emotions"]["happy"]["available"] == {"1": 1, "2": 0, "3": 0}


def test_without_opening_images_the_draw_is_the_same_but_knows_no_checksums(annotations, tmp_path):
    opened = select(annotations, tmp_path, SETTINGS, 0, _check())
    unopened = select(annotations, tmp_path, SETTINGS, 0, None)
    for one, other in ((opened.index, unopened.index), (opened.pool, unopened.pool)):
        pd.testing.assert_frame_equal(
            one.drop(columns=["content_sha256", "perceptual_hash"]),
            other.drop(columns=["content_sha256", "perceptual_hash"]),
        )
        assert set(other["content_sha256"]) == set(other["perceptual_hash"]) == {""}


def test_ids_are_ranks_in_the_permutation_and_stay_when_others_are_rejected(annotations, tmp_path):
    clean = select(annotations, tmp_path, SETTINGS, 0, _check())
    bad = {path.rsplit("/", 1)[-1] for path in clean.index["path"][::4]}
    with_gaps = select(annotations, tmp_path, SETTINGS, 0, _check(bad))
    ids = [pd.concat([s.index, s.pool]).set_index("source_id")["item_id"] for s in (clean, with_gaps)]
    both = ids[0].index.intersection(ids[1].index)
    emolib = [name for name in both if not ids[0][name].startswith("pool") and not ids[1][name].startswith("pool")]
    assert len(emolib) > 60
    assert (ids[0][emolib] == ids[1][emolib]).all()


@pytest.mark.slow
@given(st.integers(0, 2**32), st.floats(0, 0.6), st.integers(1, 6), st.integers(0, 60))
def test_every_cell_has_the_first_good_images_of_its_permutation(seed, share, per_level, pool_size):
    table = _annotations(160, seed % 100)
    rng = np.random.default_rng(seed)
    bad = {path.rsplit("/", 1)[-1] for path in table["path"] if rng.random() < share}
    settings = SETTINGS.model_copy(update={"per_level": per_level, "pool": pool_size})
    chosen = select(table, ROOT, settings, seed, _check(bad))
    everything = select(table, ROOT, settings.model_copy(update={"per_level": 1000, "pool": 0}), seed, None).index
    for (emotion, level), cell in everything.groupby(["emotion", "level"]):
        in_order = cell.sort_values("place")["source_id"]
        good = [name for name in in_order if name.rsplit("/", 1)[-1] not in bad][:per_level]
        drawn = chosen.index[(chosen.index["emotion"] == emotion) & (chosen.index["level"] == level)]
        assert drawn.sort_values("place")["source_id"].tolist() == good
    usable = everything.loc[everything["emotion"] != "neutral", "source_id"]
    left = {n for n in usable if n.rsplit("/", 1)[-1] not in bad} - set(chosen.index["source_id"])
    assert set(chosen.pool["source_id"]) <= left
    assert len(chosen.pool) == min(pool_size, len(left))


def test_the_reserve_holds_everything_else_once_in_order(annotations, tmp_path):
    bad = {path.rsplit("/", 1)[-1] for path in annotations["path"][::5]}
    chosen = select(annotations, tmp_path, SETTINGS, 0, _check(bad))
    write_selection(tmp_path / "index.parquet", chosen, chosen.rejects)
    reserve = pd.read_parquet(tmp_path / "reserve.parquet")
    everything = select(annotations, tmp_path, SETTINGS.model_copy(update={"per_level": 1000}), 0, None).index
    assert tuple(reserve.columns) == tuple(RESERVE_SCHEMA.names)
    looked_at = set(chosen.index["source_id"]) | {r.item_id for r in chosen.rejects}
    in_pool_draw = {r.item_id for r in chosen.rejects} & set(reserve["source_id"])
    assert set(reserve["source_id"]) == (set(everything["source_id"]) - looked_at) | in_pool_draw
    assert reserve["source_id"].is_unique
    for cell, rows in reserve.groupby("cell"):
        assert rows["place"].is_monotonic_increasing
        assert (rows["emotion"] + "_" + rows["level"].astype(str) == cell).all()
    whole = everything.set_index("source_id")["place"]
    assert (reserve.set_index("source_id")["place"] == whole[reserve["source_id"]]).all()
    can_come = reserve.loc[reserve["pool_place"] >= 0, "source_id"]
    assert set(chosen.pool["source_id"]) <= set(can_come)
    assert not set(can_come) & in_pool_draw
    assert not reserve.loc[reserve["emotion"] == "neutral", "pool_place"].ge(0).any()


def test_files_of_one_selection_say_so(annotations, tmp_path):
    for seed in (0, 1):
        chosen = select(annotations, tmp_path, SETTINGS, seed, _check())
        write_selection(tmp_path / str(seed) / "index.parquet", chosen, [])
    names = ("index", "pool", "reserve")
    texts = [[table_metadata(tmp_path / seed / f"{n}.parquet")[SELECTION_KEY] for n in names] for seed in "01"]
    assert len(set(texts[0])) == len(set(texts[1])) == 1
    assert texts[0][0] != texts[1][0]
    assert table_metadata(tmp_path / "0" / "pool.parquet")[LIST_KEY] == "pool"
    assert pq.read_schema(tmp_path / "0" / "index.parquet").names == list(COLUMNS)
    assert json.loads((tmp_path / "0" / "levels.json").read_text())["emotions"]


def test_the_histogram_counts_every_usable_annotation(annotations, tmp_path):
    facts = select(annotations, tmp_path, SETTINGS, 0, None).levels
    usable = annotations[(annotations["emotion_code"] < 8) & annotations["arousal"].notna()]
    assert facts["usable"] == len(usable)
    for emotion, row in facts["emotions"].items():
        arousal = usable.loc[usable["emotion_code"] == Emotion.from_label(emotion), "arousal"]
        assert sum(row["histogram"]) == len(arousal)
        below = int((arousal < 0).sum())
        assert sum(row["histogram"][: facts["histogram"]["bins"] // 2]) == below


def test_inspection_tells_good_images_from_bad_ones(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    good, bad, absent = inspect_images([tmp_path / name for name in ("good.png", "bad.png", "absent.png")])
    assert good.problem == good.reason == ""
    assert len(good.perceptual_hash) == 64
    assert good.content_sha256 == hashlib.sha256((tmp_path / "good.png").read_bytes()).hexdigest()
    assert (bad.reason, absent.reason) == ("unreadable_image", "missing_image")
    assert "bad.png" in bad.problem


@pytest.fixture
def affectnet(tmp_path) -> Path:
    """A corpus of 30 happy and angry pictures in AffectNet's layout; every sixth is cut short."""
    root = tmp_path / "affectnet"
    images, lists = root / IMAGE_FOLDERS[0] / "1", root / LIST_FOLDERS[0]
    images.mkdir(parents=True)
    lists.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), [",".join(CSV_COLUMNS)]
    for n in range(30):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(images / f"{n}.png")
        if n % 6 == 5:
            (images / f"{n}.png").write_bytes((images / f"{n}.png").read_bytes()[:100])
        rows.append(f"1/{n}.png,1,1,30,30,NULL,{1 if n % 2 else 6},0.1,{n / 40:.3f}")
    (lists / "training.csv").write_text("\n".join(rows) + "\n")
    return root


def test_a_folder_is_selected_into_one_list_with_its_companions(affectnet, tmp_path):
    settings = SETTINGS.model_copy(update={"per_level": 2, "pool": 4})
    chosen = select_folder(affectnet, tmp_path / "out" / "index.parquet", settings, 0)
    written = pd.read_parquet(tmp_path / "out" / "index.parquet")
    assert written["item_id"].tolist() == chosen.index["item_id"].tolist()
    assert len(written) == 12
    assert (written["perceptual_hash"].str.len() == 64).all()
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"index.parquet", "pool.parquet", "reserve.parquet", "rejects.parquet", "levels.json"}
    select_folder(affectnet, tmp_path / "again" / "index.parquet", settings, 0)
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_selecting_from_annotations_opens_no_image(affectnet, tmp_path):
    shutil.rmtree(affectnet / IMAGE_FOLDERS[0] / "1")
    index = tmp_path / "out" / "index.parquet"
    chosen = select_folder(affectnet, index, SETTINGS, 0, annotations_only=True)
    assert len(pd.read_parquet(index)) == len(chosen.index) == 30
    assert not chosen.rejects


def test_too_many_rejects_leave_the_earlier_selection_alone(affectnet, tmp_path):
    index = tmp_path / "out" / "index.parquet"
    select_folder(affectnet, index, SETTINGS, 0)
    before = {path: path.read_bytes() for path in index.parent.iterdir()}
    shutil.rmtree(affectnet / IMAGE_FOLDERS[0] / "1")
    with pytest.raises(DataError, match="missing_image"):
        select_folder(affectnet, index, SETTINGS, 1)
    assert {path: path.read_bytes() for path in index.parent.iterdir()} == before


def test_a_corpus_without_one_good_image_gives_empty_lists(annotations, tmp_path):
    every = {path.rsplit("/", 1)[-1] for path in annotations["path"]}
    chosen = select(annotations, tmp_path, SETTINGS, 0, _check(bad=every))
    assert len(chosen.index) == len(chosen.pool) == 0
    assert chosen.examined == len(chosen.rejects) > 0
    write_selection(tmp_path / "index.parquet", chosen, chosen.rejects)
    assert pq.read_schema(tmp_path / "index.parquet").names == list(COLUMNS)


def test_links_in_a_circle_are_a_reject(affectnet, tmp_path):
    image = affectnet / IMAGE_FOLDERS[0] / "1" / "0.png"
    image.unlink()
    image.symlink_to(image)
    chosen = select_folder(affectnet, tmp_path / "out" / "index.parquet", SETTINGS, 0)
    assert ("1/0.png", "bad_path") in {(reject.item_id, reject.reason) for reject in chosen.rejects}


def test_a_small_draw_from_a_long_list_bears_the_list_s_broken_rows(affectnet, tmp_path):
    with (affectnet / LIST_FOLDERS[0] / "training.csv").open("a") as file:
        file.write("1/x.png,1,1\n" * 5)
    settings = SETTINGS.model_copy(update={"per_level": 1, "pool": 0, "max_rejects": 0.2})
    chosen = select_folder(affectnet, tmp_path / "index.parquet", settings, 0, annotations_only=True)
    assert len(chosen.index) == 6
    with pytest.raises(DataError, match=r"5 of 35 .*\n.*5 x bad_row"):
        select_folder(
            affectnet, tmp_path / "index.parquet", settings.model_copy(update={"max_rejects": 0.1}), 0,
            annotations_only=True,
        )  # fmt: skip
