"""Emolib as a release: coefficients and labels in Parquet, meshes and pictures as configs of their own, card, manifest.

The coefficients are the dataset; meshes follow from them and the face model. AffectNet's photographs are written only
when asked for, and a release that holds them is marked as not to be passed on.

    README.md         card: how to load it, datasheet
    croissant.json    the same for machines
    MANIFEST.json     every file with its checksum
    meta/             info.json, stats.json, topology.npz
    data/CONFIG/      SPLIT-00000-of-00001.parquet, rows sorted by item_id

Faces are read and written a batch at a time: beside a few labels of each row, memory does not grow with their number.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from ecavatar.config import ExportSettings
from ecavatar.emolib.card import card_text
from ecavatar.emolib.croissant import croissant_json
from ecavatar.emolib.leaks import split_leaks
from ecavatar.emolib.meshes import expressive_vertices
from ecavatar.emolib.quantisation import to_steps
from ecavatar.emolib.rows import Rows
from ecavatar.emolib.schema import (
    CARD,
    COMPRESSION,
    CROISSANT,
    INFO,
    OPTIONAL,
    ROW_GROUP,
    SCHEMA_VERSION,
    SPLITS,
    STATS,
    TOPOLOGY,
    EmolibInfo,
    Source,
    coefficient_columns,
    image_columns,
    mesh_columns,
    read_info,
)
from ecavatar.emolib.stats import release_stats
from ecavatar.emolib.topology import topology_arrays, topology_sha256, write_topology
from ecavatar.emotion import LEVELS, Emotion
from ecavatar.errors import AssetMissingError, BasisError, DataError, SplitLeakError
from ecavatar.face.model import FaceAsset, FaceModel
from ecavatar.storage.columns import Column, arrow_schema
from ecavatar.storage.files import atomic_path, write_json
from ecavatar.storage.full_disk import full_disk_told
from ecavatar.storage.manifest import write_manifest
from ecavatar.storage.parquet import open_writer, read_table

ReadBytes = Callable[[Mapping[str, object]], bytes]
_BATCH = 64  # rows at a time: a multiple of every ROW_GROUP
_DERIVED = ("emotion_code", "topology", "basis")  # columns that the faces need not have


def write_emolib(
    directory: Path,
    faces: pa.Table | Sequence[Path],
    *,
    asset: FaceAsset,
    backend: str,
    settings: ExportSettings,
    read_image_bytes: ReadBytes | None = None,
    source: Source = "affectnet",
    near_duplicate_bits: int = 16,
    made_with: Mapping[str, Mapping[str, object]] | None = None,
) -> EmolibInfo:
    """Write the release `directory`, whole or not at all.

    Equal faces give equal bytes, however they are ordered and cut into files.

    Args:
        directory: replaced if it exists.
        faces: rows of `reconstruct_faces` for the index, in any order; a table, or the Parquet files that hold them.
        asset: the face model that the coefficients belong to.
        backend: how the faces were reconstructed.
        settings: which configs, and rows per file.
        read_image_bytes: gives the photograph of a row (item_id, source_id, path); needed for images alone.
        source: whose photographs; it decides the licence that the card names.
        near_duplicate_bits: two photographs whose perceptual hashes differ in at most so many bits count as one.
        made_with: settings of the stages before, by stage, for the card.

    Raises:
        DataError: no faces, an item twice, an unknown emotion or split, a missing column, images without
            `read_image_bytes`, a mesh too large for int16, or a full disk.
        SplitLeakError: a photograph is in both splits, as itself or nearly.
        BasisError: the faces are of another face model.
    """
    rows = Rows(faces)
    _require_model(rows, asset)
    if settings.images and read_image_bytes is None:
        raise DataError("a release with images needs read_image_bytes. Give it, or export with images: false.")
    order = _checked_order(rows, near_duplicate_bits)
    arrays = topology_arrays(asset)
    info = EmolibInfo(
        source=source,
        topology=asset.topology,
        topology_sha256=topology_sha256(arrays),
        basis=asset.basis,
        backend=backend,
        n_shape=rows.schema.field("shape").type.list_size,
        n_expression=rows.schema.field("expression").type.list_size,
        n_vertices=asset.n_vertices,
        near_duplicate_bits=near_duplicate_bits,
        rows_per_file=settings.rows_per_file,
        rows={split: len(places) for split, places in order.items()},
        counts=_counts(rows),
        columns=_columns(rows, asset, settings),
        made_with=dict(made_with or {}),
    )
    model = FaceModel(asset) if settings.vertices != "none" else None
    pieces = _Pieces(rows=rows, info=info, model=model, read_image_bytes=read_image_bytes)
    with _full_disk_told(directory), atomic_path(directory) as temporary:
        for split, places in order.items():
            _write_split(temporary, split, places, pieces)
        write_topology(temporary / TOPOLOGY, arrays, asset.topology)
        write_json(temporary / INFO, info.to_json())
        write_json(temporary / STATS, release_stats(temporary, info))
        (temporary / CARD).write_text(card_text(info), encoding="utf-8")
        write_json(temporary / CROISSANT, croissant_json(temporary, info))
        facts = {"schema_version": SCHEMA_VERSION, "topology": info.topology, "basis": info.basis}
        write_manifest(temporary, facts | {"source": source, "rows": _rows_by_file(info)})
    return info


def read_emolib(directory: Path, config: str = "coefficients") -> pa.Table:
    """All rows of a config, sorted by item_id, in memory; `EmolibItems` reads one at a time.

    Raises:
        AssetMissingError: no release there, or a data file is missing.
        DataError: no such config, or the release is damaged.
    """
    if not (directory / INFO).is_file():
        raise AssetMissingError(f"no Emolib in {directory}. `dvc repro export_emolib@sample` makes one.")
    info = read_info(directory)
    if config not in info.columns:
        raise DataError(f"{directory} has no config {config!r}; it has {', '.join(info.columns)}.")
    files = [directory / path for split in info.rows for path in info.files(config, split)]
    return pa.concat_tables([read_table(path) for path in files]).sort_by("item_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pieces:
    """Makes the tables of every config from places among the faces."""

    rows: Rows
    info: EmolibInfo
    model: FaceModel | None
    read_image_bytes: ReadBytes | None

    def tables(self, places: Int[np.ndarray, " n"]) -> dict[str, pa.Table]:
        """One table by config, of the same rows."""
        wanted = [column.name for column in self.info.columns["coefficients"] if column.name not in _DERIVED]
        path = ["path"] if "images" in self.info.columns else []
        faces = self.rows.take(places, [*wanted, *path])
        return {config: self._table(config, faces) for config in self.info.columns}

    def _table(self, config: str, faces: pa.Table) -> pa.Table:
        arrow = arrow_schema(self.info.columns[config])
        made = {
            "emotion_code": lambda: [int(Emotion.from_label(label)) for label in faces["emotion"].to_pylist()],
            "topology": lambda: [self.info.topology] * faces.num_rows,
            "basis": lambda: [self.info.basis] * faces.num_rows,
            "vertices_m": lambda: self._vertices(faces).reshape(-1),
            "vertices_10um": lambda: to_steps(self._vertices(faces)).reshape(-1),
            "image": lambda: self._pictures(faces),
        }
        columns = [
            _array(made[field.name](), field.type) if field.name in made else faces[field.name].cast(field.type)
            for field in arrow
        ]
        return pa.table(columns, schema=arrow)

    def _vertices(self, faces: pa.Table) -> np.ndarray:
        if self.model is None:
            raise DataError("meshes need a face model; this config was not planned. Report it as a bug.")
        return expressive_vertices(self.model, faces)

    def _pictures(self, faces: pa.Table) -> list[dict[str, object]]:
        if self.read_image_bytes is None:
            raise DataError("pictures need read_image_bytes. Give it, or export with images: false.")
        return [
            {"bytes": self.read_image_bytes(record), "path": record["item_id"] + Path(record["path"]).suffix.lower()}
            for record in faces.select(["item_id", "source_id", "path"]).to_pylist()
        ]


def _write_split(directory: Path, split: str, places: Int[np.ndarray, " n"], pieces: _Pieces) -> None:
    """All data files of one split, every config side by side."""
    info, start = pieces.info, 0
    paths = {config: info.files(config, split) for config in info.columns}
    for file, count in enumerate(paths["coefficients"].values()):
        with contextlib.ExitStack() as stack:
            writers = {
                config: stack.enter_context(
                    open_writer(
                        directory / list(paths[config])[file],
                        arrow_schema(columns),
                        _tags(info),
                        compression=COMPRESSION[config],
                    )
                )
                for config, columns in info.columns.items()
            }
            for first in range(start, start + count, _BATCH):
                tables = pieces.tables(places[first : min(first + _BATCH, start + count)])
                for config, table in tables.items():
                    writers[config].write_table(table, row_group_size=ROW_GROUP[config])
        start += count


def _array(values: object, kind: pa.DataType) -> pa.Array:
    """An Arrow array of `kind` from a list, or from the flat numbers of meshes."""
    if not isinstance(values, np.ndarray):
        return pa.array(values, kind)
    points = pa.FixedSizeListArray.from_arrays(pa.array(values), type=kind.value_type)
    return pa.FixedSizeListArray.from_arrays(points, type=kind)


def _tags(info: EmolibInfo) -> dict[str, str]:
    return {"topology": info.topology, "basis": info.basis, "schema_version": SCHEMA_VERSION}


def _require_model(rows: Rows, asset: FaceAsset) -> None:
    """The faces have every column that is needed, of the asset's basis, with no more coefficients than it has."""
    there = set(rows.schema.names)
    needed = [column.name for column in coefficient_columns(1, 1, optional=())]
    if missing := [name for name in needed if name not in there and name not in _DERIVED]:
        raise DataError(f"the faces lack {', '.join(missing)}; write them with `reconstruct_faces`.")
    for texts in rows.metadata():
        if texts.get("basis", asset.basis) != asset.basis:
            raise BasisError(
                f"the faces hold coefficients of basis {texts['basis']!r}, the face model is {asset.basis!r}. Run "
                "reconstruct_faces again with this face model, or give the one they were made with."
            )
    for name, limit in (("shape", asset.n_shape), ("expression", asset.n_expression)):
        size = getattr(rows.schema.field(name).type, "list_size", None)
        if size is None or size > limit:
            raise BasisError(
                f"{name}: the face model {asset.basis!r} has {limit} coefficients, the faces have "
                f"{'no fixed number' if size is None else size}. Give the face model they were made with."
            )


def _checked_order(rows: Rows, near_duplicate_bits: int) -> dict[str, Int[np.ndarray, " n"]]:
    """Places of the rows by split, sorted by item_id; refuses what no release may hold."""
    if rows.count == 0:
        raise DataError(
            "Emolib needs at least one face; every image was rejected, see the rejects of the stages before."
        )
    ids = rows.column("item_id", pa.string())
    order = pc.sort_indices(ids).to_numpy()
    if pc.any(pc.equal(ids.take(order[1:]), ids.take(order[:-1]))).as_py():
        raise DataError("an item_id occurs twice among the faces; select the images again.")
    split = rows.column("split", pa.string())
    if unknown := sorted(set(pc.unique(split).to_pylist()) - set(SPLITS), key=str):
        raise DataError(f"unknown split {', '.join(map(str, unknown))}; expected {' or '.join(SPLITS)}.")
    _refuse_leaks(rows, pa.table({"item_id": ids, "split": split}), near_duplicate_bits)
    is_of = {name: pc.equal(split, name).to_numpy()[order] for name in SPLITS}
    return {name: order[mask] for name, mask in is_of.items() if mask.any()}


def _refuse_leaks(rows: Rows, labels: pa.Table, near_duplicate_bits: int) -> None:
    for name in ("source_id", "content_sha256", "perceptual_hash"):  # one at a time: they are the longest labels
        if name in rows.schema.names:
            pa.default_memory_pool().release_unused()  # what was freed would stay resident, column after column
            column = rows.column(name, pa.string())
            if problems := split_leaks(labels.append_column(name, column), near_duplicate_bits):
                raise SplitLeakError(f"{' '.join(problems)} Select the images again; it drops duplicates.")


def _columns(rows: Rows, asset: FaceAsset, settings: ExportSettings) -> dict[str, tuple[Column, ...]]:
    """Columns by config, for the configs that were asked for."""
    shape, expression = (rows.schema.field(name).type.list_size for name in ("shape", "expression"))
    optional = [name for name in OPTIONAL if _is_known(rows, name)]
    columns = {"coefficients": coefficient_columns(shape, expression, optional)}
    if settings.vertices != "none":
        config = "vertices" if settings.vertices == "float32" else "vertices_int16"
        columns[config] = mesh_columns(config, asset.n_vertices)
    return columns | ({"images": image_columns()} if settings.images else {})


def _is_known(rows: Rows, name: str) -> bool:
    """Whether the faces have a column, and a value of it in any row."""
    if name not in rows.schema.names:
        return False
    column = rows.column(name, rows.schema.field(name).type)
    return column.null_count < len(column)


def _counts(rows: Rows) -> dict[str, dict[str, int]]:
    """Items by emotion label, in AffectNet's order, and level.

    Raises:
        DataError: an emotion is none of the eight.
    """
    table = pa.table({"emotion": rows.column("emotion", pa.string()), "level": rows.column("level", pa.int8())})
    groups = table.group_by(["emotion", "level"]).aggregate([([], "count_all")]).to_pylist()
    cells = sorted((int(Emotion.from_label(str(g["emotion"]))), g["level"], g["count_all"]) for g in groups)
    counts: dict[str, dict[str, int]] = {}
    if unknown := sorted({level for _, level, _ in cells} - set(LEVELS)):
        raise DataError(f"unknown level {unknown}; expected one of {LEVELS}. Select the images again.")
    for emotion, level, count in cells:
        counts.setdefault(Emotion(emotion).label, {})[str(level)] = count
    return counts


def _rows_by_file(info: EmolibInfo) -> dict[str, int]:
    """Rows of every data file, for the manifest."""
    files = [info.files(config, split) for config in info.columns for split in info.rows]
    return {path.as_posix(): count for counts in files for path, count in counts.items()}


def _full_disk_told(directory: Path) -> contextlib.AbstractContextManager[None]:
    return full_disk_told(
        directory,
        kept="nothing new was kept and an earlier release is as it was",
        advice="Free space, export with vertices: none, or give another place.",
    )
