"""The emotional face M_emo over time: retrieval from Emolib and transitions (section 4.1 of the paper)."""

import numpy as np
import torch
from jaxtyping import Float

from ecavatar.animation.neutral import NeutralFace
from ecavatar.animation.transitions import transition_weights
from ecavatar.config import PredictSettings
from ecavatar.emolib.retrieval import EmolibIndex
from ecavatar.emotion import LabelPair
from ecavatar.face.model import FaceModel
from ecavatar.speech.track import EmotionTrack, EmotionWindow


def constant_track(label: LabelPair, duration: float) -> EmotionTrack:
    """A track that holds one given label for `duration` seconds; nothing was recognised, so no probabilities."""
    window = EmotionWindow(start=0.0, end=duration, emotion=label.emotion, level=label.level, probabilities=())
    return EmotionTrack((window,))


def emotional_face(
    model: FaceModel, library: EmolibIndex, neutral: NeutralFace, pair: LabelPair, settings: PredictSettings
) -> Float[np.ndarray, "vertices 3"]:
    """M_emo of one label pair, from the Emolib item whose shape is nearest to M_in's.

    Args:
        model: face model whose basis the coefficients belong to.
        library: Emolib.
        neutral: M_in.
        pair: emotion category and level.
        settings: whose identity the face has (`emotional_identity`) and what to do where the library is empty.

    Returns:
        Vertices in metres, head pose zero.

    Raises:
        DataError: the library has no item with this label pair.
    """
    item = library.nearest(neutral.shape, pair, when_empty=settings.empty_level)
    if settings.emotional_identity == "retrieved":
        return _vertices(model, item.shape, item.expression, item.jaw_pose)
    at_rest = _vertices(model, neutral.shape, 0 * item.expression, 0 * item.jaw_pose)
    return neutral.vertices + _vertices(model, neutral.shape, item.expression, item.jaw_pose) - at_rest


def emotional_motion(
    model: FaceModel,
    library: EmolibIndex,
    neutral: NeutralFace,
    track: EmotionTrack,
    *,
    frames: int,
    fps: float,
    settings: PredictSettings,
) -> Float[np.ndarray, "frames vertices 3"]:
    """M_emo of every frame: one face per emotion window, blended across window borders.

    Args:
        model: face model.
        library: Emolib.
        neutral: M_in.
        track: emotion windows from 0 to the end of the clip.
        frames: number of frames.
        fps: frames per second.
        settings: transition length, identity and fall-back of the retrieval.
    """
    pairs = [LabelPair(window.emotion, window.level) for window in track.windows]
    faces = {pair: emotional_face(model, library, neutral, pair, settings) for pair in sorted(set(pairs))}
    starts = [window.start for window in track.windows]
    weights = transition_weights(starts, track.windows[-1].end, frames, fps, settings.transition_seconds)
    return np.einsum("tw,wvc->tvc", weights.astype(np.float32), np.stack([faces[pair] for pair in pairs]))


def _vertices(model: FaceModel, *coefficients: Float[np.ndarray, " n"]) -> Float[np.ndarray, "vertices 3"]:
    with torch.inference_mode():
        return model(*(torch.from_numpy(np.array(c, np.float32)[None]) for c in coefficients))[0].numpy()
