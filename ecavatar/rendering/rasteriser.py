"""A z-buffer on the CPU: which face is seen at each pixel, and where on it.

Faces are drawn in order and a pixel keeps the nearest one (the first where depths are equal), so the answer depends
on the mesh alone. The kernel is compiled once, cached beside the source and runs without Python's lock: several frames
can be drawn by several threads.
"""

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float, Int

from ecavatar.errors import ShapeError

_EDGE = -1e-9
"""A weight down to which a pixel still counts as inside: rounding must not open a crack between two faces."""


@dataclass(frozen=True, slots=True)
class Fragments:
    """What each pixel sees."""

    face_ids: Int[np.ndarray, "height width"]
    """int32 index into `faces`; -1 where nothing is drawn."""
    barycentrics: Float[np.ndarray, "height width 3"]
    """float32 weights of the face's three corners at the pixel's centre; they add up to 1 (0 without a face)."""
    depth: Float[np.ndarray, "height width"]
    """float32 depth at the pixel's centre; infinity where nothing is drawn."""


def rasterise(
    vertices_px: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    height: int,
    width: int,
    *,
    is_perspective: bool = False,
) -> Fragments:
    """What a camera sees of a mesh whose vertices are already projected.

    Args:
        vertices_px: x to the right and y down in pixels (the centre of the top left pixel is 0.5, 0.5), then depth:
            smaller is nearer.
        faces: vertex indices; both sides are drawn.
        height: rows of the picture.
        width: columns of the picture.
        is_perspective: weights are corrected for perspective (depth is then the distance along the camera's axis, and
            faces with a corner at or behind the camera are left out). Otherwise they are linear on the screen.

    Raises:
        ShapeError: arrays have the wrong shape, a face names a vertex that does not exist, or the size is not positive.
    """
    vertices, triangles = _checked(vertices_px, faces)
    if height < 1 or width < 1:
        raise ShapeError(f"a picture needs at least one row and one column, got {height} x {width}.")
    face_ids = np.full((height, width), -1, dtype=np.int32)
    barycentrics = np.zeros((height, width, 3), dtype=np.float32)
    depth = np.full((height, width), np.inf, dtype=np.float32)
    _draw(vertices, triangles, is_perspective, face_ids, barycentrics, depth)
    return Fragments(face_ids, barycentrics, depth)


def _checked(vertices_px: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if vertices_px.ndim != 2 or vertices_px.shape[1] != 3:
        raise ShapeError(f"vertices must be (vertices, 3), got {vertices_px.shape}.")
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise ShapeError(f"faces must be (faces, 3), got {faces.shape}.")
    if faces.size and (faces.min() < 0 or faces.max() >= len(vertices_px)):
        raise ShapeError(f"faces name vertices {faces.min()}..{faces.max()}, but there are {len(vertices_px)}.")
    return np.ascontiguousarray(vertices_px, dtype=np.float64), np.ascontiguousarray(faces, dtype=np.int32)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _draw(
    vertices: np.ndarray,
    faces: np.ndarray,
    is_perspective: bool,
    face_ids: np.ndarray,
    barycentrics: np.ndarray,
    depth: np.ndarray,
) -> None:
    # one kernel over faces and their pixels, in the order of the faces
    height, width = face_ids.shape
    for face in range(faces.shape[0]):
        a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
        ax, ay, az = vertices[a, 0], vertices[a, 1], vertices[a, 2]
        bx, by, bz = vertices[b, 0], vertices[b, 1], vertices[b, 2]
        cx, cy, cz = vertices[c, 0], vertices[c, 1], vertices[c, 2]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        # NaN fails both comparisons below, so a broken vertex drops its faces only
        if not (area < 0.0 or area > 0.0) or not np.isfinite(area + az + bz + cz):
            continue
        if is_perspective and (az <= 0.0 or bz <= 0.0 or cz <= 0.0):
            continue
        scale = 1.0 / area
        first_column = max(0, int(np.ceil(max(min(ax, bx, cx) - 0.5, 0.0))))
        last_column = int(np.floor(min(max(ax, bx, cx) - 0.5, width - 1.0)))
        first_row = max(0, int(np.ceil(max(min(ay, by, cy) - 0.5, 0.0))))
        last_row = int(np.floor(min(max(ay, by, cy) - 0.5, height - 1.0)))
        # weights are linear over the picture: w = w at (0, 0) + slope in x * x + slope in y * y
        wa_x, wa_y = (by - cy) * scale, (cx - bx) * scale
        wb_x, wb_y = (cy - ay) * scale, (ax - cx) * scale
        for row in range(first_row, last_row + 1):
            wa_row = (row + 0.5 - cy) * wa_y - cx * wa_x
            wb_row = (row + 0.5 - cy) * wb_y - cx * wb_x
            for column in range(first_column, last_column + 1):
                wa = wa_row + (column + 0.5) * wa_x
                wb = wb_row + (column + 0.5) * wb_x
                wc = 1.0 - wa - wb
                if wa < _EDGE or wb < _EDGE or wc < _EDGE:
                    continue
                if is_perspective:
                    wa, wb, wc = wa / az, wb / bz, wc / cz
                    z = 1.0 / (wa + wb + wc)
                    wa, wb, wc = wa * z, wb * z, wc * z
                else:
                    z = wa * az + wb * bz + wc * cz
                if np.float32(z) < depth[row, column]:
                    depth[row, column] = z
                    face_ids[row, column] = face
                    barycentrics[row, column, 0] = wa
                    barycentrics[row, column, 1] = wb
                    barycentrics[row, column, 2] = wc
