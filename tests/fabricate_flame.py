"""Random models in the forms in which FLAME's files ship, with FLAME's counts and a face-like mesh.

The mesh is the open head's, which has FLAME's numbers of vertices and triangles; every basis is random, smooth and
small. Nothing here imports chumpy: its classes are stand-ins that pickle under its names.
"""

import io
import pickle
import struct
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy import sparse

from ecavatar.sample.head_data import HeadData

V, F, VIEWS = 5023, 9976, 79
JOINTS = np.array(
    [[0, -0.15, -0.02], [0, -0.08, -0.02], [0, -0.01, -0.02], [0.031, 0.021, 0.025], [-0.031, 0.021, 0.025]]
)
"""Where FLAME's five joints lie about, metres."""


def flame_content(seed: int, template: np.ndarray | None = None, faces: np.ndarray | None = None) -> dict:
    """What FLAME's generic_model.pkl holds, as plain float64 arrays.

    Args:
        seed: of the random bases.
        template: (5023, 3) metres, eyes at FLAME's height; the open head's mean without it.
        faces: (9976, 3).
    """
    draw = np.random.default_rng(seed)
    template = open_head_template() if template is None else np.asarray(template, dtype=np.float64)
    faces = HeadData.load().faces if faces is None else faces
    scales = np.concatenate([np.geomspace(8e-4, 2e-5, count) for count in (300, 100)])  # people differ by some 6 mm
    near = -np.square(template[:, None] - JOINTS).sum(axis=-1) / 0.03**2
    weights = np.exp(near - near.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    regressor = np.zeros((5, V))
    for joint, place in enumerate(JOINTS):
        nearest = np.argsort(np.linalg.norm(template - place, axis=1), kind="stable")[:30]
        regressor[joint, nearest] = draw.dirichlet(np.ones(30))
    return {
        "v_template": template,
        "f": np.asarray(faces, dtype=np.uint32),
        "shapedirs": _waves(draw, template, 400) * scales,
        "posedirs": _waves(draw, template, 36) * 1e-3,
        "J_regressor": regressor,
        "J": regressor @ template,
        "weights": weights,
        "kintree_table": np.array([[4294967295, 0, 1, 1, 1], range(5)], dtype=np.int64),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def open_head_template() -> np.ndarray:
    """The open head's source mesh (5023, 3), metres, moved to where FLAME's eyes are."""
    data = HeadData.load()
    vertices = data.assemble(data.points)
    eyes = [vertices[data.regions[name]].mean(axis=0) for name in ("left_eyeball", "right_eyeball")]
    return vertices - np.mean(eyes, axis=0) + (0, 0.0214, 0.0255)


def write_flame_pickle(
    path: Path,
    *,
    chumpy: bool,
    seed: int,
    template: np.ndarray | None = None,
    faces: np.ndarray | None = None,
    extra: dict | None = None,
) -> dict:
    """Write a model as a pickle and return its content as plain arrays (`flame_content`).

    Args:
        path: the file.
        chumpy: as FLAME 2017 to 2023 ship: Python 2, byte strings, chumpy objects, old module names. Otherwise as
            FLAME 2023 Open ships: Python 3, plain arrays, `supr_expression_metadata` only if it is in `extra`.
        seed: of the random bases.
        template: see `flame_content`.
        faces: see `flame_content`.
        extra: further entries.
    """
    content = flame_content(seed, template, faces)
    stored = content | {"J_regressor": sparse.csc_matrix(content["J_regressor"])} | (extra or {})
    if not chumpy:
        path.write_bytes(pickle.dumps(stored, protocol=5))
        return content
    with _chumpy() as ch:
        for name in ("v_template", "shapedirs", "posedirs", "weights", "J"):
            array = ch()
            array.__dict__.update(x=stored[name], _dirty_vars=set(), _itr=None, _status="new")
            stored[name] = array
        path.write_bytes(python_2_pickle(stored))
    return content


def write_flame_npz(
    path: Path, *, seed: int, sparse_regressor: bool = False, flat_pose: bool = False
) -> dict[str, np.ndarray]:
    """Write a model as smplx's FLAME_NEUTRAL.npz and return its content.

    Args:
        path: the file.
        seed: of the random bases.
        sparse_regressor: keep the joint regressor as an object, a sparse matrix.
        flat_pose: keep the pose correctives as (36, 15069), as loaded models do.
    """
    content = flame_content(seed)
    stored = dict(content)
    if flat_pose:
        stored["posedirs"] = content["posedirs"].reshape(3 * V, 36).T
    if sparse_regressor:
        stored["J_regressor"] = np.array(sparse.csc_matrix(content["J_regressor"]), dtype=object)
    np.savez(path, **stored)
    return content


def write_flame_masks(path: Path) -> dict[str, np.ndarray]:
    """Write FLAME_masks.pkl from the open head's regions in FLAME's ways, and return it: overlaps, duplicates, gaps."""
    own = HeadData.load().regions
    side = open_head_template()[:, 0] > 0
    face = np.union1d(own["face"], own["eyelids"])
    masks = {name: own[name] for name in ("neck", "scalp", "forehead", "left_ear", "right_ear", "nose", "eye_region")}
    masks |= {
        "neck": np.union1d(own["neck"], np.setdiff1d(own["C"], face)),
        "face": np.setdiff1d(face, own["nose"][::4]),
        "lips": np.concatenate([own["lips"], own["lips"][:4]]),
        "left_eye_region": own["eye_region"][side[own["eye_region"]]],
        "right_eye_region": own["eye_region"][~side[own["eye_region"]]],
        "left_eyeball": own["left_eyeball"],
        "right_eyeball": own["right_eyeball"],
        "boundary": own["neck"][::5],
    }
    path.write_bytes(python_2_pickle(masks))
    return masks


def write_flame_landmarks(folder: Path, *, torch: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Write every file that places iBUG's landmarks, all in agreement, and return triangles (68) and weights (68, 3).

    flame_static_embedding.pkl, flame_static_embedding_68.pkl, flame_dynamic_embedding.npy, and DECA's
    landmark_embedding.npy, of torch tensors or of numpy arrays.
    """
    data, draw = HeadData.load(), np.random.default_rng(3)
    faces, weights = data.ibug68_faces.astype(np.uint32), data.ibug68_barycentrics.astype(np.float64)
    weights = weights / weights.sum(axis=1, keepdims=True)
    views = np.concatenate([faces[None, :17], draw.integers(0, F, (VIEWS - 1, 17))]).astype(np.int64)
    view_weights = np.concatenate([weights[None, :17], draw.dirichlet(np.ones(3), (VIEWS - 1, 17))])
    for name, first in (("flame_static_embedding.pkl", 17), ("flame_static_embedding_68.pkl", 0)):
        content = {"lmk_face_idx": faces[first:], "lmk_b_coords": weights[first:]}
        (folder / name).write_bytes(python_2_pickle(content))
    dynamic = {"lmk_face_idx": list(views), "lmk_b_coords": list(view_weights)}
    np.save(folder / "flame_dynamic_embedding.npy", dynamic, allow_pickle=True)
    deca = {
        "static_lmk_faces_idx": faces[17:].astype(np.int64), "static_lmk_bary_coords": weights[17:],
        "dynamic_lmk_faces_idx": views, "dynamic_lmk_bary_coords": view_weights,
        "full_lmk_faces_idx": faces[None].astype(np.int64), "full_lmk_bary_coords": weights[None],
    }  # fmt: skip
    if torch:
        from torch import from_numpy

        deca = {name: from_numpy(array) for name, array in deca.items()}
    np.save(folder / "landmark_embedding.npy", deca, allow_pickle=True)
    return faces, weights


def write_flame_mediapipe(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Write mediapipe_landmark_embedding.npz: 105 landmarks in no order; returns numbers, triangles, weights."""
    data = HeadData.load()
    rows = np.random.default_rng(4).permutation(468)[:105]
    weights = data.mediapipe_barycentrics[rows].astype(np.float64)
    parts = (data.mediapipe_indices[rows], data.mediapipe_faces[rows], weights / weights.sum(axis=1, keepdims=True))
    np.savez(path, landmark_indices=parts[0], lmk_face_idx=parts[1], lmk_b_coords=parts[2])
    return parts


def write_flame_uv(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write head_template.obj, or FLAME_texture.npz for that suffix; returns coordinates and triangles in order."""
    data = HeadData.load()
    if path.suffix == ".npz":
        np.savez(path, vt=data.uv, ft=data.uv_faces, mean=np.zeros((4, 4, 3)))
        return data.uv, data.uv_faces
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in open_head_template()]
    lines += [f"vt {u:.9g} {v:.9g}" for u, v in data.uv]
    corners = np.stack([data.faces, data.uv_faces], axis=-1) + 1
    lines += ["f " + " ".join(f"{v}/{t}" for v, t in triangle) for triangle in corners]
    path.write_text("\n".join(lines) + "\n")
    return data.uv, data.uv_faces


def python_2_pickle(value: object) -> bytes:
    """The pickle that Python 2 would have written with numpy 1 and an old scipy: byte strings, old module names."""
    stream = io.BytesIO()
    _Python2Pickler(stream, protocol=2).dump(value)
    content = stream.getvalue()
    for new, old in (
        (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"),
        (b"cnumpy._core.numeric\n", b"cnumpy.core.numeric\n"),
        (b"cscipy.sparse._csc\n", b"cscipy.sparse.csc\n"),
    ):
        content = content.replace(new, old)
    return content


class _Python2Pickler(pickle._Pickler):  # the one written in Python, whose opcodes can be chosen
    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def _save_bytes(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)

    def _save_str(self, value: str) -> None:
        self._save_bytes(value.encode("latin1"))

    dispatch[bytes] = _save_bytes
    dispatch[str] = _save_str


@contextmanager
def _chumpy() -> Iterator[type]:
    """A class that pickles as chumpy.ch.Ch."""
    modules = {name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch")}
    ch = type("Ch", (), {"__module__": "chumpy.ch"})
    modules["chumpy.ch"].Ch = ch
    earlier = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield ch
    finally:
        for name, module in earlier.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _waves(draw: np.random.Generator, points: np.ndarray, count: int) -> np.ndarray:
    """Smooth random fields (V, 3, count) of unit amplitude."""
    waves = np.cos(points @ draw.normal(0, 30, (3, count)) + draw.uniform(0, 2 * np.pi, count))
    return waves[:, None, :] * draw.normal(size=(3, count))
