"""The methods that are compared, each turning a clip into a motion.

`neutral` and `train-mean` need no network and give the numbers a floor; `selftalk` is M_lip alone; the two `ours` are
the whole chain, with emotion and level from the file name or recognised from the speech.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float

from ecavatar.animation.animator import Animator
from ecavatar.animation.emotional import constant_track
from ecavatar.animation.motion import Motion, resampled
from ecavatar.animation.neutral import NeutralFace
from ecavatar.errors import DataError
from ecavatar.evaluation.protocol import SpokenClip
from ecavatar.face.model import FaceAsset
from ecavatar.speech.audio import SPEECH_RATE
from ecavatar.speech.track import EmotionTrack
from ecavatar.vocateeth.dataset import VocaTeeth

Method = Literal["neutral", "train-mean", "selftalk", "ours-given", "ours-recognised"]
METHODS: tuple[Method, ...] = ("neutral", "train-mean", "selftalk", "ours-given", "ours-recognised")
NETWORK_FREE: tuple[Method, ...] = ("neutral", "train-mean")


def mean_displacement(dataset: VocaTeeth) -> Float[np.ndarray, "vertices 3"]:
    """Mean offset of the training frames from their subjects' templates, metres: what `train-mean` adds to a face."""
    templates = dataset.templates()
    total, frames = np.zeros_like(next(iter(templates.values())), dtype=np.float64), 0
    for clip in dataset.of_split("train"):
        offsets = dataset.vertices(clip) - templates[clip.subject]
        total += offsets.sum(axis=0, dtype=np.float64)
        frames += len(offsets)
    return (total / frames).astype(np.float32)


def still_motion(clip: SpokenClip, neutral: NeutralFace, asset: FaceAsset, offset: np.ndarray | float = 0.0) -> Motion:
    """The neutral face plus a constant offset, for as long as the clip sounds."""
    frames = _frames(clip, clip.sound())
    vertices = np.repeat((neutral.vertices + offset)[None].astype(np.float32), frames, axis=0)
    return Motion(vertices=vertices, fps=clip.fps, topology=asset.topology, template=neutral.vertices)


def animated_motion(
    method: Method, clip: SpokenClip, neutral: NeutralFace, animator: Animator, track: EmotionTrack | None
) -> Motion:
    """What a network method predicts for a clip, at the clip's frame rate.

    Args:
        method: `selftalk`, `ours-given` or `ours-recognised`.
        clip: the clip.
        neutral: M_in of its subject.
        animator: the trained parts.
        track: recognised emotions, for `ours-recognised`.

    Raises:
        DataError: `ours-recognised` without a track.
    """
    samples = clip.sound()
    motion = animator.lip_motion(neutral, samples)
    if method != "selftalk":
        if method == "ours-given":
            track = constant_track(clip.label, len(samples) / SPEECH_RATE)
        if track is None:
            raise DataError(f"{clip.clip_id} has no recognised emotion track; run track_emotions for {clip.corpus}.")
        motion = animator.fused_motion(neutral, motion, track)
    return resampled(motion, clip.fps, _frames(clip, samples))


def _frames(clip: SpokenClip, samples: Float[np.ndarray, " samples"]) -> int:
    return max(1, round(len(samples) / SPEECH_RATE * clip.fps))
