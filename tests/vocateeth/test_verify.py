"""Laws of `verify_vocateeth`: a good dataset passes, every kind of damage is told, nothing raises."""

import io
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from ecavatar.emolib.topology import read_topology, write_topology
from ecavatar.face.model import FaceAsset
from ecavatar.mouth.model import MouthMesh
from ecavatar.releases import verify_release
from ecavatar.storage.files import read_json, sha256_file, write_json
from ecavatar.storage.manifest import write_manifest
from ecavatar.vocateeth.card import write_card
from ecavatar.vocateeth.verify import verify_vocateeth

FACES = "data/faces/part-00000-of-00004.parquet"
AUDIO = "data/audio/part-00001-of-00004.parquet"
TEMPLATES = "templates.parquet"
TEXTS = ("README.md", "croissant.json", "stats.json", "contents.json", "info.json", "MANIFEST.json")
EVERY_FILE = (*TEXTS, FACES, AUDIO, TEMPLATES, "rejects.parquet", "mouth.npz", "topology.npz")


@pytest.fixture
def copy(teeth, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(teeth.directory, tmp_path / "copy")


def reseal(directory):
    """Checksums made to fit, so that only the damage itself can be found."""
    croissant = read_json(directory / "croissant.json")
    for entry in croissant["distribution"]:
        if "contentUrl" in entry and (directory / entry["contentUrl"]).is_file():
            entry["sha256"] = sha256_file(directory / entry["contentUrl"])
    write_json(directory / "croissant.json", croissant)
    seal(directory)


def seal(directory):
    (directory / "MANIFEST.json").unlink(missing_ok=True)
    write_manifest(directory, {})


def forge(directory):
    """As somebody would who hides a change: card, hashes and checksums made to fit."""
    write_card(directory)
    seal(directory)


def edit_rows(directory, name, change):
    """Replace a table by `change` of its row groups."""
    path = directory / name
    with pq.ParquetFile(path) as file:
        groups = [change(file.read_row_group(group), group) for group in range(file.num_row_groups)]
    with pq.ParquetWriter(path, groups[0].schema) as writer:
        for group in groups:
            writer.write_table(group, row_group_size=max(group.num_rows, 1))


def with_column(name, change, only=None):
    """An edit of one column: `change` gets its values as a list; `only` names a row group."""

    def edit(table, group):
        if only not in (None, group):
            return table
        field = table.schema.field(name)
        values = pa.array(change(table[name].to_pylist()), field.type)
        return table.set_column(table.column_names.index(name), field, values)

    return edit


def edit_json(directory, name, change):
    value = read_json(directory / name)
    change(value)
    write_json(directory / name, value)
    reseal(directory)


def told(problems, text):
    assert any(text in problem for problem in problems), problems


def test_a_good_dataset_passes(teeth, free, head):
    for directory in (teeth.directory, free):
        assert verify_vocateeth(directory) == []
        assert verify_vocateeth(directory, head) == []
        assert verify_release(directory) == []


def test_a_resealed_copy_passes(copy):
    reseal(copy)
    assert verify_vocateeth(copy) == []


@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_changed_byte_of_any_file_is_told(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    assert any(name.split("/")[-1] in problem or "MANIFEST" in problem for problem in verify_vocateeth(copy))


@pytest.mark.parametrize("name", EVERY_FILE)
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[]", b"\xff\xfe\x00", b"null", b"PAR1"])
def test_a_lost_or_ruined_file_is_told_and_never_raised(copy, name, content):
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    assert verify_vocateeth(copy)
    if name != "MANIFEST.json":
        seal(copy)
        assert verify_vocateeth(copy)


@pytest.mark.parametrize("key", ["clips", "vertices", "fps", "parts", "patch_mm", "counts", "mouth", "missing"])
@pytest.mark.parametrize("value", [None, 7, "x", [], {}, [{}], [[1]], {"face": "x", "mouth": 1}])
def test_a_nonsense_info_is_told_and_never_raised(copy, key, value):
    is_same = key == "missing" and value == []
    edit_json(copy, "info.json", lambda info: info.update({key: value}))
    assert is_same or verify_vocateeth(copy)


@pytest.mark.parametrize("name", ["stats.json", "contents.json", "croissant.json"])
@pytest.mark.parametrize("value", [None, 7, "x", [], {}, [{}]])
def test_nonsense_json_is_told_and_never_raised(copy, name, value):
    good = read_json(copy / name)
    for key in good:
        write_json(copy / name, good | {key: value})
        seal(copy)
        assert verify_vocateeth(copy)


def test_a_file_of_others_is_told(copy):
    (copy / "data" / "faces" / "notes.txt").write_text("mine")
    seal(copy)
    assert verify_vocateeth(copy) == ["data/faces/notes.txt: not a file of a VOCATeeth."]


def test_another_angle_is_told_by_the_face(copy, head):
    edit_rows(copy, FACES, with_column("angle", lambda values: [values[0], values[1] + 2e-5, *values[2:]], only=1))
    forge(copy)
    assert verify_vocateeth(copy) == []  # nothing but the face can tell
    problems = verify_vocateeth(copy, head)
    assert len(problems) == 1
    assert "frame 1: the angle is 2e-05 rad off" in problems[0]


@pytest.mark.parametrize(("column", "value"), [("angle", float("nan")), ("angle", float("inf"))])
def test_numbers_that_are_not_finite_are_told_with_their_frame(copy, column, value):
    edit_rows(copy, FACES, with_column(column, lambda values: [*values[:3], value, *values[4:]]))
    told(verify_vocateeth(copy), "frame 3: the angle is not finite")


def test_a_vertex_that_is_not_finite_is_told_with_its_frame(copy, head):
    def spoil(meshes):
        meshes[2][17][1] = float("nan")
        return meshes

    edit_rows(copy, FACES, with_column("vertices", spoil, only=0))
    for asset in (None, head):
        told(verify_vocateeth(copy, asset), "frame 2: vertices are not finite")


@pytest.mark.parametrize(
    ("column", "change", "text"),
    [
        ("frame", lambda values: values[::-1], "not numbered 0 to"),
        ("clip_id", lambda values: ["other"] * len(values), "column clip_id has other"),
        ("split", lambda values: ["val"] * len(values), "column split has val"),
        ("subject", lambda values: ["nobody"] * len(values), "column subject has nobody"),
    ],
)
def test_rows_of_another_clip_are_told(copy, column, change, text):
    edit_rows(copy, FACES, with_column(column, change))
    told(verify_vocateeth(copy), text)


def test_a_lost_frame_a_lost_clip_and_another_column_are_told(copy):
    edit_rows(copy, FACES, lambda table, group: table.slice(group))
    told(verify_vocateeth(copy), "row group 1 has 10 rows instead of 11")
    with pq.ParquetFile(copy / FACES) as file:
        first = file.read_row_group(0)
    pq.write_table(first, copy / FACES)
    told(verify_vocateeth(copy), "1 row groups, info.json lists 2 clips")
    pq.write_table(first.append_column("mood", pa.nulls(first.num_rows, pa.int8())), copy / FACES)
    told(verify_vocateeth(copy), "mood is unknown")


def test_a_subject_in_two_splits_is_a_leak(copy):
    def move(info):
        info["clips"][0]["split"] = "val"

    edit_json(copy, "info.json", move)
    told(verify_vocateeth(copy), "is in train and val")


def sound_of(samples, rate, kind="FLAC"):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype="PCM_16")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda content: content[: len(content) // 2], "meshes outlast the sound|cannot be decoded"),
        (lambda content: b"nothing", "cannot be decoded"),
        (lambda content: sound_of(np.zeros(9000, np.int16), 22000), "meshes outlast the sound"),
        (lambda content: sound_of(np.zeros((9000, 2), np.int16), 22000), "one channel"),
        (lambda content: sound_of(*soundfile.read(io.BytesIO(content), dtype="int16"), kind="WAV"), "expected FLAC"),
        (lambda content: sound_of(soundfile.read(io.BytesIO(content), dtype="int16")[0], 16000), "sample_rate_hz"),
    ],
)
def test_sound_that_is_not_the_clips_is_told(copy, make, text):
    def change(values):
        return [{"bytes": make(value["bytes"]), "path": value["path"]} for value in values]

    edit_rows(copy, AUDIO, with_column("audio", change, only=0))
    problems = verify_vocateeth(copy)
    assert any(part in problem for part in text.split("|") for problem in problems), problems


def test_another_sample_of_sound_is_told(copy):
    def change(values):
        samples, rate = soundfile.read(io.BytesIO(values[0]["bytes"]), dtype="int16")
        samples[5] += 1
        return [{"bytes": sound_of(samples, rate), "path": values[0]["path"]}]

    edit_rows(copy, AUDIO, with_column("audio", change, only=0))
    reseal(copy)
    problems = verify_vocateeth(copy)
    assert len(problems) == 1
    assert "contents.json: clips are not those of the data" in problems[0]


@pytest.mark.parametrize(
    ("column", "change", "text"),
    [
        ("mouth_scale", lambda values: [value * 1.001 for value in values], "differs in mouth_scale"),
        ("jaw_pivot", lambda values: [[x, y + 1e-4, z] for x, y, z in values], "differs in jaw_pivot"),
        ("jaw_axis", lambda values: [[2.0, 0.0, 0.0] for _ in values], "no unit vector"),
        ("mouth_rotation", lambda values: [[-v for v in value] for value in values], "no rotation"),
        ("split", lambda values: values[::-1], "its clips are in"),
        ("subject", lambda values: values[::-1], "subjects in order"),
        ("penetration_deepest_m", lambda values: [float("nan") for _ in values], "not finite"),
        ("penetration_deepest_m", lambda values: [value + 1e-4 for value in values], "measured again"),
        ("penetration_vertices", lambda values: [value + 1 for value in values], "measured again"),
    ],
)
def test_a_fit_that_is_not_the_templates_is_told(copy, head, column, change, text):
    edit_rows(copy, TEMPLATES, with_column(column, change))
    forge(copy)
    told(verify_vocateeth(copy, head), text)


def test_a_mouth_that_topology_does_not_join_is_told(copy, mouth, head):
    fields = {name: getattr(mouth, name) for name in MouthMesh.__dataclass_fields__}
    MouthMesh(**fields | {"name": "other", "faces": mouth.faces[::-1]}).save(copy / "mouth.npz")
    problems = verify_vocateeth(copy)
    told(problems, "mouth.npz: it is 'other'")
    told(problems, "triangles are not the mouth's")
    mouth.save(copy / "mouth.npz")
    arrays = read_topology(copy / "topology.npz")
    arrays["region:lips"] = arrays["region:lips"] + head.n_vertices
    write_topology(copy / "topology.npz", arrays, "open-head+mouth")
    told(verify_vocateeth(copy), "region:lips has indices outside")
    arrays["faces"] = np.roll(arrays["faces"], 1, axis=1)
    write_topology(copy / "topology.npz", arrays, "open-head+mouth")
    told(verify_vocateeth(copy, head), "triangles of the face are not those of the face model")


def test_counts_of_triangles_and_rounded_sounds_that_are_not_the_datas_are_told(copy):
    edit_json(copy, "info.json", lambda info: info["triangles"].update(mouth=1))
    edit_json(copy, "info.json", lambda info: info.update(audio_rounded=["nobody"]))
    problems = verify_vocateeth(copy)
    told(problems, "triangles of face and mouth")
    told(problems, "audio_rounded names clips that it does not list: nobody")


def test_texts_that_the_data_do_not_make_are_told(copy):
    card = copy / "README.md"
    card.write_text(card.read_text().replace("Not for", "Made for"))
    told(verify_vocateeth(copy), "README.md: not the card")
    edit_json(copy, "stats.json", lambda stats: stats["angle_rad"].update(mean=0.5))
    told(verify_vocateeth(copy), "stats.json: angle_rad is not that of the data")
    edit_json(copy, "croissant.json", lambda content: content.update(license="https://example.org"))
    told(verify_vocateeth(copy), "croissant.json: license is not what the data make it")


def test_a_date_in_croissant_is_no_damage(copy):
    edit_json(copy, "croissant.json", lambda content: content.update(datePublished="2026-01-31"))
    assert verify_vocateeth(copy) == []


def test_another_face_model_is_told(teeth, head):
    fields = {name: getattr(head, name) for name in FaceAsset.__dataclass_fields__}
    other = FaceAsset(**fields | {"topology": "flame", "basis": "flame2020"})
    told(verify_vocateeth(teeth.directory, other), "meshes are of open-head, the face model is of flame")


def test_what_is_no_release_is_told(tmp_path):
    assert "neither meta/info.json (Emolib) nor info.json (VOCATeeth)" in verify_release(tmp_path)[0]
    assert verify_vocateeth(tmp_path)
