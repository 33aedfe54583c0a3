"""Plain shading of a head: a few distant lights, ambient light, a soft highlight, smooth normals.

Light is added up in linear colour on a grid of sub-pixels and turned into sRGB bytes at the end. It makes a picture
that a landmark detector and a person can read; the shading of skin is another module's work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float, Int, UInt8

from ecavatar.errors import ShapeError
from ecavatar.rendering.camera import Camera
from ecavatar.rendering.rasteriser import Fragments, rasterise

SUBPIXELS = 2
"""Sub-pixels a side of each pixel."""


@dataclass(frozen=True, slots=True)
class Light:
    """A light so far away that its rays are parallel."""

    direction: tuple[float, float, float]
    """From the head towards the light, in the camera's axes (x right, y up, z towards the viewer); any length but 0."""
    colour: tuple[float, float, float]
    """Linear RGB; a white face turned towards a light of (1, 1, 1) is white."""


@dataclass(frozen=True, slots=True)
class Lighting:
    """All light that falls on a head."""

    lights: tuple[Light, ...]
    ambient: tuple[float, float, float] = (0.3, 0.3, 0.3)
    """Linear RGB from everywhere, a third weaker from below."""


STUDIO = Lighting(
    lights=(
        Light((-0.5, 0.6, 1.0), (0.62, 0.60, 0.57)),
        Light((0.9, 0.2, 0.8), (0.22, 0.23, 0.25)),
        Light((0.0, 0.8, -0.6), (0.12, 0.12, 0.12)),
    ),
    ambient=(0.26, 0.26, 0.27),
)
"""Key light from the upper left, a weak fill from the right, a rim from behind."""


@dataclass(frozen=True, slots=True)
class Texture:
    """A picture wrapped around the mesh."""

    image: Float[np.ndarray, "rows columns 3"]
    """Linear albedo in 0..1; row 0 is v = 1 (the top)."""
    uv: Float[np.ndarray, "texture_vertices 2"]
    """u to the right, v up, in 0..1."""
    uv_faces: Int[np.ndarray, "faces 3"]
    """Texture vertices of each face, in the order of the mesh's faces."""


def vertex_normals(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"]
) -> Float[np.ndarray, "vertices 3"]:
    """Unit normals (float64), each the area-weighted mean of its faces'; zero for a vertex without area."""
    points = np.asarray(vertices, dtype=np.float64)
    a, b, c = (points[faces[:, corner]] for corner in range(3))
    face_normals = np.cross(b - a, c - a)
    normals = np.zeros_like(points)
    for axis in range(3):
        for corner in range(3):
            normals[:, axis] += np.bincount(faces[:, corner], weights=face_normals[:, axis], minlength=len(points))
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.divide(normals, length, out=np.zeros_like(normals), where=length > 0)


def render_face(
    vertices: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    colours: Float[np.ndarray, "vertices 3"] | Texture,
    camera: Camera,
    lights: Lighting,
    size_px: int | tuple[int, int],
    background: Sequence[float] | UInt8[np.ndarray, "height width 3"] = (0.5, 0.5, 0.5),
    *,
    tint: Float[np.ndarray, " vertices"] | None = None,
    gloss: Float[np.ndarray, " vertices"] | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """A picture of a mesh.

    Args:
        vertices: metres.
        faces: vertex indices.
        colours: linear albedo in 0..1, of the vertices or as a texture.
        camera: its pixels are those of the finished picture.
        lights: in the camera's axes.
        size_px: side of the picture, or (height, width).
        background: an sRGB colour in 0..1, or the picture behind the mesh.
        tint: multiplies the albedo at each vertex (for instance how open it lies to the light); 1 where not given.
        gloss: strength of the highlight at each vertex; 0.04 where not given.

    Returns:
        sRGB bytes.

    Raises:
        ShapeError: an array does not fit the mesh or the picture.
    """
    height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
    _check_arrays(vertices, faces, colours, tint, gloss)
    fine = camera.enlarged(SUBPIXELS)
    fragments = rasterise(
        fine.project(vertices), faces, height * SUBPIXELS, width * SUBPIXELS, is_perspective=camera.is_perspective
    )
    light, cover = _light(fragments, vertices, faces, colours, camera, lights, tint, gloss)
    return _compose(light, cover, _background(background, height, width))


def _light(
    fragments: Fragments,
    vertices: np.ndarray,
    faces: np.ndarray,
    colours: np.ndarray | Texture,
    camera: Camera,
    lights: Lighting,
    tint: np.ndarray | None,
    gloss: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean linear light and covered share of every pixel."""
    view = camera.view(vertices)
    viewpoint = np.array([0.0, 0.0, camera.distance if camera.is_perspective else 1e6])
    directions = np.array([light.direction for light in lights.lights], dtype=np.float64).reshape(-1, 3)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    strengths = np.array([light.colour for light in lights.lights], dtype=np.float64).reshape(-1, 3)
    count = len(vertices)
    has_texture = isinstance(colours, Texture)
    image, corners = _sampled(colours, faces)
    return _shade(
        fragments.face_ids,
        fragments.barycentrics,
        np.ascontiguousarray(faces, dtype=np.int32),
        view,
        vertex_normals(view, faces),
        np.ones((1, 3)) if has_texture else np.ascontiguousarray(colours, dtype=np.float64),
        has_texture,
        image,
        corners,
        np.ones(count) if tint is None else np.ascontiguousarray(tint, dtype=np.float64),
        np.full(count, 0.04) if gloss is None else np.ascontiguousarray(gloss, dtype=np.float64),
        viewpoint,
        directions,
        strengths,
        np.array(lights.ambient, dtype=np.float64),
        SUBPIXELS,
    )


def _sampled(colours: np.ndarray | Texture, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The texture's image, and each face's three corners in it (column, row; texel centres at whole numbers)."""
    if not isinstance(colours, Texture):
        return np.zeros((1, 1, 3), dtype=np.float32), np.zeros((1, 3, 2))
    rows, columns = colours.image.shape[:2]
    uv = np.asarray(colours.uv, dtype=np.float64)[colours.uv_faces]
    corners = np.stack([uv[..., 0] * columns - 0.5, (1 - uv[..., 1]) * rows - 0.5], axis=-1)
    return np.ascontiguousarray(colours.image, dtype=np.float32), np.ascontiguousarray(corners)


def _check_arrays(
    vertices: np.ndarray,
    faces: np.ndarray,
    colours: np.ndarray | Texture,
    tint: np.ndarray | None,
    gloss: np.ndarray | None,
) -> None:
    if isinstance(colours, Texture):
        if len(colours.uv_faces) != len(faces) or colours.image.ndim != 3 or colours.image.shape[2] != 3:
            raise ShapeError(
                f"a texture needs an RGB image and uv faces for all {len(faces)} faces, "
                f"got image {colours.image.shape} and {len(colours.uv_faces)} uv faces."
            )
    elif colours.shape != (len(vertices), 3):
        raise ShapeError(f"colours must be ({len(vertices)}, 3), got {colours.shape}.")
    for name, values in (("tint", tint), ("gloss", gloss)):
        if values is not None and values.shape != (len(vertices),):
            raise ShapeError(f"{name} must be ({len(vertices)},), got {values.shape}.")


def _background(background: Sequence[float] | np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture behind, linear RGB (height, width, 3)."""
    values = np.asarray(background)
    if values.shape == (3,):
        return np.broadcast_to(linear_from_srgb(values.astype(np.float64)), (height, width, 3))
    if values.shape != (height, width, 3) or values.dtype != np.uint8:
        raise ShapeError(
            f"a background must be three numbers or a uint8 picture ({height}, {width}, 3), "
            f"got {values.dtype} {values.shape}."
        )
    return linear_from_srgb(np.arange(256) / 255.0)[values]


def linear_from_srgb(values: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """Linear light of sRGB values in 0..1 (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((np.maximum(values, 0) + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(values: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """The sRGB values of linear light in 0..1 (IEC 61966-2-1)."""
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * np.maximum(values, 0.0031308) ** (1 / 2.4) - 0.055)


def _compose(light: np.ndarray, cover: np.ndarray, behind: np.ndarray) -> np.ndarray:
    mixed = np.clip(light + (1 - cover[..., None]) * behind, 0, 1)
    # 65,536 steps are fine enough: the steepest part of the curve moves 0.05 bytes a step
    bytes_of_step = np.rint(srgb_from_linear(np.linspace(0, 1, 65_536)) * 255).astype(np.uint8)
    return bytes_of_step[(mixed * 65_535 + 0.5).astype(np.uint16)]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _shade(  # one kernel over pixels: pieces would copy whole pictures
    face_ids: np.ndarray,
    barycentrics: np.ndarray,
    faces: np.ndarray,
    positions: np.ndarray,
    normals: np.ndarray,
    colours: np.ndarray,
    has_texture: bool,
    image: np.ndarray,
    corners: np.ndarray,
    tint: np.ndarray,
    gloss: np.ndarray,
    viewpoint: np.ndarray,
    directions: np.ndarray,
    strengths: np.ndarray,
    ambient: np.ndarray,
    subpixels: int,
) -> tuple[np.ndarray, np.ndarray]:
    height, width = face_ids.shape[0] // subpixels, face_ids.shape[1] // subpixels
    light = np.zeros((height, width, 3))
    cover = np.zeros((height, width))
    rows, columns = image.shape[0], image.shape[1]
    share = 1.0 / (subpixels * subpixels)
    albedo = np.zeros(3)
    normal = np.zeros(3)
    away = np.zeros(3)
    for row in range(height * subpixels):
        for column in range(width * subpixels):
            face = face_ids[row, column]
            if face < 0:
                continue
            w = barycentrics[row, column]
            a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
            open_share = w[0] * tint[a] + w[1] * tint[b] + w[2] * tint[c]
            strength = w[0] * gloss[a] + w[1] * gloss[b] + w[2] * gloss[c]
            for axis in range(3):
                normal[axis] = w[0] * normals[a, axis] + w[1] * normals[b, axis] + w[2] * normals[c, axis]
                position = w[0] * positions[a, axis] + w[1] * positions[b, axis] + w[2] * positions[c, axis]
                away[axis] = viewpoint[axis] - position
                if not has_texture:
                    albedo[axis] = w[0] * colours[a, axis] + w[1] * colours[b, axis] + w[2] * colours[c, axis]
            if has_texture:
                x = w[0] * corners[face, 0, 0] + w[1] * corners[face, 1, 0] + w[2] * corners[face, 2, 0]
                y = w[0] * corners[face, 0, 1] + w[1] * corners[face, 1, 1] + w[2] * corners[face, 2, 1]
                x = min(max(x, 0.0), columns - 1.0)
                y = min(max(y, 0.0), rows - 1.0)
                x0, y0 = int(x), int(y)
                x1, y1 = min(x0 + 1, columns - 1), min(y0 + 1, rows - 1)
                fx, fy = x - x0, y - y0
                for axis in range(3):
                    top = image[y0, x0, axis] * (1 - fx) + image[y0, x1, axis] * fx
                    bottom = image[y1, x0, axis] * (1 - fx) + image[y1, x1, axis] * fx
                    albedo[axis] = top * (1 - fy) + bottom * fy
            away /= np.sqrt(away[0] ** 2 + away[1] ** 2 + away[2] ** 2)
            length = np.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2) + 1e-12
            facing = normal[0] * away[0] + normal[1] * away[1] + normal[2] * away[2]
            if facing < 0.0:  # the inside of an open mesh is lit as its outside
                length = -length
            normal /= length
            pixel = light[row // subpixels, column // subpixels]
            fill = 0.83 + 0.17 * normal[1]
            for axis in range(3):
                pixel[axis] += share * albedo[axis] * open_share * ambient[axis] * fill
            for k in range(directions.shape[0]):
                diffuse = 0.0
                for axis in range(3):
                    diffuse += normal[axis] * directions[k, axis]
                # light reaches a little beyond the terminator, as it does through skin
                diffuse = max(0.0, (diffuse + 0.15) / 1.15)
                highlight = 0.0
                if diffuse > 0.0:
                    hx, hy, hz = directions[k, 0] + away[0], directions[k, 1] + away[1], directions[k, 2] + away[2]
                    half = (normal[0] * hx + normal[1] * hy + normal[2] * hz) / np.sqrt(hx * hx + hy * hy + hz * hz)
                    half = max(half, 0.0)
                    highlight = strength * (half**12 + 2.0 * half**60) * open_share
                for axis in range(3):
                    pixel[axis] += share * (albedo[axis] * open_share * diffuse + highlight) * strengths[k, axis]
            cover[row // subpixels, column // subpixels] += share
    return light, cover
