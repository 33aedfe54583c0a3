"""Laws of the Emolib release and of retrieval from it."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from ecavatar.emolib.dataset import read_emolib
from ecavatar.emolib.retrieval import EmolibIndex
from ecavatar.emolib.schema import SCHEMA_VERSION, read_info
from ecavatar.emotion import Emotion, LabelPair
from ecavatar.errors import AssetMissingError, BasisError, DataError, ShapeError
from ecavatar.storage.files import read_json, write_json
from ecavatar.storage.manifest import verify_manifest


@pytest.fixture
def release(write, faces, tmp_path):
    write(tmp_path / "emolib", faces)
    return tmp_path / "emolib"


def test_release_reads_back_what_was_written(release, faces):
    table = read_emolib(release)
    assert table["item_id"].to_pylist() == faces["item_id"].to_pylist()
    for name in ("shape", "expression", "jaw_pose", "rotation", "removed_transform", "translation_px"):
        assert table[name].combine_chunks().equals(faces[name].combine_chunks())
    assert set(table["basis"].to_pylist()) == {"small"}
    info = read_info(release)
    assert (info.topology, info.basis, info.n_shape, info.n_expression) == ("small", "small", 6, 4)
    assert sum(sum(levels.values()) for levels in info.counts.values()) == faces.num_rows


def test_order_of_the_faces_does_not_change_the_bytes(release, faces, write, tmp_path):
    write(tmp_path / "again", faces.take(np.random.default_rng(1).permutation(faces.num_rows)))
    assert read_json(release / "MANIFEST.json") == read_json(tmp_path / "again" / "MANIFEST.json")


def test_manifest_finds_a_changed_file(release):
    assert verify_manifest(release) == []
    (release / "README.md").write_text("changed")
    assert verify_manifest(release)


def test_card_names_existing_files_and_all_columns(release):
    card = yaml.safe_load((release / "README.md").read_text().split("---")[1])
    files = {entry["split"]: entry["path"] for entry in card["configs"][0]["data_files"]}
    assert set(files) == {"train", "val"}
    for split, pattern in files.items():
        frame = pd.concat([pd.read_parquet(path) for path in release.glob(pattern)])
        assert set(frame["split"]) == {split}
        assert list(frame.columns) == [feature["name"] for feature in card["dataset_info"][0]["features"]]
        assert frame["shape"].iloc[0].shape == (6,)


def test_bad_faces_are_refused(faces, write, tmp_path):
    twice = pa.concat_tables([faces, faces.slice(0, 1)])
    for bad, message in (
        (faces.slice(0, 0), "at least one"),
        (twice, "twice"),
        (faces.drop_columns(["arousal"]), "arousal"),
        (replaced(faces, split=["test"] * 40), "test"),
        (replaced(faces, emotion=["angry"] * 40), "angry"),
        (replaced(faces, level=[4] * 40), "level"),
        (replaced(faces, perceptual_hash=["12"] * 40), "64 hexadecimal"),
    ):
        with pytest.raises(DataError, match=message):
            write(tmp_path / "bad", bad)
    assert list(tmp_path.iterdir()) == []


def replaced(table, **columns):
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    return table


def test_absent_and_other_releases_are_refused(release, tmp_path):
    with pytest.raises(AssetMissingError):
        EmolibIndex.open(tmp_path / "absent")
    with pytest.raises(AssetMissingError, match="dvc repro"):
        read_emolib(tmp_path / "absent")
    with pytest.raises(DataError, match="coefficients"):
        read_emolib(release, "vertices")
    write_json(release / "meta" / "info.json", {"schema_version": "9.0.0"})
    with pytest.raises(DataError, match=r"9\.0\.0"):
        EmolibIndex.open(release)
    write_json(release / "meta" / "info.json", {"schema_version": SCHEMA_VERSION})
    with pytest.raises(DataError, match="damaged"):
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
    library.require_basis("small")
    with pytest.raises(BasisError, match="flame2020"):
        library.require_basis("flame2020")
    with pytest.raises(ShapeError, match="6"):
        library.nearest(np.zeros(5), LabelPair(Emotion.HAPPY, 1))
