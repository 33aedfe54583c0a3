"""VOCATeeth with all V+M vertices of every frame written out, for programs that cannot make a mouth themselves.

`npy`, the layout of FaceFormer's and SelfTalk's data:

    vertices_npy/CLIP.npy   (T, 3 (V+M)) float32 metres, row by row x, y, z of each vertex
    wav/CLIP.wav            16 bit, as recorded
    templates.npz           subject -> (V+M, 3) float32, mouth closed
    topology.npz            `faces`: triangles of the joined head
    info.json               topology, fps, clips with subject, split and frames

Frames are those of VOCATeeth, thirty a second by default. The scripts of the field expect sixty and take every second
one: switch that off there. They also expect `templates.pkl`; nothing here writes pickles, so make it once by
`pickle.dump(dict(np.load("templates.npz")), open("templates.pkl", "wb"))`.

`parquet`: `data/part-*.parquet`, one per subject, one row group per clip, as VOCATeeth's own but with all vertices; the
other files as above, the sound in `wav/`.

It takes some four to seven times the disk; one clip by worker is in memory at a time.
"""

import io
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile

from ecavatar.errors import DataError
from ecavatar.mouth.fit import pose_mouth
from ecavatar.storage.arrays import write_arrays
from ecavatar.storage.files import atomic_path, write_json
from ecavatar.storage.full_disk import full_disk_told
from ecavatar.storage.parquet import open_writer
from ecavatar.storage.shards import shard_path
from ecavatar.vocateeth.dataset import TOPOLOGY, TeethClip, VocaTeeth
from ecavatar.vocateeth.face_rows import face_schema, face_table

Format = Literal["npy", "parquet"]
_MARGIN = 2**20  # bytes beside the meshes: headers, templates, info


def materialise(
    directory: Path, out: Path, format: Format, splits: Sequence[str] | None = None, *, workers: int = 2
) -> int:
    """Write the heads of the VOCATeeth in `directory` to the folder `out`, whole or not at all.

    Args:
        directory: the dataset.
        out: the folder to make; must not exist.
        format: see the module.
        splits: only clips of these; None: all, also those in no split.
        workers: threads, each with a clip (`npy`) or a subject (`parquet`), so that one computes while another writes.

    Returns:
        How many frames.

    Raises:
        AssetMissingError, DataError: from `VocaTeeth.open`; `out` exists, a split has no clips, none was named, a part
            is damaged, or the disk is too full.
    """
    teeth = VocaTeeth.open(directory)
    if out.exists():
        raise DataError(f"{out} exists, and would be replaced. Name a folder that does not exist.")
    if format not in ("npy", "parquet"):
        raise DataError(f"unknown format {format!r}; there are npy and parquet.")
    wanted = splits if splits is None else list(dict.fromkeys(splits))
    clips = teeth.clips if wanted is None else [clip for split in wanted for clip in teeth.of_split(split)]
    if not clips:
        raise DataError(f"no clips of {directory} were asked for. Name train, val or test; None means all.")
    _require_space(out, teeth, clips)
    told = full_disk_told(out, kept="nothing was kept", advice="Free space, or name fewer splits.")
    with told, atomic_path(out) as temporary:
        (temporary / "wav").mkdir(parents=True)
        write = _write_arrays if format == "npy" else _write_parts
        write(temporary, teeth, clips, workers)
        _write_templates(temporary / "templates.npz", teeth)
        shutil.copyfile(teeth.directory / TOPOLOGY, temporary / TOPOLOGY)
        write_json(temporary / "info.json", _info(teeth, clips))
    return sum(clip.frames for clip in clips)


def materialised_bytes(teeth: VocaTeeth, clips: Sequence[TeethClip]) -> int:
    """Bytes of all vertices of the clips as float32."""
    return sum(clip.frames for clip in clips) * (teeth.n_vertices + len(teeth.mouth.vertices)) * 3 * 4


def _write_arrays(root: Path, teeth: VocaTeeth, clips: Sequence[TeethClip], workers: int) -> None:
    (root / "vertices_npy").mkdir()

    def write(clip: TeethClip) -> None:
        _write_heads(root / "vertices_npy" / f"{clip.clip_id}.npy", teeth, clip)
        _write_sound(root, teeth, clip)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(write, clips))


def _write_heads(path: Path, teeth: VocaTeeth, clip: TeethClip) -> None:
    """As `np.save` of the joined heads, without joining them in memory."""
    faces, angles = teeth.frames(clip)
    mouths = pose_mouth(teeth.mouth, teeth.fit(clip.subject), angles)
    shape = (len(faces), faces[0].size + mouths[0].size)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for face, mouth in zip(faces, mouths, strict=True):
            file.write(face)
            file.write(mouth)


def _write_parts(root: Path, teeth: VocaTeeth, clips: Sequence[TeethClip], workers: int) -> None:
    subjects = sorted({clip.subject for clip in clips})
    schema = face_schema(teeth.n_vertices + len(teeth.mouth.vertices))

    def write(index: int, subject: str) -> None:
        texts = {"topology": f"{teeth.topology}+mouth", "fps": str(teeth.fps), "subject": subject}
        with open_writer(shard_path(root / "data", index, len(subjects)), schema, texts) as writer:
            for clip in (clip for clip in clips if clip.subject == subject):
                faces, angles = teeth.frames(clip)
                table = face_table(clip, angles, teeth.joined(subject, faces, angles), schema)
                writer.write_table(table, row_group_size=clip.frames)
                _write_sound(root, teeth, clip)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(write, range(len(subjects)), subjects))


def _write_sound(root: Path, teeth: VocaTeeth, clip: TeethClip) -> None:
    samples, rate = teeth.samples(clip)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    (root / "wav" / f"{clip.clip_id}.wav").write_bytes(buffer.getvalue())  # unlike libsndfile, names a full disk


def _write_templates(path: Path, teeth: VocaTeeth) -> None:
    closed = np.zeros(1, dtype=np.float32)
    heads = {name: teeth.joined(name, face[None], closed)[0] for name, face in teeth.templates().items()}
    write_arrays(path, heads, {"topology": f"{teeth.topology}+mouth"})


def _info(teeth: VocaTeeth, clips: Sequence[TeethClip]) -> dict[str, object]:
    listed = [
        {"clip_id": clip.clip_id, "subject": clip.subject, "split": clip.split, "frames": clip.frames} for clip in clips
    ]
    return {
        "topology": f"{teeth.topology}+mouth",
        "fps": teeth.fps,
        "vertices": {"face": teeth.n_vertices, "mouth": len(teeth.mouth.vertices)},
        "clips": listed,
        "vocateeth_manifest_sha256": teeth.fingerprint(),
    }


def _require_space(out: Path, teeth: VocaTeeth, clips: Sequence[TeethClip]) -> None:
    """What Parquet saves is not counted on: it is not known before."""
    needed = materialised_bytes(teeth, clips) + _MARGIN
    parent = next(path for path in out.absolute().parents if path.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise DataError(
            f"{out} needs {needed / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB free. Free space, or name fewer "
            "splits; windows of `TeethClips` need no materialised copy."
        )
