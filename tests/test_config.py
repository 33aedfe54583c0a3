"""Laws of params.yaml: every key is known, every value is checked, every mistake is named."""

from pathlib import Path

import pytest
import yaml

from ecavatar.config import load_params
from ecavatar.errors import AssetMissingError, ConfigError

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"


@pytest.fixture
def raw():
    return yaml.safe_load(PARAMS.read_text())


def load(tmp_path, raw):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw))
    return load_params(path)


def test_the_committed_file_is_valid_and_runs_the_sample_alone():
    params = load_params(PARAMS)
    assert params.profiles == ["sample"]
    assert params.studies == ["mouth"]
    assert params.profile("sample") is params.sample
    assert params.profile("full").select.per_level == 500


def test_full_lacks_only_the_sections_of_the_sample_worlds_own_stages(raw):
    assert set(raw["full"]) <= set(raw["sample"])
    assert set(raw["sample"]) - set(raw["full"]) <= {"corpora", "speech_models"}


@pytest.mark.parametrize(
    ("wrong", "where", "near"),
    [
        ("profilez", (), "profiles"),
        ("selekt", ("sample",), "select"),
        ("affectnet_imges", ("sample", "corpora"), "affectnet_images"),
        ("per_levels", ("sample", "select"), "per_level"),
    ],
)
def test_a_misspelt_key_is_named_with_its_nearest_neighbour(tmp_path, raw, wrong, where, near):
    place = raw
    for key in where:
        place = place[key]
    place[wrong] = place[near]
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, raw)
    assert f"{'.'.join([*where, wrong])}: unknown key; did you mean '{near}'?" in str(caught.value)


def test_all_problems_are_told_at_once(tmp_path, raw):
    raw["seed"] = -1
    raw["sample"]["select"]["per_level"] = "nine"
    del raw["full"]["select"]["pool"]
    with pytest.raises(ConfigError, match=r"3 problem\(s\)") as caught:
        load(tmp_path, raw)
    for part in ("seed:", "sample.select.per_level:", "full.select.pool:"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("profiles", ["tiny"]), ("seed", 1.5), ("seed", True), ("studies", "all")])
def test_values_of_other_kinds_are_refused(tmp_path, raw, key, value):
    raw[key] = value
    with pytest.raises(ConfigError, match=key):
        load(tmp_path, raw)


def test_files_that_are_not_there_or_not_yaml_are_named(tmp_path):
    with pytest.raises(AssetMissingError, match="Run from the repository root"):
        load_params(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_params(tmp_path / "bad.yaml")


def test_settings_cannot_be_changed_after_loading():
    params = load_params(PARAMS)
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 1


def test_an_unknown_profile_is_refused():
    with pytest.raises(ConfigError, match="expected sample or full"):
        load_params(PARAMS).profile("tiny")
