"""How the actors of the sample world move while they speak with emotion.

The upper face is the emotion's alone. Mouth and jaw add half of the emotion's movement to the speech's; where speech
brings the lips together, whatever parts them is taken back, so that p, b and m stay closed in every emotion.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ecavatar.emotion import Emotion
from ecavatar.errors import ShapeError
from ecavatar.face.model import ARKIT_INDEX
from ecavatar.sample.expressions import LEVEL_AMPLITUDES, emotion_weights, sides, upper_face_units
from ecavatar.sample.letters import Phone
from ecavatar.sample.lip_motion import articulate

MOUTH_SHARE = 0.5
"""Share of an emotion's mouth movement that is seen while speaking."""
_PARTING = ("jawOpen", "mouthFunnel", "mouthLowerDown", "mouthUpperUp")
_ONSET_SECONDS = 0.3
_ONSET_START = 0.7
_LIVELINESS = 0.06
_DRIFT = 0.015


def act(
    phones: Sequence[Phone],
    duration: float,
    fps: float,
    emotion: Emotion,
    level: int,
    random: np.random.Generator,
    *,
    openness: float = 1.0,
) -> Float[np.ndarray, "frames 52"]:
    """ARKit weights of somebody who says these phones in this emotion, float32 in 0..1.

    Neutral speech begins with the face at rest. Other emotions are there from the first frame and reach full strength
    after 0.3 s. Nobody blinks.

    Args:
        phones: what is said, times in seconds.
        duration: of the clip, seconds.
        fps: frames a second.
        emotion: category.
        level: 1, 2 or 3.
        random: draws this take's variation.
        openness: how widely this speaker opens the mouth.
    """
    speech = articulate(phones, duration, fps, openness=openness)
    frames = len(speech)
    if emotion is Emotion.NEUTRAL:
        return np.clip(speech + _drift(frames, fps, random), 0, 1).astype(np.float32)
    pose = emotion_weights(emotion, LEVEL_AMPLITUDES[level], random)
    seconds = np.arange(frames) / fps
    onset = np.clip(seconds / _ONSET_SECONDS, 0, 1)
    strength = _ONSET_START + (1 - _ONSET_START) * onset * onset * (3 - 2 * onset)
    strength = strength * (1 + wander(frames, fps, random, _LIVELINESS))
    return mix(speech, strength[:, None] * pose)


def mix(
    speech: Float[np.ndarray, "frames 52"], emotion: Float[np.ndarray, "frames 52"]
) -> Float[np.ndarray, "frames 52"]:
    """Speech and emotion on one face; the rule is the module's first paragraph.

    Raises:
        ShapeError: shapes differ.
    """
    if speech.shape != emotion.shape:
        raise ShapeError(f"speech and emotion must have one shape, got {speech.shape} and {emotion.shape}.")
    added = emotion * np.where(upper_face_units() > 0, 1.0, MOUTH_SHARE)
    jaw, closing = speech[:, ARKIT_INDEX["jawOpen"]], speech[:, ARKIT_INDEX["mouthClose"]]
    pressing = speech[:, sides("mouthPress")].max(axis=1)
    closed = np.clip(np.maximum(closing / np.maximum(jaw, 1e-3), pressing / 0.1), 0, 1)
    parting = [unit for name in _PARTING for unit in sides(name)]
    added[:, parting] *= (1 - closed)[:, None]
    return np.clip(speech + added, 0, 1).astype(np.float32)


def wander(frames: int, fps: float, random: np.random.Generator, spread: float) -> Float[np.ndarray, " frames"]:
    """A slow smooth curve around 0 with standard deviation `spread`: four sine waves between 0.2 and 1.2 Hz."""
    seconds = np.arange(frames) / fps
    rates, phases = random.uniform(0.2, 1.2, 4), random.uniform(0, 2 * np.pi, 4)
    waves = np.sin(2 * np.pi * rates * seconds[:, None] + phases)
    return spread * waves.sum(axis=1) / np.sqrt(2)


def _drift(frames: int, fps: float, random: np.random.Generator) -> np.ndarray:
    """Faint movement of brows and lids that grows from nothing within the first second."""
    weights = np.zeros((frames, len(ARKIT_INDEX)))
    begin = np.clip(np.arange(frames) / fps, 0, 1)
    for name in ("browInnerUp", "browOuterUp", "browDown", "eyeSquint"):
        curve = begin * np.maximum(wander(frames, fps, random, _DRIFT), 0)
        weights[:, sides(name)] = curve[:, None]
    return weights
