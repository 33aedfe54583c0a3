"""Emolib, from AffectNet's lists to a release: `python -m flows.emolib <stage> --profile sample`."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from prefect import flow

from ecavatar.config import ReconstructSettings
from ecavatar.corpora import mead, ravdess
from ecavatar.corpora.clips import SpeechClip
from ecavatar.emolib.dataset import write_emolib
from ecavatar.emolib.draw import ImageCheck, inspect_images
from ecavatar.emolib.redraw import EMOLIB, NOT_HASHED, WORK, Filling, fill_lists, merge_rounds, reconstruct_part
from ecavatar.emolib.selection import POOL, select_folder
from ecavatar.emotion import Emotion
from ecavatar.errors import DataError
from ecavatar.face.model import FaceAsset
from ecavatar.reconstruction.images import Rgb
from ecavatar.reconstruction.landmarks import FaceLandmarker, find_model_file
from ecavatar.reconstruction.table import Reconstructor
from ecavatar.rendering.video import read_frames
from ecavatar.storage.files import atomic_path, clean_stale, resolve_inside, sha256_file
from ecavatar.storage.parquet import read_table, table_metadata, write_table
from ecavatar.storage.rejects import Reject, check_rejects, read_rejects, write_rejects
from ecavatar.storage.shards import input_hash, list_shards, split_rows, write_shard
from flows._run import main, seed, shard_task, stage_settings, wait_all, workers
from flows.paths import ProfilePaths


@flow(name="select_images")
def select_images(profile: str) -> str:
    """Draw Emolib's images and FuNet's pool from AffectNet's lists."""
    paths, settings = ProfilePaths(profile), stage_settings(profile).select
    with atomic_path(paths.selection) as directory:
        directory.mkdir()
        index = directory / "index.parquet"
        selection = select_folder(paths.affectnet, index, settings, seed(), check=_inspect_in_parallel)
        rejects = read_table(directory / "rejects.parquet", ["item_id"]).num_rows
    return f"{len(selection.listed)} images for Emolib, {len(selection.pooled)} for the pool, {rejects} rejects"


@flow(name="reconstruct_faces")
def reconstruct_faces(profile: str) -> str:
    """Find the face of every selected image, replacing those without one, and of every speaker's portrait."""
    paths, settings = ProfilePaths(profile), stage_settings(profile).reconstruct
    find_model_file()  # a missing package is told once, before the shards start
    made_from = _made_from(profile)
    portraits = reconstruct_portraits.submit(profile, made_from)

    def run(directory: Path, parts: int) -> None:
        wait_all([reconstruct_shard.submit(profile, directory, part, parts, made_from) for part in range(parts)])

    filling = fill_lists(
        paths.selection / "index.parquet", paths.affectnet, paths.faces / WORK, run=run, shards=settings.shards,
        max_rejects=settings.max_rejects, check=_inspect_in_parallel,
    )  # fmt: skip
    wait_all([portraits])
    return _publish(paths.faces, filling, settings)


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
def reconstruct_shard(profile: str, directory: Path, part: int, parts: int, made_from: str) -> None:
    """Reconstruct one part of the round in `directory`."""
    paths = ProfilePaths(profile)
    reconstructor = _reconstructor(paths, stage_settings(profile).reconstruct)
    reconstruct_part(directory, part, parts, reconstructor, paths.affectnet, made_from)


@shard_task(name="reconstruct_portraits")
def reconstruct_portraits(profile: str, made_from: str) -> None:
    """Reconstruct each speaker from the first frame of their first neutral film."""
    paths = ProfilePaths(profile)
    clips = _portrait_clips([*ravdess.list_clips(paths.ravdess), *mead.list_clips(paths.mead)])
    films = {f"{clip.corpus}_{clip.subject}": clip.video for clip in clips if clip.video is not None}
    columns = {
        "item_id": list(films),
        "corpus": [clip.corpus for clip in clips],
        "subject": [clip.subject for clip in clips],
        "clip_id": [clip.clip_id for clip in clips],
        "content_sha256": [sha256_file(film) for film in films.values()],
    }
    records = pa.table(columns, pa.schema([(name, pa.string()) for name in columns]))
    settings = stage_settings(profile).reconstruct
    by_mediapipe = settings.emica.model_copy(update={"crop": "mediapipe"})  # films come without landmarks
    reconstructor = _reconstructor(paths, settings.model_copy(update={"emica": by_mediapipe}))
    work = paths.faces / WORK

    def make() -> pa.Table:
        with FaceLandmarker() as landmarker:
            faces = reconstructor.faces(records, lambda record: _first_frame(films[str(record["item_id"])]), landmarker)
        write_rejects(work / "portrait-rejects.parquet", faces.rejects)
        return faces.table

    write_shard(work / "portraits.parquet", input_hash(records.to_pylist(), made_from), make, reconstructor.tags)


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


def _publish(faces: Path, filling: Filling, settings: ReconstructSettings) -> str:
    """Turn finished rounds into the stage's output; the rounds go last, so that a killed run need not repeat them."""
    work = faces / WORK
    portraits, texts = read_table(work / "portraits.parquet"), table_metadata(work / "portraits.parquet")
    lost = [Reject(*row) for row in read_rejects(work / "portrait-rejects.parquet").itertuples(index=False)]
    rejects = [*filling.rejects, *lost]
    total = sum(filling.faces.values()) + portraits.num_rows + len(rejects)
    check_rejects(rejects, total, settings.max_rejects, "reconstruct_faces")
    for name, rounds in filling.rounds.items():
        merge_rounds(rounds, faces / name, settings.shards)
    write_table(faces / "portraits.parquet", portraits, texts)
    write_rejects(faces / "rejects.parquet", rejects)
    clean_stale(faces, {*filling.rounds, "portraits.parquet", "rejects.parquet"})
    return (
        f"{filling.faces[EMOLIB]} faces for Emolib, {filling.faces[POOL]} for the pool ({filling.replacements} "
        f"replacements), {portraits.num_rows} portraits, {len(rejects)} rejects"
    )


def _reconstructor(paths: ProfilePaths, settings: ReconstructSettings) -> Reconstructor:
    return Reconstructor(FaceAsset.load(paths.face_model), settings, _weights(paths, settings))


def _made_from(profile: str) -> str:
    """The hash of everything beside the pictures that a face depends on."""
    paths, settings = ProfilePaths(profile), stage_settings(profile).reconstruct
    what_matters = settings.model_dump(exclude=set(NOT_HASHED))
    return input_hash(what_matters, paths.face_model, _weights(paths, settings))


def _weights(paths: ProfilePaths, settings: ReconstructSettings) -> Path | None:
    return paths.emica if settings.backend == "emica" else None


def _inspect_in_parallel(paths: Sequence[Path]) -> list[ImageCheck]:
    """`inspect_images` in one task per worker; few images are not worth a task each."""
    ranges = split_rows(len(paths), workers())
    futures = [inspect_shard.submit(paths[rows.start : rows.stop]) for rows in ranges]
    return [check for checks in wait_all(futures) for check in checks]


if __name__ == "__main__":
    main(select_images, reconstruct_faces, export_emolib)
