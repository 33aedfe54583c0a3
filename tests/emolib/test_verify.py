"""Laws of `verify`: a good release passes, every kind of damage is told, nothing raises."""

import dataclasses
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecavatar.emolib.schema import read_info
from ecavatar.emolib.topology import read_topology, write_topology
from ecavatar.emolib.verify import verify
from ecavatar.storage.files import read_json, sha256_file, write_json
from ecavatar.storage.manifest import write_manifest
from ecavatar.storage.parquet import read_table, write_table

TRAIN = "data/coefficients/train-00000-of-00003.parquet"
SECOND = "data/coefficients/train-00001-of-00003.parquet"
VAL = "data/coefficients/val-00000-of-00001.parquet"
VERTICES = "data/vertices/train-00000-of-00003.parquet"
IMAGES = "data/images/val-00000-of-00001.parquet"
EVERY_FILE = ("README.md", "croissant.json", "MANIFEST.json", "meta/info.json", "meta/stats.json", "meta/topology.npz",
              TRAIN, VAL, VERTICES, IMAGES)  # fmt: skip


@pytest.fixture
def release(full_release, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(full_release, tmp_path / "emolib")


def reseal(release):
    """Checksums made to fit, so that only the damage itself can be found."""
    croissant = read_json(release / "croissant.json")
    for entry in croissant["distribution"]:
        if "contentUrl" in entry and (release / entry["contentUrl"]).is_file():
            entry["sha256"] = sha256_file(release / entry["contentUrl"])
    write_json(release / "croissant.json", croissant)
    write_manifest(release, {})


def edit_rows(release, name, change):
    """Replace a data file by `change` of its rows."""
    path = release / name
    group = pq.ParquetFile(path).metadata.row_group(0).num_rows
    write_table(path, change(read_table(path)), row_group_size=group)
    reseal(release)


def with_column(name, change):
    def edit(table):
        place = table.column_names.index(name)
        values = change(table[name].to_pylist())
        return table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))

    return edit


def edit_json(release, name, change):
    value = read_json(release / name)
    change(value)
    write_json(release / name, value)
    reseal(release)


def the_only(problems, text):
    assert len(problems) == 1, problems
    assert text in problems[0]


def test_good_releases_pass(full_release, int16_release, small_face):
    for directory in (full_release, int16_release):
        assert verify(directory) == []
        assert verify(directory, small_face) == []


def test_a_resealed_copy_passes(release, small_face):
    reseal(release)
    assert verify(release, small_face) == []


@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_changed_byte_of_any_file_is_told(release, name):
    data = bytearray((release / name).read_bytes())
    data[len(data) // 2] ^= 1
    (release / name).write_bytes(data)
    assert any(name.split("/")[-1] in problem or "MANIFEST" in problem for problem in verify(release))


@pytest.mark.parametrize("name", EVERY_FILE)
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[]", b"\xff\xfe\x00", b"---\n---\n", b"null"])
def test_a_lost_or_ruined_file_is_told_and_never_raised(release, name, content):
    (release / name).unlink()
    if content is not None:
        (release / name).write_bytes(content)
    assert verify(release)
    if name != "MANIFEST.json":
        reseal_as_it_is(release)
        assert verify(release)


def reseal_as_it_is(release):
    (release / "MANIFEST.json").unlink(missing_ok=True)
    write_manifest(release, {})


@pytest.mark.parametrize("key", ["rows", "counts", "columns", "topology_sha256", "source", "rows_per_file", "basis"])
@pytest.mark.parametrize("value", [None, 7, "x", [], {}, {"train": 1}, {"coefficients": [{}]}, [[1]]])
def test_a_nonsense_info_is_told_and_never_raised(release, key, value):
    edit_json(release, "meta/info.json", lambda info: info.update({key: value}))
    assert verify(release)


@pytest.mark.parametrize("name", ["meta/stats.json", "croissant.json"])
@pytest.mark.parametrize("key", ["columns", "distribution", "recordSet", "split", "rows"])
@pytest.mark.parametrize("value", [None, 7, "x", [], {}, [{}], {"shape": None}, {"shape": {"mean": ["x"]}}])
def test_nonsense_json_is_told_and_never_raised(release, name, key, value):
    content = read_json(release / name)
    if key in content:
        write_json(release / name, content | {key: value})
        reseal_as_it_is(release)
        assert verify(release)


def test_a_directory_without_a_release_is_told(tmp_path):
    assert any("MANIFEST.json not found" in problem for problem in verify(tmp_path))
    assert any("info.json not found" in problem for problem in verify(tmp_path / "absent"))


def test_an_extra_file_is_told(release):
    shutil.copy(release / TRAIN, release / "data" / "coefficients" / "train-00003-of-00004.parquet")
    assert any("not listed in the manifest" in problem for problem in verify(release))
    reseal(release)
    problems = verify(release)
    assert any("not a file that meta/info.json knows" in problem for problem in problems)
    assert any("README.md: the data files of config coefficients, split train" in problem for problem in problems)


def test_other_columns_are_told(release):
    edit_rows(release, TRAIN, lambda table: table.drop_columns(["jaw_pose"]))
    the_only(verify(release), "jaw_pose is missing")
    edit_rows(release, TRAIN, lambda table: table.append_column("age", pa.array([3] * table.num_rows)))
    assert any("age is unknown" in problem for problem in verify(release))


def test_another_type_is_told(release):
    edit_rows(release, TRAIN, lambda t: t.set_column(t.column_names.index("level"), "level", t["level"].cast("int32")))
    the_only(verify(release), "level is int32 instead of int8")


def test_missing_rows_are_told(release):
    edit_rows(release, TRAIN, lambda table: table.slice(1))
    the_only(verify(release), f"{TRAIN}: 12 rows, meta/info.json says 13")


def test_unsorted_rows_are_told(release):
    for name in (TRAIN, VERTICES, VERTICES.replace("vertices", "images")):  # alike, so that only the order is wrong
        edit_rows(release, name, lambda table: table.take(pa.array([1, 0, *range(2, 13)])))
    the_only(verify(release), "train: rows are not sorted")


def test_an_item_in_two_files_is_told(release):
    first = read_table(release / TRAIN)["item_id"][0].as_py()
    for config in ("coefficients", "vertices", "images"):
        name = VAL.replace("coefficients", config)
        edit_rows(release, name, with_column("item_id", lambda ids: [first, *ids[1:]]))
    problems = verify(release)
    the_only(problems, f"item_id occurs more than once: {first}")


def test_rows_of_another_split_are_told(release):
    for config in ("coefficients", "vertices", "images"):
        name = TRAIN.replace("coefficients", config)
        edit_rows(release, name, with_column("split", lambda splits: ["val", *splits[1:]]))
    the_only(verify(release), "train: its files hold rows of another split")


def test_labels_that_do_not_belong_together_are_told(release):
    for config in ("coefficients", "vertices", "images"):
        name = TRAIN.replace("coefficients", config)
        edit_rows(release, name, with_column("emotion_code", lambda codes: [7, *codes[1:]]))
    the_only(verify(release), "code 7")


def test_other_counts_are_told(release):
    def move(info):
        emotion = next(iter(info["counts"]))
        info["counts"][emotion] = {"1": 1}

    edit_json(release, "meta/info.json", move)
    the_only(verify(release), "items per emotion and level")


def test_another_basis_among_the_rows_is_told(release):
    edit_rows(release, TRAIN, with_column("basis", lambda names: ["flame2020", *names[1:]]))
    the_only(verify(release), "1 row(s) are of small/flame2020")


def test_leaking_splits_are_told(release):
    shared = read_table(release / TRAIN).slice(0, 1)
    item, hash, source = (shared[name][0].as_py() for name in ("item_id", "perceptual_hash", "source_id"))
    near = f"{int(hash, 16) ^ 0b11:064x}"
    other = read_table(release / VAL)["item_id"][0].as_py()
    edit_rows(release, VAL, with_column("perceptual_hash", lambda hashes: [near, *hashes[1:]]))
    the_only(verify(release), f"hashes within 16 bits: {item} and {other}")
    edit_rows(release, VAL, with_column("source_id", lambda ids: [source, *ids[1:]]))
    assert any(f"the same photograph: {item} and {other}" in problem for problem in verify(release))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_told(release, value):
    edit_rows(release, VAL, with_column("shape", lambda rows: [[value, *rows[0][1:]], *rows[1:]]))
    the_only(verify(release), "column shape has numbers that are not finite")


def test_cameras_may_be_unknown_only_of_imported_faces(write, faces, tmp_path):
    unknown = {"rotation": [[np.nan] * 9] * 40, "image_height_px": [None] * 40, "scale_px_per_m": [np.nan] * 40}
    for name, values in unknown.items():
        faces = faces.set_column(faces.column_names.index(name), name, pa.array(values, faces.schema.field(name).type))
    write(tmp_path / "imported", faces, backend="imported")
    write(tmp_path / "own", faces)
    assert verify(tmp_path / "imported") == []
    told = verify(tmp_path / "own")
    assert len(told) == len(unknown)
    assert all(any(f"column {name} has" in problem for problem in told) for name in unknown)


def test_unknown_coefficients_are_told(release):
    edit_rows(release, VAL, with_column("expression", lambda rows: [None, *rows[1:]]))
    the_only(verify(release), "column expression has numbers that are not finite")


def test_other_statistics_are_told(release):
    def tilt(what, by):
        return lambda stats: stats["columns"]["shape"][what].__setitem__(2, stats["columns"]["shape"][what][2] + by)

    for what, by in (("mean", 1e-5), ("std", 1e-5), ("min", 1e-6), ("max", 1e-6), ("count", 1)):
        edit_json(release, "meta/stats.json", tilt(what, by))
        the_only(verify(release), f"{what} of shape is not that of the rows")
        edit_json(release, "meta/stats.json", tilt(what, -by))
    edit_json(release, "meta/stats.json", lambda stats: stats.update(split="val"))
    the_only(verify(release), "split is 'val'")
    edit_json(release, "meta/stats.json", lambda stats: (stats.update(split="train"), stats["columns"].pop("arousal")))
    the_only(verify(release), "columns are")


def test_statistics_that_saw_other_splits_are_told(release):
    edit_rows(release, SECOND, with_column("arousal", lambda values: [-0.5, *values[1:]]))
    assert all("arousal is not that of the rows" in problem for problem in verify(release))
    assert verify(release)


@pytest.mark.parametrize("config", ["vertices", "images"])
def test_derived_configs_of_other_items_are_told(release, config):
    name = TRAIN.replace("coefficients", config)
    edit_rows(release, name, with_column("level", lambda levels: [4 - max(levels[0], 1), *levels[1:]]))
    before = read_table(release / TRAIN)["level"][0].as_py()
    if before == 2:  # 4 - 2 is itself
        edit_rows(release, name, with_column("level", lambda levels: [1, *levels[1:]]))
    the_only(verify(release), f"config {config}: its items or their labels")


def test_meshes_that_the_coefficients_do_not_give_are_told(release, small_face):
    def shift(meshes):
        meshes[4][100][1] += 2e-5
        return meshes

    edit_rows(release, VERTICES, with_column("vertices_m", shift))
    assert verify(release) == []  # without the face model nobody can know
    the_only(verify(release, small_face), "config vertices: a vertex is 2e-05 m")


def test_quantised_meshes_are_compared_within_their_step(int16_release, small_face, tmp_path):
    release = shutil.copytree(int16_release, tmp_path / "emolib")

    def shift(meshes):
        meshes[0][0][0] += 1
        return meshes

    edit_rows(release, VERTICES.replace("vertices", "vertices_int16"), with_column("vertices_10um", shift))
    the_only(verify(release, small_face), "config vertices_int16")


@pytest.mark.parametrize("name", [TRAIN, VERTICES])
@pytest.mark.parametrize("group", [1, 5, 13])
def test_other_row_groups_change_nothing(release, small_face, name, group):
    write_table(release / name, read_table(release / name), row_group_size=group)
    reseal(release)
    assert verify(release, small_face) == []


@pytest.mark.parametrize("name", ["source_id", "alignment_is_converged"])
def test_unknown_texts_and_flags_are_told(release, name):
    edit_rows(release, VAL, with_column(name, lambda values: [None, *values[1:]]))
    the_only(verify(release), f"column {name} is unknown in 1 row(s)")


def test_an_info_that_contradicts_itself_is_told(release):
    edit_json(release, "meta/info.json", lambda info: info.update(is_redistributable=True))
    the_only(verify(release), "is_redistributable is True, expected False")
    edit_json(release, "meta/info.json", lambda info: info.update(is_redistributable=False, n_shape=7))
    the_only(verify(release), "shape is")


def test_meshes_of_another_model_are_told(full_release, small_face):
    the_only(verify(full_release, dataclasses.replace(small_face, basis="other")), "the face model is small/other")


def test_another_topology_is_told(release):
    arrays = read_topology(release / "meta" / "topology.npz")
    faces = arrays["faces"].copy()
    faces[0] = faces[0][::-1]
    write_topology(release / "meta" / "topology.npz", arrays | {"faces": faces}, "small")
    reseal(release)
    the_only(verify(release), "its content differs from topology_sha256")
    faces[0, 0] = 9999
    write_topology(release / "meta" / "topology.npz", arrays | {"faces": faces}, "small")
    reseal(release)
    assert any("outside the 226 vertices" in problem for problem in verify(release))


def test_a_croissant_with_another_checksum_or_file_is_told(release):
    def forget(content):
        content["distribution"] = [e for e in content["distribution"] if e.get("contentUrl") != TRAIN]
        content["recordSet"] = content["recordSet"][1:]

    content = read_json(release / "croissant.json")
    next(e for e in content["distribution"] if e.get("contentUrl") == VAL)["sha256"] = "0" * 64
    write_json(release / "croissant.json", content)
    write_manifest(release, {})
    the_only(verify(release), f"the checksum of {VAL} is another")
    edit_json(release, "croissant.json", lambda content: content.update(license="mit"))
    the_only(verify(release), "the licence is 'mit'")
    edit_json(release, "croissant.json", forget)
    problems = verify(release)
    assert any(f"{TRAIN} is not listed" in problem for problem in problems)
    assert any("no record set for coefficients" in problem for problem in problems)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("config_name: images", "config_name: pictures", "config pictures is not in the release"),
        ("path: data/vertices/train-*", "path: data/vertices/trian-*", "data files of config vertices, split train"),
        ("{name: jaw_pose,", "{name: jaw,", "the features of config coefficients are not its columns"),
        ("license: cc0-1.0", "license: mit", "the licence is 'mit', expected 'cc0-1.0'"),
        ("configs:", "configurations:", "card cannot be checked"),
    ],
)
def test_a_card_of_another_release_is_told(release, old, new, text):
    card = (release / "README.md").read_text()
    assert old in card
    (release / "README.md").write_text(card.replace(old, new))
    reseal(release)
    assert any(text in problem for problem in verify(release))


def test_what_verify_says_is_plain_text(release):
    (release / VAL).write_bytes(b"PAR1 not really")
    problems = verify(release)
    assert problems
    assert json.loads(json.dumps(problems)) == problems
    assert read_info(release).rows["val"] == 5
