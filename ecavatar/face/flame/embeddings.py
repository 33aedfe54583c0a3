"""Landmark embeddings of FLAME: which point of which triangle is which landmark.

The 68 landmarks of iBUG come in several files. Two hold all (`flame_static_embedding_68.pkl`, DECA's
`landmark_embedding.npy`). `flame_static_embedding.pkl` holds the 51 inner ones, and `flame_dynamic_embedding.npy` the
17 of the jaw line, for each of 79 yaw angles; the first is the frontal view, which is what is kept here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from ecavatar.errors import DataError
from ecavatar.face.flame.model_file import N_FACES
from ecavatar.storage.arrays import read_arrays, write_arrays
from ecavatar.storage.unpickle import array_of, load_npy, load_npz, load_pickle

N_IBUG, N_CONTOUR = 68, 17
_UNKNOWN = -1
_VIEWS = 79
_SUM_TOLERANCE = 1e-3
_PAIRS = (  # names of triangles and weights, the most complete first
    ("full_lmk_faces_idx", "full_lmk_bary_coords"),
    ("lmk_face_idx", "lmk_b_coords"),
    ("static_lmk_faces_idx", "static_lmk_bary_coords"),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Embedding:
    """Landmarks as points on triangles."""

    indices: Int[np.ndarray, " K"]
    """Number of each landmark in its scheme: iBUG's 0..67, or MediaPipe's 0..477."""
    faces: Int[np.ndarray, " K"]
    barycentrics: Float[np.ndarray, "K 3"]

    def save(self, path: Path) -> None:
        """Write the embedding as an npz without objects; the same embedding gives the same bytes."""
        arrays = {"indices": self.indices, "faces": self.faces, "barycentrics": self.barycentrics}
        write_arrays(path, arrays, {"what": "landmark embedding"})

    @classmethod
    def load(cls, path: Path) -> "Embedding":
        """The embedding that `save` wrote.

        Raises:
            DataError: the file is damaged or no such embedding.
        """
        arrays, _ = read_arrays(path)
        if set(arrays) != {"indices", "faces", "barycentrics"}:
            raise DataError(f"{path} is not a converted landmark embedding. Add the downloaded file again.")
        return cls(**arrays)

    def over(self, other: "Embedding") -> "Embedding":
        """Both embeddings' landmarks in rising order; where both place one, this one does."""
        rest = ~np.isin(other.indices, self.indices)
        indices = np.concatenate([self.indices, other.indices[rest]])
        order = np.argsort(indices)
        faces = np.concatenate([self.faces, other.faces[rest]])
        weights = np.concatenate([self.barycentrics, other.barycentrics[rest]])
        return Embedding(indices=indices[order], faces=faces[order], barycentrics=weights[order])


def read_ibug_embedding(path: Path) -> Embedding:
    """The iBUG landmarks that a file places: all 68, the 51 inner ones (17..67), or the jaw line (0..16).

    Raises:
        AssetMissingError: no such file.
        DataError: the file is damaged, hostile, or no such embedding.
    """
    content = _content(path)
    if "landmark_indices" in content:
        raise DataError(f"{path} places MediaPipe's landmarks. Add it with `ecavatar assets add flame-mediapipe`.")
    for faces_name, weights_name in _PAIRS:
        if faces_name in content and weights_name in content:
            return _ibug(path, _numbers(path, content[faces_name]), _numbers(path, content[weights_name]))
    raise DataError(f"{path} is no landmark embedding of FLAME: expected lmk_face_idx and lmk_b_coords, or DECA's "
                    f"full_lmk_faces_idx and full_lmk_bary_coords; it has {', '.join(map(str, content))}.")  # fmt: skip


def read_mediapipe_embedding(path: Path) -> Embedding:
    """The MediaPipe landmarks that `mediapipe_landmark_embedding.npz` places (105), in rising order.

    Raises:
        AssetMissingError: no such file.
        DataError: the file is damaged, hostile, or no such embedding.
    """
    content = load_npz(path)
    names = ("landmark_indices", "lmk_face_idx", "lmk_b_coords")
    if missing := [name for name in names if name not in content]:
        raise DataError(f"{path} is no MediaPipe embedding of FLAME: it lacks {', '.join(missing)}.")
    indices, faces, weights = (_numbers(path, content[name]) for name in names)
    if (
        indices.dtype.kind not in "iu"
        or len(np.unique(indices)) != indices.size
        or not ((indices >= 0) & (indices < 478)).all()
    ):
        raise DataError(f"{path}: landmark_indices must be different whole numbers below 478.")
    placed = _embedding(path, indices, faces, weights)
    order = np.argsort(placed.indices)
    return Embedding(indices=placed.indices[order], faces=placed.faces[order], barycentrics=placed.barycentrics[order])


def _content(path: Path) -> Mapping[str, object]:
    if path.suffix == ".npz":
        return load_npz(path)
    content = load_npy(path) if path.suffix == ".npy" else load_pickle(path)
    if isinstance(content, np.ndarray) and content.dtype == object and content.size == 1:
        content = content.item()
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no arrays by name. Give a landmark embedding as FLAME or DECA ship it.")
    return content


def _numbers(path: Path, value: object) -> np.ndarray:
    try:
        array = array_of(value)
        array = array_of(array.tolist()) if array.dtype == object else array  # arrays in an array, one for each view
    except DataError as error:
        raise DataError(f"{path}: expected arrays of numbers: {error} Download it again.") from None
    if array.dtype.kind not in "iuf":
        raise DataError(f"{path}: expected arrays of numbers, found {array.dtype}. Download it again.")
    return array


def _ibug(path: Path, faces: np.ndarray, weights: np.ndarray) -> Embedding:
    if faces.shape == (_VIEWS, N_CONTOUR) and weights.shape == (_VIEWS, N_CONTOUR, 3):
        return _embedding(path, np.arange(N_CONTOUR), faces[0], weights[0])
    faces, weights = (
        part[0] if part.ndim and len(part) == 1 else part for part in (faces, weights)
    )  # DECA's full set is a batch
    if faces.shape not in ((N_IBUG,), (N_IBUG - N_CONTOUR,)):
        raise DataError(
            f"{path}: expected 68 or 51 landmarks, or {N_CONTOUR} for each of {_VIEWS} views, got triangles of shape "
            f"{faces.shape}. Give flame_static_embedding_68.pkl."
        )
    return _embedding(path, np.arange(N_IBUG - len(faces), N_IBUG), faces, weights)


def _embedding(path: Path, indices: np.ndarray, faces: np.ndarray, weights: np.ndarray) -> Embedding:
    problems = []
    if indices.ndim != 1 or not indices.size or faces.shape != indices.shape or weights.shape != (*indices.shape, 3):
        problems.append(f"{indices.size} landmarks, triangles {faces.shape} and weights {weights.shape} do not fit")
    elif faces.dtype.kind not in "iu" or faces.min() < 0 or faces.max() >= N_FACES:
        problems.append(f"triangles must be whole numbers below {N_FACES}")
    elif not np.abs(weights.sum(axis=-1) - 1).max() < _SUM_TOLERANCE:
        problems.append("weights of a landmark must sum to 1")
    if problems:
        raise DataError(f"{path}: {problems[0]}. Download it again.")
    return Embedding(
        indices=indices.astype(np.int32), faces=faces.astype(np.int32), barycentrics=weights.astype(np.float32)
    )
