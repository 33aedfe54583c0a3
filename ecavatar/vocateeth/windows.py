"""Sound, neutral face and moving face of VOCATeeth for training: whole clips or windows, read when asked for.

`TeethClips` is a PyTorch data set for a DataLoader with any number of workers; `pad_clips` is its `collate_fn`;
`SubjectMouths` adds the mouths of a batch on its device, where a loader should not carry them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from ecavatar.errors import DataError, ShapeError
from ecavatar.mouth.fit import MouthPoser
from ecavatar.vocateeth.dataset import TeethClip, VocaTeeth


@dataclass(frozen=True, slots=True, kw_only=True)
class TeethItem:
    """A clip, or a window of one. N is V, or with the mouth V+M."""

    clip_id: str
    subject: str
    first_frame: int
    """Where it begins in its clip."""
    audio: Float[Tensor, " S"]
    """-1..1. Of a window, exactly its time: zeros follow where the clip's sound ends earlier."""
    sample_rate_hz: int
    template: Float[Tensor, "N 3"]
    """The subject's neutral head, mouth closed, metres."""
    vertices: Float[Tensor, "T N 3"]
    """Metres."""
    angles: Float[Tensor, " T"]
    """Of the jaw, radians."""
    times: Float[Tensor, " T"]
    """Of each frame, seconds since the sound's first sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeethBatch:
    """Items padded at their ends with zeros to the longest; masks are true where something is."""

    clip_ids: tuple[str, ...]
    subjects: tuple[str, ...]
    first_frames: tuple[int, ...]
    audio: Float[Tensor, "B S"]
    audio_mask: Bool[Tensor, "B S"]
    sample_rate_hz: int
    templates: Float[Tensor, "B N 3"]
    vertices: Float[Tensor, "B T N 3"]
    angles: Float[Tensor, "B T"]
    times: Float[Tensor, "B T"]
    frame_mask: Bool[Tensor, "B T"]


@dataclass(frozen=True, slots=True)
class _Place:
    clip: TeethClip
    first: int
    frames: int


class TeethClips(Dataset[TeethItem]):
    """Clips of a VOCATeeth, or windows of them, in stored order.

    Only the index is held: every item is read from disk when it is asked for and files are closed again, so the object
    can be pickled and forked. An item costs its clip's frames up to its own last one and the clip's sound; templates
    are read once.
    """

    def __init__(
        self,
        teeth: VocaTeeth | Path,
        split: str | None = None,
        *,
        seconds: float | None = None,
        stride: float | None = None,
        mouth: bool = True,
        sample_rate_hz: int | None = None,
    ) -> None:
        """Read the index.

        Args:
            teeth: the dataset, or its folder.
            split: train, val or test; None: all clips, also those that are in no split.
            seconds: length of a window; None: whole clips.
            stride: from one window to the next, seconds; None: `seconds`. What is left at a clip's end and clips that
                are shorter than a window are not read.
            mouth: give joined heads (V+M vertices) instead of faces (V).
            sample_rate_hz: resample the sound; None: as stored.

        Raises:
            AssetMissingError, DataError: from `VocaTeeth.open`; no clip in the split, no window fits, or a length or
                rate is not positive.
        """
        self.teeth = teeth if isinstance(teeth, VocaTeeth) else VocaTeeth.open(teeth)
        self.mouth, self.sample_rate_hz = mouth, sample_rate_hz
        if sample_rate_hz is not None and sample_rate_hz <= 0:
            raise DataError(f"sample_rate_hz must be positive, got {sample_rate_hz}. 16000 suits speech models.")
        clips = self.teeth.clips if split is None else self.teeth.of_split(split)
        self._places = _places(clips, self.teeth.fps, seconds, stride)
        self._is_window = seconds is not None
        self._templates: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> TeethItem:
        """The item at `index`; negative ones count from the end.

        Raises:
            IndexError: there is no such item.
            DataError: its part is damaged.
        """
        place, teeth = self._places[index], self.teeth
        clip, last = place.clip, place.first + place.frames
        faces, angles = teeth.frames(clip, place.first, last)
        vertices = teeth.joined(clip.subject, faces, angles) if self.mouth else faces
        audio, rate = self._audio(place)
        return TeethItem(
            clip_id=clip.clip_id,
            subject=clip.subject,
            first_frame=place.first,
            audio=torch.from_numpy(audio),
            sample_rate_hz=rate,
            template=torch.from_numpy(self._template(clip.subject).copy()),
            vertices=torch.from_numpy(vertices if vertices.flags.writeable else vertices.copy()),
            angles=torch.from_numpy(angles.copy()),
            times=torch.arange(place.frames, dtype=torch.float32) / teeth.fps,
        )

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_templates": {}}

    def _audio(self, place: _Place) -> tuple[Float[np.ndarray, " S"], int]:
        """Sound of the window, cut from that of the whole clip after resampling, so that windows have no edges."""
        samples, rate = self.teeth.audio(place.clip)
        if self.sample_rate_hz is not None and rate != self.sample_rate_hz:
            import soxr  # loads a native library; only when needed

            samples = soxr.resample(samples, rate, self.sample_rate_hz, quality="HQ").astype(np.float32)
            rate = self.sample_rate_hz
        if not self._is_window:
            return samples, rate
        first = round(place.first * rate / self.teeth.fps)
        count = round(place.frames * rate / self.teeth.fps)
        cut = samples[first : first + count]
        return np.pad(cut, (0, count - len(cut))), rate

    def _template(self, subject: str) -> np.ndarray:
        if not self._templates:
            self._templates = {name: self._at_rest(name, face) for name, face in self.teeth.templates().items()}
        return self._templates[subject]

    def _at_rest(self, subject: str, face: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "N 3"]:
        return self.teeth.joined(subject, face[None], np.zeros(1, dtype=np.float32))[0] if self.mouth else face


def pad_clips(items: Sequence[TeethItem]) -> TeethBatch:
    """One batch of items of any lengths.

    Raises:
        DataError: no items.
        ShapeError: items with and without mouth, or of different sample rates.
    """
    if not items:
        raise DataError("a batch needs at least one item.")
    rates, counts = {item.sample_rate_hz for item in items}, {item.vertices.shape[1] for item in items}
    if len(rates) > 1 or len(counts) > 1:
        raise ShapeError(
            f"items of one batch differ: {sorted(rates)} samples a second, {sorted(counts)} vertices. Give TeethClips "
            "a sample_rate_hz, and do not mix heads with and without mouth."
        )
    audio = [item.audio for item in items]
    return TeethBatch(
        clip_ids=tuple(item.clip_id for item in items),
        subjects=tuple(item.subject for item in items),
        first_frames=tuple(item.first_frame for item in items),
        audio=pad_sequence(audio, batch_first=True),
        audio_mask=_mask(audio),
        sample_rate_hz=rates.pop(),
        templates=torch.stack([item.template for item in items]),
        vertices=pad_sequence([item.vertices for item in items], batch_first=True),
        angles=pad_sequence([item.angles for item in items], batch_first=True),
        times=pad_sequence([item.times for item in items], batch_first=True),
        frame_mask=_mask([item.times for item in items]),
    )


class SubjectMouths(nn.Module):
    """The mouths of all subjects, to be added to faces on whatever device they are: a loader then carries a third."""

    def __init__(self, teeth: VocaTeeth) -> None:
        super().__init__()
        self._names = {subject: f"mouth_{index}" for index, subject in enumerate(sorted(teeth.fits))}
        for subject, name in self._names.items():
            self.add_module(name, MouthPoser(teeth.mouth, teeth.fit(subject)))

    def forward(
        self, faces: Float[Tensor, "B T V 3"], angles: Float[Tensor, "B T"], subjects: Sequence[str]
    ) -> Float[Tensor, "B T V+M 3"]:
        """Joined heads, metres, face vertices first.

        Args:
            faces: metres; predicted ones as well as stored ones.
            angles: of the jaw, radians.
            subjects: whose faces, one a clip.

        Raises:
            DataError: an unknown subject.
            ShapeError: counts that differ.
        """
        if not len(faces) == len(angles) == len(subjects) or faces.shape[1] != angles.shape[1]:
            raise ShapeError(
                f"faces {tuple(faces.shape)}, angles {tuple(angles.shape)} and {len(subjects)} subjects do not fit; "
                "expected (B, T, V, 3), (B, T) and B."
            )
        if unknown := sorted(set(subjects) - set(self._names)):
            raise DataError(f"no mouth was fitted to {', '.join(unknown)}; subjects: {', '.join(self._names)}.")
        mouths = [self.get_submodule(self._names[name])(turn) for name, turn in zip(subjects, angles, strict=True)]
        return torch.cat([faces, torch.stack(mouths).to(faces.dtype)], dim=2)


def _places(clips: Sequence[TeethClip], fps: int, seconds: float | None, stride: float | None) -> list[_Place]:
    if seconds is None:
        if stride is not None:
            raise DataError("a stride needs windows. Give seconds, too.")
        return [_Place(clip, 0, clip.frames) for clip in clips]
    stride = seconds if stride is None else stride
    if not (math.isfinite(seconds) and math.isfinite(stride)):
        raise DataError(f"windows of {seconds} s every {stride} s cannot be cut. Give numbers of seconds.")
    count, step = round(seconds * fps), round(stride * fps)
    if count < 1 or step < 1:
        raise DataError(f"windows of {seconds} s every {stride} s are less than a frame at {fps} frames a second.")
    places = [
        _Place(clip, first, count) for clip in clips for first in range(0, clip.frames - count + 1, step)
    ]  # fmt: skip
    if not places:
        longest = max((clip.frames for clip in clips), default=0) / fps
        raise DataError(f"no clip holds a window of {seconds} s; the longest has {longest:.2f} s. Give less.")
    return places


def _mask(rows: Sequence[Tensor]) -> Bool[Tensor, "B L"]:
    lengths: Int[Tensor, " B"] = torch.tensor([len(row) for row in rows])
    return torch.arange(int(lengths.max()))[None] < lengths[:, None]
