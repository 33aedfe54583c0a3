"""Laws of the Emolib release and of retrieval from it."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from ecavatar.emolib.dataset import read_emolib, read_info, write_emolib
from ecavatar.emolib.retrieval import EmolibIndex
from ecavatar.emotion import Emotion, LabelPair
from ecavatar.errors import AssetMissingError, BasisError, DataError, ShapeError
from ecavatar.storage.files import read_json, write_json
from ecavatar.storage.manifest import verify_manifest
from ecavatar.storage.parquet import vector_column

TAGS = {"topology": "toy", "basis": "toy-basis", "backend": "landmarks"}


@pytest.fixture
def faces() -> pa.Table:
    rng = np.random.default_rng(0)
    count = 40
    emotions = rng.integers(0, 7, count)  # no contempt
    levels = np.where(emotions == Emotion.FEAR, rng.integers(2, 4, count), rng.integers(1, 4, count))
    return pa.table(
        {
            "item_id": [f"item_{i:02d}" for i in range(count)],
            "source_id": [f"1/{i}.jpg" for i in range(count)],
            "path": ["unused"] * count,
            "split": ["val" if i % 8 == 0 else "train" for i in range(count)],
            "emotion": [Emotion(int(code)).label for code in emotions],
            "level": levels,
            "valence": rng.uniform(-1, 1, count),
            "arousal": rng.uniform(-1, 1, count),
            "shape": vector_column(rng.normal(size=(count, 6))),
            "expression": vector_column(rng.normal(size=(count, 4))),
            "jaw_pose": vector_column(rng.normal(size=(count, 3))),
            "removed_transform": vector_column(np.tile(np.eye(4).ravel(), (count, 1))),
            "alignment_residual_m": np.zeros(count),
            "residual_mm": np.ones(count),
        }
    )


@pytest.fixture
def release(faces, tmp_path):
    write_emolib(tmp_path / "emolib", faces, **TAGS)
    return tmp_path / "emolib"


def test_release_reads_back_what_was_written(release, faces):
    table = read_emolib(release)
    assert table["item_id"].to_pylist() == faces["item_id"].to_pylist()
    for name in ("shape", "expression", "jaw_pose"):
        assert table[name].combine_chunks().equals(faces[name].combine_chunks())
    assert set(table["basis"].to_pylist()) == {"toy-basis"}
    info = read_info(release)
    assert (info.topology, info.basis, info.n_shape, info.n_expression) == ("toy", "toy-basis", 6, 4)
    assert sum(sum(levels.values()) for levels in info.counts.values()) == faces.num_rows


def test_order_of_the_faces_does_not_change_the_bytes(release, faces, tmp_path):
    write_emolib(tmp_path / "again", faces.take(np.random.default_rng(1).permutation(faces.num_rows)), **TAGS)
    assert read_json(release / "MANIFEST.json") == read_json(tmp_path / "again" / "MANIFEST.json")


def test_manifest_finds_a_changed_file(release):
    assert verify_manifest(release) == []
    (release / "README.md").write_text("changed")
    assert verify_manifest(release)


def test_card_names_existing_files_and_all_columns(release):
    card = yaml.safe_load((release / "README.md").read_text().split("---")[1])
    files = {entry["split"]: entry["path"] for entry in card["configs"][0]["data_files"]}
    assert set(files) == {"train", "val"}
    for split, path in files.items():
        frame = pd.read_parquet(release / path)
        assert set(frame["split"]) == {split}
        assert list(frame.columns) == [feature["name"] for feature in card["dataset_info"]["features"]]
        assert frame["shape"].iloc[0].shape == (6,)


def test_bad_faces_are_refused(faces, tmp_path):
    twice = pa.concat_tables([faces, faces.slice(0, 1)])
    for bad, message in (
        (faces.slice(0, 0), "at least one"),
        (twice, "twice"),
        (faces.drop_columns(["arousal"]), "arousal"),
        (faces.set_column(3, "split", pa.array(["test"] * 40)), "test"),
        (faces.set_column(4, "emotion", pa.array(["angry"] * 40)), "angry"),
    ):
        with pytest.raises(DataError, match=message):
            write_emolib(tmp_path / "bad", bad, **TAGS)
    assert not (tmp_path / "bad").exists()


def test_absent_and_other_releases_are_refused(release, tmp_path):
    with pytest.raises(AssetMissingError):
        EmolibIndex.open(tmp_path / "absent")
    write_json(release / "meta" / "info.json", {"schema_version": "9.0.0"})
    with pytest.raises(DataError, match=r"9\.0\.0"):
        EmolibIndex.open(release)


def test_nearest_agrees_with_a_search_by_hand(release, faces):
    library = EmolibIndex.open(release)
    frame = faces.to_pandas()
    rng = np.random.default_rng(2)
    for pair in library.counts():
        wanted = rng.normal(size=6)
        group = frame[(frame["emotion"] == pair.emotion.label) & (frame["level"] == pair.level)]
        distances = [np.linalg.norm(shape - wanted) for shape in group["shape"]]
        item = library.nearest(wanted, pair)
        assert item.item_id == group["item_id"].iloc[int(np.argmin(distances))]
        assert item.shape_distance == pytest.approx(min(distances), rel=1e-5)
        assert item.label == pair


def test_an_item_is_nearest_to_itself(release):
    library = EmolibIndex.open(release)
    first = next(iter(library.counts()))
    item = library.nearest(np.zeros(6), first)
    assert library.nearest(item.shape, first).item_id == item.item_id


def test_an_empty_label_pair_is_refused_or_replaced_on_purpose(release):
    library = EmolibIndex.open(release)
    with pytest.raises(DataError, match="its levels are: 2, 3"):
        library.nearest(np.zeros(6), LabelPair(Emotion.FEAR, 1))
    replaced = library.nearest(np.zeros(6), LabelPair(Emotion.FEAR, 1), when_empty="nearest_level")
    assert replaced.label == LabelPair(Emotion.FEAR, 2)
    for when_empty in ("refuse", "nearest_level"):
        with pytest.raises(DataError, match="its categories are: neutral"):
            library.nearest(np.zeros(6), LabelPair(Emotion.CONTEMPT, 1), when_empty=when_empty)


def test_bases_never_mix(release):
    library = EmolibIndex.open(release)
    library.require_basis("toy-basis")
    with pytest.raises(BasisError, match="flame2020"):
        library.require_basis("flame2020")
    with pytest.raises(ShapeError, match="6"):
        library.nearest(np.zeros(5), LabelPair(Emotion.HAPPY, 1))
