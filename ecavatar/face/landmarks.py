"""Points fixed to the surface of a mesh: a triangle and three barycentric weights each."""

from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int

from ecavatar.errors import ShapeError
from ecavatar.face.model import FaceAsset

Array = TypeVar("Array", np.ndarray, torch.Tensor)


def surface_points(
    vertices: Array,
    faces: Int[np.ndarray, "F 3"],
    face_indices: Int[np.ndarray, " K"],
    barycentrics: Float[np.ndarray, "K 3"],
) -> Array:
    """Positions (..., K, 3) of surface points on meshes with vertices (..., V, 3); numpy in, numpy out, torch alike.

    Differentiable in `vertices` for torch; the result has the dtype and device of `vertices`.

    Raises:
        ShapeError: shapes that do not fit each other.
    """
    if vertices.shape[-1] != 3 or barycentrics.shape != (len(face_indices), 3):
        raise ShapeError(f"expected vertices (..., V, 3) and K triangles with (K, 3) weights, got "
                         f"{tuple(vertices.shape)}, {len(face_indices)} and {tuple(barycentrics.shape)}.")  # fmt: skip
    corner_indices = np.asarray(faces)[np.asarray(face_indices)]
    if isinstance(vertices, torch.Tensor):
        corners = vertices[..., torch.from_numpy(corner_indices.astype(np.int64)).to(vertices.device), :]
        weights = torch.from_numpy(np.array(barycentrics)).to(vertices)
        return (corners * weights[..., None]).sum(-2)
    weights = np.asarray(barycentrics, dtype=vertices.dtype)
    return (vertices[..., corner_indices, :] * weights[..., None]).sum(-2)


def ibug68_points(asset: FaceAsset, vertices: Array) -> Array:
    """The 68 iBUG landmarks (..., 68, 3) of meshes (..., V, 3) of the asset's topology."""
    return surface_points(vertices, asset.faces, asset.ibug68_faces, asset.ibug68_barycentrics)


def mediapipe_points(asset: FaceAsset, vertices: Array) -> Array:
    """MediaPipe's landmarks `asset.mediapipe_indices` (..., K, 3) of meshes (..., V, 3) of the asset's topology.

    Raises:
        AssetMissingError: the model has no MediaPipe embedding; the message says how to add one.
    """
    asset.require("mediapipe")
    return surface_points(vertices, asset.faces, asset.mediapipe_faces, asset.mediapipe_barycentrics)
