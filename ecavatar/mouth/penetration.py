"""Whether a mouth sticks out of the face, and how far: signed distances to the head's outer skin.

A head mesh is no solid: it is open at the neck, its eyeballs lie loose, and behind the lips it goes on as a lining (a
bag on the open head, two flaps on FLAME), within which teeth belong. What a mouth must not pass is the outer skin. So
the lining is cut off along the line where the lips meet, and the hole is closed by triangles from lip to lip
(`outer_skin`). They stretch when the lips part, so that an open mouth counts as covered, and teeth stick out of it only
where they come before the lips.

Inside or outside is told by a ray forward: crossings out of the skin minus crossings into it, the winding number for
rays that do not meet the hole at the neck, which holds for whatever lies in front of the neck. Lips that overlap, as
FLAME's do by 4 mm, count twice and stay inside, where the sign of the nearest surface point would flip.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from ecavatar.errors import DataError, ShapeError
from ecavatar.face.model import FaceAsset

_INNER_LIPS = slice(60, 68)  # iBUG landmarks round the line where the lips meet: right corner, upper, left, lower
_LEFT_CORNER = 4  # of those eight
_NOSE_TIP = 30
_SMALLEST_M = 1e-3  # triangles are sorted by size into classes: this radius, then its doubles


@dataclass(frozen=True, slots=True, kw_only=True)
class Penetration:
    """How much of a mouth lies outside the skin."""

    deepest_m: float
    """Distance from the skin of the vertex farthest out; 0 where none is outside."""
    vertices: int
    """How many mouth vertices lie outside."""
    share: float
    """The same as a share of all mouth vertices."""


def measure_penetration(
    face_vertices: Float[np.ndarray, "V 3"],
    face_faces: Int[np.ndarray, "F 3"],
    mouth_vertices: Float[np.ndarray, "M 3"],
) -> Penetration:
    """Mouth vertices that stick out of the face.

    Args:
        face_vertices: any frame of the head, mouth open or closed; metres, z forward.
        face_faces: `outer_skin` of its topology. All triangles of a head would count its mouth's inside as outside.
        mouth_vertices: in the same coordinates.

    Raises:
        ShapeError: arrays that do not fit each other.
        DataError: vertices that are not finite.
    """
    face, skin, mouth = _checked(face_vertices, face_faces, mouth_vertices)
    outside = mouth[_winding(face, skin, mouth) < 1]
    deepest = float(_distances(face, skin, outside).max()) if len(outside) else 0.0
    return Penetration(deepest_m=deepest, vertices=len(outside), share=len(outside) / len(mouth))


def is_outside(
    face_vertices: Float[np.ndarray, "V 3"], face_faces: Int[np.ndarray, "F 3"], points: Float[np.ndarray, "N 3"]
) -> Bool[np.ndarray, " N"]:
    """Which points lie outside the skin.

    Args and Raises: as `measure_penetration`.
    """
    face, skin, points = _checked(face_vertices, face_faces, points)
    return _winding(face, skin, points) < 1


def signed_distances(
    face_vertices: Float[np.ndarray, "V 3"], face_faces: Int[np.ndarray, "F 3"], points: Float[np.ndarray, "N 3"]
) -> Float[np.ndarray, " N"]:
    """Distance of each point to the nearest point of the skin, metres; positive outside.

    Args and Raises: as `measure_penetration`.
    """
    face, skin, points = _checked(face_vertices, face_faces, points)
    return np.where(_winding(face, skin, points) < 1, 1.0, -1.0) * _distances(face, skin, points)


def outer_skin(asset: FaceAsset) -> Int[np.ndarray, "F 3"]:
    """Triangles of the head's outside, the line between the lips closed: vertex indices of the asset's topology.

    The line runs along edges through the eight inner-lip landmarks of iBUG. What is joined to the tip of the nose
    without crossing it is the outside; lining and eyeballs are left away. Upper and lower lip are then joined.

    Raises:
        DataError: the landmarks give no closed line round the mouth.
    """
    upper, lower = _lip_lines(asset)
    around = np.concatenate([upper, lower[-2:0:-1]])
    outside = asset.faces[_joined_to(asset, int(asset.ibug68_faces[_NOSE_TIP]), around)]
    closing = _strip(upper, lower)
    if (_edges(outside) == upper[:2]).all(axis=1).any():  # neighbours run along their common edge in opposite ways
        closing = closing[:, ::-1]
    return np.concatenate([outside, closing]).astype(np.int32)


# --- the outer skin ---------------------------------------------------------------------------------------------------


def _lip_lines(asset: FaceAsset) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """Vertices of the upper and of the lower lip where they meet, both from the right corner to the left one."""
    corners = asset.faces[asset.ibug68_faces[_INNER_LIPS]]
    knots = np.take_along_axis(corners, asset.ibug68_barycentrics[_INNER_LIPS].argmax(axis=1)[:, None], axis=1)[:, 0]
    start, end = np.unique(np.sort(_edges(asset.faces), axis=1), axis=0).T
    length = np.linalg.norm(asset.template[start].astype(np.float64) - asset.template[end], axis=1)
    graph = coo_matrix((length, (start, end)), shape=(asset.n_vertices,) * 2).tocsr()
    before = dijkstra(graph, directed=False, indices=knots, return_predecessors=True)[1]
    ways = [_way(before[k], int(knots[k]), int(knots[(k + 1) % len(knots)])) for k in range(len(knots))]
    around = [vertex for way in ways for vertex in way]
    if len(set(around)) != len(around) or len(set(knots.tolist())) != len(knots):
        raise DataError(
            f"{asset.topology}: the inner-lip landmarks (iBUG 60 to 67) give no closed line round the mouth. Check the "
            "landmark embedding of the face model."
        )
    left = around.index(int(knots[_LEFT_CORNER]))
    return np.array(around[: left + 1]), np.array([around[0], *around[: left - 1 : -1]])


def _way(before: Int[np.ndarray, " V"], start: int, end: int) -> list[int]:
    """Vertices from `start` up to the one before `end`, along the predecessors of a search from `start`."""
    way = [end]
    while way[-1] != start:
        way.append(int(before[way[-1]]))
        if way[-1] < 0:
            raise DataError(
                "two inner-lip landmarks lie on parts of the mesh that are not joined; check its triangles."
            )
    return way[:0:-1]


def _edges(faces: Int[np.ndarray, "F 3"]) -> Int[np.ndarray, "E 2"]:
    """The directed edges of all triangles."""
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def _joined_to(asset: FaceAsset, start: int, line: Int[np.ndarray, " n"]) -> np.ndarray:
    """Which triangles are joined to triangle `start` over edges that are not part of the closed `line`."""
    key = np.sort(_edges(asset.faces), axis=1).astype(np.int64) @ [asset.n_vertices, 1]
    cut = np.sort(np.stack([line, np.roll(line, -1)], axis=1), axis=1).astype(np.int64) @ [asset.n_vertices, 1]
    face = np.tile(np.arange(len(asset.faces)), 3)
    order = np.argsort(key, kind="stable")
    key, face = key[order], face[order]
    is_pair = (key[1:] == key[:-1]) & ~np.isin(key[1:], cut)
    pairs = face[:-1][is_pair], face[1:][is_pair]
    graph = coo_matrix((np.ones(len(pairs[0])), pairs), shape=(len(asset.faces),) * 2)
    labels = connected_components(graph, directed=False)[1]
    return labels == labels[start]


def _strip(upper: Int[np.ndarray, " n"], lower: Int[np.ndarray, " m"]) -> Int[np.ndarray, "K 3"]:
    """Triangles between two rows of vertices that share their ends, advancing on both at the same pace."""
    triangles, i, j = [], 0, 0
    while i < len(upper) - 1 or j < len(lower) - 1:
        if (i + 1) * (len(lower) - 1) <= (j + 1) * (len(upper) - 1):
            triangles.append((upper[i], upper[i + 1], lower[j]))
            i += 1
        else:
            triangles.append((upper[i], lower[j + 1], lower[j]))
            j += 1
    return np.array([triangle for triangle in triangles if len(set(triangle)) == 3], dtype=np.int64).reshape(-1, 3)


# --- inside or outside, and how far -----------------------------------------------------------------------------------


def _checked(
    face: np.ndarray, faces: np.ndarray, points: np.ndarray
) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"], Float[np.ndarray, "N 3"]]:
    face, faces, points = np.asarray(face, np.float64), np.asarray(faces), np.asarray(points, np.float64)
    for name, array in (("face vertices", face), ("face triangles", faces), ("points", points)):
        if array.ndim != 2 or array.shape[1] != 3 or not len(array):
            raise ShapeError(f"{name}: expected (N, 3) with N > 0, got {array.shape}.")
    if faces.min() < 0 or faces.max() >= len(face):
        raise ShapeError(f"face triangles name vertices outside 0..{len(face) - 1}; give the topology's own.")
    if not (np.isfinite(face).all() and np.isfinite(points).all()):
        raise DataError("expected finite face vertices and points; find the frame that is not and leave it out.")
    return face, faces, points


def _winding(face: np.ndarray, faces: np.ndarray, points: np.ndarray) -> Int[np.ndarray, " N"]:
    """How often a ray forward (+z) from each point leaves the skin, less how often it enters it."""
    corners = face[faces]
    low, high = corners.min(axis=1), corners.max(axis=1)
    may_be_hit = (high > points.min(axis=0)).all(axis=1) & (low[:, :2] < points[:, :2].max(axis=0)).all(axis=1)
    corners = corners[may_be_hit]
    winding = np.zeros(len(points), dtype=np.int64)
    for point, triangle in _near(corners[..., :2], points[:, :2], np.zeros(len(points))):
        a, b, c = np.moveaxis(corners[triangle], 1, 0)
        p = points[point]
        u, v, w = _turn(b, c, p), _turn(c, a, p), _turn(a, b, p)
        is_left = (u > 0) & (v > 0) & (w > 0)
        is_hit = is_left | ((u < 0) & (v < 0) & (w < 0))
        depth = np.divide(u * a[:, 2] + v * b[:, 2] + w * c[:, 2], u + v + w, out=p[:, 2].copy(), where=is_hit)
        sign = np.where(is_left, 1, -1) * (is_hit & (depth > p[:, 2]))
        np.add.at(winding, point, sign)
    return winding


def _turn(a: np.ndarray, b: np.ndarray, p: np.ndarray) -> Float[np.ndarray, " n"]:
    """Twice the signed area of a, b, p seen from +z; exactly opposite for b, a, p."""
    swap = (a[:, 0] > b[:, 0]) | ((a[:, 0] == b[:, 0]) & (a[:, 1] > b[:, 1]))
    first, second = np.where(swap[:, None], b, a), np.where(swap[:, None], a, b)
    area = (second[:, 0] - first[:, 0]) * (p[:, 1] - first[:, 1]) - (second[:, 1] - first[:, 1]) * (
        p[:, 0] - first[:, 0]
    )
    # a point exactly on an edge counts as on one side of it, the same for both triangles
    return np.where(swap, -1.0, 1.0) * np.where(area == 0, np.finfo(float).tiny, area)


def _distances(face: np.ndarray, faces: np.ndarray, points: np.ndarray) -> Float[np.ndarray, " N"]:
    """Distance of each point to the nearest triangle."""
    from trimesh.triangles import closest_point  # slow to import

    corners = face[faces]
    bound = cKDTree(face[np.unique(faces)]).query(points)[0]
    best = bound.copy()
    for point, triangle in _near(corners, points, bound):
        distance = np.linalg.norm(closest_point(corners[triangle], points[point]) - points[point], axis=1)
        np.minimum.at(best, point, distance)
    return best


def _near(
    corners: Float[np.ndarray, "F 3 d"], points: Float[np.ndarray, "N d"], reach: Float[np.ndarray, " N"]
) -> Iterator[tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]]:
    """Pairs of point and triangle that may be within the point's reach, all of them, in classes of triangles' size."""
    centre = corners.mean(axis=1)
    radius = np.linalg.norm(corners - centre[:, None], axis=2).max(axis=1)
    size = np.ceil(np.log2(np.maximum(radius / _SMALLEST_M, 1))).astype(int)
    for level in np.unique(size):
        member = np.flatnonzero(size == level)
        found = cKDTree(centre[member]).query_ball_point(points, reach + _SMALLEST_M * 2.0**level, return_sorted=True)
        counts = np.fromiter(map(len, found), dtype=np.int64, count=len(points))
        if counts.any():
            triangle = np.concatenate([np.asarray(row, dtype=np.int64) for row in found if row])
            yield np.repeat(np.arange(len(points)), counts), member[triangle]
