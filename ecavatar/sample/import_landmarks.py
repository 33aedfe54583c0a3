"""Where MediaPipe's and iBUG's landmarks lie on the open head; part of `sample.import_head`.

The mean head is rendered from many views, coloured so that brows, lips and irises show; MediaPipe marks each picture; a
mark's pixel names a triangle and a place in it. The places of all views are averaged on the surface, made symmetric,
and moved to the nearest allowed triangle (an upper lip's mark never ends on the lower lip). Irises are placed on the
eyeballs analytically. iBUG's 68 points are the MediaPipe points commonly taken for them.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from mediapipe.tasks.python.vision import FaceLandmarksConnections
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from ecavatar.errors import DataError
from ecavatar.face.model import ARKIT_INDEX, FaceAsset, FaceModel, arkit_coefficients
from ecavatar.reconstruction.landmarks import IBUG68, Detection, FaceLandmarker
from ecavatar.rendering.camera import Camera
from ecavatar.rendering.rasteriser import rasterise
from ecavatar.rendering.shading import Light, Lighting, render_face, vertex_normals

_SIZE_PX = 640
_YAWS_DEG = (-50, -35, -20, -10, 0, 10, 20, 35, 50)
_PITCHES_DEG = (-15, 0, 15)
_OPENINGS = (0.0, 0.35)  # weights of jawOpen: closed lips hide where one ends and the other begins
_LOWER_LIP = 0.35  # skinning weight of the jaw that parts lower from upper lip
_LIP_DEPTH = 0.003  # how far behind the painted lips a mark of the lips may lie, metres
_MIN_FACING = 0.25  # cosine between normal and line of sight below which a mark's place is too uncertain
_LIGHTING = Lighting(lights=(Light(direction=(0.3, 0.5, 1.0), colour=(0.7, 0.7, 0.7)),), ambient=(0.3, 0.3, 0.3))
_SKIN, _LIPS, _BROWS, _MOUTH = (0.62, 0.38, 0.28), (0.45, 0.13, 0.12), (0.08, 0.05, 0.03), (0.08, 0.02, 0.02)
_SCLERA, _IRIS, _PUPIL = (0.75, 0.75, 0.75), (0.08, 0.12, 0.14), (0.005, 0.005, 0.005)

RIGHT_IRIS, LEFT_IRIS = (468, 469, 470, 471, 472), (473, 474, 475, 476, 477)
"""MediaPipe's iris landmarks: centre, then four points on the rim."""
BROWS = {
    "right_brow": (70, 63, 105, 66, 107, 55, 65, 52, 53, 46),
    "left_brow": (300, 293, 334, 296, 336, 285, 295, 282, 283, 276),
}
"""Outlines of the brows: upper edge from the outer end, then back along the lower edge."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """Points on triangles: K landmark numbers, their triangles and barycentric weights."""

    indices: Int[np.ndarray, " K"]
    faces: Int[np.ndarray, " K"]
    barycentrics: Float[np.ndarray, "K 3"]


def mediapipe_embedding(asset: FaceAsset, brows: Int[np.ndarray, " n"], iris_rings: tuple[int, int, int]) -> Embedding:
    """All 478 landmarks on the mean head.

    Args:
        asset: the head; of its regions only eyeballs, lips and `inner_mouth`, `sockets` are used.
        brows: vertices to paint as brows.
        iris_rings: rings of the pupil, rings of the iris, vertices in a ring.

    Raises:
        DataError: a landmark is never seen.
    """
    hits, partners = _observed(asset, _paint(asset, brows, iris_rings))
    missing = [landmark for landmark in range(468) if not hits[landmark]]
    if missing:
        raise DataError(
            f"MediaPipe's landmarks {missing} are on the skin in no view; look at the pictures it is given."
        )
    hits = _pooled(hits, partners)
    vertices = asset.template.astype(np.float64)
    points, is_lower = np.zeros((468, 3)), np.zeros(468, bool)
    for landmark in range(468):
        is_lip = landmark in _LIP_LANDMARKS
        points[landmark], is_lower[landmark] = _settled(asset, vertices, hits[landmark], is_lip)
    points[partners == np.arange(468), 0] = 0
    embedding = _projected(asset, points, is_lower)
    return _with_irises(asset, embedding, iris_rings)


def ibug68_embedding(mediapipe: Embedding) -> Embedding:
    """The 68 landmarks of iBUG as the MediaPipe ones of `IBUG68`."""
    rows = np.searchsorted(mediapipe.indices, IBUG68)
    return Embedding(np.arange(68), mediapipe.faces[rows], mediapipe.barycentrics[rows])


# --- looking ----------------------------------------------------------------------------------------------------------


def _paint(asset: FaceAsset, brows: np.ndarray, iris_rings: tuple[int, int, int]) -> Float[np.ndarray, "V 3"]:
    colours = np.tile(np.array(_SKIN), (asset.n_vertices, 1))
    colours[asset.regions["lips"]] = _LIPS
    colours[brows] = _BROWS
    colours[asset.regions["inner_mouth"]] = _MOUTH
    pupil, iris, sectors = iris_rings
    for name in ("left_eyeball", "right_eyeball"):
        eye = asset.regions[name]
        colours[eye] = _SCLERA
        colours[eye[: 1 + iris * sectors]] = _IRIS
        colours[eye[: 1 + pupil * sectors]] = _PUPIL
    return colours


@dataclass(frozen=True, slots=True)
class Hit:
    """Where one view puts one landmark."""

    weight: float
    point: Float[np.ndarray, " 3"]
    """Place on the head at rest."""
    jaw: float
    """Skinning weight of the jaw there."""
    yaw_deg: float
    opening: float


def _observed(asset: FaceAsset, colours: np.ndarray) -> tuple[list[list[Hit]], Int[np.ndarray, " 468"]]:
    """What every view says of each landmark that has the surface under its mark, and each landmark's mirror partner."""
    model, frontal = FaceModel(asset), None
    hits: list[list[Hit]] = [[] for _ in range(478)]
    with FaceLandmarker() as landmarker:
        for opening in _OPENINGS:
            weights = np.zeros((1, 52), np.float32)
            weights[0, ARKIT_INDEX["jawOpen"]] = opening
            expression, jaw = (torch.from_numpy(array) for array in arkit_coefficients(asset, weights))
            vertices = model(torch.zeros(1, 1), expression, jaw)[0].numpy().astype(np.float64)
            for pitch in _PITCHES_DEG:
                for yaw in _YAWS_DEG:
                    found = _observe_view(asset, vertices, colours, (yaw, pitch), opening, landmarker, hits)
                    if found is not None and yaw == pitch == 0 and opening > 0:
                        frontal = found
    if frontal is None:
        raise DataError("MediaPipe finds no face in the frontal picture; look at the pictures it is given.")
    return hits, _partners(frontal)


def _observe_view(
    asset: FaceAsset,
    vertices: Float[np.ndarray, "V 3"],
    colours: Float[np.ndarray, "V 3"],
    angles_deg: tuple[float, float],
    opening: float,
    landmarker: FaceLandmarker,
    hits: list[list[Hit]],
) -> Detection | None:
    """Look from one side, add what is seen to `hits`, and return MediaPipe's answer."""
    turn = Rotation.from_euler("yx", angles_deg, degrees=True).as_matrix()
    camera = Camera.perspective(
        focal_px=2.9 * _SIZE_PX, distance=1.0, centre_px=(_SIZE_PX / 2, _SIZE_PX / 2), rotation=turn
    )
    picture = render_face(vertices, asset.faces, colours, camera, _LIGHTING, _SIZE_PX, background=(0.4, 0.4, 0.4))
    found = landmarker.detect(picture)
    if found is None:
        return None
    seen = rasterise(camera.project(vertices), asset.faces, _SIZE_PX, _SIZE_PX, is_perspective=True)
    facing = (vertex_normals(vertices, asset.faces) @ turn.T)[:, 2]
    mouth = asset.regions["lips"]
    is_front = asset.template[asset.faces, 2].mean(axis=1) > asset.template[mouth, 2].min() - _LIP_DEPTH
    visible = np.argwhere((seen.face_ids >= 0) & is_front[seen.face_ids])
    for landmark, (x, y) in enumerate(found.points_px):
        column, row = int(np.floor(x)), int(np.floor(y))
        if landmark in _LIP_LANDMARKS:  # a hair inside the open mouth: the nearest pixel of the lips is meant
            row, column = visible[np.abs(visible - (row, column)).sum(axis=1).argmin()].tolist()
        if not (0 <= column < _SIZE_PX and 0 <= row < _SIZE_PX) or seen.face_ids[row, column] < 0:
            continue
        face, place = int(seen.face_ids[row, column]), seen.barycentrics[row, column].astype(np.float64)
        corners = asset.faces[face]
        weight = max(float(facing[corners] @ place), 0.05) ** 2
        hits[landmark].append(
            Hit(
                weight,
                place @ asset.template[corners],
                float(place @ asset.skinning[corners, 2]),
                angles_deg[0],
                opening,
            )
        )
    return found


def _partners(frontal: Detection) -> Int[np.ndarray, " 468"]:
    """Each landmark's counterpart on the other side: the best assignment of a frontal face to its mirror image."""
    points = np.column_stack([frontal.points_px, frontal.depth_px])[:468]
    middle = (points[33] + points[263]) / 2  # outer corners of the eyes
    mirrored = (points - middle) * (-1, 1, 1) + middle
    partners = linear_sum_assignment(np.linalg.norm(points[:, None] - mirrored[None], axis=-1))[1]
    if not np.array_equal(partners[partners], np.arange(468)):
        raise DataError("the landmarks do not pair up left and right; look at the pictures MediaPipe is given.")
    return partners


def _pooled(hits: list[list[Hit]], partners: np.ndarray) -> list[list[Hit]]:
    """Each landmark's hits and the mirror images of its partner's, so that what follows is symmetric."""
    return [
        own + [replace(hit, point=hit.point * (-1, 1, 1), yaw_deg=-hit.yaw_deg) for hit in hits[partner]]
        for own, partner in zip(hits, partners, strict=False)
    ]


# --- settling ---------------------------------------------------------------------------------------------------------

_LIP_LANDMARKS = frozenset(
    point for line in FaceLandmarksConnections.FACE_LANDMARKS_LIPS for point in (line.start, line.end)
)


def _settled(asset: FaceAsset, vertices: np.ndarray, hits: list[Hit], is_lip: bool) -> tuple[np.ndarray, bool]:
    """Mean place at rest of one landmark over its views, and whether it is on the lower lip.

    In a view that hides a landmark MediaPipe puts it on the outline. So a first place is found in the nearly frontal
    views, and only views that look onto the skin at that place count.
    """
    mine = [hit for hit in hits if hit.opening > 0 or not is_lip]
    frontal = [hit for hit in mine if abs(hit.yaw_deg) <= 10]
    first = np.median([hit.point for hit in frontal or mine], axis=0)
    normal = vertex_normals(vertices, asset.faces)[np.linalg.norm(vertices - first, axis=1).argmin()]
    yaws = np.radians([hit.yaw_deg for hit in mine])
    facing = np.cos(yaws) * normal[2] - np.sin(yaws) * normal[0]
    points = np.array([hit.point for hit in mine])
    weights = np.where(facing > min(_MIN_FACING, facing.max() - 0.05), [hit.weight for hit in mine], 0)
    seen = weights > 0
    far = np.linalg.norm(points - np.median(points[seen], axis=0), axis=1)
    weights = weights * (far <= max(2 * np.median(far[seen]), 1e-4))
    is_lower = is_lip and float(np.median([hit.jaw for hit in mine])) > _LOWER_LIP
    return weights @ points / weights.sum(), is_lower


def _projected(asset: FaceAsset, points: np.ndarray, is_lower: np.ndarray) -> Embedding:
    """Each point moved to the nearest triangle it may lie on."""
    behind = np.zeros(asset.n_vertices, bool)
    for name in ("inner_mouth", "sockets", "left_eyeball", "right_eyeball"):
        behind[asset.regions[name]] = True
    skin = ~behind[asset.faces].any(axis=1)
    jaw = asset.skinning[asset.faces, 2].mean(axis=1)
    is_lip = np.isin(np.arange(len(points)), list(_LIP_LANDMARKS))
    faces, barycentrics = np.zeros(len(points), int), np.zeros((len(points), 3))
    for allowed, mine in (
        (skin, ~is_lip), (skin & (jaw > _LOWER_LIP), is_lip & is_lower), (skin & (jaw < _LOWER_LIP), is_lip & ~is_lower)
    ):  # fmt: skip
        rows = np.flatnonzero(allowed)
        corners = asset.template[asset.faces[rows]].astype(np.float64)
        near = cKDTree(corners.mean(axis=1)).query(points[mine], k=64)[1]
        for index, candidates in zip(np.flatnonzero(mine), near, strict=True):
            closest = trimesh.triangles.closest_point(corners[candidates], np.tile(points[index], (64, 1)))
            best = int(np.linalg.norm(closest - points[index], axis=1).argmin())
            faces[index] = rows[candidates[best]]
            triangle = corners[candidates[best]][None]
            barycentrics[index] = trimesh.triangles.points_to_barycentric(triangle, closest[best][None])[0]
    barycentrics = np.clip(barycentrics, 0, 1)
    return Embedding(np.arange(len(points)), faces, barycentrics / barycentrics.sum(axis=1, keepdims=True))


def _with_irises(asset: FaceAsset, skin: Embedding, iris_rings: tuple[int, int, int]) -> Embedding:
    """The ten iris points: each eyeball's front pole, and four vertices of the iris' last ring.

    MediaPipe goes round by way of the top: the right eye's rim from the subject's right, the left eye's from the left.
    """
    _, iris, sectors = iris_rings
    vertices = []
    for name in ("right_eyeball", "left_eyeball"):
        first = asset.regions[name][0]
        ring = first + 1 + (iris - 1) * sectors
        quarter = sectors // 4
        start = (
            (2 * quarter, quarter, 0, 3 * quarter)
            if name == "right_eyeball"
            else (0, quarter, 2 * quarter, 3 * quarter)
        )
        vertices += [first, *(ring + step for step in start)]
    faces, barycentrics = [], []
    for vertex in vertices:
        face = int(np.flatnonzero((asset.faces == vertex).any(axis=1))[0])
        faces.append(face)
        barycentrics.append((asset.faces[face] == vertex).astype(float))
    return Embedding(
        np.arange(478), np.concatenate([skin.faces, faces]), np.concatenate([skin.barycentrics, barycentrics])
    )
