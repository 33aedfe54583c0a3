"""Whether a VOCATeeth holds only what may be passed on, and a copy that does.

* Meshes and voices: VOCASET's licence forbids passing them on; those of the sample world are free. VOCASET comes in
  FLAME's vertex order alone, so meshes of the open head are never its. Whoever has own recordings on the open head
  decides for themselves: nothing in the files tells those from the sample's.
* Angles and fits: numbers computed from the meshes; they may go.
* The mouth: the procedural one is free, another one as far as its licence says so.
* Topology: triangles and regions; texture coordinates of free heads alone.

The files themselves are looked at, not only what the dataset says about itself.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ecavatar.emolib.topology import read_topology
from ecavatar.errors import DataError
from ecavatar.mouth.model import MouthMesh
from ecavatar.storage.columns import arrow_schema, holds_bytes, is_mesh
from ecavatar.storage.files import read_json, write_json
from ecavatar.storage.manifest import MANIFEST_NAME, write_manifest
from ecavatar.storage.parquet import open_writer, read_table, table_metadata, write_table
from ecavatar.storage.rejects import COLUMNS as REJECT_COLUMNS
from ecavatar.vocateeth.card import write_card
from ecavatar.vocateeth.dataset import INFO, MOUTH, REJECTS, TOPOLOGY
from ecavatar.vocateeth.facts import FREE_FORMAT, FREE_LICENCES, Facts, frame_columns, read_facts, subject_columns

_SUFFIXES = (".json", ".md", ".parquet")
_TAGS = ("topology", "fps", "subject")
"""Texts of a part file that a free copy keeps; what its builder needs to go on is left out."""


def licence_problems(directory: Path) -> list[str]:
    """One sentence for everything in the dataset that must not be passed on; empty when all may be.

    Raises:
        AssetMissingError: no dataset there.
        DataError: damaged.
    """
    facts = read_facts(directory)
    problems = []
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        name = path.relative_to(directory).as_posix()
        if path.suffix == ".parquet":
            found = _table_problems(path, facts)
        elif name == TOPOLOGY:
            found = _topology_problems(path, facts)
        elif name == MOUTH:
            found = _mouth_problems(path)
        else:
            found = _file_problems(path)
        problems += [f"{name}: {problem}" for problem in found]
    return problems


def write_free(built: Path, out: Path) -> None:
    """Write what may be passed on of the VOCATeeth in `built` to the folder `out`: angles, fits, the mouth.

    Those who hold VOCASET's licence put the faces and voices back by the names of the clips; frames count from 0 at the
    frames per second of info.json.

    Args:
        built: complete; nothing in it is changed.
        out: made by this; must not exist.

    Raises:
        AssetMissingError, DataError: `built` is missing or damaged, or is such a copy already.
    """
    facts, info = read_facts(built), read_json(built / INFO)
    if not facts.has_meshes:
        raise DataError(f"{built} has no meshes and voices to leave out. Release it as it is.")
    (out / "data" / "angles").mkdir(parents=True)
    write_json(out / INFO, info | {"format": FREE_FORMAT})
    for path in facts.table("faces").paths:
        _write_angles(built / path, out / "data" / "angles" / Path(path).name)
    columns = [column.name for column in subject_columns(None)]
    write_table(out / "fits.parquet", read_table(built / facts.table("templates").paths[0], columns))
    for name in (MOUTH, TOPOLOGY, REJECTS):
        shutil.copyfile(built / name, out / name)
    write_card(out)
    kept = {name: value for name, value in read_json(built / MANIFEST_NAME).items() if name != "files"}
    write_manifest(out, kept | {"format": FREE_FORMAT})


def _write_angles(source: Path, out: Path) -> None:
    """The part's row groups without the meshes."""
    columns = [column.name for column in frame_columns(None)]
    texts = {name: text for name, text in table_metadata(source).items() if name in _TAGS}
    schema = arrow_schema(frame_columns(None))
    with pq.ParquetFile(source) as file, open_writer(out, schema, texts) as writer:
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=columns, use_threads=False).cast(schema)
            writer.write_table(rows, row_group_size=max(rows.num_rows, 1))


def _table_problems(path: Path, facts: Facts) -> Iterator[str]:
    try:
        columns = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}. Run rig_mouths again.") from None
    tables = {column.name: column.arrow_type for table in facts.tables() for column in table.columns}
    known = tables | dict.fromkeys(REJECT_COLUMNS, pa.string())
    for column in columns:
        if holds_bytes(column.type):
            if not facts.is_sample:
                yield f"column {column.name} holds voices; VOCASET's licence forbids passing on."
        elif is_mesh(column.type):
            if not facts.is_sample:
                yield f"column {column.name} holds meshes ({facts.topology}); VOCASET's licence forbids passing on."
        elif column.type != known.get(column.name):
            yield f"column {column.name} ({column.type}) is none of a VOCATeeth's; nobody knows whether it may go."


def _topology_problems(path: Path, facts: Facts) -> Iterator[str]:
    for name in sorted(read_topology(path)):
        is_free = name in ("faces", "mouth_part", "mouth_tooth") or name.startswith("region:")
        if not is_free and not (name in ("uv", "uv_faces") and facts.is_sample):
            yield f"array {name} of {facts.topology} belongs to the face model; only triangles and regions may go."


def _mouth_problems(path: Path) -> Iterator[str]:
    mouth = MouthMesh.load(path)
    if mouth.licence not in FREE_LICENCES:
        yield (
            f"the mouth {mouth.name!r} is under {mouth.licence or 'no licence'!r}, which is none of "
            f"{', '.join(FREE_LICENCES)}. With rig.mouth: procedural in params.yaml the open mouth is fitted."
        )


def _file_problems(path: Path) -> Iterator[str]:
    if path.suffix not in _SUFFIXES:
        yield "no part of a release, which has tables, texts, the mouth and the topology."
