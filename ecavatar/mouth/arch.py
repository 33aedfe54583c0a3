"""The curve on which teeth stand, seen from above: x to the subject's left, z forward, millimetres.

The upper curve runs through the incisal edges and the buccal cusp tips; the lower one is the same, moved inward by the
overjet, so that lower buccal cusps lie below the central grooves of the upper teeth.

Source:
    Shape: z = -(A x^6 + B x^2) through the middle, the canines and the second molars: Noroozi et al., The dental arch
    form revisited, Angle Orthodontist 71(5), 2001, 386-389, who find it nearest to the measured beta function (Braun et
    al. 1998). Size: chosen so that the facial surfaces of the first molars are as far apart as in normal occlusion,
    57.9 mm (SD 4.8) above and 54.2 mm (SD 5.3) below (Mina et al., Odontology 105, 2017, 229-236), and the depth so
    that the teeth find room.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

CANINE = (17.2, 8.4)
"""Half the distance between the tips of the upper canines, and how far they stand behind the incisors' edges."""
MOLAR = (29.3, 42.0)
"""The same for the buccal cusps of the upper second molars."""
OVERJET = 2.6
"""From the front of the lower to the front of the upper incisors' edges. Normal: 2 to 4 mm (overbite 1 to 3 mm) in most
of 6,957 thirteen-year-olds, "Normal Iraqi values of overjet and overbite" (iasj.net, article 29943)."""
_LENGTH = 75.0
_STEPS = 4000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arch:
    """The subject's left half of a dental arch as a polyline from the midline backwards; the right half mirrors it."""

    points: Float[np.ndarray, "n 2"]
    """x and z, evenly spaced."""
    lengths: Float[np.ndarray, " n"]
    """Arc length from the midline."""

    def at(self, length: Float[np.ndarray, "*n"] | float) -> Float[np.ndarray, "*n 2"]:
        """Where (x, z) an arc length from the midline leads; a negative one is on the right side."""
        side = np.where(np.asarray(length) < 0, -1.0, 1.0)
        distance = np.abs(length)
        x, z = (np.interp(distance, self.lengths, column) for column in self.points.T)
        return np.stack([side * x, z], axis=-1)

    def outward(self, length: Float[np.ndarray, "*n"] | float) -> Float[np.ndarray, "*n 2"]:
        """Unit normal away from the tongue."""
        ahead, behind = self.at(np.asarray(length) + 0.05), self.at(np.asarray(length) - 0.05)
        along = ahead - behind
        normal = np.stack([-along[..., 1], along[..., 0]], axis=-1)
        return normal / np.linalg.norm(normal, axis=-1, keepdims=True)

    def inset(self, distance: float) -> "Arch":
        """The parallel curve `distance` closer to the tongue."""
        return _evenly(self.points - distance * self.outward(self.lengths))


def upper_arch() -> Arch:
    """The arch through incisal edges and buccal cusp tips."""
    (x_c, z_c), (x_m, z_m) = CANINE, MOLAR
    sixth, square = np.linalg.solve([[x_c**6, x_c**2], [x_m**6, x_m**2]], [z_c, z_m])
    x = np.linspace(0, 1.2 * x_m, _STEPS)
    return _evenly(np.stack([x, -(sixth * x**6 + square * x**2)], axis=1))


def lower_arch() -> Arch:
    """The upper arch, moved inward by the overjet."""
    return upper_arch().inset(OVERJET)


def _evenly(points: np.ndarray) -> Arch:
    """Points of a polyline from x = 0 on, at even steps."""
    points = np.concatenate([[[0.0, points[0, 1]]], points[points[:, 0] > 1e-9]])
    lengths = np.concatenate([[0.0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
    even = np.linspace(0, min(_LENGTH, lengths[-1]), _STEPS)
    return Arch(points=np.stack([np.interp(even, lengths, column) for column in points.T], axis=1), lengths=even)
