"""Laws of dvc.yaml: one DAG, complete dependencies, tracked numbers, known paths."""

import ast
import inspect
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from ecavatar.config import STUDIES, ProfileSettings
from flows import code_deps
from flows.paths import ProfilePaths

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
STAGES = code_deps.stages(PIPELINE)
SAMPLE_ONLY = {"make_corpora", "make_speech_models"}
GIVEN = {"raw", "assets", "truth"}  # folders of data/full that hold what the user supplies


@pytest.fixture(scope="module")
def both_profiles(tmp_path_factory):
    """dvc's own reading of dvc.yaml with both profiles switched on: {instance: (deps, outs, params, stage)}."""
    root = tmp_path_factory.mktemp("dag")
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, root)
    shutil.copytree(ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    (root / "params.yaml").write_text(yaml.safe_dump(params | {"profiles": ["sample", "full"], "studies": [*STUDIES]}))
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    with Repo(str(root)) as repo:
        return {stage.name: stage for stage in repo.index.stages}


def paths_of(entries):
    return [entry.def_path for entry in entries if not hasattr(entry, "params")]


def profile_of(instance):
    return instance.split("@")[1].split("-")[0]


@cache
def tracked_sections(stage):
    keys = yaml.safe_load(PIPELINE)["stages"][stage].get("params", [])
    return {key.split(".")[-1] for key in keys if key != "seed"}, "seed" in keys


def test_dvc_reads_every_stage_for_both_profiles(both_profiles):
    names = {name.split("@")[0] for name in both_profiles}
    assert names == set(STAGES)
    for stage in STAGES:
        profiles = {profile_of(name) for name in both_profiles if name.startswith(f"{stage}@")}
        assert profiles == ({"sample"} if stage in SAMPLE_ONLY else {"sample", "full"})


def test_truth_is_made_by_make_corpora_and_read_by_what_measures_alone(both_profiles):
    for instance, stage in both_profiles.items():
        truths = [path for path in paths_of(stage.deps) if path.startswith("data/") and "truth" in path]
        expected = [f"data/{profile_of(instance)}/truth"] if instance.startswith(("benchmark@", "study@")) else []
        assert truths == expected, instance
        assert ("data/sample/truth" in paths_of(stage.outs)) == (instance == "make_corpora@sample")
        for path in paths_of(stage.deps):
            assert path not in ("data", "data/sample", "data/full"), f"{instance} reads truth through {path}"


def test_every_input_is_an_output_or_something_the_user_supplies(both_profiles):
    made = {path for stage in both_profiles.values() for path in paths_of(stage.outs)}
    for instance, stage in both_profiles.items():
        for path in paths_of(stage.deps):
            if path.startswith(("ecavatar/", "flows/")):
                assert (ROOT / path).is_file(), f"{instance} lists {path}, which does not exist"
            elif not any(str(place) in made for place in with_parents(path)):
                first = Path(path).parts
                assert first[:2] == ("data", "full"), f"{instance} reads {path}, which nothing makes"
                assert first[2] in GIVEN, f"{instance} reads {path}, which nothing makes"


def test_outputs_lie_in_data_or_reports_of_their_own_profile(both_profiles):
    for instance, stage in both_profiles.items():
        for out in stage.outs:
            folder, profile = Path(out.def_path).parts[:2]
            assert profile == profile_of(instance)
            assert folder in ("data", "reports")
            assert out.use_cache == (folder == "data"), f"{out.def_path}: git tracks reports, dvc tracks data"


def test_every_path_is_one_of_flows_paths(both_profiles):
    for profile in ("sample", "full"):
        known = known_paths(profile)
        for instance, stage in both_profiles.items():
            if profile_of(instance) == profile:
                for path in [*paths_of(stage.deps), *paths_of(stage.outs)]:
                    if path.startswith(("data/", "reports/")):
                        assert path in known, f"{instance}: {path}"


def known_paths(profile):
    paths = ProfilePaths(profile)
    known = {value.as_posix() for value in property_values(paths).values()}
    known |= {paths.emotions(corpus).as_posix() for corpus in ("vocaset", "ravdess", "mead")}
    known |= {paths.study(study).as_posix() for study in STUDIES}
    known |= {paths.training_curve(network).as_posix() for network in ("selftalk", "funet")}
    methods = yaml.safe_load(PIPELINE)["stages"]["predict"]["matrix"]["method"]
    return known | {paths.predictions(method).as_posix() for method in methods}


def property_values(paths):
    names = [name for name, member in inspect.getmembers(ProfilePaths) if isinstance(member, property)]
    return {name: getattr(paths, name) for name in names}


def test_methods_in_dvc_yaml_are_the_methods_of_the_benchmark():
    methods = pytest.importorskip("ecavatar.evaluation.methods").METHODS
    assert tuple(yaml.safe_load(PIPELINE)["stages"]["predict"]["matrix"]["method"]) == methods


def test_lists_of_code_follow_the_imports():
    for stage, command in STAGES.items():
        assert code_deps.listed(PIPELINE, stage) == code_deps.code_deps(*command), f"{stage}: run `make deps`"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_tracks_exactly_the_params_it_reads(stage):
    nodes = code_deps.reached_code(*STAGES[stage])
    sections = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Call)
        and called(node.value) == "stage_settings"
    }
    reads_seed = any(isinstance(node, ast.Call) and called(node) == "seed" for node in nodes)
    whole = [node for node in nodes if isinstance(node, ast.Call) and called(node) == "stage_settings"]
    assert len(whole) == sum(
        isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call) and called(node.value) == "stage_settings"
        for node in nodes
    ), f"{stage} uses stage_settings(...) without naming a section"
    assert (sections, reads_seed) == tracked_sections(stage)


def called(node):
    return node.func.id if isinstance(node.func, ast.Name) else ""


def test_every_section_of_a_profile_is_tracked_by_a_stage():
    tracked = {section for stage in STAGES for section in tracked_sections(stage)[0]}
    assert tracked == set(ProfileSettings.model_fields)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_every_path_it_uses(stage, both_profiles):
    paths = ProfilePaths("sample")
    places = {name: value.as_posix() for name, value in property_values(paths).items()}
    places |= {"emotions": "data/sample/emotions", "predictions": "data/sample/predictions"}
    places |= {"training_curve": "reports/sample/training", "study": "reports/sample/studies"}
    del places["checkpoints"], places["data"], places["reports"]  # scratch, and the parents of everything
    used = {
        node.attr
        for node in code_deps.reached_code(*STAGES[stage])
        if isinstance(node, ast.Attribute) and node.attr in places and is_paths(node.value)
    }
    instances = [value for name, value in both_profiles.items() if name.startswith(f"{stage}@sample")]
    declared = {path for value in instances for path in [*paths_of(value.deps), *paths_of(value.outs)]}
    for name in used:
        place = Path(places[name])
        covers = (Path(path).is_relative_to(place) or place.is_relative_to(path) for path in declared)
        assert any(covers), f"{stage} uses paths.{name}"


def is_paths(node):
    return (isinstance(node, ast.Name) and node.id == "paths") or (
        isinstance(node, ast.Call) and called(node) == "ProfilePaths"
    )


def test_training_does_not_depend_on_how_many_images_are_selected(both_profiles):
    """One changed number reruns what reads it and what follows, nothing beside."""
    after = followers(both_profiles, {"select_images@sample"})
    assert {name.split("@")[0] for name in after} == {
        "reconstruct_faces",
        "export_emolib",
        "pair_faces",
        "train_funet",
        "predict",
        "benchmark",
        "report",
    }
    assert {name.split("@")[0] for name in followers(both_profiles, {"train_selftalk@sample"})} == {
        "predict",
        "benchmark",
        "report",
    }


def followers(instances, start):
    makers = {path: name for name, stage in instances.items() for path in paths_of(stage.outs)}
    reached = set(start)
    while True:
        new = {
            name
            for name, stage in instances.items()
            if any(makers.get(str(place)) in reached for path in paths_of(stage.deps) for place in with_parents(path))
        }
        if new <= reached:
            return reached - set(start)
        reached |= new


def with_parents(path):
    return (Path(path), *Path(path).parents)


def test_plots_read_curves_that_a_stage_writes(both_profiles):
    made = {path for stage in both_profiles.values() for path in paths_of(stage.outs)}
    files = [file for plot in yaml.safe_load(PIPELINE)["plots"] for spec in plot.values() for file in spec["y"]]
    assert files
    assert set(files) <= made
