"""From a face in a photograph to faces at zero pose: with its expression, and neutral.

The paper moves each reconstructed mesh to pose zero by rigid registration (section 3.2) and makes the neutral face by
setting the expression to zero (section 4). Neutral here also means a closed jaw: the jaw pose is a parameter of its
own, and left as it is it would keep the mouth open.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from ecavatar.face.alignment import (
    apply_transform,
    iterative_closest_point,
    register_points,
)
from ecavatar.face.model import FaceAsset, FaceModel
from ecavatar.reconstruction.fitter import Reconstruction
from ecavatar.reconstruction.linear import JAW

RIGID_REGIONS = ("scalp", "left_ear", "right_ear")
"""Hardly moved by expression and jaw, so they alone tell how the head was turned."""

Vertices = Float[np.ndarray, "vertices 3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """A mesh brought from its pose in the image to pose zero."""

    vertices: Vertices
    """At pose zero, metres."""
    removed: Float[np.ndarray, "4 4"]
    """Rigid transform that was applied, posed to zero, metres."""
    residual_m: float
    """Root mean square distance of the rigid regions after it."""
    is_converged: bool


def expressive_vertices(model: FaceModel, reconstruction: Reconstruction) -> Vertices:
    """The face with its expression and jaw, head at pose zero, metres, float32."""
    return _vertices(model, reconstruction.shape, reconstruction.expression, reconstruction.jaw_pose)


def neutral_vertices(model: FaceModel, reconstruction: Reconstruction) -> Vertices:
    """The paper's M_in: the same identity without expression, jaw closed, head at pose zero, metres, float32."""
    return _vertices(
        model,
        reconstruction.shape,
        np.zeros_like(reconstruction.expression),
        np.zeros_like(reconstruction.jaw_pose),
    )


def posed_vertices(model: FaceModel, reconstruction: Reconstruction) -> Vertices:
    """The expressive face as it is turned and placed in the image, in camera axes, metres."""
    expressive = expressive_vertices(model, reconstruction).astype(np.float64)
    x, y = reconstruction.translation_px / reconstruction.scale_px_per_m
    return expressive @ reconstruction.rotation.T + np.array([x, -y, 0.0])


def rigid_vertices(asset: FaceAsset) -> Int[np.ndarray, " vertices"]:
    """The steadier half of the rigid regions: the vertices that expression and jaw move least."""
    candidates = np.concatenate([asset.regions[name] for name in RIGID_REGIONS])
    reach = np.linalg.norm(asset.expression_basis[candidates], axis=(1, 2)) + asset.skinning[candidates, JAW]
    return np.sort(candidates[np.argsort(reach, kind="stable")[: (len(candidates) + 1) // 2]])


def align_to_zero_pose(
    model: FaceModel,
    reconstruction: Reconstruction,
    method: Literal["procrustes", "icp"] = "procrustes",
) -> Alignment:
    """The posed mesh moved back onto the zero pose by a rigid registration of the regions that expression leaves alone.

    Args:
        model: the face model.
        reconstruction: a face fitted with it.
        method: `procrustes` uses that both meshes have one topology (exact, closed form); `icp`, the paper's, matches
            the same regions to the nearest surface, starting from the fitted head rotation (from far away it would
            end in local minima).
    """
    posed, neutral = (
        posed_vertices(model, reconstruction),
        neutral_vertices(model, reconstruction).astype(np.float64),
    )
    rigid = rigid_vertices(model.asset)
    if method == "procrustes":
        registration = register_points(posed[rigid], neutral[rigid])
    else:
        start = np.eye(4)
        start[:3, :3] = reconstruction.rotation.T
        start[:3, 3] = (neutral - posed @ reconstruction.rotation).mean(axis=0)
        registration = iterative_closest_point(posed[rigid], neutral, model.asset.faces, initial=start)
    return Alignment(
        vertices=apply_transform(registration.transform, posed),
        removed=registration.transform,
        residual_m=registration.rmse,
        is_converged=registration.is_converged,
    )


def _vertices(model: FaceModel, *coefficients: np.ndarray) -> Vertices:
    buffer = next(model.buffers())
    rows = (torch.as_tensor(c, dtype=torch.float32, device=buffer.device)[None] for c in coefficients)
    with torch.no_grad():
        return model(*rows)[0].cpu().numpy()
