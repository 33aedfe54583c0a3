"""Laws of the card and of croissant.json: what they promise works, with the programs that people use."""

import os
import re
import subprocess
import sys

import duckdb
import mlcroissant
import numpy as np
import pandas as pd
import polars as pl
import pytest
import yaml

from ecavatar.emolib.card import card_text
from ecavatar.emolib.dataset import read_emolib
from ecavatar.emolib.schema import read_info
from ecavatar.storage.parquet import mesh_array, vector_array

SECTIONS = ("Motivation", "Composition", "Collection", "Preprocessing", "Uses", "Distribution and licence",
            "Maintenance", "Known failures")  # fmt: skip
BLOCKS = {"load_dataset": 2, "pd.": 1, "pl.": 1, "duckdb.": 1, "DataLoader": 1}


def blocks_of(release):
    return re.findall(r"```python\n(.*?)```", (release / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)


def front_matter(release):
    return yaml.safe_load((release / "README.md").read_text(encoding="utf-8").split("---\n")[1])


def test_card_shows_every_way_of_loading(full_release):
    blocks = blocks_of(full_release)
    assert len(blocks) == sum(BLOCKS.values())
    for word, count in BLOCKS.items():
        assert sum(word in block for block in blocks) == count


@pytest.mark.slow
@pytest.mark.parametrize("number", range(sum(BLOCKS.values())))
@pytest.mark.parametrize("name", ["full_release", "int16_release"])
def test_every_code_block_of_the_card_runs(name, number, request, tmp_path):
    release = request.getfixturevalue(name)
    code = blocks_of(release)[number].replace("PATH", str(release))
    offline = {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | offline)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()


def test_datasets_reads_every_config_with_the_cards_features(full_release, int16_release, load):
    for release in (full_release, int16_release):
        for config, columns in read_info(release).columns.items():
            loaded = load(str(release), config)
            assert {split: rows.num_rows for split, rows in loaded.items()} == {"train": 35, "val": 5}
            assert list(loaded["train"].features) == [column.name for column in columns]
    assert (
        load(str(full_release), split="val").column_names
        == load(str(full_release), "coefficients", split="val").column_names
    )


def test_datasets_reads_what_was_written(full_release, int16_release, load):
    own = read_emolib(full_release)
    rows = load(str(full_release), split="train").with_format("numpy")
    table = dict(zip(own["item_id"].to_pylist(), vector_array(own["shape"]), strict=True))
    for row in rows:
        np.testing.assert_array_equal(row["shape"], table[str(row["item_id"])])
    for release, config, name, dtype in (
        (full_release, "vertices", "vertices_m", "float32"),
        (int16_release, "vertices_int16", "vertices_10um", "int16"),
    ):
        meshes = load(str(release), config, split="val")
        feature = meshes.features[name]
        assert (type(feature).__name__, feature.shape, feature.dtype) == ("Array2D", (226, 3), dtype)
        found = meshes.with_format("numpy")[:][name]  # whole numbers as int64: that is how `datasets` formats them
        assert found.dtype == (np.float32 if dtype == "float32" else np.int64)
        val = [value == "val" for value in read_emolib(release, config)["split"].to_pylist()]
        column = read_emolib(release, config).filter(val)[name].combine_chunks()
        np.testing.assert_array_equal(found, column.flatten().flatten().to_numpy().reshape(5, 226, 3))


def test_datasets_opens_the_pictures(full_release, load):
    pictures = load(str(full_release), "images", split="val")
    assert [picture.size for picture in pictures["image"]] == [(6, 4)] * 5


def test_table_programs_agree(full_release):
    own = read_emolib(full_release).sort_by("item_id").to_pandas()
    folder = full_release / "data" / "coefficients"
    frames = (
        pd.read_parquet(folder),
        pl.scan_parquet(folder / "*.parquet").collect().to_pandas(),
        duckdb.sql(f"select * from '{folder}/*.parquet'").df(),
    )
    for frame in frames:
        frame = frame.sort_values(by="item_id", ignore_index=True)
        assert list(frame.columns) == list(own.columns)
        for name in ("item_id", "emotion", "level", "arousal", "alignment_is_converged"):
            assert frame[name].tolist() == own[name].tolist()
        np.testing.assert_array_equal(np.stack(frame["shape"]), np.stack(own["shape"]))


def test_table_programs_read_both_kinds_of_meshes(full_release, int16_release):
    for release, config, name in (
        (full_release, "vertices", "vertices_m"),
        (int16_release, "vertices_int16", "vertices_10um"),
    ):
        own = read_emolib(release, config)[name].combine_chunks().flatten().flatten().to_numpy().reshape(40, 226, 3)
        folder = release / "data" / config
        by_polars = pl.read_parquet(folder / "*.parquet").sort("item_id")[name].to_numpy()
        by_duckdb = duckdb.sql(f"select {name} from '{folder}/*.parquet' order by item_id").fetchall()
        by_pandas = pd.read_parquet(folder).sort_values(by="item_id")[name]
        np.testing.assert_array_equal(by_polars, own)
        np.testing.assert_array_equal(np.array([row[0] for row in by_duckdb], own.dtype), own)
        np.testing.assert_array_equal(np.stack([np.stack(mesh) for mesh in by_pandas]), own)


def test_front_matter_says_what_the_hub_asks_for(full_release, int16_release):
    sample, affectnet = front_matter(full_release), front_matter(int16_release)
    assert sample["license"] == "cc0-1.0"
    assert (affectnet["license"], affectnet["license_name"]) == ("other", "affectnet-derived-research-only")
    for facts, derived in ((sample, ["vertices", "images"]), (affectnet, ["vertices_int16"])):
        assert facts["size_categories"] == ["n<1K"]
        assert [config["config_name"] for config in facts["configs"]] == ["coefficients", *derived]
        assert [config.get("default", False) for config in facts["configs"]] == [True] + [False] * len(derived)
        assert [entry["config_name"] for entry in facts["dataset_info"]] == ["coefficients", *derived]


def test_datasheet_has_its_sections_in_order(full_release, int16_release):
    for release in (full_release, int16_release):
        found = re.findall(r"^## (.*)$", (release / "README.md").read_text().split("# Datasheet")[1], re.MULTILINE)
        assert tuple(found) == SECTIONS


def test_card_says_whose_photographs_these_are(full_release, int16_release):
    sample, affectnet = (" ".join((r / "README.md").read_text().split()) for r in (full_release, int16_release))
    assert "renders of synthetic heads" in sample
    assert "Mollahosseini" not in sample
    assert "is for research only, too" in affectnet
    assert "synthetic heads" not in affectnet


def test_card_counts_and_settings_are_those_of_the_release(write, faces, tmp_path):
    info = write(tmp_path / "emolib", faces, made_with={"select_images": {"per_level": 9, "levels": "equal"}})
    card = card_text(info)
    assert card == (tmp_path / "emolib" / "README.md").read_text()
    assert "- `select_images`: levels equal, per_level 9" in card
    for emotion, levels in info.counts.items():
        assert f"| {emotion} | " + " | ".join(str(levels.get(str(level), 0)) for level in (1, 2, 3)) + " |" in card
    assert all(f"| `{column.name}` |" in card for column in info.columns["coefficients"])
    assert "vertices" not in {config["config_name"] for config in front_matter(tmp_path / "emolib")["configs"]}


@pytest.mark.parametrize(("total", "name"), [(999, "n<1K"), (1000, "1K<n<10K"), (10_736, "10K<n<100K")])
def test_size_category_is_the_hubs(full_release, total, name):
    import dataclasses

    info = dataclasses.replace(read_info(full_release), rows={"train": total})
    assert f"size_categories: [{name}]" in card_text(info)


def test_the_card_of_imported_faces_claims_nothing_that_others_did(write, faces, tmp_path):
    nothing = faces.drop_columns(["perceptual_hash", "alignment_is_converged"])
    write(tmp_path / "own", faces)
    write(tmp_path / "imported", nothing, backend="imported")
    own, imported = ((tmp_path / name / "README.md").read_text() for name in ("own", "imported"))
    for claim in ("Splits are the corpus's own", "This is an independent build", "fixed seed", "perceptual hashes",
                  "removed_transform` is that motion", "`source_id` names a photograph"):  # fmt: skip
        assert claim in own
        assert claim not in imported
    assert "does not name" not in own
    assert "basis` is what the importer was given" in imported
    assert not re.search(r"\{\w+\}", imported)


@pytest.fixture(scope="module")
def croissants(full_release, int16_release):
    """Both descriptions as mlcroissant reads them."""
    return {path: mlcroissant.Dataset(str(path / "croissant.json")) for path in (full_release, int16_release)}


def test_croissant_is_valid_and_lacks_nothing_but_a_date(croissants):
    for dataset in croissants.values():
        assert dataset.metadata.issues.errors == set()
        assert len(dataset.metadata.issues.warnings) == 1
        assert "datePublished" in next(iter(dataset.metadata.issues.warnings))  # equal faces, equal bytes


def test_a_date_is_all_that_croissant_lacks(full_release, tmp_path):
    import json
    import shutil

    release = shutil.copytree(full_release, tmp_path / "emolib")
    content = json.loads((release / "croissant.json").read_text())
    (release / "croissant.json").write_text(json.dumps(content | {"datePublished": "2026-01-31"}))
    assert mlcroissant.Dataset(str(release / "croissant.json")).metadata.issues.warnings == set()


def test_croissant_records_are_the_rows(croissants):
    for release, dataset in croissants.items():
        own = {row["item_id"]: row for row in read_emolib(release).to_pylist()}
        records = list(dataset.records("coefficients"))
        assert len(records) == 40
        for record in records:
            row = own[record["coefficients/item_id"].decode()]
            assert record["coefficients/emotion"].decode() == row["emotion"]
            assert record["coefficients/level"] == row["level"]
            assert record["coefficients/alignment_is_converged"] == row["alignment_is_converged"]
            np.testing.assert_array_equal(np.array(record["coefficients/shape"], np.float32), row["shape"])


def test_croissant_reads_meshes_and_pictures(croissants, full_release):
    meshes = mesh_array(read_emolib(full_release, "vertices")["vertices_m"])
    ids = read_emolib(full_release, "vertices")["item_id"].to_pylist()
    for record in croissants[full_release].records("vertices"):
        found = np.stack([np.array(point, np.float32) for point in record["vertices/vertices_m"]])
        np.testing.assert_array_equal(found, meshes[ids.index(record["vertices/item_id"].decode())])
    pictures = [record["images/image"] for record in croissants[full_release].records("images")]
    assert [picture.size for picture in pictures] == [(6, 4)] * 40
