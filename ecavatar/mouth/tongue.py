"""The tongue at rest: a closed body inside the lower arch, below the palate and above the floor of the mouth."""

import numpy as np
from jaxtyping import Float, Int

RINGS = 20
SEGMENTS = 24
_SPACE = 1.3  # millimetres between tongue and gum at the sides
_TIP = 1.5  # between tip and lower front gum
_WIDEST = 15.5  # half the width, before the molars give room for more
_BEHIND = 3.0  # how far the root lies behind the last column of the gum


def tongue_vertices(ridge: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "m 3"]:
    """Vertices, millimetres: the tip, rings backwards, the root's end.

    Args:
        ridge: the line on the left along which the lower gum comes closest to the tongue, from the midline backwards.
    """
    front, back = ridge[0, 2] - _TIP, ridge[-1, 2] - _BEHIND
    share = (1 - np.cos(np.pi * (np.arange(1, RINGS + 1)) / (RINGS + 1))) / 2
    z = front + share * (back - front)
    behind = np.minimum.accumulate(ridge[:, 2])
    width = np.minimum(np.interp(-z, -behind, ridge[:, 0]) - _SPACE, _WIDEST)
    back_end = np.sqrt(1 - 0.8 * np.clip((share - 0.9) / 0.1, 0, 1) ** 2)
    wide, thick = _rising(share / 0.05) * back_end, np.sqrt(_rising(share / 0.3) * back_end)
    top = np.interp(share, [0, 0.12, 0.35, 0.6, 0.85, 1], [-3.5, -1.5, 2.0, 3.5, 1.5, -3.0])
    bottom = np.interp(share, [0, 0.12, 0.3, 0.6, 1], [-3.5, -5.5, -8.5, -10.5, -9.0])
    angle = 2 * np.pi * np.arange(SEGMENTS) / SEGMENTS
    across, upward = np.cos(angle), np.sin(angle)
    across = np.sign(across) * np.abs(across) ** 0.8
    x = (width * wide)[:, None] * across
    y = ((top + bottom) / 2)[:, None] + ((top - bottom) / 2 * thick)[:, None] * upward
    groove = np.exp(-((x / 3.0) ** 2)) * np.clip(upward, 0, 1) * np.clip(share / 0.3, 0, 1)[:, None]
    rings = np.stack([x, y - 0.9 * groove, np.broadcast_to(z[:, None], x.shape)], axis=2)
    ends = np.array([[0.0, -3.5, front], [0.0, (top[-1] + bottom[-1]) / 2, back]])
    return np.concatenate([ends[:1], rings.reshape(-1, 3), ends[1:]])


def _rising(share: np.ndarray) -> np.ndarray:
    """A quarter of a circle from 0 to 1."""
    return np.sqrt(1 - (1 - np.clip(share, 0, 1)) ** 2)


def tongue_faces() -> Int[np.ndarray, "k 3"]:
    """Triangles of `tongue_vertices`, all turned the same way."""
    rings = 1 + np.arange(RINGS * SEGMENTS).reshape(RINGS, SEGMENTS)
    after = np.roll(rings, -1, axis=1)
    tip, root = np.zeros(SEGMENTS, int), np.full(SEGMENTS, 1 + RINGS * SEGMENTS)
    a, b, c, d = (corner.ravel() for corner in (rings[:-1], rings[1:], after[1:], after[:-1]))
    caps = [(tip, rings[0], after[0]), (rings[-1], root, after[-1])]
    return np.concatenate([np.stack(f, axis=1) for f in (*caps, (a, b, c), (a, c, d))]).astype(np.int32)


def tongue_layout() -> Float[np.ndarray, "m 2"]:
    """Texture coordinates in 0..1: the tip in the middle, rings around it; the root's end lies in the middle again."""
    angle = 2 * np.pi * np.arange(SEGMENTS) / SEGMENTS
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    rings = circle * np.linspace(0.05, 1, RINGS)[:, None, None]
    return 0.5 + 0.49 * np.concatenate([[[0.0, 0.0]], rings.reshape(-1, 2), [[0.01, 0.02]]])
