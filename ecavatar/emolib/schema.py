"""What an Emolib release consists of: its configs, columns, splits and files, and what it says about itself."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ecavatar.errors import DataError
from ecavatar.storage.columns import ARROW_TYPES, Column
from ecavatar.storage.files import read_json
from ecavatar.storage.parquet import Compression

SCHEMA_VERSION = "2.0.0"
SPLITS = ("train", "val")
"""AffectNet's own, in the order of a release's rows."""
CONFIGS = ("coefficients", "vertices", "vertices_int16", "images")
ROW_GROUP = {"coefficients": 32, "vertices": 8, "vertices_int16": 8, "images": 8}
"""Rows of a row group, the smallest piece that is read alone: measured to be quick for one random item."""
COMPRESSION: Mapping[str, Compression] = {
    "coefficients": "lz4", "vertices": "zstd", "vertices_int16": "zstd", "images": "zstd"
}  # fmt: skip
"""lz4 costs a twentieth more space than zstd and halves the time of one random item."""
INFO, STATS, TOPOLOGY, CARD, CROISSANT = (
    Path("meta") / "info.json",
    Path("meta") / "stats.json",
    Path("meta") / "topology.npz",
    Path("README.md"),
    Path("croissant.json"),
)
FREE_BASES = ("open-head", "flame2023-open")
"""Face models whose meshes may be passed on."""
OPTIONAL = ("light", "alignment_is_converged", "perceptual_hash")
"""Columns that a release lacks where they are known of none of its faces."""
IMPORTED = "imported"
"""Backend of faces that others reconstructed: cameras and alignments may be unknown."""
COORDINATES = "x to the subject's left, y up, z forward; metres; head at zero pose"

Source = Literal["affectnet", "sample"]
"""Whose photographs: AffectNet's, whose licence covers research only, or the sample world's own renders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmolibInfo:
    """What a release says about itself (meta/info.json)."""

    source: Source
    topology: str
    topology_sha256: str
    """Of the arrays in meta/topology.npz."""
    basis: str
    backend: str
    n_shape: int
    n_expression: int
    n_vertices: int
    near_duplicate_bits: int
    """No two items of different splits have perceptual hashes that differ in so few bits."""
    rows_per_file: int
    rows: Mapping[str, int]
    """Items by split; only splits that have any."""
    counts: Mapping[str, Mapping[str, int]]
    """Items by emotion label and level."""
    columns: Mapping[str, tuple[Column, ...]]
    """By config; the configs that the release has."""
    made_with: Mapping[str, Mapping[str, object]]
    """Settings of the stages that made the faces, by stage."""

    @property
    def total(self) -> int:
        return sum(self.rows.values())

    @property
    def holds_photographs(self) -> bool:
        """Whether it holds photographs that their licence forbids to pass on."""
        return self.source != "sample" and "images" in self.columns

    @property
    def holds_licensed_meshes(self) -> bool:
        """Whether it holds meshes of a face model whose licence forbids to pass them on."""
        return self.basis not in FREE_BASES and any(config.startswith("vertices") for config in self.columns)

    @property
    def is_redistributable(self) -> bool:
        """Whether the release may be passed on, as far as its licences go."""
        return not (self.holds_photographs or self.holds_licensed_meshes)

    def files(self, config: str, split: str) -> dict[Path, int]:
        """Path, relative to the release, and rows of each data file of one config and split, in order."""
        total = self.rows.get(split, 0)
        starts = range(0, total, self.rows_per_file)
        folder = Path("data") / config
        return {
            folder / f"{split}-{k:05d}-of-{len(starts):05d}.parquet": min(self.rows_per_file, total - start)
            for k, start in enumerate(starts)
        }

    def data_files(self) -> list[Path]:
        """All data files, relative to the release."""
        return [path for config in self.columns for split in self.rows for path in self.files(config, split)]

    def to_json(self) -> dict[str, object]:
        """Content of info.json."""
        value = asdict(self)
        return value | {
            "schema_version": SCHEMA_VERSION,
            "coordinates": COORDINATES,
            "path_template": "data/{config}/{split}-{file:05d}-of-{files:05d}.parquet",
            "topology_file": TOPOLOGY.as_posix(),
            "is_redistributable": self.is_redistributable,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "EmolibInfo":  # Any: json of a file, checked here
        """The info that `to_json` gave.

        Raises:
            DataError: a field is missing or of another kind.
        """
        try:
            info = cls(**{name: value[name] for name in cls.__dataclass_fields__ if name != "columns"},
                       columns={config: _columns(value["columns"][config]) for config in CONFIGS
                                if config in value["columns"]})  # fmt: skip
        except (KeyError, TypeError) as error:
            raise DataError(f"it lacks {error}, or that is of another kind") from None
        if problems := _contradictions(info):
            raise DataError("; ".join(problems))
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
        raise DataError(
            f"{directory / INFO}: expected schema version {SCHEMA_VERSION}, found {version}. Export the release again, "
            "or read it with the version of ecavatar that wrote it."
        )
    try:
        return EmolibInfo.from_json(value)
    except DataError as error:
        raise DataError(f"{directory / INFO} is damaged: {error}. Write the release again.") from None


def coefficient_columns(n_shape: int, n_expression: int, optional: Collection[str] = OPTIONAL) -> tuple[Column, ...]:
    """Columns of the default config: everything that is known of a face but its mesh and picture.

    Args:
        n_shape: shape coefficients.
        n_expression: expression coefficients.
        optional: which of the `OPTIONAL` columns it has.
    """
    columns = _all_coefficient_columns(n_shape, n_expression)
    return tuple(column for column in columns if column.name not in OPTIONAL or column.name in optional)


def _all_coefficient_columns(n_shape: int, n_expression: int) -> tuple[Column, ...]:
    return (
        _text("item_id", "unique"),
        _text("source_id", "the photograph in its corpus"),
        _text("split", "train or val"),
        *_LABELS,
        _number("valence", about="annotated, -1 unpleasant to 1 pleasant"),
        _number("arousal", about="annotated, -1 calm to 1 excited"),
        _number("shape", n_shape, about="identity, in the basis of column `basis`"),
        _number("expression", n_expression, about="expression, in the basis of column `basis`"),
        _number("jaw_pose", 3, unit="radian", about="axis-angle of the jaw; x > 0 opens"),
        _number("light", 27, about="spherical harmonics of the light, 9 per colour, row-major 9 x 3"),
        _number("rotation", 9, about="turns the head into the camera, row-major 3 x 3"),
        _number("scale_px_per_m", unit="pixel/metre", about="of the weak-perspective camera"),
        _number("translation_px", 2, unit="pixel", about="of the weak-perspective camera"),
        Column(name="image_height_px", kind="int32", shape=(), unit="pixel", about="of the photograph"),
        Column(name="image_width_px", kind="int32", shape=(), unit="pixel", about="of the photograph"),
        _number("removed_transform", 16, unit="metre", about="rigid motion to zero pose, row-major 4 x 4"),
        _number("alignment_residual_m", unit="metre", about="what that motion left"),
        Column(name="alignment_is_converged", kind="bool", shape=(), unit="", about="of the search for that motion"),
        _number("residual_mm", unit="millimetre", about="how far the face misses its landmarks; null if unknown"),
        _text("perceptual_hash", "256 bits as 64 hexadecimal digits; near pictures differ in few bits"),
        _text("topology", "order of the vertices"),
        _text("basis", "meaning of the coefficients"),
    )  # fmt: skip


def mesh_columns(config: str, n_vertices: int) -> tuple[Column, ...]:
    """Columns of `vertices` or `vertices_int16`: the expressive mesh at zero pose."""
    mesh = Column(name="vertices_m", kind="float32", shape=(n_vertices, 3), unit="metre", about="expressive mesh")
    if config == "vertices_int16":
        about = "expressive mesh in steps of 10 micrometres, rounded: at most 5 micrometres off"
        mesh = Column(name="vertices_10um", kind="int16", shape=(n_vertices, 3), unit="10 micrometre", about=about)
    return (*_KEYS, *_LABELS, mesh)


def image_columns() -> tuple[Column, ...]:
    """Columns of `images`: the photographs' original bytes."""
    about = "original bytes; the path carries the suffix"
    picture = Column(name="image", kind="image", shape=(), unit="", about=about)
    return (*_KEYS, *_LABELS, picture)


def _text(name: str, about: str) -> Column:
    return Column(name=name, kind="string", shape=(), unit="", about=about)


def _number(name: str, *shape: int, unit: str = "", about: str) -> Column:
    return Column(name=name, kind="float32", shape=shape, unit=unit, about=about)


_KEYS = (_text("item_id", "as in coefficients"), _text("split", "train or val"))
_LABELS = (
    _text("emotion", "category: neutral, happy, sad, surprise, fear, disgust, anger or contempt"),
    Column(name="emotion_code", kind="int8", shape=(), unit="", about="AffectNet's code of the category, 0 to 7"),
    Column(name="level", kind="int8", shape=(), unit="", about="intensity: 1 weak, 2 medium, 3 strong"),
)


def _columns(values: Sequence[Mapping[str, Any]]) -> tuple[Column, ...]:  # Any: json of a file
    return tuple(Column(**{**value, "shape": tuple(value["shape"])}) for value in values)


def _contradictions(info: EmolibInfo) -> list[str]:
    """Wrong kinds of what the rest of the code counts on."""
    problems = []
    whole = ("n_shape", "n_expression", "n_vertices", "near_duplicate_bits", "rows_per_file")
    problems += [f"{name} must be a whole number" for name in whole if not isinstance(getattr(info, name), int)]
    if isinstance(info.rows_per_file, int) and info.rows_per_file < 1:
        problems.append("rows_per_file must be at least 1")
    if info.source not in get_args(Source):
        problems.append(f"source {info.source!r} is none of {', '.join(get_args(Source))}")
    if "coefficients" not in info.columns:
        problems.append("the config coefficients is not described")
    if not set(info.rows) <= set(SPLITS) or not all(isinstance(n, int) for n in info.rows.values()):
        problems.append(f"rows must be numbers by split ({' or '.join(SPLITS)})")
    kinds = {column.kind for columns in info.columns.values() for column in columns}
    return problems + [f"unknown kind {kind!r} of a column" for kind in sorted(kinds - set(ARROW_TYPES))]
