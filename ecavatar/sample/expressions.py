"""What the eight emotions look like, as weights of the 52 ARKit units.

The prototypes follow EMFACS (Friesen and Ekman, 1983; Ekman, Friesen and Hager, FACS Investigator's Guide, 2002). Each
action unit is written as the ARKit unit that moves the same muscle: 1 browInnerUp, 2 browOuterUp, 4 browDown,
5 eyeWide, 6 cheekSquint, 7 eyeSquint, 9 noseSneer, 10 mouthUpperUp, 12 mouthSmile, 14 mouthDimple, 15 mouthFrown,
16 mouthLowerDown, 17 mouthShrugLower, 20 mouthStretch, 23 and 24 mouthPress, 26 jawOpen, 43 eyeBlink. The sizes of the
weights are ours.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from ecavatar.emotion import Emotion
from ecavatar.errors import DataError
from ecavatar.face.model import ARKIT_INDEX, ARKIT_NAMES

PROTOTYPES: Mapping[Emotion, Mapping[str, float]] = {
    Emotion.NEUTRAL: {},
    Emotion.HAPPY: {"cheekSquint": 0.7, "eyeSquint": 0.45, "mouthSmile": 0.9, "mouthUpperUp": 0.25, "jawOpen": 0.12},
    Emotion.SAD: {"browInnerUp": 0.95, "browDown": 0.25, "eyeBlink": 0.2, "mouthFrown": 0.85, "mouthShrugLower": 0.35},
    Emotion.SURPRISE: {"browInnerUp": 0.85, "browOuterUp": 0.95, "eyeWide": 0.8, "jawOpen": 0.5},
    Emotion.FEAR: {
        "browInnerUp": 1.0,
        "browOuterUp": 0.45,
        "browDown": 0.3,
        "eyeWide": 0.95,
        "mouthStretch": 0.7,
        "mouthLowerDown": 0.2,
        "jawOpen": 0.22,
    },
    Emotion.DISGUST: {
        "browDown": 0.6,
        "cheekSquint": 0.5,
        "eyeSquint": 0.6,
        "noseSneer": 0.95,
        "mouthUpperUp": 0.6,
        "mouthFrown": 0.35,
        "mouthShrugLower": 0.3,
    },
    Emotion.ANGER: {"browDown": 1.0, "eyeSquint": 0.4, "eyeWide": 0.25, "noseSneer": 0.35, "mouthPress": 0.6},
    # EMFACS: one-sided 12 and 14 alone. Lowered lids and the raised brow of the same side are added as actors show them
    Emotion.CONTEMPT: {
        "mouthSmileLeft": 0.45,
        "mouthDimpleLeft": 0.7,
        "browOuterUpLeft": 0.6,
        "browDownRight": 0.35,
        "eyeBlink": 0.25,
    },
}
"""Weights at full amplitude. A name without Left or Right means both sides."""

LEVEL_AMPLITUDES: Mapping[int, float] = {1: 0.35, 2: 0.65, 3: 0.95}
"""Amplitude of the intensity levels: about the middle of each third of what AffectNet's faces show here."""

UPPER_FACE_PREFIXES = ("brow", "eye", "cheekSquint", "noseSneer")
"""Units of the upper face start with these; all others move mouth and jaw."""

_UNIT_SPREAD = 0.18
_SIDE_SPREAD = 0.08
_AMPLITUDE_SPREAD = 0.05
_STRAY_UNITS = ("browInnerUp", "browOuterUp", "browDown", "eyeSquint", "mouthSmile", "mouthFrown", "mouthPress")
_STRAY_WEIGHT = 0.05


def emotion_weights(emotion: Emotion, amplitude: float, random: np.random.Generator) -> Float[np.ndarray, " 52"]:
    """One person's way to show an emotion.

    Args:
        emotion: the category.
        amplitude: 0 nothing .. 1 full strength.
        random: draws how strongly this person moves each unit, how evenly both sides, and faint other movements.

    Returns:
        ARKit weights in 0..1, float32, in the order of `ARKIT_NAMES`.

    Raises:
        DataError: the amplitude is not in 0..1.
    """
    if not 0 <= amplitude <= 1:
        raise DataError(f"an emotion's amplitude must be in 0..1, got {amplitude}.")
    strength = amplitude * np.exp(random.normal(0, _AMPLITUDE_SPREAD))
    weights = np.zeros(len(ARKIT_NAMES))
    for name, weight in PROTOTYPES[emotion].items():
        personal = weight * strength * np.exp(random.normal(0, _UNIT_SPREAD))
        for unit in sides(name):
            weights[unit] += personal * np.exp(random.normal(0, _SIDE_SPREAD))
    for name in _STRAY_UNITS:
        weights[sides(name)] += _STRAY_WEIGHT * random.uniform(0, 1)
    return np.clip(weights, 0, 1).astype(np.float32)


def sides(name: str) -> list[int]:
    """Columns of a unit: itself, or its left and right half.

    Raises:
        DataError: there is no such unit.
    """
    names = [name] if name in ARKIT_INDEX else [f"{name}Left", f"{name}Right"]
    try:
        return [ARKIT_INDEX[side] for side in names]
    except KeyError:
        raise DataError(f"{name!r} is no ARKit unit and no pair of them.") from None


def upper_face_units() -> Float[np.ndarray, " 52"]:
    """1 for the units of the upper face, 0 for those of mouth and jaw."""
    return np.array([name.startswith(UPPER_FACE_PREFIXES) for name in ARKIT_NAMES], dtype=np.float32)
