"""Whether a release holds only what may be passed on.

* Photographs: AffectNet's licence forbids it; the sample world's renders are free.
* Meshes: they carry the face model. FLAME's licences forbid it but for FLAME 2023 Open; coefficients and ids may go.
* Topology: triangles and regions; texture coordinates of free heads alone; never a template or a basis.

The files themselves are looked at, not only what the release says about itself.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ecavatar.emolib.schema import FREE_BASES, TOPOLOGY, EmolibInfo, coefficient_columns, read_info
from ecavatar.emolib.topology import FREE_TOPOLOGIES, read_topology
from ecavatar.errors import DataError
from ecavatar.storage.columns import holds_bytes, is_mesh

_SUFFIXES = (".json", ".md", ".parquet")


def licence_problems(directory: Path) -> list[str]:
    """One sentence for everything in the release that must not be passed on; empty when all may be.

    Raises:
        AssetMissingError: no release there.
        DataError: damaged.
    """
    info = read_info(directory)
    problems = []
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        name = path.relative_to(directory)
        if path.suffix == ".parquet":
            problems += [f"{name.as_posix()}: {problem}" for problem in _table_problems(path, info)]
        elif name == TOPOLOGY:
            problems += [f"{name.as_posix()}: {problem}" for problem in _topology_problems(path, info)]
        elif path.suffix not in _SUFFIXES:
            problems.append(f"{name.as_posix()}: no part of a release, which has tables, texts and {TOPOLOGY.name}.")
    return problems


def _table_problems(path: Path, info: EmolibInfo) -> Iterator[str]:
    try:
        columns = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}. Export the release again.") from None
    known = {column.name: column.arrow_type for column in coefficient_columns(info.n_shape, info.n_expression)}
    for column in columns:
        if holds_bytes(column.type):
            if info.source != "sample":
                yield f"column {column.name} holds photographs; AffectNet's licence forbids passing them on."
        elif is_mesh(column.type):
            if info.basis not in FREE_BASES:
                yield f"column {column.name} holds meshes of {info.basis}, whose licence forbids passing them on."
        elif column.type != known.get(column.name):
            yield f"column {column.name} ({column.type}) is none of a release's; nobody knows whether it may go."


def _topology_problems(path: Path, info: EmolibInfo) -> Iterator[str]:
    for name in sorted(read_topology(path)):
        is_free = name == "faces" or name.startswith("region:")
        is_texture = name in ("uv", "uv_faces")
        if not is_free and not (is_texture and info.topology in FREE_TOPOLOGIES):
            yield f"array {name} of {info.topology} belongs to the face model; only triangles and regions may go."
