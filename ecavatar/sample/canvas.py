"""The open head laid flat, with everything a painter needs to know about each texel.

The skin is unrolled around the vertical axis, wider in front than behind, so that brows, eyes and lips get most of the
texels; each eyeball is a disc around its gaze axis. What a texel is (distance to the brow, lip or skin, angle to the
gaze ...) is measured once on the neutral head; an appearance then only mixes colours.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.interpolate import CubicSpline
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from ecavatar.face.landmarks import ibug68_points
from ecavatar.face.model import FaceAsset
from ecavatar.rendering.camera import Camera
from ecavatar.rendering.rasteriser import Fragments, rasterise
from ecavatar.rendering.shading import vertex_normals

SIDE = 512
"""Texels a side of the skin."""
EYE_SIDE = 128
"""Texels a side of an eyeball."""
IRIS_RADIUS_MM = 5.9
"""Half the visible iris diameter of adults, 11.7 mm (Rüfer et al., Cornea 2005)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FaceCanvas:
    """Texture coordinates, and one picture per property of the texels (float32, rows x columns)."""

    uv: Float[np.ndarray, "corners 2"]
    """u to the right, v up; three corners per face, none shared."""
    uv_faces: Int[np.ndarray, "faces 3"]
    openness: Float[np.ndarray, " vertices"]
    """Share of the sky each vertex sees on the neutral head, 0..1."""
    layers: Mapping[str, Float[np.ndarray, "rows columns"]]
    """x, y, z: the texel's place on the neutral head, metres. brow_along: 0 at the inner to 1 at the outer end.
    brow_across_mm: above the brow line, negative below. lips: 1 on the lips. upper_lash_mm, lower_lash_mm: to the lid's
    edge. scalp: 1 where hair grows. cheek, nose, beard: 1 at the middle of each, falling off. eye: 1 on eyeballs.
    gaze_mm: on eyeballs, along the surface to the middle of the pupil."""


def make_canvas(asset: FaceAsset) -> FaceCanvas:
    """The canvas of a head; the same arrays for the same asset."""
    vertices = asset.template.astype(np.float64)
    uv = _unrolled(asset, vertices)
    openness = sky_openness(vertices, asset.faces)
    positions, is_eye = _texel_positions(asset, vertices, uv)
    points = ibug68_points(asset, vertices)
    layers = {name: positions[..., axis] for axis, name in enumerate("xyz")}
    layers |= _brow_layers(positions, points) | _eye_layers(asset, vertices, positions, points, is_eye)
    layers |= _soft_layers(positions, points)
    layers["lips"] = _lip_layer(positions, points)
    layers["scalp"] = _region_layer(asset, "scalp", vertices, uv)
    skin = ~is_eye
    for name in ("lips", "scalp", "cheek", "nose", "beard"):
        layers[name] = layers[name] * skin
    uv_faces = np.arange(3 * len(asset.faces), dtype=np.int32).reshape(-1, 3)
    frozen = {name: layer.astype(np.float32) for name, layer in layers.items()}
    return FaceCanvas(uv=uv.reshape(-1, 2), uv_faces=uv_faces, openness=openness, layers=frozen)


def sky_openness(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"], directions: int = 64
) -> Float[np.ndarray, " vertices"]:
    """How much of the half space in front of each vertex is not hidden by the mesh itself, 0..1, cosine-weighted."""
    normals = vertex_normals(vertices, faces)
    lifted = vertices + 5e-4 * normals
    seen, total = np.zeros(len(vertices)), np.full(len(vertices), 1e-9)
    size = 256
    for direction in _sphere_directions(directions):
        camera = _looking_along(direction, vertices, size)
        depth = rasterise(camera.project(vertices), faces, size, size).depth
        pixels = camera.project(lifted)
        column, row = (np.clip(pixels[:, axis].astype(np.int64), 0, size - 1) for axis in (0, 1))
        weight = np.maximum(normals @ direction, 0)
        total += weight
        seen += weight * (pixels[:, 2] <= depth[row, column] + 1.5e-3)
    return seen / total


def _sphere_directions(count: int) -> np.ndarray:
    """Unit vectors spread evenly over the sphere (Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    height, turn = 1 - 2 * index / count, np.pi * (1 + np.sqrt(5)) * index
    around = np.sqrt(1 - height**2)
    return np.stack([around * np.cos(turn), height, around * np.sin(turn)], axis=1)


def _looking_along(direction: np.ndarray, vertices: np.ndarray, size: int) -> Camera:
    """An orthographic camera far out in `direction` that shows all vertices."""
    helper = np.eye(3)[np.abs(direction).argmin()]
    right = np.cross(helper, direction)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(direction, right), direction])
    turned = vertices @ rotation.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    scale = 0.98 * size / (high - low)[:2].max()
    middle = (low + high)[:2] / 2
    centre = (float(size / 2 - scale * middle[0]), float(size / 2 + scale * middle[1]))
    return Camera.orthographic(pixels_per_metre=float(scale), centre_px=centre, rotation=rotation)


def _eyeballs(asset: FaceAsset) -> list[np.ndarray]:
    return [asset.regions["left_eyeball"], asset.regions["right_eyeball"]]


def _unrolled(asset: FaceAsset, vertices: np.ndarray) -> np.ndarray:
    """Texture coordinates (faces, 3, 2) of every face's corners."""
    turn = np.arctan2(vertices[:, 0], vertices[:, 2] - _axis_depth(vertices))
    low, high = vertices[:, 1].min(), vertices[:, 1].max()
    share = SIDE / (SIDE + EYE_SIDE)
    corners = turn[asset.faces]
    # a face that crosses the back is drawn on one side of the seam: there is only hair
    crossing = np.ptp(corners, axis=1) > np.pi
    corners[crossing] = np.abs(corners[crossing])
    across = (0.5 + 0.499 * np.sin(corners / 2)) * share
    up = (0.002 + 0.996 * (vertices[:, 1] - low) / (high - low))[asset.faces]
    uv = np.stack([across, up], axis=-1)
    for row, indices in enumerate(_eyeballs(asset)):
        disc = _disc(vertices[indices])
        whole = np.zeros((len(vertices), 2))
        tile = EYE_SIDE / (SIDE + EYE_SIDE), EYE_SIDE / SIDE
        whole[indices, 0] = share + tile[0] * (0.5 + disc[:, 0])
        whole[indices, 1] = 1 - tile[1] * (row + 0.5 - disc[:, 1])
        mine = np.isin(asset.faces, indices).all(axis=1)
        uv[mine] = whole[asset.faces[mine]]
    return uv


def _axis_depth(vertices: np.ndarray) -> float:
    """Depth (z) of the vertical axis that the skin is unrolled around: the middle of the head."""
    return float((vertices[:, 2].min() + vertices[:, 2].max()) / 2)


def _disc(eyeball: np.ndarray) -> np.ndarray:
    """A sphere's points on a disc of radius below 0.5: distance from the middle = angle to +z."""
    arm = eyeball - (eyeball.min(axis=0) + eyeball.max(axis=0)) / 2
    angle = np.arccos(np.clip(arm[:, 2] / np.linalg.norm(arm, axis=1), -1, 1))
    around = np.arctan2(arm[:, 1], arm[:, 0])
    return (0.49 * angle / np.pi)[:, None] * np.stack([np.cos(around), np.sin(around)], axis=1)


def _texel_positions(asset: FaceAsset, vertices: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place of every texel on the head (rows, columns, 3), and which texels are eyeball.

    Where layers of skin lie over each other the outermost counts; empty texels take the nearest one's place.
    """
    corners = vertices[asset.faces]
    radius = np.hypot(corners[..., 0], corners[..., 2] - _axis_depth(vertices))
    seen = _draw_flat(uv, -radius)
    weights = seen.barycentrics[..., None].astype(np.float64)
    positions = (corners[seen.face_ids] * weights).sum(axis=-2)
    nearest = distance_transform_edt(seen.face_ids < 0, return_distances=False, return_indices=True)
    if nearest is None:  # never: indices were asked for; tells the type checker
        raise RuntimeError("no indices")
    is_eye = np.zeros(seen.face_ids.shape, dtype=bool)
    is_eye[:, SIDE:] = True
    return positions[nearest[0], nearest[1]], is_eye


def _draw_flat(uv: np.ndarray, depth: np.ndarray) -> Fragments:
    height, width = SIDE, SIDE + EYE_SIDE
    flat = np.stack([uv[..., 0] * width, (1 - uv[..., 1]) * height, depth], axis=-1).reshape(-1, 3)
    return rasterise(flat, np.arange(len(flat), dtype=np.int32).reshape(-1, 3), height, width)


def _region_layer(asset: FaceAsset, name: str, vertices: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """1 on the faces of a region, falling to 0 over the faces at its border."""
    inside = np.zeros(asset.n_vertices)
    inside[asset.regions[name]] = 1
    corners = vertices[asset.faces]
    radius = np.hypot(corners[..., 0], corners[..., 2] - _axis_depth(vertices))
    seen = _draw_flat(uv, -radius)
    return (inside[asset.faces][seen.face_ids] * seen.barycentrics).sum(axis=-1)


def _curve(points: np.ndarray, *, closed: bool = False, count: int = 96) -> np.ndarray:
    """Points on a smooth curve through the given ones."""
    knots = np.concatenate([points, points[:1]]) if closed else points
    steps = np.concatenate([[0], np.linalg.norm(np.diff(knots, axis=0), axis=1).cumsum()])
    spline = CubicSpline(steps / steps[-1], knots, bc_type="periodic" if closed else "natural")
    return spline(np.linspace(0, 1, count))


def _brow_layers(positions: np.ndarray, points: np.ndarray) -> dict[str, np.ndarray]:
    along = np.zeros(positions.shape[:2])
    across = np.full(positions.shape[:2], 1e3)
    for brow in (points[17:22][::-1], points[22:27]):  # each from the nose outwards
        curve = _curve(brow)
        distance, index = cKDTree(curve).query(positions, distance_upper_bound=0.03)
        index = np.minimum(index, len(curve) - 1)
        distance = np.minimum(distance, 1)
        signed = np.where(positions[..., 1] > curve[index, 1], distance, -distance) * 1e3
        closer = np.abs(signed) < np.abs(across)
        across, along = np.where(closer, signed, across), np.where(closer, index / (len(curve) - 1), along)
    return {"brow_along": along, "brow_across_mm": across}


def _eye_layers(
    asset: FaceAsset, vertices: np.ndarray, positions: np.ndarray, points: np.ndarray, is_eye: np.ndarray
) -> dict[str, np.ndarray]:
    def to_curve_mm(curves: tuple[np.ndarray, ...]) -> np.ndarray:
        tree = cKDTree(np.concatenate([_curve(curve) for curve in curves]))
        distance = np.minimum(tree.query(positions, distance_upper_bound=0.03)[0], 1)
        return np.where(is_eye, 1e3, distance * 1e3)

    upper = (points[[36, 37, 38, 39]], points[[42, 43, 44, 45]])
    lower = (points[[36, 41, 40, 39]], points[[42, 47, 46, 45]])
    gaze = np.full(positions.shape[:2], 1e3)
    grid = (np.arange(EYE_SIDE) + 0.5) / EYE_SIDE - 0.5
    angle = np.hypot(grid[:, None], grid[None, :]) * np.pi / 0.49
    for row, indices in enumerate(_eyeballs(asset)):
        radius = np.ptp(vertices[indices, 2]) / 2
        gaze[row * EYE_SIDE : (row + 1) * EYE_SIDE, SIDE:] = angle * radius * 1e3
    return {
        "upper_lash_mm": to_curve_mm(upper),
        "lower_lash_mm": to_curve_mm(lower),
        "eye": is_eye.astype(np.float64),
        "gaze_mm": gaze,
    }


def _lip_layer(positions: np.ndarray, points: np.ndarray) -> np.ndarray:
    """1 inside the outer lip line seen from the front, 0 outside, half a millimetre of transition."""
    curve = _curve(points[48:60], closed=True, count=240)[:-1]
    flat = positions[..., :2].reshape(-1, 2)
    low, high = curve[:, :2].min(axis=0) - 0.003, curve[:, :2].max(axis=0) + 0.003
    near = ((flat > low) & (flat < high)).all(axis=1) & (positions[..., 2].reshape(-1) > curve[:, 2].min() - 0.02)
    distance = cKDTree(curve[:, :2]).query(flat[near])[0] * 1e3
    signed = np.where(_is_inside(flat[near], curve[:, :2]), distance, -distance)
    layer = np.zeros(len(flat))
    layer[near] = np.clip(0.5 + signed, 0, 1)
    return layer.reshape(positions.shape[:2])


def _is_inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Which points lie inside a closed polygon: an odd number of edges to their right."""
    inside = np.zeros(len(points), dtype=bool)
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        spans = (a[1] > points[:, 1]) != (b[1] > points[:, 1])
        if spans.any():
            at = a[0] + (points[spans, 1] - a[1]) / (b[1] - a[1]) * (b[0] - a[0])
            inside[spans] ^= points[spans, 0] < at
    return inside


def _soft_layers(positions: np.ndarray, points: np.ndarray) -> dict[str, np.ndarray]:
    """Round spots: cheeks, the tip of the nose, and the beard's area around mouth and chin."""

    def spot(centre: np.ndarray, radius: float) -> np.ndarray:
        return np.exp(-((positions - centre) ** 2).sum(axis=-1) / (2 * radius**2))

    right = (points[36] + points[48]) / 2 + (points[2] - points[33]) * 0.15
    left = (points[45] + points[54]) / 2 + (points[14] - points[33]) * 0.15
    lip = np.stack([points[48], points[33] * 0.4 + points[51] * 0.6, points[54]])
    jaw, moustache = (
        np.minimum(cKDTree(_curve(line)).query(positions, distance_upper_bound=0.08)[0], 1)
        for line in (points[3:14], lip)
    )
    beard = np.maximum(np.exp(-((jaw / 0.028) ** 4)), np.exp(-((moustache / 0.011) ** 4)))
    below_nose = np.clip((points[30, 1] - 0.004 - positions[..., 1]) / 0.01, 0, 1)
    return {
        "cheek": np.maximum(spot(right, 0.016), spot(left, 0.016)),
        "nose": spot(points[30], 0.011),
        "beard": beard * below_nose * (positions[..., 2] > _front_limit(points)),
    }


def _front_limit(points: np.ndarray) -> float:
    """Depth (z) behind which no beard grows: the jaw line's ends."""
    return float(min(points[0, 2], points[16, 2]) - 0.005)
