"""VOCATeeth: every VOCASET frame as its face vertices and one jaw angle.

The mouth is rigid per part, so the angle says where teeth and tongue are; their vertices are a cheap function of it and
are not stored. Sound stays in the raw corpus. On disk:

* `part-*.parquet`, one per subject: clip_id, subject, sentence, split, frame, angle, vertices [V][3]; clips one after
  the other, frames in order, so a clip is a run of rows and reads alone by its row groups.
* `templates.parquet`: subject, split, vertices [V][3].
* `rejects.parquet`: clips that cannot be used, with the reason.
* `info.json`: topology, frames per second, clips with their place, counts, clips that the corpus lacks.
* `MANIFEST.json`: checksums.

Source:
    The ECAvatar paper, section 3.4.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from ecavatar.config import RigSettings
from ecavatar.corpora.vocaset import NATIVE_FPS, Vocaset, VocasetClip, vocaset_splits
from ecavatar.errors import DataError, SplitLeakError, TopologyError
from ecavatar.face.model import FaceAsset
from ecavatar.face.tags import require_vertex_order
from ecavatar.mouth.rig import ChinRig
from ecavatar.storage.files import read_json, sha256_file, write_json
from ecavatar.storage.manifest import write_manifest
from ecavatar.storage.parquet import mesh_array, mesh_column, read_row_group, read_table, write_table
from ecavatar.storage.rejects import check_rejects, write_rejects
from ecavatar.storage.shards import input_hash, list_shards, shard_path, write_shard

STAGE = "rig_mouths"
_FORMAT = "vocateeth-1"
_GROUP = 64  # rows of a row group: write_shard's default
_INFO, _TEMPLATES, _REJECTS = "info.json", "templates.parquet", "rejects.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class TeethClip:
    """One sentence of one subject and where it lies."""

    clip_id: str
    subject: str
    sentence: str
    split: str
    """train, val, test, or empty for a clip that VOCA uses in none."""
    part: int
    """Index of its part file."""
    first_row: int
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VocaTeeth:
    """An opened VOCATeeth; vertices stay on disk until asked for."""

    directory: Path
    topology: str
    fps: int
    clips: tuple[TeethClip, ...]
    """Sorted by part and first row."""
    parts: tuple[Path, ...]

    @classmethod
    def open(cls, directory: Path) -> "VocaTeeth":
        """The dataset in `directory`.

        Raises:
            AssetMissingError: it is not there.
            DataError: it is of another format, or parts are missing.
        """
        info = read_json(Path(directory) / _INFO)
        if info.get("format") != _FORMAT:
            raise DataError(
                f"{directory}: expected format {_FORMAT}, found {info.get('format')!r}. Run rig_mouths again."
            )
        clips = tuple(TeethClip(**clip) for clip in info["clips"])
        parts = tuple(list_shards(Path(directory)))
        if len(parts) != info["parts"]:
            raise DataError(
                f"{directory} has {len(parts)} parts, info.json says {info['parts']}. Run rig_mouths again."
            )
        return cls(directory=Path(directory), topology=info["topology"], fps=info["fps"], clips=clips, parts=parts)

    def require_topology(self, topology: str) -> None:
        """Check that the vertices have this order.

        Raises:
            TopologyError: they have another.
        """
        if topology != self.topology:
            raise TopologyError(f"{self.directory} holds {self.topology} meshes, the face model is {topology}.")

    def of_split(self, split: str) -> tuple[TeethClip, ...]:
        """The clips of train, val or test, in stored order.

        Raises:
            DataError: the split has none.
        """
        clips = tuple(clip for clip in self.clips if clip.split == split)
        if not clips:
            counts = dict(Counter(clip.split or "unused" for clip in self.clips))
            raise DataError(f"{self.directory} has no clip in split {split!r}; clips by split: {counts}.")
        return clips

    def vertices(self, clip: TeethClip) -> Float[np.ndarray, "T V 3"]:
        """Face vertices of a clip, float32 metres."""
        return mesh_array(self._rows(clip, "vertices"))

    def angles(self, clip: TeethClip) -> Float[np.ndarray, " T"]:
        """Jaw angle of each frame, float32 radians, positive open."""
        return self._rows(clip, "angle").to_numpy()

    def templates(self) -> dict[str, Float[np.ndarray, "V 3"]]:
        """Neutral closed-mouth face of each subject, float32 metres."""
        table = read_table(self.directory / _TEMPLATES)
        return dict(zip(table["subject"].to_pylist(), mesh_array(table["vertices"]), strict=True))

    def fingerprint(self) -> str:
        """Hash of the whole dataset: of the manifest, which holds every file's checksum."""
        return sha256_file(self.directory / "MANIFEST.json")

    def _rows(self, clip: TeethClip, column: str) -> pa.ChunkedArray:
        first, last = clip.first_row // _GROUP, (clip.first_row + clip.frames - 1) // _GROUP
        groups = [read_row_group(self.parts[clip.part], group, [column]) for group in range(first, last + 1)]
        return pa.concat_tables(groups)[column].slice(clip.first_row - first * _GROUP, clip.frames)


def subjects_of(vocaset: Vocaset) -> list[str]:
    """Subjects with at least one usable clip, sorted: subject k becomes part k."""
    return sorted({clip.subject for clip in vocaset.clips})


def write_subject(directory: Path, vocaset: Vocaset, subject: str, asset: FaceAsset, settings: RigSettings) -> bool:
    """Write the part of one subject unless it is there already, made from the same input.

    Returns:
        True when it was computed.

    Raises:
        DataError: the subject is unknown, or its meshes are broken.
        ShapeError: VOCASET's meshes do not have the asset's vertices.
        TopologyError: they are in another vertex order than the asset.
    """
    subjects = subjects_of(vocaset)
    if subject not in subjects:
        raise DataError(f"VOCASET has no usable clip of {subject!r}; its subjects: {', '.join(subjects)}.")
    clips = [clip for clip in vocaset.clips if clip.subject == subject]
    template = vocaset.templates[subject]
    require_vertex_order(asset, template, f"VOCASET's template of {subject}")
    rig = ChinRig.fit(template, asset, settings)
    frames = [vocaset.vertices(clip, settings.fps) for clip in clips]
    names = [[clip.clip_id, clip.split] for clip in clips]
    digest = input_hash(_FORMAT, settings, asset.topology, rig.chin, rig.ear, template, names, frames)
    path = shard_path(directory, subjects.index(subject), len(subjects))
    metadata = {"topology": asset.topology, "fps": str(settings.fps), "subject": subject}
    return write_shard(path, digest, lambda: _subject_table(clips, frames, rig), metadata)


def finish_vocateeth(directory: Path, vocaset: Vocaset, asset: FaceAsset, settings: RigSettings) -> dict[str, int]:
    """Write everything beside the parts: templates, rejects, info and manifest.

    Returns:
        Counts for the log: subjects, clips, frames, rejects, missing.

    Raises:
        SplitLeakError: a subject has clips in two of train, val and test.
        DataError: parts are missing, or more clips were rejected than `max_rejects` allows.
    """
    check_rejects(vocaset.rejects, len(vocaset.clips) + len(vocaset.rejects), settings.max_rejects, STAGE)
    clips = _placed(vocaset, settings)
    missing = missing_clips(vocaset)
    _write_templates(directory / _TEMPLATES, vocaset, _split_by_subject(clips))
    write_rejects(directory / _REJECTS, vocaset.rejects)
    counts = {
        "subjects": len(subjects_of(vocaset)),
        "clips": len(clips),
        "frames": sum(clip.frames for clip in clips),
        "rejects": len(vocaset.rejects),
        "missing": len(missing),
    }
    facts = {
        "format": _FORMAT,
        "topology": asset.topology,
        "fps": settings.fps,
        "native_fps": NATIVE_FPS,
        "parts": len(list_shards(directory)),
        "counts": counts,
        "missing": missing,
        "rejected": sorted(reject.item_id for reject in vocaset.rejects),
    }
    write_json(directory / _INFO, facts | {"clips": [dataclasses.asdict(clip) for clip in clips]})
    write_manifest(directory, {"format": _FORMAT, "topology": asset.topology, "counts": counts})
    return counts


def missing_clips(vocaset: Vocaset) -> list[str]:
    """Sentences that another subject of the same set has and this one lacks altogether, as clip ids, sorted."""
    set_of = {subject: name for name, split in vocaset_splits().items() for subject in split.subjects}
    present: dict[str, set[str]] = {}
    for clip_id in [clip.clip_id for clip in vocaset.clips] + [reject.item_id for reject in vocaset.rejects]:
        subject, _, sentence = clip_id.rpartition("_")
        present.setdefault(subject, set()).add(sentence)
    missing = []
    for subject, sentences in present.items():
        peers = (present[other] for other in present if set_of.get(other) == set_of.get(subject))
        missing += [f"{subject}_{sentence}" for sentence in set().union(*peers) - sentences]
    return sorted(missing)


def _subject_table(clips: Sequence[VocasetClip], frames: Sequence[np.ndarray], rig: ChinRig) -> pa.Table:
    counts = [len(meshes) for meshes in frames]
    vertices = np.concatenate(list(frames))

    def repeated(values: Iterable[str]) -> pa.Array:
        return pa.array(np.repeat(np.array(list(values), dtype=object), counts), pa.string())

    return pa.table(
        {
            "clip_id": repeated(clip.clip_id for clip in clips),
            "subject": repeated(clip.subject for clip in clips),
            "sentence": repeated(clip.sentence for clip in clips),
            "split": repeated(clip.split for clip in clips),
            "frame": pa.array(_frame_numbers(counts), pa.int32()),
            "angle": pa.array(rig.angles(vertices).astype(np.float32)),
            "vertices": mesh_column(vertices),
        }
    )


def _frame_numbers(counts: Sequence[int]) -> Int[np.ndarray, " n"]:
    return np.concatenate([np.arange(count, dtype=np.int32) for count in counts])


def _placed(vocaset: Vocaset, settings: RigSettings) -> list[TeethClip]:
    """Every clip with its part and first row, as `write_subject` lays them out."""
    placed = []
    for part, subject in enumerate(subjects_of(vocaset)):
        row = 0
        for clip in vocaset.clips:
            if clip.subject != subject:
                continue
            frames = len(clip.rows[:: NATIVE_FPS // settings.fps])
            names = {"clip_id": clip.clip_id, "subject": subject, "sentence": clip.sentence, "split": clip.split}
            placed.append(TeethClip(**names, part=part, first_row=row, frames=frames))
            row += frames
    return placed


def _split_by_subject(clips: Sequence[TeethClip]) -> dict[str, str]:
    splits: dict[str, str] = {}
    for clip in clips:
        known = splits.setdefault(clip.subject, clip.split)
        if clip.split and known and clip.split != known:
            raise SplitLeakError(
                f"{clip.subject} has clips in {known} and in {clip.split}; a subject is in one set only."
            )
        splits[clip.subject] = clip.split or known
    return splits


def _write_templates(path: Path, vocaset: Vocaset, splits: dict[str, str]) -> None:
    subjects = sorted(splits)
    columns = {
        "subject": pa.array(subjects, pa.string()),
        "split": pa.array([splits[subject] for subject in subjects], pa.string()),
        "vertices": mesh_column(np.stack([vocaset.templates[subject] for subject in subjects])),
    }
    write_table(path, pa.table(columns))
