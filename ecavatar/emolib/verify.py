"""Whether a release is what it says: everything that can be computed again is, and compared."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from ecavatar.emolib.card import texts_of
from ecavatar.emolib.croissant import LICENCES
from ecavatar.emolib.leaks import split_leaks
from ecavatar.emolib.meshes import expressive_vertices
from ecavatar.emolib.quantisation import MAX_ERROR_M, from_steps
from ecavatar.emolib.rows import Rows
from ecavatar.emolib.schema import (
    CARD,
    CONFIGS,
    CROISSANT,
    IMPORTED,
    INFO,
    ROW_GROUP,
    STATS,
    TOPOLOGY,
    EmolibInfo,
    coefficient_columns,
    read_info,
)
from ecavatar.emolib.stats import release_stats
from ecavatar.emolib.topology import read_topology, topology_sha256
from ecavatar.emotion import LEVELS, Emotion
from ecavatar.face.model import FaceAsset, FaceModel
from ecavatar.storage.checks import DAMAGE, is_finite, problems_of, some
from ecavatar.storage.columns import Column, arrow_schema, schema_difference
from ecavatar.storage.files import read_json, sha256_file
from ecavatar.storage.manifest import verify_manifest
from ecavatar.storage.parquet import read_table

_STATS_TOLERANCE = 1e-7
"""Of the spread: stats.json has nine digits, and machines add in different orders."""
_MESH_TOLERANCE_M = 1e-6
"""Between machines, whose float32 sums differ in their last bits."""
_KEYS = ("item_id", "split", "emotion", "emotion_code", "level")
_MAY_BE_UNKNOWN = frozenset({"valence", "arousal", "residual_mm"})
_COEFFICIENTS = ("shape", "expression", "jaw_pose")
_DERIVED = ("coordinates", "path_template", "topology_file", "is_redistributable")

Check = Callable[["_Release"], Iterator[str]]


@dataclass(frozen=True, slots=True)
class _Release:
    directory: Path
    info: EmolibInfo
    asset: FaceAsset | None

    def path(self, relative: Path) -> Path:
        return self.directory / relative

    def pieces(self, config: str, split: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """A split's rows, one row group after the other."""
        for path in self.info.files(config, split):
            with pq.ParquetFile(self.path(path), memory_map=True) as file:
                for group in range(file.num_row_groups):
                    yield file.read_row_group(group, columns=columns, use_threads=False)

    def rows(self, config: str, split: str) -> Rows:
        """A split's rows by their places, whatever their row groups."""
        return Rows([self.path(path) for path in self.info.files(config, split)])

    def labels(self, config: str, columns: list[str]) -> pa.Table:
        """Some columns of all rows, in stored order."""
        files = [self.path(path) for split in self.info.rows for path in self.info.files(config, split)]
        return pa.concat_tables([read_table(path, columns) for path in files])


def verify(directory: Path, asset: FaceAsset | None = None) -> list[str]:
    """Every way in which the release is not what it says, one sentence each; empty when all is well.

    Checked: manifest, info.json, the files that it names, their columns, row counts and order, labels, splits, numbers,
    statistics, topology, croissant.json and the card. Damage of any kind is a sentence, never an error.

    Args:
        directory: the release.
        asset: the face model; given, the meshes are computed again, too.
    """
    problems = verify_manifest(directory)
    try:
        info = read_info(directory)
    except DAMAGE as error:
        return [*problems, f"{error}"]
    release = _Release(directory, info, asset)
    files = problems_of(_files, release)
    problems += files
    checks = _CHECKS if files else (*_CHECKS, *_DATA_CHECKS)  # rows are looked at when their files can be read
    return problems + [problem for check in checks for problem in problems_of(check, release)]


def _files(release: _Release) -> Iterator[str]:
    """Every data file is there, with the columns and rows that info.json promises, and no other."""
    info = release.info
    for config, columns in info.columns.items():
        for split in info.rows:
            for path, rows in info.files(config, split).items():
                yield from _file(release.path(path), path.as_posix(), columns, rows)
    there = {path.relative_to(release.directory) for path in (release.directory / "data").rglob("*") if path.is_file()}
    yield from (f"{path.as_posix()}: not a file that meta/info.json knows." for path in
                sorted(there - set(info.data_files())))  # fmt: skip


def _file(path: Path, name: str, columns: tuple[Column, ...], rows: int) -> Iterator[str]:
    if not path.is_file():
        yield f"{name}: missing."
        return
    try:
        with pq.ParquetFile(path) as file:
            found, count = file.schema_arrow.remove_metadata(), file.metadata.num_rows
    except DAMAGE as error:
        yield f"{name}: not readable: {error}"
        return
    expected = arrow_schema(columns)
    if not found.equals(expected):
        yield f"{name}: its columns are not those of meta/info.json: {schema_difference(expected, found)}."
    if count != rows:
        yield f"{name}: {count} rows, meta/info.json says {rows}."


def _info(release: _Release) -> Iterator[str]:
    """What meta/info.json derives from the rest of it, and the default config that this version of the schema has."""
    info, stored = release.info, read_json(release.path(INFO))
    expected = info.to_json()
    for name in _DERIVED:
        if stored.get(name) != expected[name]:
            yield f"{INFO}: {name} is {stored.get(name)!r}, expected {expected[name]!r}."
    found = info.columns["coefficients"]
    known = coefficient_columns(info.n_shape, info.n_expression, {column.name for column in found})
    if arrow_schema(found) != arrow_schema(known):
        yield f"{INFO}: columns of coefficients: {schema_difference(arrow_schema(known), arrow_schema(found))}."


def _order(release: _Release) -> Iterator[str]:
    """Rows are sorted by item_id within a split, and no item occurs twice."""
    for split in release.info.rows:
        last = ""
        for table in release.pieces("coefficients", split, ["item_id", "split"]):
            ids = table["item_id"].to_pylist()
            if [last, *ids] != sorted([last, *ids]):
                yield f"{split}: rows are not sorted by item_id, first near {ids[0]}."
                break
            if set(table["split"].to_pylist()) != {split}:
                yield f"{split}: its files hold rows of another split, near {ids[0]}."
            last = ids[-1]
    counts = pc.value_counts(release.labels("coefficients", ["item_id"])["item_id"])
    twice = [value["values"] for value in counts.to_pylist() if value["counts"] > 1]
    if twice:
        yield f"item_id occurs more than once: {some(sorted(twice))}."


def _labels(release: _Release) -> Iterator[str]:
    """Labels, their codes, and their counts per category and level; the tags of every row."""
    info = release.info
    names = ["emotion", "emotion_code", "level", "topology", "basis"]
    groups = release.labels("coefficients", names).group_by(names).aggregate([([], "count_all")])
    known = {emotion.label: int(emotion) for emotion in Emotion}
    found: dict[str, dict[str, int]] = {}
    for emotion, code, level, topology, basis, count in sorted(
        map(tuple, zip(*groups.to_pydict().values(), strict=True)), key=str
    ):
        if known.get(emotion) != code or level not in LEVELS:
            yield f"emotion {emotion!r}, code {code!r}, level {level!r} do not belong together."
        if (topology, basis) != (info.topology, info.basis):
            yield f"{count} row(s) are of {topology}/{basis}, meta/info.json says {info.topology}/{info.basis}."
        levels = found.setdefault(emotion, {})
        levels[str(level)] = levels.get(str(level), 0) + count
    if found != {emotion: dict(levels) for emotion, levels in info.counts.items()}:
        yield f"items per emotion and level are {found}, meta/info.json says {info.counts}."


def _splits(release: _Release) -> Iterator[str]:
    """No photograph is in both splits."""
    there = {column.name for column in release.info.columns["coefficients"]}
    for name in ("source_id", "perceptual_hash"):
        if name in there:
            labels = release.labels("coefficients", ["item_id", "split", name])
            yield from split_leaks(labels, release.info.near_duplicate_bits)


def _numbers(release: _Release) -> Iterator[str]:
    """No number is infinite, and none is unknown that must be known."""
    columns = [column for column in release.info.columns["coefficients"] if column.is_numeric]
    free = {column.name for column in columns} - set(_COEFFICIENTS) if release.info.backend == IMPORTED else set()
    wrong: Counter[str] = Counter()
    for split in release.info.rows:
        for table in release.pieces("coefficients", split, [column.name for column in columns]):
            wrong.update(
                column.name
                for column in columns
                if not is_finite(table[column.name], may_be_unknown=column.name in free | _MAY_BE_UNKNOWN)
            )
    yield from (f"column {name} has numbers that are not finite." for name in sorted(wrong))


def _unknown(release: _Release) -> Iterator[str]:
    """Every text, flag and code is known; hashes alone may not be."""
    columns = release.info.columns["coefficients"]
    for name in (column.name for column in columns if not column.is_numeric and column.name != "perceptual_hash"):
        if count := release.labels("coefficients", [name])[name].null_count:
            yield f"column {name} is unknown in {count} row(s)."


def _statistics(release: _Release) -> Iterator[str]:
    """meta/stats.json says what the training rows say."""
    expected, found = release_stats(release.directory, release.info), read_json(release.path(STATS))
    for name in ("split", "rows"):
        if found.get(name) != expected[name]:
            yield f"{STATS}: {name} is {found.get(name)!r}, computed {expected[name]!r}."
    mine: Mapping[str, Any] = expected["columns"]  # pyright: ignore[reportAssignmentType]
    if sorted(found["columns"]) != sorted(mine):
        yield f"{STATS}: columns are {some(sorted(found['columns']))}, expected {some(sorted(mine))}."
    for name in sorted(set(mine) & set(found["columns"])):
        scale = np.abs(_plain(mine[name]["std"])) + np.abs(_plain(mine[name]["mean"]))
        for what in ("mean", "std", "min", "max", "count"):
            tolerance = _STATS_TOLERANCE * scale if what in ("mean", "std") else 0 * scale
            a, b = _plain(mine[name][what]), _plain(found["columns"][name].get(what))
            if a.shape != b.shape or not (np.abs(a - b) <= tolerance).all():
                yield f"{STATS}: {what} of {name} is not that of the rows."


def _plain(value: object) -> np.ndarray:
    """Numbers of json as an array; what is unknown as a number that nothing else equals."""
    array = np.atleast_1d(np.array(value, np.float64))
    return np.where(np.isnan(array), 1e300, array)


def _derived(release: _Release) -> Iterator[str]:
    """Meshes and pictures are of the same items, in the same order, as the coefficients."""
    keys = release.labels("coefficients", list(_KEYS))
    for config in release.info.columns:
        if config != "coefficients" and not release.labels(config, list(_KEYS)).equals(keys):
            yield f"config {config}: its items or their labels are not those of coefficients."


def _meshes(release: _Release) -> Iterator[str]:
    """Meshes are what the face model makes of the coefficients."""
    asset, info = release.asset, release.info
    configs = [config for config in info.columns if config.startswith("vertices")]
    if asset is None or not configs:
        return
    if (asset.topology, asset.basis) != (info.topology, info.basis):
        yield f"meshes are of {info.topology}/{info.basis}, the face model is {asset.topology}/{asset.basis}."
        return
    model = FaceModel(asset)
    for config in configs:
        largest = max(_mesh_error(release, model, config, split) for split in info.rows)
        limit = _MESH_TOLERANCE_M + (MAX_ERROR_M if config == "vertices_int16" else 0)
        if not largest <= limit:
            yield f"config {config}: a vertex is {largest:.2g} m from where coefficients put it (limit {limit:.2g})."


def _mesh_error(release: _Release, model: FaceModel, config: str, split: str) -> float:
    """Largest difference of a coordinate, metres."""
    name = release.info.columns[config][-1].name
    faces, meshes = release.rows("coefficients", split), release.rows(config, split)
    largest = 0.0
    for start in range(0, faces.count, ROW_GROUP[config]):
        places = np.arange(start, min(start + ROW_GROUP[config], faces.count))
        made = expressive_vertices(model, faces.take(places, _COEFFICIENTS))
        flat = meshes.take(places, [name])[name].combine_chunks().flatten().flatten()
        stored = flat.to_numpy(zero_copy_only=False).reshape(made.shape)
        difference = np.abs((from_steps(stored) if config == "vertices_int16" else stored) - made).max()
        largest = max(largest, np.inf if np.isnan(difference) else float(difference))
    return largest


def _topology(release: _Release) -> Iterator[str]:
    """meta/topology.npz is the one that info.json names, and its indices fit the meshes."""
    arrays = read_topology(release.path(TOPOLOGY))
    if topology_sha256(arrays) != release.info.topology_sha256:
        yield f"{TOPOLOGY}: its content differs from topology_sha256 in meta/info.json."
    for name, array in arrays.items():
        vertices = name == "faces" or name.startswith("region:")
        if vertices and array.size and not 0 <= array.min() <= array.max() < release.info.n_vertices:
            yield f"{TOPOLOGY}: {name} has indices outside the {release.info.n_vertices} vertices."


def _croissant(release: _Release) -> Iterator[str]:
    """croissant.json names the licence and lists every data file with its checksum."""
    content = read_json(release.path(CROISSANT))
    if content.get("license") != (licence := LICENCES[release.info.source]):
        yield f"{CROISSANT}: the licence is {content.get('license')!r}, expected {licence!r}."
    listed = {entry["contentUrl"]: entry.get("sha256") for entry in content["distribution"] if "contentUrl" in entry}
    for path in (*release.info.data_files(), STATS, TOPOLOGY):
        name = path.as_posix()
        if name not in listed:
            yield f"{CROISSANT}: {name} is not listed."
        elif release.path(path).is_file() and sha256_file(release.path(path)) != listed[name]:
            yield f"{CROISSANT}: the checksum of {name} is another."
    if missing := sorted(set(release.info.columns) - {record["@id"] for record in content["recordSet"]}):
        yield f"{CROISSANT}: no record set for {some(missing)}."


def _card(release: _Release) -> Iterator[str]:
    """README.md names the licence, the configs that exist, their files and their columns."""
    parts = re.split(r"^---$", release.path(CARD).read_text(encoding="utf-8"), maxsplit=2, flags=re.MULTILINE)
    facts = yaml.load(parts[1], Loader=yaml.SafeLoader)
    if facts.get("license") != (licence := texts_of(release.info).licence.split("\n")[0]):
        yield f"{CARD}: the licence is {facts.get('license')!r}, expected {licence!r}."
    configs = {entry["config_name"]: entry for entry in facts["configs"]}
    features = {entry["config_name"]: entry["features"] for entry in facts["dataset_info"]}
    for config in sorted(set(configs) ^ set(release.info.columns)):
        yield f"{CARD}: config {config} is {'not in' if config in configs else 'missing, though it is in'} the release."
    for config in (config for config in CONFIGS if config in configs and config in release.info.columns):
        names = [feature["name"] for feature in features.get(config, [])]
        if names != [column.name for column in release.info.columns[config]]:
            yield f"{CARD}: the features of config {config} are not its columns."
        for split in release.info.rows:
            patterns = [file["path"] for file in configs[config]["data_files"] if file["split"] == split]
            found = {path for pattern in patterns for path in release.directory.glob(pattern)}
            if found != {release.path(path) for path in release.info.files(config, split)}:
                yield f"{CARD}: the data files of config {config}, split {split}, are not those of the release."


_CHECKS: tuple[Check, ...] = (_info, _topology, _croissant, _card)
_DATA_CHECKS: tuple[Check, ...] = (_order, _labels, _splits, _numbers, _unknown, _statistics, _derived, _meshes)
