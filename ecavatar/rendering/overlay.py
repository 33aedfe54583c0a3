"""A reconstructed mesh laid over its photograph: the eye's check of coefficients and camera."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from ecavatar.errors import ShapeError
from ecavatar.face.model import FaceAsset
from ecavatar.rendering.camera import Camera
from ecavatar.rendering.shading import STUDIO, render_face

CLAY = (0.55, 0.62, 0.68)
"""Linear albedo of the mesh: a colour that no skin has, so that mesh and photograph are told apart."""


def shown_faces(asset: FaceAsset) -> Int[np.ndarray, "faces 3"]:
    """The triangles worth laying over a photograph: neck and scalp, which hair and clothes hide, are left out."""
    hidden = np.zeros(asset.n_vertices, bool)
    for region in ("neck", "scalp"):
        hidden[asset.regions[region]] = True
    return asset.faces[~hidden[asset.faces].any(axis=1)]


def overlay(
    image: UInt8[np.ndarray, "height width 3"],
    vertices_px: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    *,
    opacity: float = 0.75,
    colour: Sequence[float] = CLAY,
) -> UInt8[np.ndarray, "height width 3"]:
    """`image` with a shaded mesh over it.

    Args:
        image: 8-bit RGB.
        vertices_px: as `Reconstruction.project` gives them: x right, y down in pixels of `image`, depth in pixels
            (smaller is nearer).
        faces: the triangles to draw; those outside the picture are cut off.
        opacity: 0 leaves the photograph, 1 hides it behind the mesh.
        colour: linear albedo of the mesh in 0..1.

    Raises:
        ShapeError: no 8-bit RGB image, an opacity outside 0..1, or vertices and faces that do not fit.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not 0 <= opacity <= 1:
        raise ShapeError(
            f"expected an image (height, width, 3) uint8 and an opacity in 0..1, got {image.shape} {image.dtype} and "
            f"{opacity}."
        )
    if vertices_px.ndim != 2 or vertices_px.shape[1] != 3:
        raise ShapeError(f"vertices must be (vertices, 3), got {vertices_px.shape}.")
    camera = Camera.orthographic(pixels_per_metre=1.0, centre_px=(0.0, 0.0))  # one pixel as one "metre"
    standing = np.asarray(vertices_px, np.float64) * (1.0, -1.0, -1.0)
    colours = np.tile(np.asarray(colour, np.float64), (len(standing), 1))
    shaded = render_face(standing, faces, colours, camera, STUDIO, image.shape[:2], image)
    mixed = (1 - opacity) * image.astype(np.float64) + opacity * shaded
    return np.rint(mixed).astype(np.uint8)
