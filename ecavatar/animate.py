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
from ecavatar.assets import asset_of_kind
from ecavatar.config import EmotionSettings, ProfileSettings
from ecavatar.emotion import LabelPair
from ecavatar.reconstruction.images import read_image
from ecavatar.reconstruction.landmarks import FaceLandmarker
from ecavatar.reconstruction.table import Reconstructor
from ecavatar.rendering.film import write_film
from ecavatar.speech.audio import SPEECH_RATE, read_audio
from ecavatar.speech.track import EmotionTrack, LabelRule, read_track
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
    track: Path | None = None,
    emotion2vec: Path,
    reconstructor: Reconstructor,
    emotions: EmotionSettings,
) -> Animation:
    """Let the face in `photo` say what is said in `recording`.

    Args:
        photo: a picture with one clearly visible face.
        recording: speech, any format ffmpeg reads.
        animator: the trained parts.
        label: emotion and level throughout.
        track: file of an emotion track, used without a label; without both, emotions are recognised from the speech.
        emotion2vec: directory of the recogniser, used only then.
        reconstructor: finds the face in the photo, with the animator's face model.
        emotions: settings of the emotion track.

    Raises:
        DataError: no face in the photo, or unreadable photo or sound.
        AssetMissingError: a model is missing.
    """
    samples = read_audio(recording, SPEECH_RATE)
    torch.set_num_threads(1)  # two runs give the same bytes
    with FaceLandmarker() as landmarker:
        found = reconstructor.face(read_image(photo), landmarker, str(photo)).reconstruction
    neutral = NeutralFace.from_shape(animator.model, found.shape)
    shown = _track(samples, label, track, emotion2vec, emotions)
    lip = animator.lip_motion(neutral, samples)
    motion = animator.fused_motion(neutral, lip, shown)
    return Animation(neutral=neutral, track=shown, motion=motion, sound=(samples, SPEECH_RATE))


def animate_files(
    photo: Path,
    recording: Path,
    out: Path,
    *,
    data: Path,
    settings: ProfileSettings,
    label: LabelPair | None,
    track: Path | None = None,
    size_px: int,
) -> Animation:
    """Animate a photo with the models the pipeline left in `data` and write the film.

    Args:
        photo: a picture with one clearly visible face.
        recording: speech.
        out: mp4 to write, whole or not at all.
        data: folder of a profile, for instance data/sample.
        settings: settings of that profile.
        label: emotion and level; None recognises them.
        track: file of an emotion track, in place of `label`.
        size_px: edge of the film, an even number.

    Raises:
        AssetMissingError: photo, recording or a model is missing.
        DataError: see `animate`.
    """
    animator = Animator.load(
        face_model=data / asset_of_kind("face-model").path,
        emolib=data / "emolib",
        selftalk=data / "models" / "selftalk",
        funet=data / "models" / "funet",
        settings=settings.predict,
    )
    animation = animate(
        photo,
        recording,
        animator,
        label=label,
        track=track,
        emotion2vec=data / asset_of_kind("emotion2vec").path,
        reconstructor=Reconstructor(animator.asset, settings.reconstruct, data / asset_of_kind("emica").path),
        emotions=settings.emotions,
    )
    write_film(out, animation.motion, animator.asset, size_px=size_px, sound=animation.sound)
    return animation


def _track(
    samples: Float[np.ndarray, " samples"],
    label: LabelPair | None,
    track: Path | None,
    emotion2vec: Path,
    settings: EmotionSettings,
) -> EmotionTrack:
    duration = len(samples) / SPEECH_RATE
    if label is not None:
        return constant_track(label, duration)
    if track is not None:
        return read_track(track, duration)
    return track_clips(emotion2vec, {"clip": samples}, settings.window_seconds, LabelRule.of(settings))["clip"]
