"""VOCATeeth stored as faces and angles, against the same heads with all vertices written out.

Two corpora: the sample world's (`sample`), whose meshes come from a smooth model, and the same with two sentences
joined to one clip, so that clips are as long as VOCASET's, and Gaussian noise of 0.05 mm on every coordinate, about
what a scan has (`noisy`): noise is what does not compress. Neither is VOCASET, which is not here.

Materialising and its parts end with the files flushed to the disk, on both sides. It works in two threads, as by
default, its parts in one; `one_thread` is the ratio with one thread on both sides. A window is read from one file
opened anew: with the files in the page cache, and after they were dropped from it. `missed` names the bounds that the
figures of this run do not keep.

A window in the page cache is not quicker than from a materialised .npy, and cannot be made so: there it is one copy of
11 MB, in less time than the stored faces alone take to decode (`window_decode_seconds`); the mouth comes on top
(`window_mouth_seconds`). Tried on 60 of 150 noisy frames, where the copy takes 1.5 ms: zstd with split bytes, as
stored, decodes in 4.1 ms; lz4 in 3.9; not compressed, 3.3; one flat list a frame instead of points, 3.1; bytes of fixed
width, 6.6 with zstd. Only such bytes as they are (0.5 ms) or with lz4 and not split (0.9 ms) are quicker, and they take
a third of the materialised bytes: more than the 30 % that storage may take, and no longer lists that other programs
understand. What the stored one saves is disk and, from a disk slower than `window_even_disk_mb_per_second`, time.
"""

import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy.spatial.transform import Rotation

from bench._record import best_seconds, record
from ecavatar.config import RigSettings
from ecavatar.corpora.vocaset import Vocaset
from ecavatar.face.model import FaceAsset
from ecavatar.mouth.fit import MouthFit, fit_mouth
from ecavatar.mouth.model import MouthMesh
from ecavatar.mouth.rig import ChinRig
from ecavatar.mouth.source import open_mouth
from ecavatar.seeding import stream
from ecavatar.storage.files import atomic_path
from ecavatar.storage.parquet import mesh_array, read_row_group, read_table, write_table
from ecavatar.storage.unpickle import load_pickle
from ecavatar.vocateeth.build import rig_folder
from ecavatar.vocateeth.dataset import TeethClip, VocaTeeth
from ecavatar.vocateeth.materialise import materialise

DATA = Path("data/sample")
SETTINGS = RigSettings(mouth="procedural", fps=30, patch_mm=0.0, max_rejects=0.0)
NOISE_M = 5e-5
WINDOW = 60  # frames: 2 s
WINDOWS = 24
_FILES = ("data_verts.npy", "subj_seq_to_idx.pkl", "raw_audio_fixed.pkl", "templates.pkl")
_SMALL_GROUP = 64


def noisy_corpus(source: Path, out: Path) -> Path:
    """`source` with noise on its meshes and two sentences of a subject joined to one."""
    out.mkdir()
    shutil.copyfile(source / "templates.pkl", out / "templates.pkl")
    meshes, rng = np.load(source / "data_verts.npy", mmap_mode="r"), stream(0, "bench", "teeth_storage", "noise")
    written = np.lib.format.open_memmap(out / "data_verts.npy", mode="w+", dtype=np.float32, shape=meshes.shape)
    for row, mesh in enumerate(meshes):
        written[row] = mesh + NOISE_M * rng.standard_normal(mesh.shape)
    written.flush()
    index, sounds = (load_pickle(source / name) for name in _FILES[1:3])
    joined_index, joined_sounds = {}, {}
    for subject, sentences in index.items():
        joined_index[subject], joined_sounds[subject] = {}, {}
        names = sorted(sentences)
        for first, second in zip(names[::2], names[1::2], strict=True):
            rows = [sentences[name][frame] for name in (first, second) for frame in sorted(sentences[name])]
            joined_index[subject][first] = dict(enumerate(rows))
            pair = [sounds[subject][name] for name in (first, second)]
            samples = np.concatenate([sound["audio"] for sound in pair])
            joined_sounds[subject][first] = {"audio": samples, "sample_rate": pair[0]["sample_rate"]}
    for name, value in zip(_FILES[1:3], (joined_index, joined_sounds), strict=True):
        (out / name).write_bytes(pickle.dumps(value, protocol=2))
    return out


def exactness(teeth: VocaTeeth, vocaset: Vocaset, asset: FaceAsset) -> dict[str, object]:
    """Whether faces are those of the corpus to the bit; farthest mouth vertex from the one computed in float64."""
    raws = {clip.clip_id: clip for clip in vocaset.clips}
    is_lossless, worst, fits = True, 0.0, {}
    for clip in teeth.clips:
        frames, template = vocaset.vertices(raws[clip.clip_id], teeth.fps), vocaset.templates[clip.subject]
        if clip.subject not in fits:
            fits[clip.subject] = fit_mouth(teeth.mouth, template, asset), ChinRig.fit(template, asset, SETTINGS)
        fit, rig = fits[clip.subject]
        heads = teeth.heads(clip)
        is_lossless &= heads[:, : teeth.n_vertices].tobytes() == frames.tobytes()
        exact = posed_in_float64(teeth.mouth, fit, rig.angles(frames))
        worst = max(worst, float(np.linalg.norm(heads[:, teeth.n_vertices :] - exact, axis=2).max()))
    return {"face_is_lossless": bool(is_lossless), "mouth_error_m": worst}


def posed_in_float64(mouth: MouthMesh, fit: MouthFit, angles: np.ndarray) -> np.ndarray:
    closed = fit.closed(mouth)
    turns = Rotation.from_rotvec(angles[:, None] * fit.axis).as_matrix()
    moved = (closed - fit.pivot) @ turns.transpose(0, 2, 1) + fit.pivot
    return np.where(mouth.follows_jaw[None, :, None], moved, closed)


def materialising(teeth: VocaTeeth, scratch: Path) -> dict[str, object]:
    """Seconds of materialising, and of its two unavoidable parts alone."""

    def whole(workers: int) -> None:
        shutil.rmtree(scratch / "out", ignore_errors=True)
        materialise(teeth.directory, scratch / "out", "npy", workers=workers)

    heads = [teeth.heads(clip) for clip in teeth.clips]

    def write() -> None:
        with atomic_path(scratch / "written") as folder:
            folder.mkdir()
            for clip, head in zip(teeth.clips, heads, strict=True):
                np.save(folder / f"{clip.clip_id}.npy", head.reshape(len(head), -1), allow_pickle=False)

    def decode() -> None:
        for clip in teeth.clips:
            teeth.vertices(clip)

    one_thread_s, whole_s = best_seconds(lambda: whole(1), 4), best_seconds(lambda: whole(2), 4)
    decode_s, write_s = best_seconds(decode, 4), best_seconds(write, 4)
    shutil.rmtree(scratch / "written")
    return {
        "materialise_seconds": whole_s,
        "decode_faces_seconds": decode_s,
        "write_heads_seconds": write_s,
        "materialise_speed_ratio": (decode_s + write_s) / whole_s,
        "materialise_speed_ratio_one_thread": (decode_s + write_s) / one_thread_s,
    }


def windows(teeth: VocaTeeth, materialised: Path, scratch: Path) -> dict[str, object]:
    """Seconds of one random window of 2 s, from both, warm and cold; and from row groups of 64 frames."""
    rng = stream(0, "bench", "teeth_storage", "windows")
    long = [clip for clip in teeth.clips if clip.frames >= WINDOW]
    chosen = [long[int(k)] for k in rng.integers(len(long), size=WINDOWS)]
    places = [(clip, int(rng.integers(clip.frames - WINDOW + 1))) for clip in chosen]
    arrays = {clip.clip_id: materialised / "vertices_npy" / f"{clip.clip_id}.npy" for clip in long}

    def stored(clip: TeethClip, start: int) -> np.ndarray:
        return teeth.heads(clip, start, start + WINDOW)

    def mapped(clip: TeethClip, start: int) -> np.ndarray:
        return np.array(np.load(arrays[clip.clip_id], mmap_mode="r")[start : start + WINDOW])

    def decoded(clip: TeethClip, start: int) -> tuple[np.ndarray, np.ndarray]:
        return teeth.frames(clip, start, start + WINDOW)

    for clip, start in places[:4]:
        if stored(clip, start).tobytes() != mapped(clip, start).tobytes():
            raise RuntimeError(f"{clip.clip_id} differs between the two")
    grouped = small_groups(teeth, scratch / "grouped")
    readers = (("stored", stored), ("npy", mapped), ("groups", grouped), ("decoded", decoded))
    warm = {name: _seconds(read, places) for name, read in readers}
    used = {clip.clip_id: (teeth.parts[clip.part], arrays[clip.clip_id]) for clip in long}
    cold = {
        name: _seconds(read, places, lambda clip, k=k: _drop(used[clip.clip_id][k]))
        for k, (name, read) in enumerate((("stored", stored), ("npy", mapped)))
    }
    stored_bytes = np.mean([_chunk_bytes(teeth, clip) * (start + WINDOW) / clip.frames for clip, start in places])
    npy_bytes = WINDOW * (teeth.n_vertices + len(teeth.mouth.vertices)) * 12
    later = warm["stored"] - warm["npy"]
    return {
        "window_clips_frames": [min(clip.frames for clip in chosen), max(clip.frames for clip in chosen)],
        "window_stored_seconds": warm["stored"],
        "window_npy_seconds": warm["npy"],
        "window_speed_ratio": warm["npy"] / warm["stored"],
        "window_decode_seconds": warm["decoded"],
        "window_mouth_seconds": warm["stored"] - warm["decoded"],
        "window_stored_seconds_groups_of_64": warm["groups"],
        "window_stored_seconds_cold": cold["stored"],
        "window_npy_seconds_cold": cold["npy"],
        "window_speed_ratio_cold": cold["npy"] / cold["stored"],
        "window_stored_bytes": int(stored_bytes),
        "window_npy_bytes": npy_bytes,
        # a disk slower than this makes the stored one quicker: what it reads less outweighs what it computes
        "window_even_disk_mb_per_second": (npy_bytes - stored_bytes) / later / 1e6 if later > 0 else None,
    }


def small_groups(teeth: VocaTeeth, folder: Path) -> Callable[[TeethClip, int], np.ndarray]:
    """A reader of the same frames from parts whose row groups hold 64 frames, across clips."""
    folder.mkdir()
    first_rows, row, part = {}, 0, -1
    for clip in teeth.clips:
        row, part = (0, clip.part) if clip.part != part else (row, part)
        first_rows[clip.clip_id] = row
        row += clip.frames
    for path in teeth.parts:
        write_table(folder / path.name, read_table(path, ["angle", "vertices"]), row_group_size=_SMALL_GROUP)

    def read(clip: TeethClip, start: int) -> np.ndarray:
        first = first_rows[clip.clip_id] + start
        last = (first + WINDOW - 1) // _SMALL_GROUP
        pieces = []
        for group in range(first // _SMALL_GROUP, last + 1):
            table = read_row_group(folder / teeth.parts[clip.part].name, group, ["angle", "vertices"])
            cut = slice(max(0, first - group * _SMALL_GROUP), first + WINDOW - group * _SMALL_GROUP)
            pieces.append((mesh_array(table["vertices"])[cut], table["angle"].to_numpy()[cut]))
        return teeth.joined(clip.subject, *(np.concatenate(column) for column in zip(*pieces, strict=True)))

    clip = next(clip for clip in teeth.clips if clip.frames > WINDOW)
    if not np.array_equal(read(clip, 1), teeth.heads(clip, 1, 1 + WINDOW)):
        raise RuntimeError("row groups of 64 give other frames")
    return read


def size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def measure(raw: Path, asset: FaceAsset, scratch: Path) -> dict[str, object]:
    scratch.mkdir()
    vocaset, directory = Vocaset.open(raw), scratch / "vocateeth"
    rig_folder(raw, directory, asset, SETTINGS, open_mouth(SETTINGS.mouth), workers=2)
    teeth = VocaTeeth.open(directory)
    speed = materialising(teeth, scratch)
    materialised = scratch / "out"
    stored_bytes, all_bytes = size(directory), size(materialised)
    return {
        "clips": len(teeth.clips),
        "frames": sum(clip.frames for clip in teeth.clips),
        "stored_bytes": stored_bytes,
        "materialised_bytes": all_bytes,
        "stored_share": stored_bytes / all_bytes,
        **exactness(teeth, vocaset, asset),
        **speed,
        **windows(teeth, materialised, scratch),
    }


def _seconds(
    read: Callable[[TeethClip, int], object],
    places: Sequence[tuple[TeethClip, int]],
    prepare: Callable[[TeethClip], None] = lambda _clip: None,
) -> float:
    """Mean over the windows, of each the shortest of three readings."""

    def once(clip: TeethClip, start: int) -> float:
        prepare(clip)
        return best_seconds(lambda: read(clip, start), 1)

    return float(np.mean([min(once(clip, start) for _ in range(3)) for clip, start in places]))


def _drop(path: Path) -> None:
    """Take a file out of the page cache; its pages are on the disk already."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _chunk_bytes(teeth: VocaTeeth, clip: TeethClip) -> int:
    group = pq.read_metadata(teeth.parts[clip.part]).row_group(clip.row_group)
    return sum(group.column(k).total_compressed_size for k in range(group.num_columns))


def missed(corpus: str, figures: Mapping[str, Any]) -> list[str]:  # Any: json values
    """Bounds that the figures of a corpus do not keep, in words."""
    bounds = {
        "stored bytes at most 30 % of the materialised": figures["stored_share"] <= 0.3,
        "faces lossless to the bit": figures["face_is_lossless"],
        "mouth within 1 micrometre": figures["mouth_error_m"] <= 1e-6,
        "materialising at 0.8 x its two parts": figures["materialise_speed_ratio"] >= 0.8,
        "a random window quicker than from .npy, warm": figures["window_speed_ratio"] > 1,
        "a random window quicker than from .npy, cold": figures["window_speed_ratio_cold"] > 1,
    }
    return [f"{corpus}: {name}" for name, is_kept in bounds.items() if not is_kept]


def main() -> None:
    asset = FaceAsset.load(DATA / "assets" / "face" / "face_model.npz")
    raw = DATA / "raw" / "vocaset"
    figures: dict[str, object] = {"noise_m": NOISE_M, "window_frames": WINDOW, "windows": WINDOWS}
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        sample = measure(raw, asset, root / "sample")
        noisy_raw = noisy_corpus(raw, root / "noisy_raw")
        shutil.rmtree(root / "sample")
        noisy = measure(noisy_raw, asset, root / "noisy")
        figures |= {f"sample_{name}": value for name, value in sample.items()}
        figures |= {f"noisy_{name}": value for name, value in noisy.items()}
        figures["missed"] = [*missed("sample", sample), *missed("noisy", noisy)]
    record("teeth_storage", figures, ["numpy", "pyarrow", "soundfile"])


if __name__ == "__main__":
    main()
