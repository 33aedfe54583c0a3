"""Emolib as a release: coefficients and labels in Parquet, a card, and a manifest.

The coefficients are the dataset; meshes follow from them and the face model. Images and AffectNet's own lists are not
part of it: their licence allows no redistribution.
"""

from pathlib import Path

import pyarrow as pa

from ecavatar.emolib.card import card_text
from ecavatar.emolib.schema import SCHEMA_VERSION, SPLITS, EmolibInfo, schema
from ecavatar.emotion import Emotion
from ecavatar.errors import AssetMissingError, DataError
from ecavatar.storage.files import atomic_path, read_json, write_json
from ecavatar.storage.manifest import write_manifest
from ecavatar.storage.parquet import read_table, write_table

INFO = Path("meta") / "info.json"


def write_emolib(directory: Path, faces: pa.Table, *, topology: str, basis: str, backend: str) -> EmolibInfo:
    """Write the release `directory`, whole or not at all; equal faces give equal bytes.

    Args:
        directory: replaced if it exists.
        faces: rows of `reconstruct_faces` for the index (columns as in `schema`, tags and code apart).
        topology: vertex order of the face model.
        basis: what the coefficients mean.
        backend: how the faces were reconstructed.

    Raises:
        DataError: no faces, an item twice, an unknown emotion or split, or a missing column.
    """
    table = _rows(faces, topology, basis)
    info = EmolibInfo(
        topology=topology,
        basis=basis,
        backend=backend,
        n_shape=table.schema.field("shape").type.list_size,
        n_expression=table.schema.field("expression").type.list_size,
        counts=_counts(table),
    )
    with atomic_path(directory) as temporary:
        for split in SPLITS:
            part = table.filter(pa.array([name == split for name in table["split"].to_pylist()]))
            if part.num_rows:
                write_table(temporary / _data_file(split), part, {"topology": topology, "basis": basis})
        write_json(temporary / INFO, _info_json(info))
        splits = {split: _data_file(split).as_posix() for split in SPLITS if (temporary / _data_file(split)).is_file()}
        (temporary / "README.md").write_text(card_text(info, splits), encoding="utf-8")
        write_manifest(temporary, {"schema_version": SCHEMA_VERSION, "topology": topology, "basis": basis})
    return info


def read_info(directory: Path) -> EmolibInfo:
    """What the release in `directory` says about itself.

    Raises:
        AssetMissingError: no release there.
        DataError: of another schema version, or damaged.
    """
    value = read_json(directory / INFO)
    version = str(value.get("schema_version", "none")) if isinstance(value, dict) else "none"
    if version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise DataError(f"{directory / INFO}: expected schema version {SCHEMA_VERSION}, found {version}.")
    try:
        return EmolibInfo(**{name: value[name] for name in EmolibInfo.__dataclass_fields__})
    except KeyError as error:
        raise DataError(f"{directory / INFO} lacks {error}; write the release again.") from None


def read_emolib(directory: Path) -> pa.Table:
    """All rows of the release, sorted by item_id.

    Raises:
        AssetMissingError: no release there, or it has no data.
    """
    files = [path for split in SPLITS if (path := directory / _data_file(split)).is_file()]
    if not files:
        raise AssetMissingError(f"no Emolib in {directory}. `dvc repro export_emolib@sample` makes one.")
    return pa.concat_tables([read_table(path) for path in files]).sort_by("item_id")


def _data_file(split: str) -> Path:
    return Path("data") / "coefficients" / f"{split}-00000-of-00001.parquet"


def _rows(faces: pa.Table, topology: str, basis: str) -> pa.Table:
    """`faces` checked, tagged and brought to `schema`, sorted by item_id."""
    if faces.num_rows == 0:
        raise DataError(
            "Emolib needs at least one face; every image was rejected, see the rejects of the stages before."
        )
    if len(faces["item_id"].unique()) != faces.num_rows:
        raise DataError("an item_id occurs twice among the faces; select the images again.")
    if unknown := sorted(set(faces["split"].unique().to_pylist()) - set(SPLITS)):
        raise DataError(f"unknown split {', '.join(map(str, unknown))}; expected {' or '.join(SPLITS)}.")
    codes = [int(Emotion.from_label(label)) for label in faces["emotion"].to_pylist()]
    extra = {
        "emotion_code": pa.array(codes, pa.int8()),
        "topology": pa.array([topology] * faces.num_rows),
        "basis": pa.array([basis] * faces.num_rows),
    }
    wanted = schema(faces.schema.field("shape").type.list_size, faces.schema.field("expression").type.list_size)
    missing = [name for name in wanted.names if name not in extra and name not in faces.column_names]
    if missing:
        raise DataError(f"the faces lack {', '.join(missing)}; write them with `reconstruct_faces`.")
    columns = [extra[field.name] if field.name in extra else faces[field.name].cast(field.type) for field in wanted]
    return pa.table(columns, schema=wanted).sort_by("item_id")


def _counts(table: pa.Table) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for emotion, level in sorted(zip(table["emotion_code"].to_pylist(), table["level"].to_pylist(), strict=True)):
        levels = counts.setdefault(Emotion(emotion).label, {})
        levels[str(level)] = levels.get(str(level), 0) + 1
    return counts


def _info_json(info: EmolibInfo) -> dict[str, object]:
    return {
        "schema_version": SCHEMA_VERSION,
        "topology": info.topology,
        "basis": info.basis,
        "backend": info.backend,
        "n_shape": info.n_shape,
        "n_expression": info.n_expression,
        "counts": info.counts,
        "units": {"alignment_residual_m": "metre", "residual_mm": "millimetre", "jaw_pose": "radian, axis-angle"},
        "coordinates": "x to the subject's left, y up, z forward; metres",
    }
