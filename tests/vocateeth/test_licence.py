"""Laws of what of a VOCATeeth may be passed on."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecavatar.emolib.topology import read_topology, write_topology
from ecavatar.errors import DataError
from ecavatar.mouth.model import MouthMesh
from ecavatar.storage.files import read_json, write_json
from ecavatar.storage.parquet import read_table, table_metadata
from ecavatar.vocateeth.card import write_card
from ecavatar.vocateeth.licence import licence_problems, write_free
from ecavatar.vocateeth.verify import verify_vocateeth


def flame(directory, out):
    """A copy as VOCASET itself would give it: vertices in FLAME's order, no texture coordinates."""
    shutil.copytree(directory, out)
    write_json(out / "info.json", read_json(out / "info.json") | {"topology": "flame"})
    arrays = {name: array for name, array in read_topology(out / "topology.npz").items() if not name.startswith("uv")}
    write_topology(out / "topology.npz", arrays, "flame+mouth")
    write_card(out)
    return out


def test_the_sample_worlds_may_go(teeth):
    assert licence_problems(teeth.directory) == []


def test_meshes_and_voices_of_vocaset_may_not(teeth, tmp_path):
    problems = licence_problems(flame(teeth.directory, tmp_path / "flame"))
    assert len(problems) == 9  # four parts of faces, four of sound, the templates
    assert sum("holds meshes" in problem for problem in problems) == 5
    assert sum("holds voices" in problem for problem in problems) == 4


def test_the_free_copy_of_vocasets_may_go_and_holds_every_angle_and_fit(teeth, tmp_path):
    write_free(flame(teeth.directory, tmp_path / "flame"), tmp_path / "free")
    assert licence_problems(tmp_path / "free") == []
    assert verify_vocateeth(tmp_path / "free") == []
    angles = [read_table(path) for path in sorted((tmp_path / "free" / "data" / "angles").iterdir())]
    for clip in teeth.clips:
        rows = angles[clip.part].filter(pa.compute.equal(angles[clip.part]["clip_id"], clip.clip_id))
        np.testing.assert_array_equal(rows["angle"].to_numpy(), teeth.angles(clip))
    fits = read_table(tmp_path / "free" / "fits.parquet").to_pylist()
    for row in fits:
        np.testing.assert_array_equal(row["jaw_pivot"], teeth.fit(row["subject"]).pivot)
    assert set(table_metadata(tmp_path / "free" / "data" / "angles" / "part-00000-of-00004.parquet")) == {
        "topology", "fps", "subject"
    }  # fmt: skip
    with pytest.raises(DataError, match="no meshes and voices"):
        write_free(tmp_path / "free", tmp_path / "again")


def test_the_same_dataset_gives_the_same_free_copy(teeth, tmp_path):
    for name in ("a", "b"):
        write_free(teeth.directory, tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 14
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_a_mouth_goes_as_its_licence_says(teeth, mouth, tmp_path):
    copy = shutil.copytree(teeth.directory, tmp_path / "copy")
    fields = {name: getattr(mouth, name) for name in MouthMesh.__dataclass_fields__}
    for licence, is_free in (("CC-BY-4.0", True), ("proprietary", False), ("", False)):
        MouthMesh(**fields | {"licence": licence}).save(copy / "mouth.npz")
        assert (licence_problems(copy) == []) is is_free


@pytest.mark.parametrize(
    ("name", "kind"),
    [("flat", pa.list_(pa.float32(), 15069)), ("base64", pa.string()), ("blob", pa.binary()),
     ("angle", pa.list_(pa.float32(), 15069)), ("mesh", pa.list_(pa.list_(pa.float32())))],
)  # fmt: skip
def test_content_in_disguise_is_told(teeth, tmp_path, name, kind):
    write_free(flame(teeth.directory, tmp_path / "flame"), tmp_path / "free")
    pq.write_table(pa.table({name: pa.nulls(1, kind)}), tmp_path / "free" / "data" / "angles" / "extra.parquet")
    (tmp_path / "free" / "voice.wav").write_bytes(b"RIFF")
    problems = licence_problems(tmp_path / "free")
    assert len(problems) == 2
    assert f"column {name} " in problems[0]
    assert "voice.wav" in problems[1]


def test_the_topology_file_holds_no_part_of_a_licensed_model(teeth, tmp_path, head):
    copy = flame(teeth.directory, tmp_path / "flame")
    write_free(copy, tmp_path / "free")
    arrays = read_topology(copy / "topology.npz") | {"template": head.template, "uv": head.uv}
    write_topology(tmp_path / "free" / "topology.npz", arrays, "flame+mouth")
    problems = licence_problems(tmp_path / "free")
    assert [problem.split(" of ")[0] for problem in problems] == [
        "topology.npz: array template", "topology.npz: array uv"
    ]  # fmt: skip
