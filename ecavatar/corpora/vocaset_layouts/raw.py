"""VOCA's trainingdata.zip: one big array of meshes, and pickles that index it and hold the sound.

    data_verts.npy         (rows, vertices, 3) metres, all clips
    subj_seq_to_idx.pkl    subject -> sentence -> {frame: row of data_verts.npy}
    raw_audio_fixed.pkl    subject -> sentence -> {"audio": integers, "sample_rate": hertz}
    templates.pkl          subject -> (vertices, 3)

Source:
    Cudeiro et al., Capture, Learning, and Synthesis of 3D Speaking Styles (VOCA), CVPR 2019.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ecavatar.corpora.vocaset_layouts.clip import (
    Listing,
    UnusableClipError,
    VocasetClip,
    check_names,
    check_template,
    clip_of,
    rejected,
)
from ecavatar.corpora.vocaset_layouts.meshes import map_floats, read_mapping, read_templates
from ecavatar.errors import DataError
from ecavatar.storage.files import resolve_inside

FILES = ("data_verts.npy", "subj_seq_to_idx.pkl", "raw_audio_fixed.pkl", "templates.pkl")
_FULL_SCALE = 32768
_MOST_CHANNELS = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RawFiles:
    """The opened files."""

    root: Path
    data_verts: Float[np.ndarray, "rows vertices 3"] = field(repr=False)
    """Mapped from disk read-only."""
    recordings: dict[str, dict] = field(repr=False)

    def meshes(self, clip: VocasetClip) -> Float[np.ndarray, "rows vertices 3"]:
        """All meshes of the corpus; `clip.rows` chooses."""
        return self.data_verts

    def sound(self, clip: VocasetClip) -> tuple[Float[np.ndarray, " samples"], int]:
        """Mono float32 samples in -1..1 (channels averaged) and their rate."""
        recording = self.recordings[clip.subject][clip.sentence]
        samples = np.asarray(recording["audio"])
        if samples.dtype.kind == "i":
            samples = samples.astype(np.float32) / np.float32(_FULL_SCALE)
        samples = samples.astype(np.float32)
        return samples.mean(axis=1) if samples.ndim == 2 else samples, int(recording["sample_rate"])

    def sound_seconds(self, clip: VocasetClip) -> float:
        """How long the sound is."""
        recording = self.recordings[clip.subject][clip.sentence]
        return len(recording["audio"]) / int(recording["sample_rate"])

    def sound_files(self) -> list[Path]:
        """The one file that holds all sound."""
        return [self.root / "raw_audio_fixed.pkl"]


def list_raw(root: Path) -> Listing:
    """What VOCA's files in folder `root` hold.

    Raises:
        AssetMissingError: a file is not there.
        DataError: a file is damaged, hostile or not what the layout promises, or a link leads out of the folder.
    """
    vertices, index, recordings, templates = (resolve_inside(root, name) for name in FILES)
    data_verts = map_floats(vertices)
    if data_verts.ndim != 3 or data_verts.shape[2] != 3:
        raise DataError(f"{vertices} must hold (rows, vertices, 3) numbers, got {data_verts.shape}. Copy it again.")
    files = RawFiles(root=root, data_verts=data_verts, recordings=_read_by_sentence(recordings))
    meshes = read_templates(templates, data_verts.shape[1])
    clips, rejects = [], []
    for subject, sentences in _read_by_sentence(index).items():
        for sentence in sorted(sentences, key=str):
            try:
                clips.append(_clip(files, subject, sentence, sentences[sentence], meshes))
            except UnusableClipError as problem:
                rejects.append(rejected(f"{subject}_{sentence}", problem, root))
    return Listing(templates=meshes, clips=clips, rejects=rejects, layout=files)


def _read_by_sentence(path: Path) -> dict[str, dict]:
    value = read_mapping(path)
    wrong = [subject for subject in sorted(value) if not isinstance(value[subject], dict)]
    if wrong:
        raise DataError(
            f"{path} must hold a dictionary by sentence for each subject, not so {wrong[0]}. Unpack it again."
        )
    return {subject: value[subject] for subject in sorted(value)}


def _clip(
    files: RawFiles, subject: str, sentence: object, frames: object, templates: dict[str, np.ndarray]
) -> VocasetClip:
    check_names(subject, sentence)
    rows = _rows(frames, len(files.data_verts))
    _check_recording(files.recordings.get(subject, {}).get(sentence))
    check_template(subject, templates)
    return clip_of(subject, str(sentence), rows)


def _rows(frames: object, n_rows: int) -> Int[np.ndarray, " frames"]:
    if not isinstance(frames, dict) or not frames:
        raise UnusableClipError("no_frames", "the index names no frame")
    if not all(isinstance(number, int | np.integer) for pair in frames.items() for number in pair):
        raise UnusableClipError("bad_index", "frames and rows must be whole numbers")
    if sorted(frames) != list(range(len(frames))):
        raise UnusableClipError("frame_gap", f"frames must count from 0 to {len(frames) - 1} without a gap")
    lowest, highest = min(frames.values()), max(frames.values())
    if lowest < 0 or highest >= n_rows:
        raise UnusableClipError("row_out_of_range", f"rows must lie in 0..{n_rows - 1}, got {lowest}..{highest}")
    return np.array([frames[frame] for frame in range(len(frames))], dtype=np.int64)


def _check_recording(recording: Any) -> None:  # Any: whatever the pickle holds
    if not isinstance(recording, dict) or "audio" not in recording or "sample_rate" not in recording:
        raise UnusableClipError("no_audio", "raw_audio_fixed.pkl has no sound for it")
    rate, samples = recording["sample_rate"], recording["audio"]
    if not isinstance(rate, int | np.integer) or rate <= 0:
        raise UnusableClipError("bad_audio", f"expected a sample rate in hertz, got {rate!r}"[:200])
    is_sound = isinstance(samples, np.ndarray) and samples.dtype.kind in "if" and samples.ndim in (1, 2)
    if not is_sound or (samples.ndim == 2 and samples.shape[1] not in range(1, _MOST_CHANNELS + 1)):
        seen = f"{samples.dtype} {samples.shape}" if isinstance(samples, np.ndarray) else type(samples).__name__
        raise UnusableClipError("bad_audio", f"expected numbers (samples,) or (samples, channels up to 2), got {seen}")
    if not len(samples):
        raise UnusableClipError("no_audio", "its sound has no sample")
    if not np.isfinite(samples).all():
        raise UnusableClipError("bad_audio", "samples are not finite")
    if samples.dtype.kind == "i" and (samples.min() < -_FULL_SCALE or samples.max() >= _FULL_SCALE):
        raise UnusableClipError("bad_audio", f"whole samples must have 16 bits, got {samples.min()}..{samples.max()}")
