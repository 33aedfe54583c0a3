"""Numbers of a VOCATeeth: angles and lengths of its training clips, and a hash of every clip and subject.

The data are read once, one clip in memory at a time; of each clip its angles and hashes are kept (some 30 kB a minute).
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from ecavatar.emolib.topology import read_topology, topology_sha256
from ecavatar.errors import DataError
from ecavatar.storage.parquet import mesh_array, read_row_group, read_table
from ecavatar.vocateeth.dataset import FIT_COLUMNS, MOUTH, TOPOLOGY, TeethClip
from ecavatar.vocateeth.facts import SPLITS, UNUSED, Facts

STATS_SPLIT = "train"
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_DIGITS = 9  # of 17: the rest depends on the order in which a machine adds
_HASH_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipFrames:
    """One clip's row group of `faces` or `angles`."""

    clip: TeethClip
    rows: pa.Table
    """Every column but the meshes."""
    angles: Float[np.ndarray, " T"]
    vertices: Float[np.ndarray, "T V 3"] | None
    """None where the dataset has no meshes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipSound:
    """One clip's row of `audio`."""

    clip: TeethClip
    row: Mapping[str, object]
    samples: Int[np.ndarray, " S"]
    rate: int
    """Hertz."""

    @property
    def seconds(self) -> float:
        """How long it sounds."""
        return len(self.samples) / self.rate


@dataclass(slots=True)
class Totals:
    """What `stats_json` and `contents_json` need of the clips, gathered clip by clip."""

    angles: dict[str, Float[np.ndarray, " T"]] = field(default_factory=dict)
    """By clip id, of `STATS_SPLIT`."""
    sound_s: dict[str, float] = field(default_factory=dict)
    hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    """By clip id and column."""

    def add_frames(self, found: ClipFrames) -> None:
        """Count a clip's frames."""
        hashes = self.hashes.setdefault(found.clip.clip_id, {})
        hashes["angle"] = _hash(found.angles)
        if found.vertices is not None:
            hashes["vertices"] = _hash(found.vertices)
        if found.clip.split == STATS_SPLIT:
            self.angles[found.clip.clip_id] = found.angles

    def add_sound(self, found: ClipSound) -> None:
        """Count a clip's sound."""
        self.hashes.setdefault(found.clip.clip_id, {})["audio"] = _hash(found.samples, str(found.rate))
        self.sound_s[found.clip.clip_id] = found.seconds


def read_totals(directory: Path, facts: Facts) -> Totals:
    """`Totals` of all clips.

    Raises:
        AssetMissingError: a data file is missing.
        DataError: a data file is damaged.
    """
    totals = Totals()
    for frames in clip_frames(directory, facts):
        totals.add_frames(frames)
    for sound in clip_sounds(directory, facts):
        totals.add_sound(sound)
    return totals


def clip_frames(directory: Path, facts: Facts) -> Iterator[ClipFrames]:
    """The clips' row groups in stored order, one in memory at a time.

    Raises:
        AssetMissingError, DataError: a data file is missing or damaged.
    """
    table = facts.tables()[0]
    for clip, group in _groups(directory, table.paths, facts.clips):
        vertices = mesh_array(group["vertices"]) if facts.has_meshes else None
        rows = group.drop_columns(["vertices"]) if facts.has_meshes else group
        angles = group["angle"].to_numpy()
        yield ClipFrames(clip=clip, rows=rows, angles=angles.astype(np.float32, copy=False), vertices=vertices)


def clip_sounds(directory: Path, facts: Facts) -> Iterator[ClipSound]:
    """The clips' sounds in stored order, decoded one at a time; none where the dataset has no sound.

    Raises:
        AssetMissingError, DataError: a data file is missing or damaged.
    """
    if not facts.has_meshes:
        return
    paths = facts.table("audio").paths
    for clip, group in _groups(directory, paths, facts.clips):
        row = group.to_pylist()[0] if group.num_rows else {}
        samples, rate = _decoded(row, f"{paths[clip.part]}, row group {clip.row_group}")
        yield ClipSound(clip=clip, row=row, samples=samples, rate=rate)


def stats_json(facts: Facts, totals: Totals) -> dict[str, object]:
    """Content of stats.json: angles, lengths and counts of the training clips; counts of all splits."""
    clips = [clip for clip in facts.clips if clip.split == STATS_SPLIT]
    sounds = [totals.sound_s[clip.clip_id] for clip in clips if clip.clip_id in totals.sound_s]
    return {
        "split": STATS_SPLIT,
        "angle_rad": _numbers([totals.angles[clip.clip_id] for clip in clips]),
        "clip_s": _numbers([np.array([clip.frames / facts.fps for clip in clips])]),
        "sound_s": _numbers([np.array(sounds)]),
        "duration_mismatch_s": _numbers([np.array([clip.duration_mismatch_s for clip in clips])]),
        "splits": {name: _counts(facts, "" if name == UNUSED else name) for name in (*SPLITS, UNUSED)},
    }


def contents_json(directory: Path, facts: Facts, totals: Totals) -> dict[str, object]:
    """Content of contents.json: what another release is compared with, so that the data need not be fetched.

    Raises:
        AssetMissingError, DataError: a file beside the data is missing or damaged.
    """
    return {
        "clips": totals.hashes,
        "subjects": _subject_hashes(directory, facts),
        "tables": {
            table.name: {column.name: str(column.arrow_type) for column in table.columns} for table in facts.tables()
        },
        "mouth_sha256": topology_sha256(read_topology(directory / MOUTH)),
        "topology_sha256": topology_sha256(read_topology(directory / TOPOLOGY)),
    }


def _groups(directory: Path, paths: Sequence[str], clips: Sequence[TeethClip]) -> Iterator[tuple[TeethClip, pa.Table]]:
    for part, name in enumerate(paths):
        mine = [clip for clip in clips if clip.part == part]
        path = directory / name
        if not mine:
            continue
        read_row_group(path, 0, [])  # says with its path what is wrong with the file
        with pq.ParquetFile(path) as file:
            if file.num_row_groups != len(mine):
                raise DataError(f"{name}: {file.num_row_groups} row groups, info.json lists {len(mine)} clips.")
            for clip in mine:
                try:
                    yield clip, file.read_row_group(clip.row_group, use_threads=False)
                except (pa.ArrowException, OSError) as error:
                    raise DataError(f"{name}, row group {clip.row_group}: not readable: {error}") from None


def _decoded(row: Mapping[str, object], where: str) -> tuple[Int[np.ndarray, " S"], int]:
    import soundfile  # loads libsndfile; only when needed

    sound = row.get("audio")
    content = sound.get("bytes") if isinstance(sound, dict) else None
    if not isinstance(content, bytes):
        raise DataError(f"{where}: expected a row with the bytes of a sound. Run rig_mouths again.")
    try:
        samples, rate = soundfile.read(io.BytesIO(content), dtype="int16", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(f"{where}: the sound cannot be decoded: {error}. Run rig_mouths again.") from None
    if samples.shape[1] != 1 or not len(samples):
        raise DataError(f"{where}: expected one channel with samples, found shape {samples.shape}.")
    return samples[:, 0], int(rate)


def _subject_hashes(directory: Path, facts: Facts) -> dict[str, dict[str, str]]:
    table = facts.tables()[-1]
    rows = read_table(directory / table.paths[0], [column.name for column in table.columns])
    fits = [np.array(rows[name].to_pylist(), np.float64).reshape(rows.num_rows, -1) for name in FIT_COLUMNS]
    joined = np.concatenate(fits, axis=1)
    hashes = {subject: {"fit": _hash(joined[row])} for row, subject in enumerate(rows["subject"].to_pylist())}
    if facts.has_meshes:
        for subject, mesh in zip(hashes, mesh_array(rows["vertices"]), strict=True):
            hashes[subject]["vertices"] = _hash(mesh)
    return hashes


def _hash(array: np.ndarray, about: str = "") -> str:
    """Hexadecimal hash of values and length; -0 counts as 0."""
    values = array + array.dtype.type(0)
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    digest = hashlib.blake2b(f"{about} {little.shape}".encode(), digest_size=_HASH_BYTES)
    digest.update(little)
    return digest.hexdigest()


def _numbers(pieces: Sequence[Float[np.ndarray, " n"]]) -> dict[str, object]:
    """Count, mean, spread, range and quantiles; None without any value."""
    values = np.concatenate([*pieces, np.zeros(0)]).astype(np.float64)
    made: dict[str, Callable[[], float]] = {
        "mean": values.mean, "std": values.std, "min": values.min, "max": values.max
    }  # fmt: skip
    with np.errstate(invalid="ignore"):  # what is not finite is told by `verify_vocateeth`
        result: dict[str, object] = {name: _rounded(make()) if len(values) else None for name, make in made.items()}
        quantiles = np.quantile(values, _QUANTILES).tolist() if len(values) else [None] * len(_QUANTILES)
    return result | {
        "count": len(values),
        "quantiles": {f"{share:g}": _rounded(value) for share, value in zip(_QUANTILES, quantiles, strict=True)},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def _counts(facts: Facts, split: str) -> dict[str, object]:
    clips = [clip for clip in facts.clips if clip.split == split]
    frames = sum(clip.frames for clip in clips)
    return {
        "subjects": len({clip.subject for clip in clips}),
        "clips": len(clips),
        "frames": frames,
        "seconds": _rounded(frames / facts.fps),
    }
