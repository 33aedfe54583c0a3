"""A small mouth, and heads without bases to lay it into: the open head's mesh, and FLAME's template where it is."""

from pathlib import Path

import numpy as np
import trimesh
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from ecavatar.face.flame.embeddings import read_ibug_embedding
from ecavatar.face.flame.masks import flame_regions
from ecavatar.face.flame.model_file import FlameModel
from ecavatar.face.mesh_file import read_mesh
from ecavatar.face.model import PARENTS, FaceAsset
from ecavatar.mouth.model import MouthMesh, Part
from ecavatar.sample.head_data import HeadData
from tests.fabricate_flame import open_head_template

OPEN_JOINT = (0.0, -0.028, -0.028)
"""About where the open head's jaw turns, metres."""
FLAME_JOINT = (0.0, -0.009, -0.012)
"""About where FLAME's does."""


def small_mouth(scale: float = 1.0) -> MouthMesh:
    """A mouth of an adult's size: boxes for teeth along two arches, slabs for gums, an egg for a tongue."""
    pieces = [
        *((Part.UPPER_TEETH, number, box) for number, box in _teeth(0.030, 0.0, (21, 11))),
        *((Part.LOWER_TEETH, number, box) for number, box in _teeth(0.0275, -0.0078, (31, 41))),
        (Part.UPPER_GUM, 0, _box((0, 0.013, -0.032), (0.028, 0.006, 0.040))),
        (Part.LOWER_GUM, 0, _box((0, -0.0115, -0.032), (0.026, 0.006, 0.040))),
        (Part.TONGUE, 0, _tongue()),
    ]
    counts = [len(mesh.vertices) for _, _, mesh in pieces]
    starts = np.cumsum([0, *counts[:-1]])
    return MouthMesh(
        name="small", licence="CC0-1.0", vertices=scale * np.concatenate([mesh.vertices for *_, mesh in pieces]),
        faces=np.concatenate([mesh.faces + start for (*_, mesh), start in zip(pieces, starts, strict=True)]),
        part=np.repeat([part for part, *_ in pieces], counts), tooth=np.repeat([n for _, n, _ in pieces], counts),
        uv=np.zeros((sum(counts), 2)),
    )  # fmt: skip


def open_face() -> FaceAsset:
    """The open head's mesh with its regions and landmarks, a hinged jaw, and bases of zeros."""
    data = HeadData.load()
    template = open_head_template()
    places = (data.ibug68_faces, data.ibug68_barycentrics)
    return _face("open-head", template, data.faces, dict(data.regions), places, OPEN_JOINT)


def flame_face(folder: Path) -> FaceAsset:
    """FLAME's template with its landmarks; masks by geometry, a hinged jaw, and bases of zeros.

    Args:
        folder: shared/data/flame_template_ccby.
    """
    vertices, faces = read_mesh(folder / "template.ply")
    template, embedding = vertices.astype(np.float64), read_ibug_embedding(folder / "flame_static_embedding_68.pkl")
    landmarks = (template[faces[embedding.faces]] * embedding.barycentrics[..., None]).sum(axis=1)
    still = _blank(template, _hinge(template, faces, landmarks, FLAME_JOINT))
    model = FlameModel(basis="flame2023-open", known_by="user", template=template, faces=faces, **still)
    regions = flame_regions(_masks(template, faces, landmarks), model, landmarks)
    return _face("flame", template, faces, dict(regions), (embedding.faces, embedding.barycentrics), FLAME_JOINT)


def turned_jaw(asset: FaceAsset, vertices: np.ndarray, angle: float) -> np.ndarray:
    """The head with its jaw turned rigidly by `angle` about its joint, skinned as the asset says; float64."""
    joint = asset.joint_regressor[2].astype(np.float64) @ vertices
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    weight = asset.skinning[:, 2:3].astype(np.float64)
    return vertices + weight * ((vertices - joint) @ turn.T + joint - vertices)


def _teeth(half_width: float, height: float, first: tuple[int, int]) -> list[tuple[int, trimesh.Trimesh]]:
    """Fourteen boxes along a parabola, from the midline to both sides."""
    teeth = []
    for side, number in zip((1, -1), first, strict=True):
        for k in range(7):
            x = side * (half_width - 0.004) * np.sin((k + 0.5) / 7 * np.pi / 2)
            z = -0.045 * (x / (half_width - 0.004)) ** 2 - 0.004
            teeth.append((number + k, _box((x, height + 0.0045, z), (0.0075, 0.009, 0.007))))
    return teeth


def _box(centre: tuple[float, float, float], size: tuple[float, float, float]) -> trimesh.Trimesh:
    box = trimesh.creation.box(size)
    box.apply_translation(centre)
    return box


def _tongue() -> trimesh.Trimesh:
    tongue = trimesh.creation.icosphere(subdivisions=2)
    tongue.apply_scale((0.020, 0.007, 0.026))
    tongue.apply_translation((0, -0.004, -0.038))
    return tongue


def _hinge(
    template: np.ndarray, faces: np.ndarray, landmarks: np.ndarray, joint: tuple[float, float, float]
) -> np.ndarray:
    """Jaw weights 0..1: what lies below the line from the joint to where the lips meet; each lip as a whole."""
    meeting, forward = landmarks[[62, 66]].mean(axis=0), template[:, 2] - joint[2]
    line = joint[1] + (meeting[1] - joint[1]) / (meeting[2] - joint[2]) * forward
    weight = np.clip((line - template[:, 1]) / 0.006 + 0.5, 0, 1) * np.clip(forward / 0.02, 0, 1)
    weight *= np.clip((template[:, 1] + 0.12) / 0.02, 0, 1)
    tree = cKDTree(template)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(len(template),) * 2).tocsr()
    upper, lower = (
        dijkstra(graph, directed=False, unweighted=True, indices=tree.query(landmarks[rows])[1], min_only=True)
        for rows in (slice(49, 54), slice(55, 60))
    )
    is_lip = cKDTree(landmarks[48:]).query(template)[0] < 0.018
    return np.where(is_lip, lower < upper, weight)


def _blank(template: np.ndarray, jaw: np.ndarray) -> dict[str, np.ndarray]:
    count = len(template)
    skinning = np.zeros((count, 5))
    skinning[:, 2], skinning[:, 1] = jaw, 1 - jaw
    return {
        "shape_basis": np.zeros((count, 3, 1)), "expression_basis": np.zeros((count, 3, 1)),
        "pose_basis": np.zeros((count, 3, 36)), "skinning": skinning,
        "joint_regressor": np.full((5, count), 1 / count),
    }  # fmt: skip


def _face(
    topology: str, template: np.ndarray, faces: np.ndarray, regions: dict[str, np.ndarray],
    places: tuple[np.ndarray, np.ndarray], joint: tuple[float, float, float],
) -> FaceAsset:  # fmt: skip
    weights = places[1] / places[1].sum(axis=1, keepdims=True)
    landmarks = (template[faces[places[0]]] * weights[..., None]).sum(axis=1)
    arrays = _blank(template, _hinge(template, faces, landmarks, joint))
    conditions = np.vstack([template.T, np.ones(len(template))])
    arrays["joint_regressor"][2] = np.linalg.pinv(conditions) @ [*joint, 1]
    return FaceAsset(
        topology=topology, basis=topology, template=template, faces=faces, parents=np.array(PARENTS), regions=regions,
        ibug68_faces=places[0], ibug68_barycentrics=weights,
        mediapipe_indices=np.zeros(0), mediapipe_faces=np.zeros(0), mediapipe_barycentrics=np.zeros((0, 3)),
        uv=np.zeros((0, 2)), uv_faces=np.zeros((0, 3)), arkit_names=(), arkit_expression=np.zeros((0, 1)),
        arkit_jaw=np.zeros((0, 3)), **arrays,
    )  # fmt: skip


def _masks(template: np.ndarray, faces: np.ndarray, landmarks: np.ndarray) -> dict[str, np.ndarray]:
    """FLAME's masks about, from where things lie on its template."""
    x, y, z = template.T
    parts = sorted(trimesh.graph.connected_components(trimesh.Trimesh(template, faces, process=False).edges), key=len)
    eyes = sorted(parts[:2], key=lambda part: float(x[part].mean()))
    lips = np.linalg.norm(template[:, None] - landmarks[None, 48:], axis=2).min(axis=1) < 0.006
    is_skin = ~np.isin(np.arange(len(x)), np.concatenate(eyes))
    ear = (abs(x) > 0.072) & (y > -0.035) & (y < 0.035) & (z < -0.035) & (z > -0.09)
    nose = (abs(x) < 0.02) & (y > landmarks[33, 1] - 0.001) & (y < 0.02) & (z > 0.04)
    face = is_skin & (z > -0.03) & (y < 0.08) & (y > landmarks[8, 1]) & ~ear
    brow = landmarks[17:27, 1].mean()
    masks = {
        "face": face, "lips": lips, "nose": nose & is_skin, "left_ear": ear & (x > 0), "right_ear": ear & (x < 0),
        "forehead": face & (y > brow), "eye_region": face & (y <= brow) & (y > 0.005) & ~nose,
        "neck": is_skin & (y < -0.08) & ~face, "scalp": is_skin & ~face & ~ear & (y > 0),
    }  # fmt: skip
    return {name: np.flatnonzero(mask) for name, mask in masks.items()} | {
        "right_eyeball": np.sort(eyes[0]), "left_eyeball": np.sort(eyes[1])
    }  # fmt: skip
