"""The emotional face M_emo over time: retrieval from Emolib and transitions (section 4.1 of the paper)."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from ecavatar.animation.transitions import transition_weights
from ecavatar.emolib.retrieval import EmolibIndex
from ecavatar.emotion import LabelPair
from ecavatar.face.model import FaceModel
from ecavatar.speech.track import EmotionTrack


def emotional_face(
    model: FaceModel,
    library: EmolibIndex,
    shape: Float[np.ndarray, "s"],
    pair: LabelPair,
    identity: Literal["own", "retrieved"],
) -> Float[np.ndarray, "vertices 3"]:
    """M_emo of one label pair: the expression of the Emolib item whose shape is nearest to `shape`.

    Args:
        model: face model whose basis the coefficients belong to.
        library: Emolib.
        shape: shape coefficients of M_in.
        pair: emotion category and level.
        identity: `retrieved` returns the item's own mesh, as the paper does; `own` puts its expression and jaw on
            M_in's shape, so that identity survives a small library.

    Returns:
        Vertices in metres, head pose zero.
    """
    item = library.nearest(shape, pair)
    own = shape if identity == "own" else item.shape
    with torch.inference_mode():
        vertices = model(*(torch.as_tensor(np.asarray(x, np.float32)[None]) for x in (own, item.expression, item.jaw_pose)))
    return vertices[0].numpy()


def emotional_motion(
    model: FaceModel,
    library: EmolibIndex,
    shape: Float[np.ndarray, "s"],
    track: EmotionTrack,
    *,
    frames: int,
    fps: float,
    transition: float,
    identity: Literal["own", "retrieved"],
) -> Float[np.ndarray, "frames vertices 3"]:
    """M_emo of every frame: one retrieved face per window, blended across window borders."""
    faces = _faces(model, library, shape, track, identity)
    weights = transition_weights(
        [window.start for window in track.windows], track.windows[-1].end, frames, fps, transition
    )
    return np.einsum("tw,wvc->tvc", weights.astype(np.float32), faces)


def _faces(
    model: FaceModel,
    library: EmolibIndex,
    shape: Float[np.ndarray, "s"],
    track: EmotionTrack,
    identity: Literal["own", "retrieved"],
) -> Float[np.ndarray, "windows vertices 3"]:
    pairs = [LabelPair(window.emotion, window.level) for window in track.windows]
    known = {pair: emotional_face(model, library, shape, pair, identity) for pair in set(pairs)}
    return np.stack([known[pair] for pair in pairs])
