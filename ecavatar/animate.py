"""One photo and one recording -> a film: the rooms put together, for the command line and for flows.

Stands beside `cli.py`, after all rooms: it uses reconstruction, speech, animation and rendering.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from ecavatar.animation.animator import Animator
from ecavatar.animation.emotional import constant_track
from ecavatar.animation.motion import Motion
from ecavatar.animation.neutral import NeutralFace
from ecavatar.config import EmotionSettings, ReconstructSettings
from ecavatar.emotion import LabelPair
from ecavatar.reconstruction.fitter import reconstruct_photo
from ecavatar.reconstruction.images import read_image
from ecavatar.reconstruction.landmarks import FaceLandmarker
from ecavatar.speech.audio import SPEECH_RATE, read_audio
from ecavatar.speech.track import EmotionTrack
from ecavatar.speech.track_table import track_clips


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Animation:
    """What became of a photo and a recording.

    Attributes:
        neutral: M_in, the face in the photo made neutral.
        track: the emotions that were shown.
        motion: M_face, the fused motion.
        sound: the speech, mono float32, and its rate in hertz.
    """

    neutral: NeutralFace
    track: EmotionTrack
    motion: Motion
    sound: tuple[Float[np.ndarray, " samples"], int]


def animate(
    photo: Path,
    recording: Path,
    animator: Animator,
    *,
    label: LabelPair | None,
    emotion2vec: Path,
    reconstruct: ReconstructSettings,
    emotions: EmotionSettings,
) -> Animation:
    """Let the face in `photo` say what is said in `recording`.

    Args:
        photo: a picture with one clearly visible face.
        recording: speech, any format ffmpeg reads.
        animator: the trained parts.
        label: emotion and level; None recognises them from the speech.
        emotion2vec: directory of the recogniser, used only without a label.
        reconstruct: settings of the landmark fitter.
        emotions: settings of the emotion track.

    Raises:
        DataError: no face in the photo, or unreadable photo or sound.
        AssetMissingError: a model is missing.
    """
    samples = read_audio(recording, SPEECH_RATE)
    torch.set_num_threads(1)  # two runs give the same bytes
    with FaceLandmarker() as landmarker:
        found = reconstruct_photo(read_image(photo), landmarker, animator.asset, reconstruct, name=str(photo))
    neutral = NeutralFace.from_shape(animator.model, found.shape)
    track = _track(samples, label, emotion2vec, emotions)
    lip = animator.lip_motion(neutral, samples)
    motion = animator.fused_motion(neutral, lip, track)
    return Animation(neutral=neutral, track=track, motion=motion, sound=(samples, SPEECH_RATE))


def _track(
    samples: Float[np.ndarray, " samples"], label: LabelPair | None, emotion2vec: Path, settings: EmotionSettings
) -> EmotionTrack:
    if label is not None:
        return constant_track(label, len(samples) / SPEECH_RATE)
    return track_clips(emotion2vec, {"clip": samples}, settings.window_seconds)["clip"]
