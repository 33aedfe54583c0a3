"""Laws of filling the lists: failed faces are replaced, Emolib goes before the pool, shards change nothing."""

import contextlib
import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecavatar.config import ReconstructSettings, SelectSettings, load_params
from ecavatar.emolib import redraw
from ecavatar.emolib.draw import ImageCheck
from ecavatar.emolib.redraw import (
    EMOLIB,
    Filling,
    clean_work,
    fill_lists,
    merge_rounds,
    reconstruct_index,
    records_path,
    rejects_path,
)
from ecavatar.emolib.selection import POOL, select, write_selection
from ecavatar.errors import DataError
from ecavatar.reconstruction.table import FaceTable
from ecavatar.storage.parquet import read_table, write_table
from ecavatar.storage.rejects import Reject, write_rejects
from ecavatar.storage.shards import read_shards, shard_path, split_rows, write_shard

CORPUS = Path("corpus")
SETTINGS = SelectSettings(per_level=3, levels="equal", near_duplicate_bits=0, pool=25, max_rejects=1)


def _annotations(count: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    ids = [f"{i:04d}.jpg" for i in rng.permutation(count)]
    table = {"source_id": ids, "path": ids, "split": "train", "emotion_code": rng.integers(0, 8, count)}
    table |= {"valence": 0.0, "arousal": rng.uniform(-1, 1, count)}
    return pd.DataFrame({**table, **dict.fromkeys(("face_x", "face_y", "face_width", "face_height"), np.nan)})


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _check(corrupt=(), twins=()):
    """Opens nothing: `corrupt` names are unreadable; of two `twins` (name -> picture) only one may stay."""
    pictures = dict(twins)

    def check(paths):
        return [
            ImageCheck(reason="unreadable_image", problem="cut short")
            if path.name in corrupt
            else ImageCheck(_sum(path.name), _sum(pictures.get(path.name, path.name)))
            for path in paths
        ]

    return check


class _Fitter:
    """Finds a face in every image but the `faceless` ones; counts what it is asked."""

    def __init__(self, faceless=()):
        self.faceless, self.asked = set(faceless), []

    def __call__(self, directory: Path, parts: int) -> None:
        for part in range(parts):
            records = read_table(records_path(directory, part))
            write_shard(shard_path(directory, part, parts), "h", lambda r=records, p=part: self._fit(directory, p, r))

    def _fit(self, directory: Path, part: int, records: pa.Table) -> pa.Table:
        names = records["source_id"].to_pylist()
        self.asked += names
        has_face = np.array([name not in self.faceless for name in names], bool)
        lost = records.filter(pa.array(~has_face, pa.bool_()))["item_id"].to_pylist()
        write_rejects(
            rejects_path(directory, part), [Reject(item, "reconstruct_faces", "no_face", "") for item in lost]
        )
        return records.filter(pa.array(has_face, pa.bool_()))


def _selected(folder: Path, table: pd.DataFrame, check, seed=0, chosen=SETTINGS) -> Path:
    selection = select(table, CORPUS, chosen, seed, check)
    write_selection(folder / "index.parquet", selection, selection.rejects)
    return folder / "index.parquet"


def _filled(index: Path, out: Path, fitter: _Fitter, check, shards=3, max_rejects=1.0) -> Filling:
    filling = fill_lists(index, CORPUS, out / "work", run=fitter, shards=shards, max_rejects=max_rejects, check=check)
    for name, rounds in filling.rounds.items():
        merge_rounds(rounds, out / name, shards)
    clean_work(out)
    return filling


def _list(out: Path, name: str) -> pd.DataFrame:
    return read_shards(out / name).to_pandas()


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 0.7), st.floats(0, 0.5), st.integers(1, 6), st.integers(0, 50))
def test_every_cell_ends_with_the_first_images_that_have_a_face(tmp_path_factory, seed, no_face, corrupt, n, pool):
    folder, rng = tmp_path_factory.mktemp("fill"), np.random.default_rng(seed)
    table = _annotations(150, seed % 50)
    faceless = {name for name in table["source_id"] if rng.random() < no_face}
    broken = {name for name in table["source_id"] if rng.random() < corrupt}
    chosen = SETTINGS.model_copy(update={"per_level": n, "pool": pool})
    index = _selected(folder, table, _check(broken), seed, chosen)
    filling = _filled(index, folder, _Fitter(faceless), _check(broken))
    everything = select(table, CORPUS, chosen.model_copy(update={"per_level": 1000, "pool": 0}), seed, None).index
    bad = faceless | broken
    emolib, kept = _list(folder, EMOLIB), _list(folder, POOL)
    for (emotion, level), cell in everything.groupby(["emotion", "level"]):
        good = [name for name in cell.sort_values("place")["source_id"] if name not in bad][:n]
        found = emolib[(emolib["emotion"] == emotion) & (emolib["level"] == level)]
        assert found.sort_values("place")["source_id"].tolist() == good
    emotional = set(everything.loc[everything["emotion"] != "neutral", "source_id"])
    assert not set(kept["source_id"]) & (set(emolib["source_id"]) | bad)
    assert len(kept) == min(pool, len(emotional - bad - set(emolib["source_id"])))
    listed = set(pd.read_parquet(folder / "pool.parquet")["source_id"])
    assert listed - bad - set(emolib["source_id"]) <= set(kept["source_id"])
    assert filling.faces == {EMOLIB: len(emolib), POOL: len(kept)}
    assert {r.item_id for r in filling.rejects}.isdisjoint([*emolib["item_id"], *kept["item_id"]])
    for frame in (emolib, kept):
        assert frame["item_id"].is_monotonic_increasing
        assert frame["item_id"].is_unique


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 0.6))
def test_shards_change_neither_items_nor_rejects(tmp_path_factory, seed, no_face):
    folder, rng = tmp_path_factory.mktemp("shards"), np.random.default_rng(seed)
    table = _annotations(150, seed % 50)
    faceless = {name for name in table["source_id"] if rng.random() < no_face}
    index = _selected(folder, table, _check())
    outcomes = []
    for shards in (1, 3, 7):
        filling = _filled(index, folder / str(shards), _Fitter(faceless), _check(), shards)
        outcomes.append(([_list(folder / str(shards), name) for name in (EMOLIB, POOL)], sorted(filling.rejects)))
    for frames, rejects in outcomes[1:]:
        assert rejects == outcomes[0][1]
        for frame, first in zip(frames, outcomes[0][0], strict=True):
            pd.testing.assert_frame_equal(frame, first)


def test_an_item_has_the_same_id_whether_others_failed_or_not(tmp_path):
    table = _annotations(200, 1)
    index = _selected(tmp_path, table, _check())
    _filled(index, tmp_path / "all", _Fitter(), _check())
    ids = _list(tmp_path / "all", EMOLIB).set_index("source_id")["item_id"]
    _filled(index, tmp_path / "some", _Fitter(ids.index[::3]), _check())
    again = _list(tmp_path / "some", EMOLIB).set_index("source_id")["item_id"]
    both = ids.index.intersection(again.index)
    assert len(both) > 30
    assert (ids[both] == again[both]).all()


def test_an_item_that_emolib_takes_leaves_the_pool_which_is_filled_up_again(tmp_path):
    table = _annotations(400, 2)
    index = _selected(tmp_path, table, _check())
    listed = pd.read_parquet(tmp_path / "pool.parquet")
    first = pd.read_parquet(index)
    filling = _filled(index, tmp_path, _Fitter(first["source_id"][::2]), _check())
    emolib, pool = _list(tmp_path, EMOLIB), _list(tmp_path, POOL)
    moved = set(listed["source_id"]) & set(emolib["source_id"])
    assert moved, "some replacement was in the pool"
    assert filling.replacements >= len(first[::2])
    assert len(pool) == SETTINGS.pool
    assert not set(pool["source_id"]) & set(emolib["source_id"])
    stayed = listed[~listed["source_id"].isin(moved)]
    assert set(stayed["item_id"]) <= set(pool["item_id"])
    assert not moved & {r.item_id for r in filling.rejects}, "what moved was not rejected"


def test_a_copy_of_a_new_emolib_image_leaves_the_pool_with_a_reject(tmp_path):
    table = _annotations(400, 3)
    index = _selected(tmp_path, table, _check())
    first, listed = pd.read_parquet(index), pd.read_parquet(tmp_path / "pool.parquet")
    reserve = pd.read_parquet(tmp_path / "reserve.parquet")
    happy = reserve[(reserve["cell"] == "happy_1") & ~reserve["source_id"].isin(listed["source_id"])]
    replacement = happy["source_id"].iloc[0]
    earlier = reserve[(reserve["cell"] == "happy_1") & (reserve["place"] < happy["place"].iloc[0])]["source_id"]
    copy = listed[listed["emotion"] == "anger"].iloc[0]
    twins = {replacement: _picture_of(copy["source_id"])}
    lost = [first.loc[first["emotion"].eq("happy") & first["level"].eq(1), "source_id"].iloc[0], *earlier]
    filling = _filled(index, tmp_path, _Fitter(lost), _check(twins=twins))
    assert replacement in set(_list(tmp_path, EMOLIB)["source_id"])
    pool = _list(tmp_path, POOL)
    assert copy["source_id"] not in set(pool["source_id"])
    assert len(pool) == SETTINGS.pool
    (reject,) = [r for r in filling.rejects if r.item_id == copy["item_id"]]
    assert reject.reason == "near_duplicate_image"
    assert "happy_1_" in reject.detail


def _picture_of(name: str) -> str:
    return name  # `_check` hashes the picture's name


def test_an_image_that_copies_an_emolib_image_does_not_replace_one(tmp_path):
    table = _annotations(300, 4)
    index = _selected(tmp_path, table, _check())
    first, reserve = pd.read_parquet(index), pd.read_parquet(tmp_path / "reserve.parquet")
    sad = first[first["emotion"].eq("sad") & first["level"].eq(2)]
    following = reserve[reserve["cell"] == "sad_2"]
    twins = {following["source_id"].iloc[0]: first.loc[first["emotion"] == "fear", "source_id"].iloc[0]}
    filling = _filled(index, tmp_path, _Fitter([sad["source_id"].iloc[0]]), _check(twins=twins))
    emolib = _list(tmp_path, EMOLIB)
    found = set(emolib.loc[emolib["emotion"].eq("sad") & emolib["level"].eq(2), "source_id"])
    assert found == {*sad["source_id"].iloc[1:], following["source_id"].iloc[1]}
    assert [r.reason for r in filling.rejects if r.item_id.startswith("sad_2")].count("near_duplicate_image") == 1


def test_images_selected_unopened_are_opened_before_reconstruction(tmp_path):
    table = _annotations(300, 5)
    corrupt = set(table["source_id"][::4])
    unopened = _selected(tmp_path / "unopened", table, None)
    fitter = _Fitter()
    filling = _filled(unopened, tmp_path / "unopened", fitter, _check(corrupt))
    opened = _selected(tmp_path / "opened", table, _check(corrupt))
    _filled(opened, tmp_path / "opened", _Fitter(), _check(corrupt))
    assert not corrupt & set(fitter.asked)
    assert {r.reason for r in filling.rejects} == {"unreadable_image"}
    pd.testing.assert_frame_equal(_list(tmp_path / "unopened", EMOLIB), _list(tmp_path / "opened", EMOLIB))


def test_a_killed_run_goes_on_where_it_stopped_and_ends_with_the_same_files(tmp_path):
    table = _annotations(300, 6)
    index = _selected(tmp_path, table, _check())
    faceless = set(table["source_id"][::3])
    _filled(index, tmp_path / "whole", _Fitter(faceless), _check())

    class Killed(_Fitter):
        def _fit(self, directory, part, records):
            if directory.name == "emolib-001" and part == 1:
                raise KeyboardInterrupt
            return super()._fit(directory, part, records)

    killed, again = Killed(faceless), _Fitter(faceless)
    with pytest.raises(KeyboardInterrupt):
        _filled(index, tmp_path / "killed", killed, _check())
    _filled(index, tmp_path / "killed", again, _check())
    assert killed.asked
    assert not set(killed.asked) & set(again.asked), "finished shards are not computed again"
    files = [
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("whole", "killed")
    ]
    assert files[0] == files[1]
    assert {path.parts[0] for path in files[0]} == {EMOLIB, POOL}


def test_too_many_failures_stop_after_their_round(tmp_path):
    table = _annotations(300, 7)
    index = _selected(tmp_path, table, _check())
    fitter = _Fitter(table["source_id"])
    with pytest.raises(DataError, match=r"72 of 72 .*\n.*72 x no_face"):
        _filled(index, tmp_path, fitter, _check(), max_rejects=0.3)
    assert len(fitter.asked) == 72


def test_files_of_two_selections_are_not_mixed(tmp_path):
    table = _annotations(300, 8)
    index = _selected(tmp_path / "a", table, _check(), seed=0)
    other = _selected(tmp_path / "b", table, _check(), seed=1)
    (tmp_path / "a" / "reserve.parquet").write_bytes((other.parent / "reserve.parquet").read_bytes())
    with pytest.raises(DataError, match="different selections"):
        _filled(index, tmp_path, _Fitter(), _check())


def test_merged_rounds_are_sorted_and_cut_evenly(tmp_path):
    ids = [f"i{n:03d}" for n in np.random.default_rng(0).permutation(50)]
    for number, rows in enumerate((ids[:30], ids[30:])):
        for part, cut in enumerate(split_rows(len(rows), 4)):
            table = pa.table({"item_id": sorted(rows[cut.start : cut.stop])})
            write_shard(shard_path(tmp_path / str(number), part, 4), "h", lambda t=table: t, {"topology": "t"})
    merge_rounds([tmp_path / "0", tmp_path / "1"], tmp_path / "out", 3)
    assert read_shards(tmp_path / "out")["item_id"].to_pylist() == sorted(ids)
    sizes = [read_table(path).num_rows for path in sorted((tmp_path / "out").iterdir())]
    assert max(sizes) - min(sizes) <= 1


class _Finder:
    """Stands for the networks: a face in every image whose name does not say otherwise."""

    tags: ClassVar = {"topology": "small", "basis": "small", "backend": "landmarks"}

    def __init__(self, asset, settings, emica):
        self.asset, self.settings, self.emica = asset, settings, emica

    def faces(self, records, read, landmarker, landmarks):
        assert (landmarks is None) is (self.settings.emica.crop == "mediapipe")
        if landmarks:
            read_landmarks = [landmarks(record) for record in records.to_pylist()]
            records = records.append_column("first_x", pa.array([points[0, 0] for points in read_landmarks]))
        has_face = np.array(["faceless" not in path for path in records["path"].to_pylist()], bool)
        lost = records.filter(pa.array(~has_face, pa.bool_()))["item_id"].to_pylist()
        rejects = [Reject(item, "reconstruct_faces", "no_face", "") for item in lost]
        return FaceTable(records.filter(pa.array(has_face, pa.bool_())), rejects)


@pytest.fixture
def finder(monkeypatch):
    monkeypatch.setattr(redraw, "Reconstructor", _Finder)
    monkeypatch.setattr(redraw, "FaceLandmarker", contextlib.nullcontext)


@pytest.fixture
def reconstruct(repository) -> ReconstructSettings:
    return load_params(repository / "params.yaml").profile("sample").reconstruct.model_copy(update={"max_rejects": 0.6})


def test_a_list_beside_its_reserve_is_filled(tmp_path, finder, reconstruct, small_face):
    table = _annotations(400, 9)
    table["path"] = np.where(np.arange(400) % 3 == 0, "faceless/" + table["path"], table["path"])
    index = _selected(tmp_path / "selection", table, _check())
    told = []
    filling = reconstruct_index(
        index, CORPUS, tmp_path / "out", small_face, reconstruct, check=_check(), progress=lambda *n: told.append(n)
    )
    found = read_shards(tmp_path / "out").to_pandas()
    assert filling.faces == {EMOLIB: len(found)}
    assert filling.replacements > 10
    wanted = pd.read_parquet(index).groupby(["emotion", "level"]).size()
    assert (found.groupby(["emotion", "level"]).size() == wanted).all()
    assert not found["path"].str.contains("faceless").any()
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] == len(found) + len(filling.rejects)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {*(f"part-{n:05d}-of-00004.parquet" for n in range(4)), "rejects.parquet"}


def test_any_list_of_images_is_reconstructed_as_it_is(tmp_path, finder, reconstruct, small_face):
    own = pa.table({"item_id": ["b", "a", "c"], "path": ["b.jpg", "a.jpg", "faceless.jpg"], "note": [1, 2, 3]})
    write_table(tmp_path / "own.parquet", own)
    filling = reconstruct_index(tmp_path / "own.parquet", CORPUS, tmp_path / "out", small_face, reconstruct)
    assert read_shards(tmp_path / "out").to_pydict() == {
        "item_id": ["a", "b"],
        "path": ["a.jpg", "b.jpg"],
        "note": [2, 1],
    }
    assert [r.item_id for r in filling.rejects] == ["c"]


def test_a_picture_that_changed_in_its_place_is_reconstructed_anew(
    tmp_path, finder, reconstruct, small_face, monkeypatch
):
    def faces(_self, records, _read, _landmarker, _landmarks):
        found = [(tmp_path / path).read_bytes() for path in records["path"].to_pylist()]
        return FaceTable(records.append_column("found", pa.array(found)), [])

    monkeypatch.setattr(_Finder, "faces", faces)
    write_table(tmp_path / "own.parquet", pa.table({"item_id": ["a"], "path": ["a.jpg"]}))
    for picture in (b"one", b"two"):
        (tmp_path / "a.jpg").write_bytes(picture)
        reconstruct_index(tmp_path / "own.parquet", tmp_path, tmp_path / "out", small_face, reconstruct)
        assert read_shards(tmp_path / "out")["found"].to_pylist() == [picture]


@pytest.mark.parametrize(
    ("columns", "message"),
    [({"path": ["a.jpg"]}, "lacks item_id"), ({"item_id": ["a", "a"], "path": ["a", "b"]}, "occurs twice")],
)
def test_a_list_that_does_not_name_its_images_is_refused(tmp_path, finder, reconstruct, small_face, columns, message):
    write_table(tmp_path / "own.parquet", pa.table(columns))
    with pytest.raises(DataError, match=message):
        reconstruct_index(tmp_path / "own.parquet", CORPUS, tmp_path / "out", small_face, reconstruct)
    assert not (tmp_path / "out").exists()


def test_the_corpus_s_landmarks_place_the_crops_where_they_are_asked_for(
    tmp_path, finder, reconstruct, small_face, monkeypatch
):
    index = _selected(tmp_path / "selection", _annotations(40, 10), _check())
    monkeypatch.setattr(
        redraw, "corpus_landmarks", lambda _root, names: {name: np.full((68, 2), float(name[:4])) for name in names}
    )
    emica = reconstruct.emica.model_copy(update={"crop": "corpus"})
    asked = reconstruct.model_copy(update={"backend": "emica", "emica": emica})
    reconstruct_index(index, CORPUS, tmp_path / "out", small_face, asked, check=_check())
    found = read_shards(tmp_path / "out").to_pandas()
    assert (found["first_x"] == found["source_id"].str[:4].astype(float)).all()
