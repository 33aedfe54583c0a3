"""Where the viewer stands.

A head is in metres, looks along +z and has y up; a picture has x to the right and y down in pixels, its top left corner
at (0, 0). The head's own left is therefore at the right of the picture.
"""

from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
from jaxtyping import Float

from ecavatar.errors import ShapeError


def _identity() -> np.ndarray:
    return np.eye(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """A perspective or a weak-perspective ("orthographic") camera; make one with the class methods."""

    kind: Literal["perspective", "orthographic"]
    scale_px: float
    """Perspective: focal length in pixels. Orthographic: pixels per metre."""
    centre_px: tuple[float, float]
    """Where the turned head's origin (perspective: the optical axis) meets the picture: x to the right, y down."""
    rotation: Float[np.ndarray, "3 3"] = field(default_factory=_identity)
    """Turns the head before it is seen; identity looks it straight in the face."""
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Moves the turned head, metres."""
    distance: float = 0.0
    """Perspective: from the camera to the plane z = 0, metres. Unused otherwise."""

    @classmethod
    def perspective(
        cls,
        *,
        focal_px: float,
        distance: float,
        centre_px: tuple[float, float],
        rotation: Float[np.ndarray, "3 3"] | None = None,
        translation: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> Self:
        """A pinhole camera on the z axis, `distance` metres in front of the origin, looking along -z."""
        turn = _identity() if rotation is None else _checked_rotation(rotation)
        return cls(
            kind="perspective",
            scale_px=focal_px,
            centre_px=centre_px,
            rotation=turn,
            translation=translation,
            distance=distance,
        )

    @classmethod
    def orthographic(
        cls,
        *,
        pixels_per_metre: float,
        centre_px: tuple[float, float],
        rotation: Float[np.ndarray, "3 3"] | None = None,
    ) -> Self:
        """The weak-perspective camera: pixel = centre + scale * (rotation @ point), y turned down."""
        turn = _identity() if rotation is None else _checked_rotation(rotation)
        return cls(kind="orthographic", scale_px=pixels_per_metre, centre_px=centre_px, rotation=turn)

    @classmethod
    def framing(
        cls,
        vertices: Float[np.ndarray, "vertices 3"],
        size_px: int | tuple[int, int],
        *,
        fill: float = 0.85,
        distance: float = 1.2,
        rotation: Float[np.ndarray, "3 3"] | None = None,
    ) -> Self:
        """A perspective camera in front of these vertices that shows all of them.

        Args:
            vertices: metres.
            size_px: side of the picture, or (height, width).
            fill: share of the picture's height, or width if that is tighter, that the vertices span.
            distance: to the middle of the vertices, metres.
            rotation: turns the head about the middle of the vertices first.
        """
        height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
        turn = _identity() if rotation is None else _checked_rotation(rotation)
        turned = np.asarray(vertices, dtype=np.float64) @ turn.T
        low, high = turned.min(axis=0), turned.max(axis=0)
        middle, extent = (low + high) / 2, high - low
        focal = fill * distance * min(height / extent[1], width / extent[0])
        return cls.perspective(
            focal_px=float(focal),
            distance=distance,
            centre_px=(width / 2, height / 2),
            rotation=turn,
            translation=(float(-middle[0]), float(-middle[1]), float(-middle[2])),
        )

    @property
    def is_perspective(self) -> bool:
        """True where far things look smaller."""
        return self.kind == "perspective"

    def view(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Points in the camera's turned and moved axes: x right, y up, z towards the viewer, metres (float64)."""
        if points.shape[-1] != 3:
            raise ShapeError(f"points must end in 3 coordinates, got shape {points.shape}.")
        return np.asarray(points, dtype=np.float64) @ self.rotation.T + np.asarray(self.translation)

    def project(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Pixels and depth of points: x to the right, y down, then metres along the axis (smaller is nearer).

        Raises:
            ShapeError: the last axis is not 3 long.
        """
        seen = self.view(points)
        depth = self.distance - seen[..., 2]
        scale = self.scale_px / depth if self.is_perspective else np.full_like(depth, self.scale_px)
        x = self.centre_px[0] + scale * seen[..., 0]
        y = self.centre_px[1] - scale * seen[..., 1]
        return np.stack([x, y, depth], axis=-1)

    def enlarged(self, factor: float) -> Self:
        """The same view on a picture with `factor` times as many pixels a side."""
        return type(self)(
            kind=self.kind,
            scale_px=self.scale_px * factor,
            centre_px=(self.centre_px[0] * factor, self.centre_px[1] * factor),
            rotation=self.rotation,
            translation=self.translation,
            distance=self.distance,
        )


def head_rotation(yaw: float, pitch: float, roll: float) -> Float[np.ndarray, "3 3"]:
    """Turn of a head in radians: yaw to its left, pitch down, roll towards its right shoulder's side of the picture.

    The head rolls about z first, then pitches about x, then yaws about y: R = Ry(yaw) Rx(pitch) Rz(roll).
    """
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def _checked_rotation(rotation: np.ndarray) -> np.ndarray:
    turn = np.asarray(rotation, dtype=np.float64)
    if turn.shape != (3, 3) or not np.allclose(turn @ turn.T, np.eye(3), atol=1e-5) or np.linalg.det(turn) < 0:
        raise ShapeError(f"a camera's rotation must be a 3 x 3 rotation matrix, got {np.array2string(turn)}.")
    return turn
