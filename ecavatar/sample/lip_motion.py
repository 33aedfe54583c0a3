"""Phone timings -> ARKit mouth weights with coarticulation.

Each phone pulls the mouth towards its own pose with a strength that rises and falls around it; the mouth follows the
weighted mean (Cohen and Massaro, Modeling coarticulation in synthetic visual speech, 1993). Closures of p, b and m are
laid over that as a constraint, since a mean of poses would leave the lips apart. Our own rules rather than a package's:
the one at hand (openfacefx) maps 15 visemes without a closure that can be relied on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ecavatar.errors import DataError, ShapeError
from ecavatar.face.model import ARKIT_INDEX, ARKIT_NAMES
from ecavatar.sample.letters import Phone

CLOSED_PHONES: Final = frozenset("pbm")
"""Phones during which the lips touch."""

_CONTROLS: Final[Mapping[str, tuple[str, ...]]] = {
    "jaw": ("jawOpen",),
    "funnel": ("mouthFunnel",),
    "pucker": ("mouthPucker",),
    "stretch": ("mouthStretchLeft", "mouthStretchRight"),
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "lower": ("mouthLowerDownLeft", "mouthLowerDownRight"),
    "upper": ("mouthUpperUpLeft", "mouthUpperUpRight"),
    "bite": ("mouthRollLower",),
    "tongue": ("tongueOut",),
}
"""What phones steer, and the ARKit units that move with it."""

_OPENING: Final = frozenset({"jaw", "lower", "upper"})  # scaled by a speaker's openness
_PARTING: Final = frozenset({"funnel", "stretch", "smile", "lower", "upper", "bite", "tongue"})  # off while closed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pose:
    """Where a phone wants the mouth, and how much it insists: `hold` on the jaw, `lips` on everything else."""

    jaw: float = 0.0
    funnel: float = 0.0
    pucker: float = 0.0
    stretch: float = 0.0
    smile: float = 0.0
    lower: float = 0.0
    upper: float = 0.0
    bite: float = 0.0
    tongue: float = 0.0
    hold: float = 1.0
    lips: float = 1.0


_PRESSING: Final = {"mouthPressLeft": 0.3, "mouthPressRight": 0.3, "mouthRollUpper": 0.1, "mouthRollLower": 0.15}
"""How far closed lips press together."""

# On the open head jawOpen 1 parts the lips by 33 mm, so 0.4 is a wide spoken vowel (13 mm).
_REST: Final = _Pose(hold=0.8, lips=0.8)
_WIDE_A: Final = _Pose(jaw=0.42, lower=0.18, upper=0.05, hold=1.8)
_FLAT_A: Final = _Pose(jaw=0.38, stretch=0.18, lower=0.16, upper=0.10, hold=1.8)
_OPEN_E: Final = _Pose(jaw=0.25, stretch=0.14, lower=0.12, upper=0.06, hold=1.5)
_SHORT_I: Final = _Pose(jaw=0.15, stretch=0.18, lower=0.08, upper=0.04, lips=0.7)
_LONG_I: Final = _Pose(jaw=0.10, stretch=0.32, smile=0.18, lower=0.12, upper=0.05)
_OPEN_O: Final = _Pose(jaw=0.30, funnel=0.35, pucker=0.15, hold=1.7, lips=1.3)
_SHORT_U: Final = _Pose(jaw=0.13, funnel=0.15, pucker=0.45, lips=1.3)
_LONG_U: Final = _Pose(jaw=0.09, funnel=0.12, pucker=0.70, lips=1.5)
_SCHWA: Final = _Pose(jaw=0.15, lower=0.06, hold=0.6, lips=0.4)
_CLOSED: Final = _Pose(jaw=0.05, hold=1.0, lips=0.7)
_BITING: Final = _Pose(jaw=0.05, upper=0.14, bite=0.55, hold=1.3, lips=1.8)
_DENTAL: Final = _Pose(jaw=0.11, lower=0.14, upper=0.05, tongue=0.2, lips=0.7)
_TONGUE_TIP: Final = _Pose(jaw=0.08, lower=0.08, hold=0.9, lips=0.25)
_HISSING: Final = _Pose(jaw=0.04, stretch=0.18, lower=0.18, upper=0.07, hold=1.5, lips=0.6)
_HUSHING: Final = _Pose(jaw=0.06, funnel=0.42, pucker=0.20, lower=0.06, hold=1.4, lips=1.6)
_VELAR: Final = _Pose(jaw=0.13, lower=0.06, hold=0.7, lips=0.2)
_BREATH: Final = _Pose(jaw=0.16, hold=0.4, lips=0.1)

_POSES: Final[Mapping[str, tuple[_Pose, ...]]] = {
    **dict.fromkeys("pbm", (_CLOSED,)),
    **dict.fromkeys("fv", (_BITING,)),
    **dict.fromkeys("θð", (_DENTAL,)),
    **dict.fromkeys("tdnTɾ", (_TONGUE_TIP,)),
    **dict.fromkeys("sz", (_HISSING,)),
    **dict.fromkeys("ʃʒʧʤ", (_HUSHING,)),
    **dict.fromkeys("kɡŋ", (_VELAR,)),
    **dict.fromkeys("əᵊɐ", (_SCHWA,)),
    **dict.fromkeys("ɪᵻ", (_SHORT_I,)),
    "h": (_BREATH,),
    "l": (_Pose(jaw=0.15, lower=0.10, hold=0.8, lips=0.3),),
    "ɹ": (_Pose(jaw=0.11, funnel=0.16, pucker=0.30),),
    "w": (_Pose(jaw=0.07, funnel=0.08, pucker=0.80, hold=1.2, lips=2.0),),
    "j": (_Pose(jaw=0.08, stretch=0.22, lips=0.7),),
    "ɑ": (_WIDE_A,),
    "æ": (_FLAT_A,),
    "ʌ": (_Pose(jaw=0.28, lower=0.10, hold=1.5),),
    "ɛ": (_OPEN_E,),
    "ɜ": (_Pose(jaw=0.17, funnel=0.20, pucker=0.18),),
    "i": (_LONG_I,),
    "ʊ": (_SHORT_U,),
    "u": (_LONG_U,),
    "ɔ": (_OPEN_O,),
    "A": (_OPEN_E, _LONG_I),
    "I": (_WIDE_A, _SHORT_I),
    "O": (_OPEN_O, _SHORT_U),
    "W": (_WIDE_A, _SHORT_U),
    "Y": (_OPEN_O, _SHORT_I),
    "sil": (_REST,),
}
"""Poses of each phone in misaki's alphabet; a diphthong passes through two."""

_REACH: Final = 0.04  # seconds by which a phone's influence outlasts its own half length
_SHORTEST_CLOSURE: Final = 0.045  # seconds of full contact for p, b, m; longer than a frame at 25 fps
_CLOSING_TIME: Final = 0.05  # seconds from open to contact
_SETTLING_TIME: Final = 0.14  # seconds within which the mouth comes to rest in a pause


def articulate(phones: Sequence[Phone], duration: float, fps: float, openness: float = 1.0) -> NDArray[np.float32]:
    """ARKit weights while `phones` are spoken, (T, 52) in `ARKIT_NAMES` order and 0..1, T = round(duration * fps).

    In every p, b and m the lips touch (`mouthClose` equals `jawOpen` and nothing parts them) for at least one frame at
    25 fps or more; in pauses the mouth comes to rest (all weights 0). Units other than the mouth's stay 0.

    Args:
        phones: in order, times in seconds, symbols as in `Phone`. What they do not cover is silence.
        duration: length of the clip in seconds.
        fps: frames per second; frame i shows time i / fps.
        openness: how widely this speaker opens the mouth; 1 is ordinary.

    Raises:
        DataError: a phone symbol is unknown, or phones overlap.
        ShapeError: duration, fps or openness is not positive, or the clip has no frame.
    """
    n_frames = round(duration * fps) if duration > 0 and fps > 0 else 0
    if n_frames < 1 or openness <= 0:
        raise ShapeError(
            f"need positive duration, fps and openness, and a frame; got {duration} s, {fps} fps, {openness}."
        )
    _check_phones(phones)
    times = np.arange(n_frames) / fps
    controls = _blend(phones, times, openness)
    closed = _closure(phones, times)
    speaking = _speaking(phones, times)
    return _weights(controls, closed, speaking)


def _check_phones(phones: Sequence[Phone]) -> None:
    unknown = sorted({phone.symbol for phone in phones} - _POSES.keys())
    if unknown:
        raise DataError(f"unknown phones {', '.join(unknown)}; expected misaki's alphabet: {' '.join(_POSES)}.")
    for before, after in pairwise(phones):
        if after.start < before.end - 1e-6:
            raise DataError(f"phone {after.symbol} starts at {after.start:.3f} s, before {before.symbol} ends.")


def _blend(phones: Sequence[Phone], times: NDArray[np.float64], openness: float) -> dict[str, NDArray[np.float64]]:
    """Each control over time: the mean of all poses, weighted by how dominant their phone is at that moment."""
    totals = {control: np.zeros_like(times) for control in _CONTROLS}
    weights = {control: np.full_like(times, 1e-6) for control in _CONTROLS}
    for phone in phones:
        poses = _POSES[phone.symbol]
        edges = np.linspace(phone.start, phone.end, len(poses) + 1)
        for pose, (start, end) in zip(poses, pairwise(edges), strict=True):
            distance = np.abs(times - (start + end) / 2) / ((end - start) / 2 + _REACH)
            dominance = np.exp(-(distance**1.5))
            for control in _CONTROLS:
                weight = dominance * (pose.hold if control == "jaw" else pose.lips)
                totals[control] += weight * getattr(pose, control)
                weights[control] += weight
    return {
        control: totals[control] / weights[control] * (openness if control in _OPENING else 1.0)
        for control in _CONTROLS
    }


def _closure(phones: Sequence[Phone], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 while p, b or m hold the lips together, 0 away from them."""
    closed = np.zeros_like(times)
    for phone in phones:
        if phone.symbol in CLOSED_PHONES:
            half = max(phone.end - phone.start, _SHORTEST_CLOSURE) / 2
            outside = np.abs(times - (phone.start + phone.end) / 2) - half
            closed = np.maximum(closed, _smooth_step(1 - outside / _CLOSING_TIME))
    return closed


def _speaking(phones: Sequence[Phone], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 within a phone that is not silence, falling to 0 at `_SETTLING_TIME` from the nearest one."""
    away = np.full_like(times, np.inf)
    for phone in phones:
        if phone.symbol != "sil":
            away = np.minimum(away, np.maximum(np.maximum(phone.start - times, times - phone.end), 0.0))
    return _smooth_step(1 - away / _SETTLING_TIME)


def _smooth_step(x: NDArray[np.float64]) -> NDArray[np.float64]:
    bounded = np.clip(x, 0.0, 1.0)
    return bounded**2 * (3 - 2 * bounded)


def _weights(
    controls: Mapping[str, NDArray[np.float64]],
    closed: NDArray[np.float64],
    speaking: NDArray[np.float64],
) -> NDArray[np.float32]:
    weights = np.zeros((len(closed), len(ARKIT_NAMES)))
    for control, units in _CONTROLS.items():
        curve = controls[control] * speaking
        curve = curve * (1 - closed) if control in _PARTING else curve
        weights[:, [ARKIT_INDEX[unit] for unit in units]] = curve[:, None]
    jaw = weights[:, ARKIT_INDEX["jawOpen"]] * (1 - 0.75 * closed)
    weights[:, ARKIT_INDEX["jawOpen"]] = jaw
    weights[:, ARKIT_INDEX["mouthClose"]] = jaw * closed
    for unit, share in _PRESSING.items():
        weights[:, ARKIT_INDEX[unit]] += share * closed * speaking
    return np.clip(weights, 0.0, 1.0).astype(np.float32)
