"""Plain shading of a head: a few distant lights, ambient light, a soft highlight, smooth normals.

Light is added up in linear colour on a grid of sub-pixels and turned into sRGB bytes at the end. It makes a picture
that a landmark detector and a person can read; the shading of skin is another module's work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

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
    return _normals(np.ascontiguousarray(vertices, dtype=np.float64), np.ascontiguousarray(faces, dtype=np.int32))


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    normals = np.zeros_like(vertices)
    for face in range(faces.shape[0]):
        a, b, c = vertices[faces[face, 0]], vertices[faces[face, 1]], vertices[faces[face, 2]]
        ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
        vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
        for corner in range(3):
            normal = normals[faces[face, corner]]
            normal[0] += uy * vz - uz * vy
            normal[1] += uz * vx - ux * vz
            normal[2] += ux * vy - uy * vx
    for vertex in range(vertices.shape[0]):
        normal = normals[vertex]
        length = np.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2)
        if length > 0.0:
            normal /= length
    return normals


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
    image, uv, uv_faces = _texture_arrays(colours)
    return _shade(
        fragments.face_ids,
        fragments.barycentrics,
        np.ascontiguousarray(faces, dtype=np.int32),
        view,
        vertex_normals(view, faces),
        np.ones((1, 3)) if has_texture else np.ascontiguousarray(colours, dtype=np.float64),
        has_texture,
        image,
        uv,
        uv_faces,
        np.ones(count) if tint is None else np.ascontiguousarray(tint, dtype=np.float64),
        np.full(count, 0.04) if gloss is None else np.ascontiguousarray(gloss, dtype=np.float64),
        viewpoint,
        directions,
        strengths,
        np.array(lights.ambient, dtype=np.float64),
        SUBPIXELS,
    )


def _texture_arrays(colours: np.ndarray | Texture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, uv and uv faces in the kernel's types; empty ones where colours belong to vertices."""
    if not isinstance(colours, Texture):
        return np.zeros((1, 1, 3), dtype=np.float32), np.zeros((1, 2)), np.zeros((1, 3), dtype=np.int32)
    return (
        np.ascontiguousarray(colours.image, dtype=np.float32),
        np.ascontiguousarray(colours.uv, dtype=np.float64),
        np.ascontiguousarray(colours.uv_faces, dtype=np.int32),
    )


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


@lru_cache(maxsize=1)
def _bytes_of_step() -> np.ndarray:
    return np.rint(srgb_from_linear(np.linspace(0, 1, 65_536)) * 255).astype(np.uint8)


def _compose(light: np.ndarray, cover: np.ndarray, behind: np.ndarray) -> np.ndarray:
    mixed = np.clip(light + (1 - cover[..., None]) * behind, 0, 1)
    # 65,536 steps are fine enough: the steepest part of the curve moves 0.05 bytes a step
    return _bytes_of_step()[(mixed * 65_535 + 0.5).astype(np.uint16)]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _sample(image: np.ndarray, x: float, y: float, albedo: np.ndarray) -> None:
    """Write the image's colour at column x and row y into `albedo`, mixed from the four texels around."""
    x = min(max(x, 0.0), image.shape[1] - 1.0)
    y = min(max(y, 0.0), image.shape[0] - 1.0)
    x0, y0 = int(x), int(y)
    x1, y1 = min(x0 + 1, image.shape[1] - 1), min(y0 + 1, image.shape[0] - 1)
    fx, fy = x - x0, y - y0
    for channel in range(3):
        top = image[y0, x0, channel] * (1 - fx) + image[y0, x1, channel] * fx
        bottom = image[y1, x0, channel] * (1 - fx) + image[y1, x1, channel] * fx
        albedo[channel] = top * (1 - fy) + bottom * fy


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _reflected(
    albedo: np.ndarray,
    open_share: float,
    strength: float,
    normal: tuple[float, float, float],
    away: tuple[float, float, float],
    directions: np.ndarray,
    strengths: np.ndarray,
    ambient: np.ndarray,
) -> tuple[float, float, float]:
    """Linear light that a point sends along `away`, the unit vector to the viewer."""
    nx, ny, nz = normal
    fill = (0.83 + 0.17 * ny) * open_share
    red, green, blue = albedo[0] * ambient[0] * fill, albedo[1] * ambient[1] * fill, albedo[2] * ambient[2] * fill
    for k in range(directions.shape[0]):
        dx, dy, dz = directions[k, 0], directions[k, 1], directions[k, 2]
        # light reaches a little beyond the terminator, as it does through skin
        diffuse = (nx * dx + ny * dy + nz * dz + 0.15) / 1.15
        if diffuse <= 0.0:
            continue
        hx, hy, hz = dx + away[0], dy + away[1], dz + away[2]
        half = max((nx * hx + ny * hy + nz * hz) / np.sqrt(hx * hx + hy * hy + hz * hz), 0.0)
        highlight = strength * (half**12 + 2.0 * half**60) * open_share
        diffuse *= open_share
        red += (albedo[0] * diffuse + highlight) * strengths[k, 0]
        green += (albedo[1] * diffuse + highlight) * strengths[k, 1]
        blue += (albedo[2] * diffuse + highlight) * strengths[k, 2]
    return red, green, blue


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _shade(  # one kernel over sub-pixels: pieces of it would pass whole pictures around
    face_ids: np.ndarray,
    barycentrics: np.ndarray,
    faces: np.ndarray,
    positions: np.ndarray,
    normals: np.ndarray,
    colours: np.ndarray,
    has_texture: bool,
    image: np.ndarray,
    uv: np.ndarray,
    uv_faces: np.ndarray,
    tint: np.ndarray,
    gloss: np.ndarray,
    viewpoint: np.ndarray,
    directions: np.ndarray,
    strengths: np.ndarray,
    ambient: np.ndarray,
    subpixels: int,
) -> tuple[np.ndarray, np.ndarray]:
    height, width = face_ids.shape[0] // subpixels, face_ids.shape[1] // subpixels
    light, cover = np.zeros((height, width, 3)), np.zeros((height, width))
    share, albedo = 1.0 / (subpixels * subpixels), np.zeros(3)
    for row in range(height * subpixels):
        for column in range(width * subpixels):
            face = face_ids[row, column]
            if face < 0:
                continue
            u, v, w = barycentrics[row, column, 0], barycentrics[row, column, 1], barycentrics[row, column, 2]
            a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
            open_share = u * tint[a] + v * tint[b] + w * tint[c]
            strength = u * gloss[a] + v * gloss[b] + w * gloss[c]
            nx = u * normals[a, 0] + v * normals[b, 0] + w * normals[c, 0]
            ny = u * normals[a, 1] + v * normals[b, 1] + w * normals[c, 1]
            nz = u * normals[a, 2] + v * normals[b, 2] + w * normals[c, 2]
            ex = viewpoint[0] - (u * positions[a, 0] + v * positions[b, 0] + w * positions[c, 0])
            ey = viewpoint[1] - (u * positions[a, 1] + v * positions[b, 1] + w * positions[c, 1])
            ez = viewpoint[2] - (u * positions[a, 2] + v * positions[b, 2] + w * positions[c, 2])
            scale = 1.0 / np.sqrt(ex * ex + ey * ey + ez * ez)
            ex, ey, ez = ex * scale, ey * scale, ez * scale
            scale = 1.0 / (np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12)
            if nx * ex + ny * ey + nz * ez < 0.0:  # the inside of an open mesh is lit as its outside
                scale = -scale
            nx, ny, nz = nx * scale, ny * scale, nz * scale
            if has_texture:
                p, q, r = uv_faces[face, 0], uv_faces[face, 1], uv_faces[face, 2]
                x = (u * uv[p, 0] + v * uv[q, 0] + w * uv[r, 0]) * image.shape[1] - 0.5
                y = (1.0 - (u * uv[p, 1] + v * uv[q, 1] + w * uv[r, 1])) * image.shape[0] - 0.5
                _sample(image, x, y, albedo)
            else:
                for channel in range(3):
                    albedo[channel] = u * colours[a, channel] + v * colours[b, channel] + w * colours[c, channel]
            normal, away = (nx, ny, nz), (ex, ey, ez)
            red, green, blue = _reflected(albedo, open_share, strength, normal, away, directions, strengths, ambient)
            pixel_row, pixel_column = row // subpixels, column // subpixels
            light[pixel_row, pixel_column, 0] += share * red
            light[pixel_row, pixel_column, 1] += share * green
            light[pixel_row, pixel_column, 2] += share * blue
            cover[pixel_row, pixel_column] += share
    return light, cover
