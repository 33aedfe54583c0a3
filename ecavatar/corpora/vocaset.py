"""VOCASET as it ships, in either of the two layouts it is found in.

`vocaset_layouts.raw` reads the four files of VOCA's trainingdata.zip, `vocaset_layouts.folders` the folders
vertices_npy/ and wav/ that FaceFormer's and SelfTalk's scripts make of them. Where both are there, VOCA's files are
read: they are what was published. The same clips give the same arrays either way. Meshes are metres in zero head pose
at 60 frames a second (`vocaset_checks` makes sure); the field trains and measures at every second one.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from ecavatar.corpora.vocaset_layouts import folders, raw
from ecavatar.corpora.vocaset_layouts.clip import Layout, Listing, Split, VocasetClip, split_of, vocaset_splits
from ecavatar.errors import AssetMissingError, ShapeError
from ecavatar.storage.rejects import Reject

__all__ = ["NATIVE_FPS", "Split", "Vocaset", "VocasetClip", "first_bad_frame", "vocaset_splits"]

NATIVE_FPS = 60


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vocaset:
    """An opened VOCASET; meshes stay on disk until asked for."""

    root: Path
    templates: dict[str, np.ndarray]
    """Neutral closed-mouth mesh of each subject, (vertices, 3) float32, metres."""
    clips: list[VocasetClip]
    """Usable clips, sorted by subject and sentence."""
    rejects: list[Reject]
    """Clips that cannot be used (no sound, no frames, gaps, damaged), with the reason."""
    layout: Layout = field(repr=False)

    @classmethod
    def open(cls, root: Path) -> Self:
        """The corpus in folder `root`, in whichever layout it is.

        Links inside `root` that lead out of it are refused; `root` may be a link itself.

        Raises:
            AssetMissingError: the files of neither layout are all there; what each lacks is named.
            DataError: a file is damaged, hostile, or not what its layout promises.
        """
        root = Path(root)
        listing = _listing(root)
        return cls(
            root=root,
            templates=listing.templates,
            clips=listing.clips,
            rejects=listing.rejects,
            layout=listing.layout,
        )

    def vertices(self, clip: VocasetClip, fps: int = 30) -> Float[np.ndarray, "frames vertices 3"]:
        """The clip's meshes, float32 metres, every (60 / fps)-th frame from the first on.

        Raises:
            ShapeError: `fps` does not divide 60.
        """
        return _gather(self.layout.meshes(clip), clip.rows[:: _step(fps)])

    def chunks(self, clip: VocasetClip, fps: int, frames: int) -> Iterator[Float[np.ndarray, "frames vertices 3"]]:
        """`vertices` in consecutive blocks of `frames` frames (the last may be shorter), one in memory at a time.

        Raises:
            ShapeError: `fps` does not divide 60, or `frames` is not positive.
        """
        if frames < 1:
            raise ShapeError(f"expected at least one frame a block, got {frames}.")
        rows, meshes = clip.rows[:: _step(fps)], self.layout.meshes(clip)
        return (_gather(meshes, rows[start : start + frames]) for start in range(0, len(rows), frames))

    def audio(self, clip: VocasetClip) -> tuple[Float[np.ndarray, " samples"], int]:
        """Mono float32 samples in -1..1 and their rate.

        Raises:
            DataError: the sound file is damaged.
        """
        return self.layout.sound(clip)

    def duration_mismatch(self, clip: VocasetClip) -> float:
        """Seconds by which the meshes outlast the sound (negative: the sound is longer), without decoding either."""
        return clip.frames / NATIVE_FPS - self.layout.sound_seconds(clip)

    def durations(self) -> pd.DataFrame:
        """One row a clip: clip_id, frames (at 60 a second), mesh_s, sound_s, mismatch_s (mesh minus sound)."""
        mesh = [clip.frames / NATIVE_FPS for clip in self.clips]
        sound = [self.layout.sound_seconds(clip) for clip in self.clips]
        return pd.DataFrame(
            {
                "clip_id": [clip.clip_id for clip in self.clips],
                "frames": np.array([clip.frames for clip in self.clips], np.int64),
                "mesh_s": np.array(mesh),
                "sound_s": np.array(sound),
                "mismatch_s": np.array(mesh) - np.array(sound),
            }
        )

    @property
    def missing(self) -> list[str]:
        """Clip ids, sorted, that VOCA's sets promise and the corpus lacks altogether; rejects are not among them.

        Of the promised sentences, those are looked for that another subject of the same set has: a corpus of fewer
        sentences, as the sample world's, is not incomplete. `nominal` compares with the published sizes.
        """
        splits, present = vocaset_splits(), self._present()
        lacking = []
        for name, split in splits.items():
            subjects = [subject for subject in split.subjects if subject in present]
            said = {s for subject in subjects for s in present[subject] if split_of(subject, s) == name}
            lacking += [f"{subject}_{s}" for subject in subjects for s in said - present[subject]]
        return sorted(lacking)

    def nominal(self) -> dict[str, tuple[int, int]]:
        """Usable clips and clips by VOCA's rules (320, 40, 40) of train, val and test."""
        return {
            name: (sum(clip.split == name for clip in self.clips), split.nominal_clips)
            for name, split in vocaset_splits().items()
        }

    @property
    def sound_files(self) -> list[Path]:
        """The files that the sound is read from, sorted: what a result that used the sound depends on."""
        return self.layout.sound_files()

    def _present(self) -> dict[str, set[str]]:
        """Sentences of each subject that has a template or a clip, usable or not."""
        present: dict[str, set[str]] = {subject: set() for subject in self.templates}
        for clip_id in [clip.clip_id for clip in self.clips] + [reject.item_id for reject in self.rejects]:
            subject, _, sentence = clip_id.rpartition("_")
            present.setdefault(subject, set()).add(sentence)
        return present


def first_bad_frame(block: Float[np.ndarray, "frames vertices 3"]) -> int | None:
    """The first frame with a number that is not finite; None where all are."""
    flat = block.reshape(len(block), math.prod(block.shape[1:]))
    with np.errstate(invalid="ignore", over="ignore"):
        sums = flat.sum(axis=1)  # not finite if a number is not; the other way round it may have overflowed
    suspects = np.flatnonzero(~np.isfinite(sums))
    return next((int(frame) for frame in suspects if not np.isfinite(flat[frame]).all()), None)


def _listing(root: Path) -> Listing:
    lacking = [name for name in raw.FILES if not (root / name).is_file()]
    if not lacking:
        return raw.list_raw(root)
    absent = [f"{name}/" for name in (folders.MESHES, folders.SOUND) if not (root / name).is_dir()]
    absent += [] if (root / folders.TEMPLATES).is_file() else [folders.TEMPLATES]
    if not absent:
        return folders.list_folders(root)
    raise AssetMissingError(
        f"VOCASET folder {root} holds neither layout: of VOCA's files it lacks {', '.join(lacking)}; of FaceFormer's "
        f"folders {', '.join(absent)}. Unpack VOCA's trainingdata.zip there (register at voca.is.tue.mpg.de)."
    )


def _step(fps: int) -> int:
    if fps < 1 or NATIVE_FPS % fps:
        raise ShapeError(f"VOCASET has {NATIVE_FPS} frames a second; {fps} does not divide that.")
    return NATIVE_FPS // fps


def _gather(
    meshes: Float[np.ndarray, "rows vertices 3"], rows: Int[np.ndarray, " frames"]
) -> Float[np.ndarray, "frames vertices 3"]:
    """The rows in float32, in memory; rows at even distances are read as one run."""
    step = int(rows[1] - rows[0]) if len(rows) > 1 else 1
    is_even = step > 0 and (np.diff(rows) == step).all()
    chosen = meshes[rows[0] : rows[-1] + 1 : step] if is_even else meshes[rows]
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which first_bad_frame finds
        return np.array(chosen, dtype=np.float32, order="C")
