"""VOCASET's raw training data as it ships: one big array of meshes and pickles that index it.

Source: VOCA (Cudeiro et al., CVPR 2019), `trainingdata.zip`. Meshes are metres in zero head pose at 60 frames a second.
"""

import json
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float

from ecavatar.errors import AssetMissingError, DataError, ShapeError
from ecavatar.storage.rejects import Reject
from ecavatar.storage.unpickle import array_of, load_pickle

NATIVE_FPS = 60
STAGE = "read_vocaset"
FILES = ("data_verts.npy", "subj_seq_to_idx.pkl", "raw_audio_fixed.pkl", "templates.pkl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Who and what belongs to one of VOCA's sets."""

    subjects: tuple[str, ...]
    first_sentence: int
    last_sentence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VocasetClip:
    """One sentence of one subject."""

    clip_id: str
    """<subject>_<sentence>."""
    subject: str
    sentence: str
    """sentence01 .. sentence40."""
    split: str
    """train, val, test, or empty for a clip that VOCA uses in none."""
    rows: np.ndarray = field(compare=False, repr=False)
    """Rows of data_verts.npy, int64, in order of time at 60 frames a second."""


def vocaset_splits() -> dict[str, Split]:
    """VOCA's train, val and test sets; a subject is in one only."""
    text = resources.files("ecavatar.corpora").joinpath("data/vocaset_splits.json").read_text()
    return {
        name: Split(
            subjects=tuple(entry["subjects"]),
            first_sentence=entry["first_sentence"],
            last_sentence=entry["last_sentence"],
        )
        for name, entry in json.loads(text).items()
        if name != "source"
    }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vocaset:
    """An opened VOCASET; meshes stay on disk until asked for."""

    templates: dict[str, np.ndarray]
    """Neutral closed-mouth mesh of each subject, (vertices, 3) float32, metres."""
    clips: list[VocasetClip]
    """Usable clips, sorted by clip_id."""
    rejects: list[Reject]
    """Clips that cannot be used (no sound, no frames, gaps), with the reason."""
    data_verts: np.ndarray = field(repr=False)
    """(rows, vertices, 3), mapped from disk read-only."""
    recordings: dict = field(repr=False)
    """subject -> sentence -> {"audio", "sample_rate"}."""

    @classmethod
    def open(cls, root: Path) -> Self:
        """The corpus in folder `root`.

        Raises:
            AssetMissingError: a file is missing; all missing ones are named.
            DataError: a file is not what the format promises.
        """
        missing = [name for name in FILES if not (root / name).is_file()]
        if missing:
            raise AssetMissingError(
                f"VOCASET folder {root} lacks {', '.join(missing)}. Unpack VOCA's trainingdata.zip there (register at "
                "voca.is.tue.mpg.de)."
            )
        vertices = _open_array(root / "data_verts.npy")
        templates = _read_templates(root / "templates.pkl", vertices.shape[1])
        index = _read_mapping(root / "subj_seq_to_idx.pkl")
        recordings = _read_mapping(root / "raw_audio_fixed.pkl")
        clips, rejects = _list_clips(index, recordings, templates, len(vertices))
        return cls(templates=templates, clips=clips, rejects=rejects, data_verts=vertices, recordings=recordings)

    def vertices(self, clip: VocasetClip, fps: int = 30) -> Float[np.ndarray, "frames vertices 3"]:
        """The clip's meshes, float32 metres, every (60 / fps)-th frame from the first on.

        Raises:
            ShapeError: `fps` does not divide 60.
        """
        if fps < 1 or NATIVE_FPS % fps:
            raise ShapeError(f"VOCASET has {NATIVE_FPS} frames a second; {fps} does not divide that.")
        rows = clip.rows[:: NATIVE_FPS // fps]
        if len(rows) > 1 and (np.diff(rows) == rows[1] - rows[0]).all() and rows[1] > rows[0]:
            return np.array(self.data_verts[rows[0] : rows[-1] + 1 : rows[1] - rows[0]], dtype=np.float32)
        return np.array(self.data_verts[rows], dtype=np.float32)

    def audio(self, clip: VocasetClip) -> tuple[Float[np.ndarray, " samples"], int]:
        """Mono float32 samples in -1..1 and their rate."""
        recording = self.recordings[clip.subject][clip.sentence]
        samples = np.asarray(recording["audio"]).reshape(-1)
        if np.issubdtype(samples.dtype, np.integer):
            samples = samples.astype(np.float32) / 32768.0
        return samples.astype(np.float32), int(recording["sample_rate"])


def _open_array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise DataError(f"{path} is not a NumPy array file: {error}") from None
    if array.ndim != 3 or array.shape[2] != 3 or not np.issubdtype(array.dtype, np.floating):
        raise DataError(f"{path} must hold (rows, vertices, 3) floats, got {array.dtype} {array.shape}.")
    return array


def _read_mapping(path: Path) -> dict:
    value = load_pickle(path)
    if not isinstance(value, dict):
        raise DataError(f"{path} must hold a dictionary by subject, got {type(value).__name__}.")
    return value


def _read_templates(path: Path, n_vertices: int) -> dict[str, np.ndarray]:
    templates = {subject: array_of(mesh).astype(np.float32) for subject, mesh in _read_mapping(path).items()}
    wrong = {subject: mesh.shape for subject, mesh in templates.items() if mesh.shape != (n_vertices, 3)}
    if wrong:
        raise DataError(f"templates in {path} must be ({n_vertices}, 3) like data_verts.npy, got {wrong}.")
    return templates


def _list_clips(index: dict, recordings: dict, templates: dict, n_rows: int) -> tuple[list[VocasetClip], list[Reject]]:
    clips, rejects = [], []
    splits = vocaset_splits()
    for subject in sorted(index):
        for sentence in sorted(index[subject]):
            clip_id = f"{subject}_{sentence}"
            frames = index[subject][sentence]
            problem = _clip_problem(frames, recordings.get(subject, {}).get(sentence), subject in templates, n_rows)
            if problem:
                rejects.append(Reject(clip_id, STAGE, *problem))
                continue
            rows = np.array([frames[frame] for frame in range(len(frames))], dtype=np.int64)
            split = _split_of(subject, sentence, splits)
            clips.append(VocasetClip(clip_id=clip_id, subject=subject, sentence=sentence, split=split, rows=rows))
    return clips, rejects


def _clip_problem(frames: object, recording: object, has_template: bool, n_rows: int) -> tuple[str, str] | None:
    """Reason and detail why a clip cannot be used; None where it can."""
    if not isinstance(frames, dict) or not frames:
        return "no_frames", "the index names no frame"
    if sorted(frames) != list(range(len(frames))):
        return "frame_gap", f"frames must count from 0 to {len(frames) - 1} without a gap"
    if min(frames.values()) < 0 or max(frames.values()) >= n_rows:
        return "row_out_of_range", f"rows must lie in 0..{n_rows - 1}"
    if not isinstance(recording, dict) or "audio" not in recording or "sample_rate" not in recording:
        return "no_audio", "raw_audio_fixed.pkl has no sound for it"
    return None if has_template else ("no_template", "templates.pkl has no mesh of the subject")


def _split_of(subject: str, sentence: str, splits: dict[str, Split]) -> str:
    digits = sentence.removeprefix("sentence")
    number = int(digits) if digits.isdecimal() else -1
    for name, split in splits.items():
        if subject in split.subjects and split.first_sentence <= number <= split.last_sentence:
            return name
    return ""
