"""Phone timings -> ARKit mouth weights with coarticulation."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ecavatar.sample.letters import Phone

ARKIT_NAMES: Final[tuple[str, ...]] = tuple(
    """browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff cheekSquintLeft cheekSquintRight
    eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight eyeLookInLeft eyeLookInRight eyeLookOutLeft
    eyeLookOutRight eyeLookUpLeft eyeLookUpRight eyeSquintLeft eyeSquintRight eyeWideLeft eyeWideRight jawForward jawLeft
    jawOpen jawRight mouthClose mouthDimpleLeft mouthDimpleRight mouthFrownLeft mouthFrownRight mouthFunnel mouthLeft
    mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight mouthPucker mouthRight mouthRollLower
    mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft mouthSmileRight mouthStretchLeft mouthStretchRight
    mouthUpperUpLeft mouthUpperUpRight noseSneerLeft noseSneerRight tongueOut""".split()
)
"""The 52 ARKit units in MediaPipe's order without its `_neutral`; `tongueOut`, which MediaPipe lacks, is last."""


def articulate(
    phones: Sequence[Phone], duration: float, fps: float, names: Sequence[str] = ARKIT_NAMES, openness: float = 1.0
) -> NDArray[np.float32]:
    """ARKit weights of the mouth while `phones` are spoken, (T, 52) in 0..1, T = round(duration * fps).

    Args:
        phones: in order; times in seconds. Anything outside them is silence.
        duration: length of the clip in seconds.
        fps: frames per second; frame i shows time i / fps.
        names: order of the columns.
        openness: how widely this speaker opens the mouth; 1 is ordinary.

    Raises:
        DataError: a phone symbol is unknown, or phones overlap.
        ShapeError: duration or fps is not positive.
    """
    raise NotImplementedError
