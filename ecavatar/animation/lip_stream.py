"""Lips for speech of any length, as it comes: chunks of sound with context on both sides, cross-faded.

SelfTalk looks at a whole clip at once, both ways in time. Here it looks at windows: each gives the frames of its
middle, the sound around them is context. Windows lie on a grid on which features and frames meet (0.1 s at 30 frames a
second), so frame j shows the sound at exactly j / fps. Memory does not grow with the recording, and neither block sizes
nor their number change a byte of the result.

How far this is from one look at the whole clip: a recording shorter than the first window is that one look. Beyond it,
see `LONG` and `LIVE`. Part of the difference is the whole clip's own: it stretches time, aligning first and last
feature with first and last frame, by up to 10 ms at a clip's end; windows do not.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ecavatar.errors import DataError, ShapeError
from ecavatar.models.selftalk import LipMotion, SelfTalk
from ecavatar.speech.audio import SPEECH_RATE
from ecavatar.speech.sound_facts import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkPlan:
    """How a recording is cut; seconds, rounded to the grid where features and frames meet."""

    hop_s: float
    """New frames of every window."""
    left_s: float
    """Sound before them."""
    right_s: float
    """Sound after them; a live speaker waits for it."""
    fade_s: float
    """The first frames of a window fade over from those that the window before gives for the same time; at most
    `right_s`."""

    def __post_init__(self) -> None:
        if not (self.hop_s > 0 and self.left_s >= 0 and self.right_s >= 0 and 0 <= self.fade_s <= self.right_s):
            raise DataError(
                f"{self}: expected a positive hop_s, left_s and right_s of at least 0, and fade_s from 0 to right_s. "
                "Change the plan."
            )


LONG: Final = ChunkPlan(hop_s=16.0, left_s=2.0, right_s=2.0, fade_s=0.2)
"""For files: 18 s and less are one look. On 34 s of the sample's unseen speakers, sentence after sentence, the lips are
0.08 mm from one look on average (they move by 0.95 mm), on 102 s of all its speakers 0.24 mm; against the truth the lip
vertex error is 0.5 % lower than that of one look."""
LIVE: Final = ChunkPlan(hop_s=0.4, left_s=3.0, right_s=0.4, fade_s=0.1)
"""For a microphone: a latency of 0.83 s. On the same 34 s the lips are 0.21 mm from one look on average, and the lip
vertex error against the truth is 0.8 % higher; with 0.2 s for hop and right context (0.43 s latency, twice the work)
0.24 mm and 1.2 %."""


class LipStream:
    """Takes sound in blocks of any size and gives lip motion, window by window.

    Example:
        stream = LipStream(network, fps=30)
        for block in microphone:
            for motion in stream.push(block):
                show(template + motion.vertices)
        last = stream.finish()
    """

    def __init__(
        self,
        network: SelfTalk,
        fps: float,
        plan: ChunkPlan = LIVE,
        *,
        level: Level | None = None,
        face_only: bool = False,
    ) -> None:
        """Starts before the first sample.

        Args:
            network: a trained one.
            fps: frames a second it was trained for.
            plan: how the recording is cut.
            level: of the whole recording (`sound_facts.measure_sound`), or of this microphone at other times. None: of
                all sound up to each window's end, so the first windows of a recording that starts with silence are
                heard too loud.
            face_only: leave a regressed mouth out.

        Raises:
            DataError: frame rate and feature rate meet less often than once a hop.
        """
        self.network, self.fps, self.plan, self.level, self.face_only = network, fps, plan, level, face_only
        config = network.encoder.config
        self._step = math.prod(config.conv_stride)
        ratio = Fraction(fps).limit_denominator(1000) * self._step / SPEECH_RATE
        self._unit, self._unit_samples = ratio.numerator, ratio.denominator * self._step
        if self._unit_samples > plan.hop_s * SPEECH_RATE:
            raise DataError(
                f"at {fps:g} frames a second features and frames meet every {self._unit_samples / SPEECH_RATE:g} s, "
                f"less often than a hop of {plan.hop_s:g} s. Take longer hops, or a frame rate such as 25 or 30."
            )
        seconds = (plan.hop_s, plan.left_s, plan.right_s)
        self._hop, self._left, self._right = (self._on_grid(length) for length in seconds)
        self._hop = max(self._hop, self._unit)
        self._fade = min(round(plan.fade_s * fps), self._right)
        self._next = 0  # first frame that was not given yet
        self._held = np.zeros(0, np.float32)
        self._held_from = 0  # sample
        self._heard = _Heard()
        self._fading: LipMotion | None = None  # what the last window says of the next one's first frames
        self._is_finished = False

    @property
    def latency_s(self) -> float:
        """From a moment's sound to its frame, at most, without computing time: a window's first frame waits longest."""
        return (self._hop + self._right) / self.fps + self.network.encoder.shortest / SPEECH_RATE

    @property
    def frames(self) -> int:
        """Frames given so far."""
        return self._next

    def push(self, samples: Float[np.ndarray, " samples"]) -> list[LipMotion]:
        """Hear the next samples, any number.

        Args:
            samples: 16 kHz mono, finite.

        Returns:
            Offsets from the template (and angles) of the frames that are ready, in order; often none.

        Raises:
            ShapeError: not one row of samples, or the stream is finished.
            DataError: a sample is not finite.
        """
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1 or self._is_finished:
            raise ShapeError(
                f"expected samples (N,) of an unfinished stream, got shape {samples.shape}. Start a new LipStream for "
                "the next recording, and average channels."
            )
        if not np.isfinite(samples).all():
            raise DataError("the sound holds samples that are not finite. Check the source.")
        self._held = np.concatenate([self._held, samples])
        ready = []
        while self._held_from + len(self._held) >= self._sample_of(self._next + self._hop + self._right, ends=True):
            ready.append(self._window())
        return ready

    def finish(self) -> list[LipMotion]:
        """The rest, once the recording has ended.

        Returns:
            In all calls together as many frames as the sound is long, to the nearest, at least one.

        Raises:
            ShapeError: no sound came, or the stream is finished already.
        """
        n_samples = self._held_from + len(self._held)
        if self._is_finished or not n_samples:
            raise ShapeError("nothing to finish: expected a stream that has heard sound. Push some, and finish once.")
        self._is_finished = True
        stop = max(1, round(n_samples / SPEECH_RATE * self.fps))
        if stop <= self._next:
            return []
        first = max(0, self._next - self._left)
        motion = self._looked_at(self._sample_of(first), n_samples, stop - first)
        given = self._faded(_cut(motion, self._next - first, stop - first))
        self._next = stop
        return [given]

    def _window(self) -> LipMotion:
        """The next hop."""
        first, stop = max(0, self._next - self._left), self._next + self._hop
        last = stop + self._right
        motion = self._looked_at(self._sample_of(first), self._sample_of(last, ends=True), last - first + 1)
        given = self._faded(_cut(motion, self._next - first, stop - first))
        after = _cut(motion, stop - first, stop - first + self._fade)
        self._fading = LipMotion(
            vertices=after.vertices.clone(), angles=None if after.angles is None else after.angles.clone()
        )
        self._next = stop
        self._forget()
        return given

    def _looked_at(self, begin: int, end: int, frames: int) -> LipMotion:
        """What the network makes of samples begin..end."""
        if self.level is None:
            self._heard.add(self._held[self._heard.count - self._held_from : end - self._held_from])
        sound = torch.from_numpy(self._held[begin - self._held_from : end - self._held_from])
        level = self._heard.level if self.level is None else self.level
        return self.network.offsets(sound, frames, level, face_only=self.face_only)

    def _faded(self, motion: LipMotion) -> LipMotion:
        """The frames of a window, the first of them blended with what the window before said."""
        if self._fading is None:
            return motion
        before, after = self._fading.angles, motion.angles
        return LipMotion(
            vertices=self._blended(self._fading.vertices, motion.vertices),
            angles=None if before is None or after is None else self._blended(before, after),
        )

    def _blended(self, before: Float[Tensor, "fade *rest"], after: Float[Tensor, "frames *rest"]) -> Tensor:
        count = min(len(before), len(after))
        weight = torch.arange(1, count + 1, device=after.device).to(after.dtype) / (self._fade + 1)
        weight = weight.reshape(-1, *[1] * (after.ndim - 1))
        return torch.cat([torch.lerp(before[:count], after[:count], weight), after[count:]])

    def _forget(self) -> None:
        """Drop what is older than the next window's left context."""
        keep = self._sample_of(max(0, self._next - self._left))
        self._held = self._held[keep - self._held_from :].copy()
        self._held_from = keep

    def _on_grid(self, seconds: float) -> int:
        """Frames, a multiple of the grid's."""
        return round(seconds * SPEECH_RATE / self._unit_samples) * self._unit

    def _sample_of(self, frame: int, *, ends: bool = False) -> int:
        """Where the feature of a frame on the grid begins; or ends, one past its last sample."""
        start = frame // self._unit * self._unit_samples
        return start + self.network.encoder.shortest if ends else start


class _Heard:
    """Mean and variance of all sound so far, piece by piece in float64 (Chan, Golub and LeVeque, 1979)."""

    def __init__(self) -> None:
        self.count, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, piece: Float[np.ndarray, " samples"]) -> None:
        if not len(piece):
            return
        wide = piece.astype(np.float64)
        step = float(wide.mean()) - self._mean
        self._squares += float(wide.var()) * len(wide) + step**2 * self.count * len(wide) / (self.count + len(wide))
        self.count += len(wide)
        self._mean += step * len(wide) / self.count

    @property
    def level(self) -> Level:
        return Level(mean=self._mean, variance=self._squares / max(self.count, 1))


def _cut(motion: LipMotion, first: int, stop: int) -> LipMotion:
    return LipMotion(
        vertices=motion.vertices[first:stop], angles=None if motion.angles is None else motion.angles[first:stop]
    )
