"""VOCASET -> VOCATeeth, one part per subject; a part that is finished for the same input is not made again.

A subject is read twice, a clip at a time: first its frames are hashed and checked, then they are written. So memory
does not grow with the number of clips; it is that of one clip, some 20 MB for five seconds. A clip with vertices that
are not finite is a counted reject, named with its frame.

What a part was made from and what was found on the way (places, rejects, the mouth's fit) stands in the metadata of its
file; `finish_vocateeth` collects it, so subjects can be written by any number of threads or processes in any order.
"""

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from ecavatar.config import RigSettings
from ecavatar.corpora.vocaset import NATIVE_FPS, Vocaset, VocasetClip, first_bad_frame
from ecavatar.corpora.vocaset_checks import check_frame_rate, check_frames, check_templates
from ecavatar.emolib.topology import topology_arrays, write_topology
from ecavatar.errors import DataError, EcavatarError, SplitLeakError
from ecavatar.face.model import FaceAsset
from ecavatar.face.tags import require_vertex_order
from ecavatar.mouth.fit import MouthFit, fit_mouth
from ecavatar.mouth.model import MouthMesh
from ecavatar.mouth.penetration import Penetration, measure_penetration, outer_skin
from ecavatar.mouth.rig import ChinRig
from ecavatar.storage.files import clean_stale, is_temporary, write_json
from ecavatar.storage.full_disk import full_disk_told
from ecavatar.storage.manifest import MANIFEST_NAME, write_manifest
from ecavatar.storage.parquet import mesh_column, open_writer, table_metadata, write_table
from ecavatar.storage.rejects import Reject, check_rejects, write_rejects
from ecavatar.storage.shards import HASH_KEY, input_hash, list_shards, shard_path
from ecavatar.vocateeth.card import write_card
from ecavatar.vocateeth.dataset import (
    AUDIO,
    FACES,
    FIT_COLUMNS,
    FORMAT,
    FULL_SCALE,
    INFO,
    MOUTH,
    REJECTS,
    TEMPLATES,
    TOPOLOGY,
    TeethClip,
)
from ecavatar.vocateeth.face_rows import face_schema, face_table
from ecavatar.vocateeth.facts import CARD, CONTENTS, CROISSANT, STATS

STAGE = "rig_mouths"
_BLOCK = 64  # frames read at a time
_FOUND = "found"  # key of a part's metadata: json of what `finish_vocateeth` collects
_AUDIO_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("subject", pa.string()),
        ("split", pa.string()),
        ("sample_rate_hz", pa.int32()),
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    ]
)


def rig_folder(
    vocaset: Path,
    out: Path,
    asset: FaceAsset,
    settings: RigSettings,
    mouth: MouthMesh,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """VOCATeeth of the VOCASET in folder `vocaset`; parts that an earlier attempt finished are kept.

    Args:
        vocaset: see `Vocaset.open`.
        out: made if it is not there; may hold a VOCATeeth, finished or not, and nothing else.
        asset: the face model in whose vertex order the corpus is.
        settings: see `RigSettings`; `mouth` is not read.
        mouth: fitted to every subject.
        workers: threads; they change no byte.
        progress: told subjects done and subjects in all, at the start and after each.

    Returns:
        Counts: see `finish_vocateeth`.

    Raises:
        DataError: `out` holds something else, the disk is full, or see `write_subject` and `finish_vocateeth`.
        AssetMissingError, TopologyError, ShapeError: from opening and checking the corpus.
    """
    _require_own(out)
    corpus = Vocaset.open(vocaset)
    check_templates(corpus, asset)
    check_frames(corpus, asset)
    check_frame_rate(corpus)
    subjects = clear_leftovers(out, corpus)
    tell = progress or (lambda _done, _all: None)
    tell(0, len(subjects))
    told = full_disk_told(
        out, kept="finished subjects were kept", advice="Free space and run the same again, or give another place."
    )
    with told, ThreadPoolExecutor(workers) as pool:
        tasks = [pool.submit(write_subject, out, corpus, name, asset, mouth, settings) for name in subjects]
        try:
            for done, task in enumerate(as_completed(tasks), start=1):
                task.result()
                tell(done, len(subjects))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return finish_vocateeth(out, corpus, asset, mouth, settings)


def subjects_of(vocaset: Vocaset) -> list[str]:
    """Subjects with at least one usable clip, sorted: subject k becomes part k."""
    return sorted({clip.subject for clip in vocaset.clips})


def clear_leftovers(directory: Path, vocaset: Vocaset) -> list[str]:
    """Make `directory` ready for `write_subject`: all but finished parts of these subjects goes.

    Returns:
        The subjects, sorted.
    """
    subjects = subjects_of(vocaset)
    names = {shard_path(directory, index, len(subjects)).name for index in range(len(subjects))}
    clean_stale(directory, {FACES.parent.name})
    clean_stale(directory / FACES.parent, {FACES.name, AUDIO.name})
    for folder in (FACES, AUDIO):
        clean_stale(directory / folder, names)
    return subjects


def write_subject(
    directory: Path, vocaset: Vocaset, subject: str, asset: FaceAsset, mouth: MouthMesh, settings: RigSettings
) -> bool:
    """Write the parts of one subject, faces and sound, unless they are there already, made from the same input.

    Returns:
        True when they were computed.

    Raises:
        DataError: the subject is unknown, or no mouth fits its template.
        ShapeError: VOCASET's meshes do not have the asset's vertices.
        TopologyError: they are in another vertex order than the asset.
    """
    subjects = subjects_of(vocaset)
    if subject not in subjects:
        raise DataError(f"VOCASET has no usable clip of {subject!r}; its subjects: {', '.join(subjects)}.")
    template = vocaset.templates[subject]
    require_vertex_order(asset, template, f"VOCASET's template of {subject}")
    seen = [_look(vocaset, clip, settings) for clip in vocaset.clips if clip.subject == subject]
    digest = _digest(asset, mouth, settings, template, seen)
    faces, audio = (shard_path(directory / kind, subjects.index(subject), len(subjects)) for kind in (FACES, AUDIO))
    if _is_finished(faces, digest) and _is_finished(audio, digest):
        return False
    fit = fit_mouth(mouth, template, asset)
    penetration = measure_penetration(template, outer_skin(asset), fit.closed(mouth))
    texts = {"topology": asset.topology, "fps": str(settings.fps), "subject": subject, HASH_KEY: digest}
    usable = [clip for clip in seen if clip.broken_frame is None]
    _write_audio(audio, vocaset, usable, texts)
    found = json.dumps(_found(vocaset, seen, fit, penetration, settings), sort_keys=True)
    _write_faces(faces, vocaset, usable, ChinRig.fit(template, asset, settings), settings, texts | {_FOUND: found})
    return True


def finish_vocateeth(
    directory: Path, vocaset: Vocaset, asset: FaceAsset, mouth: MouthMesh, settings: RigSettings
) -> dict[str, int]:
    """Write everything beside the parts: mouth, topology, templates, rejects, info, card and manifest.

    Returns:
        Counts for the log: subjects, clips, frames, rejects, missing.

    Raises:
        SplitLeakError: a subject has clips in two of train, val and test.
        DataError: parts are missing, more clips were rejected than `max_rejects` allows, or all were.
    """
    subjects = subjects_of(vocaset)
    found = dict(zip(subjects, _collect(directory, subjects), strict=True))
    rejects = [*vocaset.rejects, *(Reject(**reject) for facts in found.values() for reject in facts["rejects"])]
    check_rejects(rejects, len(vocaset.clips) + len(vocaset.rejects), settings.max_rejects, STAGE)
    clips = [TeethClip(**clip, part=part) for part, facts in enumerate(found.values()) for clip in facts["clips"]]
    if not clips:
        first = f"{rejects[0].item_id}: {rejects[0].detail}"
        raise DataError(f"{vocaset.root}: expected clips, all were rejected, the first {first}. Unpack VOCASET again.")
    mouth.save(directory / MOUTH)
    write_topology(directory / TOPOLOGY, joined_topology(asset, mouth), f"{asset.topology}+mouth")
    _write_templates(directory / TEMPLATES, vocaset, found, _split_by_subject(clips))
    write_rejects(directory / REJECTS, rejects)
    counts = {
        "subjects": len(subjects),
        "clips": len(clips),
        "frames": sum(clip.frames for clip in clips),
        "rejects": len(rejects),
        "missing": len(vocaset.missing),
    }
    facts = {
        "format": FORMAT,
        "topology": asset.topology,
        "vertices": {"face": asset.n_vertices, "mouth": len(mouth.vertices)},
        "triangles": {"face": len(asset.faces), "mouth": len(mouth.faces)},
        "fps": settings.fps,
        "native_fps": NATIVE_FPS,
        "patch_mm": settings.patch_mm,
        "mouth": {"name": mouth.name, "licence": mouth.licence},
        "parts": len(subjects),
        "counts": counts,
        "missing": list(vocaset.missing),
        "rejected": sorted(reject.item_id for reject in rejects),
        "audio_rounded": sorted(clip_id for facts in found.values() for clip_id in facts["audio_rounded"]),
    }
    write_json(directory / INFO, facts | {"clips": [dataclasses.asdict(clip) for clip in clips]})
    write_card(directory)
    write_manifest(directory, {"format": FORMAT, "topology": asset.topology, "counts": counts})
    return counts


def joined_topology(asset: FaceAsset, mouth: MouthMesh) -> dict[str, np.ndarray]:
    """As `topology_arrays` of the face, with the mouth's triangles after the face's, and its part of each vertex.

    Besides `faces` and `region:NAME`: `mouth_part` and `mouth_tooth` (M,), see `MouthMesh`; with free texture
    coordinates, those of the mouth follow those of the face.
    """
    arrays = topology_arrays(asset)
    joined = {"faces": np.concatenate([arrays["faces"], mouth.faces + asset.n_vertices])}
    joined |= {"mouth_part": mouth.part, "mouth_tooth": mouth.tooth}
    if "uv" in arrays:
        joined["uv"] = np.concatenate([arrays["uv"], mouth.uv])
        joined["uv_faces"] = np.concatenate([arrays["uv_faces"], mouth.faces + len(arrays["uv"])])
    return arrays | joined


def pcm16(samples: Float[np.ndarray, " S"]) -> tuple[Int[np.ndarray, " S"], bool]:
    """Samples in -1..1 as int16, and whether that changes any of them; never for a corpus of 16-bit sound."""
    steps = np.clip(np.rint(samples.astype(np.float64) * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1)
    return steps.astype(np.int16), not np.array_equal(steps, samples.astype(np.float64) * FULL_SCALE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the first reading of a clip tells."""

    clip: VocasetClip
    frames: int
    digest: str
    """Of vertices and sound."""
    broken_frame: int | None
    """First one with vertices that are not finite."""
    is_audio_rounded: bool


def _look(vocaset: Vocaset, clip: VocasetClip, settings: RigSettings) -> _Seen:
    digest, frames, broken = hashlib.sha256(), 0, None
    for block in vocaset.chunks(clip, settings.fps, _BLOCK):
        bad = first_bad_frame(block) if broken is None else None
        broken = broken if bad is None else frames + bad
        digest.update(np.ascontiguousarray(block, dtype="<f4"))
        frames += len(block)
    samples, rate = vocaset.audio(clip)
    steps, is_rounded = pcm16(samples)
    digest.update(input_hash(steps, rate).encode())
    return _Seen(
        clip=clip, frames=frames, digest=digest.hexdigest(), broken_frame=broken, is_audio_rounded=is_rounded
    )  # fmt: skip


def _digest(
    asset: FaceAsset, mouth: MouthMesh, settings: RigSettings, template: np.ndarray, seen: Sequence[_Seen]
) -> str:
    face = [asset.topology, asset.template, asset.faces, asset.skinning, dict(asset.regions)]
    clips = [[one.clip.clip_id, one.clip.split, one.frames, one.digest] for one in seen]
    arrays = [mouth.vertices, mouth.faces, mouth.part, mouth.tooth]
    return input_hash(FORMAT, settings.fps, settings.patch_mm, face, arrays, template, clips)


def _found(
    vocaset: Vocaset, seen: Sequence[_Seen], fit: MouthFit, penetration: Penetration, settings: RigSettings
) -> dict[str, Any]:  # Any: json values
    """What a part tells `finish_vocateeth`."""
    usable = [one for one in seen if one.broken_frame is None]
    broken = [(one.clip.clip_id, one.broken_frame) for one in seen if one.broken_frame is not None]
    return {
        "clips": [
            {
                "clip_id": one.clip.clip_id,
                "subject": one.clip.subject,
                "sentence": one.clip.sentence,
                "split": one.clip.split,
                "row_group": group,
                "frames": one.frames,
                "duration_mismatch_s": round(float(vocaset.duration_mismatch(one.clip)), 6),
            }
            for group, one in enumerate(usable)
        ],
        "rejects": [
            dataclasses.asdict(
                Reject(clip_id, STAGE, "not_finite", f"frame {frame} at {settings.fps} frames a second is not finite")
            )
            for clip_id, frame in broken
        ],
        "audio_rounded": [one.clip.clip_id for one in usable if one.is_audio_rounded],
        "fit": {
            "mouth_scale": float(fit.scale),
            "mouth_rotation": np.asarray(fit.rotation, dtype=np.float64).ravel().tolist(),
            "mouth_translation": np.asarray(fit.translation, dtype=np.float64).tolist(),
            "jaw_axis": np.asarray(fit.axis, dtype=np.float64).tolist(),
            "jaw_pivot": np.asarray(fit.pivot, dtype=np.float64).tolist(),
        },
        "penetration": {
            "penetration_deepest_m": float(penetration.deepest_m),
            "penetration_vertices": int(penetration.vertices),
        },
    }


def _write_faces(
    path: Path, vocaset: Vocaset, seen: Sequence[_Seen], rig: ChinRig, settings: RigSettings, texts: dict[str, str]
) -> None:
    schema = face_schema(rig.n_vertices)
    with open_writer(path, schema, texts) as writer:
        for one in seen:
            vertices = np.concatenate(list(vocaset.chunks(one.clip, settings.fps, _BLOCK)))
            table = face_table(one.clip, rig.angles(vertices), vertices, schema)
            writer.write_table(table, row_group_size=len(vertices))


def _write_audio(path: Path, vocaset: Vocaset, seen: Sequence[_Seen], texts: dict[str, str]) -> None:
    with open_writer(path, _AUDIO_SCHEMA, texts) as writer:
        for one in seen:
            samples, rate = vocaset.audio(one.clip)
            sound = {"bytes": _flac(pcm16(samples)[0], rate), "path": f"{one.clip.clip_id}.flac"}
            row = {"clip_id": one.clip.clip_id, "subject": one.clip.subject, "split": one.clip.split}
            table = pa.Table.from_pylist([row | {"sample_rate_hz": rate, "audio": sound}], schema=_AUDIO_SCHEMA)
            writer.write_table(table)


def _flac(samples: Int[np.ndarray, " S"], rate: int) -> bytes:
    import soundfile  # loads libsndfile; only when needed

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _is_finished(path: Path, digest: str) -> bool:
    if not path.is_file():
        return False
    try:
        return table_metadata(path).get(HASH_KEY) == digest
    except EcavatarError:  # damaged from outside: make it anew
        return False


def _collect(directory: Path, subjects: Sequence[str]) -> list[dict[str, Any]]:  # Any: json values
    """What was found in the parts, in their order."""
    faces, audio = list_shards(directory / FACES), list_shards(directory / AUDIO)
    if not len(faces) == len(audio) == len(subjects):
        raise DataError(
            f"{directory} has {len(faces)} parts of faces and {len(audio)} of sound for {len(subjects)} subjects. "
            "Write the missing ones first."
        )
    texts = [table_metadata(path) for path in faces]
    wrong = [path for path, text, name in zip(faces, texts, subjects, strict=True) if text.get("subject") != name]
    if wrong:
        raise DataError(f"{wrong[0]} is not of the subject in its place. Remove {directory} and run {STAGE} again.")
    return [json.loads(text[_FOUND]) for text in texts]


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


def _write_templates(path: Path, vocaset: Vocaset, found: dict[str, dict[str, Any]], splits: dict[str, str]) -> None:
    fits = [facts["fit"] for facts in found.values()]
    penetrations = [facts["penetration"] for facts in found.values()]
    columns: dict[str, pa.Array] = {
        "subject": pa.array(list(found), pa.string()),
        "split": pa.array([splits.get(subject, "") for subject in found], pa.string()),
        "vertices": mesh_column(np.stack([vocaset.templates[subject] for subject in found])),
    }
    for name, count in FIT_COLUMNS.items():
        kind = pa.float64() if count == 1 else pa.list_(pa.float64(), count)
        columns[name] = pa.array([fit[name] for fit in fits], kind)
    columns["penetration_deepest_m"] = pa.array([one["penetration_deepest_m"] for one in penetrations], pa.float64())
    columns["penetration_vertices"] = pa.array([one["penetration_vertices"] for one in penetrations], pa.int32())
    write_table(path, pa.table(columns))


def _require_own(out: Path) -> None:
    """Nothing but a VOCATeeth may lie where one is to be written: what does not belong to it would be removed."""
    if not out.exists():
        return
    own = {FACES.parent.name, INFO, TEMPLATES, REJECTS, MOUTH, TOPOLOGY, MANIFEST_NAME}
    own |= {CARD, STATS, CONTENTS, CROISSANT}
    names = {entry.name for entry in out.iterdir()} if out.is_dir() else {out.name}
    others = sorted(name for name in names - own if not is_temporary(name))
    if others:
        raise DataError(f"{out} holds {others[0]}, which is no part of a VOCATeeth. Name a new or an empty folder.")
