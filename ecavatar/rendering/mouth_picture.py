"""Pictures of a head with its mouth, and of the mouth alone.

Teeth, gums and tongue get their materials and are darkened by how little of the world in front of the face they see, so
that what lies deep behind the lips is dark. The inside of the head, which a face mesh shows through open lips, is
nearly black.

Simplifications: that darkness is worked out for vertices, from a few directions, and the same for all lights; teeth are
opaque.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ecavatar.errors import ShapeError
from ecavatar.face.landmarks import ibug68_points
from ecavatar.face.model import FaceAsset
from ecavatar.mouth.model import MouthMesh, Part
from ecavatar.rendering.camera import Camera, head_rotation
from ecavatar.rendering.film import BACKDROP, LIPS, MOUTH, plain_colours, portrait_camera
from ecavatar.rendering.rasteriser import rasterise
from ecavatar.rendering.shading import STUDIO, render_face, vertex_normals

MATERIALS = {"enamel": (0.80, 0.75, 0.63), "gum": (0.55, 0.20, 0.19), "tongue": (0.50, 0.15, 0.15)}
"""Linear albedo."""
GLOSS = {"enamel": 0.11, "gum": 0.08, "tongue": 0.07}
"""Strength of the highlight; skin has 0.04."""
_DIRECTIONS = 40
_PIXELS_PER_METRE = 1200.0
_BIAS = 0.0015  # metres; a vertex must lie this far behind a surface to be in its shade
_CAVITY = 0.08  # share of the light that reaches the inside of the head
_BRIGHTER = 1.4  # teeth and gums pass light on to each other, which the count of directions leaves out
_REDDER = np.array([0.0, 0.3, 0.38])  # what light loses, red to blue, that gums have passed on to deep teeth
_CORNERS = (48, 54)  # of the mouth, iBUG landmarks
_PIT_M, _INWARD_M = 0.0016, 0.0003  # skin so near a corner, and so far inward of it, lies in its pit
_DULL_M = 0.004  # round a corner, where a highlight looks like a dot
_CLOSE_UP = (1.3, 0.85, 2.1)  # a close-up's width, and height above and below the lips' middle, in widths and heights


def mouth_colours(mouth: MouthMesh) -> Float[np.ndarray, "M 3"]:
    """Linear albedo of every vertex by its material."""
    return np.array([MATERIALS[part.material] for part in Part])[mouth.part]


def mouth_gloss(mouth: MouthMesh) -> Float[np.ndarray, " M"]:
    """Strength of the highlight at every vertex by its material."""
    return np.array([GLOSS[part.material] for part in Part])[mouth.part]


def head_picture(
    face_vertices: Float[np.ndarray, "V 3"],
    asset: FaceAsset,
    mouth: MouthMesh,
    mouth_vertices: Float[np.ndarray, "M 3"],
    size_px: int,
    *,
    yaw: float = 0.0,
    close_up: bool = False,
) -> UInt8[np.ndarray, "size size 3"]:
    """A picture of one head with its mouth.

    The inner mouth of the face mesh, where the asset names that region, is left out: it would hide the teeth.

    Args:
        face_vertices: metres, in the asset's topology.
        asset: faces, regions and the camera's scale.
        mouth: says what each mouth vertex is.
        mouth_vertices: the mouth at its place in this face, metres.
        size_px: edge of the picture.
        yaw: turn of the head to its left, radians.
        close_up: the mouth fills the picture; otherwise the head does.

    Raises:
        ShapeError: vertices that do not fit the asset or the mouth.
    """
    if face_vertices.shape != asset.template.shape or mouth_vertices.shape != mouth.vertices.shape:
        raise ShapeError(
            f"expected face vertices {asset.template.shape} and mouth vertices {mouth.vertices.shape}, got "
            f"{face_vertices.shape} and {mouth_vertices.shape}; use the asset and the mouth they were made with."
        )
    camera = _close_camera(asset, size_px, yaw) if close_up else portrait_camera(asset, size_px, yaw=yaw)
    outside = _without_inner_mouth(asset)
    faces, count = _doubled(face_vertices, outside, camera), len(face_vertices)
    colours = _face_colours(asset)
    light = _openness(face_vertices, outside, mouth, mouth_vertices)
    return render_face(
        np.concatenate([face_vertices, face_vertices, mouth_vertices]),
        np.concatenate([faces, mouth.faces + 2 * count]),
        np.concatenate(
            [
                colours,
                np.broadcast_to(MOUTH, colours.shape),
                mouth_colours(mouth) * (1 - _REDDER * (1 - light[:, None])),
            ]
        ),
        camera,
        STUDIO,
        size_px,
        BACKDROP,
        tint=np.concatenate([np.ones(count), np.full(count, _CAVITY), light]),
        gloss=np.concatenate(
            [
                np.where(np.linalg.norm(_from_corners(asset), axis=1) < _DULL_M, 0.0, 0.04),
                np.zeros(count),
                mouth_gloss(mouth),
            ]
        ),
    )


def mouth_picture(
    mouth: MouthMesh,
    vertices: Float[np.ndarray, "M 3"],
    size_px: int,
    *,
    yaw: float = 0.0,
    pitch: float = 0.0,
    parts: Sequence[Part] = tuple(Part),
) -> UInt8[np.ndarray, "size size 3"]:
    """A picture of the mouth alone, turned by `yaw` to its left and by `pitch` down (radians); only these parts."""
    is_shown = np.isin(mouth.part, list(parts))
    camera = Camera.framing(
        vertices[is_shown], size_px, fill=0.92, distance=0.5, rotation=head_rotation(yaw, pitch, 0.0)
    )
    faces = mouth.faces[is_shown[mouth.faces[:, 0]]]
    gloss = mouth_gloss(mouth)
    return render_face(vertices, faces, mouth_colours(mouth), camera, STUDIO, size_px, BACKDROP, gloss=gloss)


def mouth_sheet(mouth: MouthMesh, size_px: int = 400) -> UInt8[np.ndarray, "height width 3"]:
    """Six views of a mouth, jaws closed: front, three-quarter, side; upper teeth, lower teeth, lower with tongue."""
    upper, lower = (Part.UPPER_TEETH, Part.UPPER_GUM), (Part.LOWER_TEETH, Part.LOWER_GUM)
    quarter = np.pi / 2
    views = [
        {}, {"yaw": 0.7}, {"yaw": quarter},
        {"pitch": -quarter, "parts": upper}, {"pitch": quarter, "parts": lower},
        {"pitch": 0.9, "parts": (*lower, Part.TONGUE)},
    ]  # fmt: skip
    pictures = [mouth_picture(mouth, mouth.vertices, size_px, **view) for view in views]
    return np.concatenate([np.concatenate(pictures[:3], axis=1), np.concatenate(pictures[3:], axis=1)])


def _openness(
    face_vertices: Float[np.ndarray, "V 3"],
    face_faces: Int[np.ndarray, "F 3"],
    mouth: MouthMesh,
    mouth_vertices: Float[np.ndarray, "M 3"],
) -> Float[np.ndarray, " M"]:
    """Share of the world in front of the face that each mouth vertex sees, 0..1, weighted by its normal's cosine."""
    vertices = np.concatenate([mouth_vertices, face_vertices]).astype(np.float64)
    faces = np.concatenate([mouth.faces, face_faces + len(mouth_vertices)])
    normals = vertex_normals(mouth_vertices, mouth.faces)
    seen, total = np.zeros(len(mouth_vertices)), np.full(len(mouth_vertices), 1e-9)
    for direction in _front_directions():
        cosine = np.clip(normals @ direction + 0.25, 0, None)  # soft, as light is below the surface of teeth and gums
        seen += cosine * _is_lit(vertices, faces, len(mouth_vertices), direction)
        total += cosine
    return np.minimum(_BRIGHTER * seen / np.maximum(total, 0.125 * _DIRECTIONS), 1.0)


def _front_directions() -> Float[np.ndarray, "n 3"]:
    """Unit vectors spread evenly over the half sphere in front of the face (a Fibonacci lattice)."""
    index = np.arange(_DIRECTIONS) + 0.5
    z, turn = 1 - index / _DIRECTIONS, np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), z], axis=1)


def _is_lit(vertices: np.ndarray, faces: np.ndarray, count: int, direction: np.ndarray) -> Bool[np.ndarray, " n"]:
    """Whether light from a direction reaches each of the first `count` vertices."""
    side = np.cross([0.0, 1.0, 0.0], direction)
    side /= np.linalg.norm(side) + 1e-12
    axes = np.stack([side, np.cross(direction, side), direction])
    turned = vertices @ axes.T
    low, high = turned[:count, :2].min(axis=0) - 0.002, turned[:count, :2].max(axis=0) + 0.002
    width, height = np.ceil((high - low) * _PIXELS_PER_METRE).astype(int)
    pixels = np.column_stack([(turned[:, :2] - low) * _PIXELS_PER_METRE, -turned[:, 2]])
    depth = rasterise(pixels, faces, int(height), int(width)).depth
    column, row = pixels[:count, :2].astype(int).T
    return pixels[:count, 2] < depth[row, column] + _BIAS


def _without_inner_mouth(asset: FaceAsset) -> Int[np.ndarray, "F 3"]:
    is_inner = np.zeros(asset.n_vertices, bool)
    is_inner[asset.regions.get("inner_mouth", [])] = True
    return asset.faces[~is_inner[asset.faces].all(axis=1)]


def _face_colours(asset: FaceAsset) -> Float[np.ndarray, "V 3"]:
    """Plain colours, the rim between lips and inner mouth and the pits at the corners of the mouth as lips."""
    colours, inner = plain_colours(asset), asset.regions.get("inner_mouth", np.zeros(0, np.int32))
    rim = np.setdiff1d(asset.faces[np.isin(asset.faces, inner).any(axis=1)], inner)
    colours[rim] = LIPS
    offsets = _from_corners(asset)
    is_in_pit = (np.linalg.norm(offsets, axis=1) < _PIT_M) & (offsets[:, 0] < -_INWARD_M)
    colours[is_in_pit] = LIPS
    colours[np.setdiff1d(inner, asset.faces[~np.isin(asset.faces, inner).all(axis=1)])] = MOUTH
    return colours


def _from_corners(asset: FaceAsset) -> Float[np.ndarray, "V 3"]:
    """Where each vertex of the template lies from the corner of the mouth on its side, metres; x counts outward."""
    template = asset.template.astype(np.float64)
    right, left = ibug68_points(asset, template)[list(_CORNERS)]
    is_left = template[:, 0] > (right[0] + left[0]) / 2
    return np.where(is_left[:, None], template - left, (template - right) * [-1, 1, 1])


def _doubled(vertices: np.ndarray, faces: np.ndarray, camera: Camera) -> Int[np.ndarray, "F 3"]:
    """The faces, those turned away from the camera naming a second copy of the vertices."""
    corners = camera.project(vertices)[faces]
    a, b = corners[:, 1, :2] - corners[:, 0, :2], corners[:, 2, :2] - corners[:, 0, :2]
    is_away = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] > 0  # y points down, so a front is clockwise
    return np.where(is_away[:, None], faces + len(vertices), faces)


def _close_camera(asset: FaceAsset, size_px: int, yaw: float) -> Camera:
    """A camera on the template's lips, with room for an open jaw."""
    lips = asset.template[asset.regions["lips"]].astype(np.float64)
    low, high = lips.min(axis=0), lips.max(axis=0)
    middle, width, height = (low + high) / 2, *(high - low)[:2]
    wide, above, below = _CLOSE_UP
    corners = middle + np.array([[wide * width / 2, above * height, 0], [-wide * width / 2, -below * height, 0]])
    return Camera.framing(corners, size_px, fill=0.95, rotation=head_rotation(yaw, 0.0, 0.0))
