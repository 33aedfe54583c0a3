"""Laws of VOCATeeth's card, statistics and croissant.json: what they promise works, with the programs people use."""

import os
import re
import shutil
import subprocess
import sys

import duckdb
import mlcroissant
import numpy as np
import pandas as pd
import polars as pl
import pytest
import yaml

from ecavatar.errors import DataError
from ecavatar.storage.files import read_json, write_json
from ecavatar.vocateeth.card import card_text, write_card
from ecavatar.vocateeth.facts import read_facts

SECTIONS = ("Motivation", "Composition", "Collection", "Preprocessing", "Uses", "Distribution and licence",
            "Maintenance", "Known failures")  # fmt: skip
BLOCKS = ("load_dataset(\"PATH\", split", "Audio(decode=False)", "\"PATH\", \"templates\"", "pd.read", "pl.scan",
          "duckdb.sql", "teeth.heads", "TeethClips")  # fmt: skip
FREE_BLOCKS = ('load_dataset("PATH", split', '"PATH", "fits"', "pd.read", "pl.scan", "duckdb.sql")


def text_of(directory):
    return (directory / "README.md").read_text(encoding="utf-8")


def blocks_of(directory):
    return re.findall(r"```python\n(.*?)```", text_of(directory), flags=re.DOTALL)


def front_matter(directory):
    return yaml.safe_load(text_of(directory).split("---\n")[1])


def test_the_card_shows_every_way_of_loading(teeth, free):
    for directory, words in ((teeth.directory, BLOCKS), (free, FREE_BLOCKS)):
        blocks = blocks_of(directory)
        assert len(blocks) == len(words)
        assert all(word in block for word, block in zip(words, blocks, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_code_block_of_the_card_runs(teeth, number, tmp_path):
    code = blocks_of(teeth.directory)[number].replace("PATH", str(teeth.directory))
    assert_runs(code, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(FREE_BLOCKS)))
def test_every_code_block_of_the_free_copys_card_runs(free, number, tmp_path):
    assert_runs(blocks_of(free)[number].replace("PATH", str(free)), tmp_path)


def assert_runs(code, tmp_path):
    offline = {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | offline)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()


def test_datasets_reads_what_is_stored(teeth, load):
    frames = load(str(teeth.directory))
    assert {split: rows.num_rows for split, rows in frames.items()} == {"train": 42, "val": 21, "test": 21}
    assert type(frames["train"].features["vertices"]).__name__ == "Array2D"
    rows = frames["val"].with_format("numpy")[:]
    for clip in teeth.of_split("val"):
        mine = rows["clip_id"] == clip.clip_id
        np.testing.assert_array_equal(rows["angle"][mine], teeth.angles(clip))
        np.testing.assert_array_equal(rows["vertices"][mine], teeth.vertices(clip))


def test_datasets_reads_sound_and_subjects(teeth, load):
    import datasets

    sounds = load(str(teeth.directory), "audio", split="test").cast_column("audio", datasets.Audio(decode=False))
    assert [row["clip_id"] for row in sounds] == [clip.clip_id for clip in teeth.clips if clip.part == 1]
    assert all(row["audio"]["bytes"].startswith(b"fLaC") for row in sounds)
    subjects = load(str(teeth.directory), "templates", split="subjects")
    templates = teeth.templates()
    for row in subjects:
        np.testing.assert_array_equal(np.array(row["vertices"], np.float32), templates[str(row["subject"])])
        np.testing.assert_array_equal(row["mouth_rotation"], teeth.fit(str(row["subject"])).rotation.ravel())


def test_table_programs_agree(teeth, free):
    own = np.concatenate([teeth.angles(clip) for clip in teeth.clips])
    for folder in (teeth.directory / "data" / "faces", free / "data" / "angles"):
        frames = (
            pd.read_parquet(folder, columns=["clip_id", "frame", "angle"]),
            pl.scan_parquet(folder / "*.parquet").select("clip_id", "frame", "angle").collect().to_pandas(),
            duckdb.sql(f"select clip_id, frame, angle from '{folder}/*.parquet'").df(),
        )
        for frame in frames:
            frame = frame.sort_values(by=["clip_id", "frame"])
            np.testing.assert_array_equal(frame["angle"].to_numpy(), own)


def test_lists_of_files_go_by_subject_and_split(teeth, free):
    for directory, default in ((teeth.directory, "faces"), (free, "angles")):
        facts = front_matter(directory)
        assert facts["license"] == "cc0-1.0"
        assert [config["config_name"] for config in facts["configs"] if config.get("default")] == [default]
        for entry in facts["configs"][0]["data_files"]:
            for path in entry["path"]:
                splits = set(pd.read_parquet(directory / path, columns=["split"])["split"])
                assert splits - {""} == {entry["split"]}
        names = [[feature["name"] for feature in entry["features"]] for entry in facts["dataset_info"]]
        assert names == [[column.name for column in table.columns] for table in read_facts(directory).tables()]


def test_the_datasheet_has_its_sections_in_order(teeth, free):
    for directory in (teeth.directory, free):
        found = re.findall(r"^## (.*)$", text_of(directory).split("# Datasheet")[1], re.MULTILINE)
        assert tuple(found) == SECTIONS
        assert not re.search(r"\{\w+\}", text_of(directory))


def changed(directory, out, **values):
    """A copy whose info.json has other values, and the card of it."""
    shutil.copytree(directory, out)
    write_json(out / "info.json", read_json(out / "info.json") | values)
    write_card(out)
    return text_of(out), read_json(out / "croissant.json")


def test_the_card_of_vocasets_meshes_forbids_passing_them_on(teeth, free, tmp_path):
    card, croissant = changed(teeth.directory, tmp_path / "whole", topology="flame")
    assert "must stay with the holder" in " ".join(card.split())
    assert "synthetic head" not in card
    assert "voca.is.tue.mpg.de" in croissant["license"]
    card, _ = changed(free, tmp_path / "free", topology="flame")
    assert "must stay with the holder" not in " ".join(card.split())
    assert "for research only, too" in card
    assert yaml.safe_load(card.split("---\n")[1])["license_name"] == "vocaset-derived-research-only"


def test_the_card_tells_of_a_mouth_that_is_not_free(teeth, tmp_path):
    card, _ = changed(teeth.directory, tmp_path / "x", mouth={"name": "bought", "licence": "proprietary"})
    assert "**The mouth `bought` is under `proprietary`" in card
    assert "**The mouth" not in text_of(teeth.directory)


def test_the_card_says_how_the_angle_was_made(teeth):
    facts, stats = read_facts(teeth.directory), read_json(teeth.directory / "stats.json")
    assert card_text(facts, stats) == text_of(teeth.directory)
    assert "every second of the 60 frames" in card_text(facts, stats)
    assert "a single vertex" in card_text(facts, stats)
    with pytest.raises(DataError, match=r"stats\.json"):
        card_text(facts, {})


def test_statistics_are_those_of_the_training_clips(teeth):
    stats = read_json(teeth.directory / "stats.json")
    train = teeth.of_split("train")
    angles = np.concatenate([teeth.angles(clip) for clip in train]).astype(np.float64)
    found = stats["angle_rad"]
    assert found["count"] == len(angles)
    for name, value in (("mean", angles.mean()), ("std", angles.std()), ("min", angles.min()), ("max", angles.max())):
        assert found[name] == pytest.approx(value, rel=1e-8)
    assert found["quantiles"]["0.5"] == pytest.approx(np.median(angles), rel=1e-8)
    sounds = [len(teeth.samples(clip)[0]) / teeth.samples(clip)[1] for clip in train]
    assert stats["sound_s"]["mean"] == pytest.approx(np.mean(sounds), rel=1e-8)
    assert stats["clip_s"]["max"] == pytest.approx(max(clip.frames for clip in train) / 30, rel=1e-8)
    assert {name: entry["clips"] for name, entry in stats["splits"].items()} == {
        "train": 4, "val": 2, "test": 1, "unused": 1
    }  # fmt: skip


def test_writing_the_card_again_changes_no_byte(teeth, tmp_path):
    copy = shutil.copytree(teeth.directory, tmp_path / "copy")
    write_card(copy)
    for name in ("README.md", "croissant.json", "stats.json", "contents.json"):
        assert (copy / name).read_bytes() == (teeth.directory / name).read_bytes()


def test_a_dataset_without_training_clips_has_statistics_of_none(teeth, tmp_path):
    info = read_json(teeth.directory / "info.json")
    clips = [clip | {"split": ""} for clip in info["clips"]]
    card, _ = changed(teeth.directory, tmp_path / "copy", clips=clips)
    stats = read_json(tmp_path / "copy" / "stats.json")
    assert stats["angle_rad"]["mean"] is None
    assert stats["splits"]["unused"]["clips"] == 8
    assert 'load_dataset("PATH", split="unused")' in card
    assert "TeethClips" not in card


@pytest.fixture(scope="module")
def croissants(teeth, free):
    """Both descriptions as mlcroissant reads them."""
    return {path: mlcroissant.Dataset(str(path / "croissant.json")) for path in (teeth.directory, free)}


def test_croissant_is_valid_and_lacks_nothing_but_a_date(croissants):
    for dataset in croissants.values():
        assert dataset.metadata.issues.errors == set()
        assert len(dataset.metadata.issues.warnings) == 1
        assert "datePublished" in next(iter(dataset.metadata.issues.warnings))


def test_croissant_records_are_the_rows(croissants, teeth, free):
    records = list(croissants[free].records("angles"))
    own = {(clip.clip_id, frame): angle for clip in teeth.clips for frame, angle in enumerate(teeth.angles(clip))}
    assert {(row["angles/clip_id"].decode(), row["angles/frame"]): row["angles/angle"] for row in records} == own
    sounds = list(croissants[teeth.directory].records("audio"))
    assert {row["audio/sample_rate_hz"] for row in sounds} == {22000}
