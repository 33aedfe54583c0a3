"""Emolib, from AffectNet's lists to a release: `python -m flows.emolib <stage> --profile sample`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from prefect import flow

from ecavatar.corpora import mead, ravdess
from ecavatar.corpora.affectnet import read_annotations
from ecavatar.corpora.clips import SpeechClip
from ecavatar.emolib.dataset import write_emolib
from ecavatar.emolib.selection import ImageCheck, inspect_images, select
from ecavatar.emotion import Emotion
from ecavatar.errors import DataError
from ecavatar.face.model import FaceAsset
from ecavatar.reconstruction.images import Rgb
from ecavatar.reconstruction.landmarks import FaceLandmarker, find_model_file
from ecavatar.reconstruction.table import ReadRecord, Reconstructor, read_record_image
from ecavatar.rendering.video import read_frames
from ecavatar.storage.files import atomic_path, clean_stale, resolve_inside, sha256_file, write_json
from ecavatar.storage.parquet import read_table, table_metadata, write_table
from ecavatar.storage.rejects import Reject, check_rejects, read_rejects, write_rejects
from ecavatar.storage.shards import input_hash, list_shards, read_shards, shard_path, split_rows, write_shard
from flows._run import main, seed, shard_task, stage_settings, wait_all, workers
from flows.paths import ProfilePaths

LISTS = {"emolib": "index.parquet", "pool": "pool.parquet"}
"""Directory below faces/ and the selection's list that it is made from."""


@flow(name="select_images")
def select_images(profile: str) -> str:
    """Draw Emolib's images and FuNet's pool from AffectNet's lists."""
    paths, settings = ProfilePaths(profile), stage_settings(profile).select
    annotations = read_annotations(paths.affectnet)
    selection = select(annotations.table, paths.affectnet, settings, seed(), _inspect_in_parallel)
    rejects = [*annotations.rejects, *selection.rejects]
    check_rejects(rejects, selection.examined + len(annotations.rejects), settings.max_rejects, "select_images")
    with atomic_path(paths.selection) as directory:
        write_table(directory / "index.parquet", pa.Table.from_pandas(selection.index, preserve_index=False))
        write_table(directory / "pool.parquet", pa.Table.from_pandas(selection.pool, preserve_index=False))
        write_rejects(directory / "rejects.parquet", rejects)
        write_json(directory / "levels.json", selection.levels)
    return f"{len(selection.index)} images for Emolib, {len(selection.pool)} for the pool, {len(rejects)} rejects"


@flow(name="reconstruct_faces")
def reconstruct_faces(profile: str) -> str:
    """Find the face of every selected image and of every speaker's portrait."""
    paths, settings = ProfilePaths(profile), stage_settings(profile).reconstruct
    find_model_file()  # a missing package is told once, before the shards start
    tables = {name: read_table(paths.selection / file) for name, file in LISTS.items()}
    counts = {name: len(split_rows(table.num_rows, settings.shards)) for name, table in tables.items()}
    _clean(paths.faces, counts)
    shards = [
        reconstruct_shard.submit(profile, name, index, count)
        for name, count in counts.items()
        for index in range(count)
    ]
    wait_all([*shards, reconstruct_portraits.submit(profile)])
    rejects = [Reject(*row) for path in sorted((paths.faces / "rejects").iterdir())
               for row in read_rejects(path).itertuples(index=False)]  # fmt: skip
    faces = sum(read_shards(paths.faces / name, ["item_id"]).num_rows for name in LISTS)
    portraits = read_table(paths.faces / "portraits.parquet", ["item_id"]).num_rows
    check_rejects(rejects, faces + portraits + len(rejects), settings.max_rejects, "reconstruct_faces")
    write_rejects(paths.faces / "rejects.parquet", rejects)
    return f"{faces} faces, {portraits} portraits, {len(rejects)} rejects"


@flow(name="export_emolib")
def export_emolib(profile: str) -> str:
    """Write the Emolib release from its reconstructed faces."""
    paths, shards = ProfilePaths(profile), list_shards(ProfilePaths(profile).faces / "emolib")
    select, reconstruct = stage_settings(profile).select, stage_settings(profile).reconstruct
    info = write_emolib(
        paths.emolib,
        shards,
        asset=FaceAsset.load(paths.face_model),
        backend=table_metadata(shards[0])["backend"],
        settings=stage_settings(profile).export,
        read_image_bytes=lambda record: resolve_inside(paths.affectnet, str(record["path"])).read_bytes(),
        source="sample" if profile == "sample" else "affectnet",  # who took the pictures decides the licence
        near_duplicate_bits=select.near_duplicate_bits,
        made_with={
            "select_images": select.model_dump(include={"per_level", "levels", "near_duplicate_bits"}),
            "reconstruct_faces": reconstruct.model_dump(include={"backend", "max_residual_mm", "alignment"}),
        },
    )
    return f"{info.total} faces in {len(info.counts)} categories"


@shard_task(name="inspect_shard")
def inspect_shard(paths: Sequence[Path]) -> list[ImageCheck]:
    """Open some images."""
    return inspect_images(paths)


@shard_task(name="reconstruct_shard")
def reconstruct_shard(profile: str, name: str, index: int, count: int) -> None:
    """Reconstruct part `index` of `count` of the list `name`."""
    paths = ProfilePaths(profile)
    table = read_table(paths.selection / LISTS[name])
    rows = split_rows(table.num_rows, count)[index]
    _write_faces(
        profile,
        table.slice(rows.start, len(rows)),
        read_record_image(paths.affectnet),
        shard_path(paths.faces / name, index, count),
        _rejects_file(paths.faces, name, index),
    )


@shard_task(name="reconstruct_portraits")
def reconstruct_portraits(profile: str) -> None:
    """Reconstruct each speaker from the first frame of their first neutral film."""
    paths = ProfilePaths(profile)
    clips = _portrait_clips([*ravdess.list_clips(paths.ravdess), *mead.list_clips(paths.mead)])
    films = {f"{clip.corpus}_{clip.subject}": clip.video for clip in clips if clip.video is not None}
    records = {
        "item_id": list(films),
        "corpus": [clip.corpus for clip in clips],
        "subject": [clip.subject for clip in clips],
        "clip_id": [clip.clip_id for clip in clips],
        "content_sha256": [sha256_file(film) for film in films.values()],
    }
    schema = pa.schema([(name, pa.string()) for name in records])
    faces, rejects = paths.faces / "portraits.parquet", paths.faces / "rejects" / "portraits.parquet"
    _write_faces(profile, pa.table(records, schema), lambda record: _first_frame(films[str(record["item_id"])]), faces,
                 rejects)  # fmt: skip


def _portrait_clips(clips: Sequence[SpeechClip]) -> list[SpeechClip]:
    """Each speaker's first neutral film, sorted by corpus and speaker."""
    first: dict[tuple[str, str], SpeechClip] = {}
    for clip in sorted(clips, key=lambda clip: clip.clip_id):
        if clip.emotion is Emotion.NEUTRAL and clip.video is not None:
            first.setdefault((clip.corpus, clip.subject), clip)
    return [first[speaker] for speaker in sorted(first)]


def _first_frame(film: Path) -> Rgb:
    frame = next(iter(read_frames(film)), None)
    if frame is None:
        raise DataError(f"{film} holds no frame; copy the file again.")
    return frame


def _write_faces(profile: str, records: pa.Table, read: ReadRecord, out: Path, rejects_out: Path) -> None:
    """Faces of `records` to `out`; rejects are written before the faces, so finished faces have theirs."""
    face_model, settings = ProfilePaths(profile).face_model, stage_settings(profile).reconstruct
    reconstructor = Reconstructor(FaceAsset.load(face_model), settings)

    def make() -> pa.Table:
        with FaceLandmarker() as landmarker:
            faces = reconstructor.faces(records, read, landmarker)
        write_rejects(rejects_out, faces.rejects)
        return faces.table

    what_matters = settings.model_dump(exclude={"shards", "max_rejects"})
    made_from = input_hash(records.to_pylist(), what_matters, face_model)
    write_shard(out, made_from, make, reconstructor.tags)


def _inspect_in_parallel(paths: Sequence[Path]) -> list[ImageCheck]:
    """`inspect_images` in one task per worker; few images are not worth a task each."""
    ranges = split_rows(len(paths), workers())
    futures = [inspect_shard.submit(paths[rows.start : rows.stop]) for rows in ranges]
    return [check for checks in wait_all(futures) for check in checks]


def _clean(faces: Path, counts: Mapping[str, int]) -> None:
    """Remove what an earlier run with other numbers left beside the parts of this one."""
    for name, count in counts.items():
        clean_stale(faces / name, {shard_path(faces / name, index, count).name for index in range(count)})
    kept = {_rejects_file(faces, name, index).name for name, count in counts.items() for index in range(count)}
    clean_stale(faces / "rejects", kept | {"portraits.parquet"})


def _rejects_file(faces: Path, name: str, index: int) -> Path:
    return faces / "rejects" / f"{name}-{index:05d}.parquet"


if __name__ == "__main__":
    main(select_images, reconstruct_faces, export_emolib)
