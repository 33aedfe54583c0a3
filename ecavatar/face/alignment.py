"""Rigid registration of point sets and meshes: Kabsch with correspondences, ICP without.

ICP is our own (scipy's k-d tree and a Gauss-Newton step) rather than a library's: it is reproducible to the bit, says
how it ended, and uses the target's normals (point to plane) where a surface is given, which on heads converges from
rotations of 20 degrees where point-to-point matching stays in local minima.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from torch import Tensor

from ecavatar.errors import DataError, ShapeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Where a registration ended."""

    transform: Float[np.ndarray, "4 4"]
    """Maps source into target, metres; a rotation (determinant +1) and a translation."""
    rmse: float
    """Root mean square distance of the matched points after registration, metres."""
    iterations: int
    is_converged: bool
    """False: the iteration cap was hit; the caller decides."""


def apply_transform(
    transform: Float[np.ndarray, "4 4"], points: Float[np.ndarray, "*n 3"]
) -> Float[np.ndarray, "*n 3"]:
    """Points moved by a homogeneous transform, in the points' dtype."""
    moved = np.asarray(points) @ transform[:3, :3].T + transform[:3, 3]
    return moved.astype(np.asarray(points).dtype, copy=False)


def register_points(
    source: Float[np.ndarray, "N 3"], target: Float[np.ndarray, "N 3"], weights: Float[np.ndarray, " N"] | None = None
) -> Registration:
    """The rigid motion that brings `source` nearest to `target`, point i to point i (weighted least squares).

    Computed in float64; never a reflection.

    Raises:
        ShapeError: shapes differ, or weights do not fit.
        DataError: fewer than three points, points on one line, not finite, or weights negative or all zero.

    Source:
        Kabsch, Acta Crystallographica A 32, 1976.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3:
        raise ShapeError(f"expected two (N, 3) arrays of one shape, got {source.shape} and {target.shape}.")
    weights = np.ones(len(source)) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights.shape != (len(source),):
        raise ShapeError(f"expected {len(source)} weights, got {weights.shape}.")
    if not (np.isfinite(source).all() and np.isfinite(target).all()) or weights.min() < 0 or weights.sum() <= 0:
        raise DataError("registration needs finite points and non-negative weights that are not all zero.")
    share = weights / weights.sum()
    source_mean, target_mean = share @ source, share @ target
    covariance = (target - target_mean).T @ ((source - source_mean) * share[:, None])
    left, scale, right = np.linalg.svd(covariance)
    if scale[1] <= 1e-12 * max(scale[0], np.finfo(float).tiny) or len(source) < 3:
        raise DataError("registration needs at least three points that do not lie on one line.")
    sign = np.sign(np.linalg.det(left @ right))
    rotation = left @ np.diag([1, 1, sign]) @ right
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation, target_mean - rotation @ source_mean
    distance = np.linalg.norm(apply_transform(transform, source) - target, axis=1)
    return Registration(transform=transform, rmse=float(np.sqrt(share @ distance**2)), iterations=1, is_converged=True)


def register_points_batch(
    source: Float[Tensor, "B N 3"], target: Float[Tensor, "N 3"] | Float[Tensor, "B N 3"]
) -> tuple[Float[Tensor, "B 3 3"], Float[Tensor, "B 3"], Float[Tensor, " B"]]:
    """Rotations, translations and rmse of many registrations at once (`register_points` in torch, unweighted).

    `source @ rotation.T + translation` lies on `target`; dtype and device follow `source`.

    Raises:
        ShapeError: shapes do not fit.
    """
    if source.ndim != 3 or source.shape[-1] != 3 or target.shape[-2:] != source.shape[1:]:
        raise ShapeError(f"expected source (B, N, 3) and target (N, 3) or (B, N, 3), got {tuple(source.shape)} and "
                         f"{tuple(target.shape)}.")  # fmt: skip
    target = target.to(source).expand_as(source)
    source_mean, target_mean = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    covariance = (target - target_mean).transpose(1, 2) @ (source - source_mean)
    left, _, right = torch.linalg.svd(covariance)
    signs = torch.ones_like(left[..., 0])
    signs[:, 2] = torch.linalg.det(left @ right).sign()
    rotations = left @ (signs[..., None] * right)
    translations = (target_mean - source_mean @ rotations.transpose(1, 2))[:, 0]
    moved = source @ rotations.transpose(1, 2) + translations[:, None]
    return rotations, translations, (moved - target).square().sum(-1).mean(-1).sqrt()


def iterative_closest_point(
    source: Float[np.ndarray, "N 3"],
    target_vertices: Float[np.ndarray, "M 3"],
    target_faces: Int[np.ndarray, "F 3"] | None = None,
    *,
    max_iterations: int = 50,
    tolerance_m: float = 1e-7,
    tolerance_rad: float = 1e-6,
    trim: float = 0.0,
    initial: Float[np.ndarray, "4 4"] | None = None,
) -> Registration:
    """The rigid motion that lays `source` on a target of unknown correspondence.

    Each round matches every source point to its nearest target vertex and solves for the small motion: point to plane
    where `target_faces` give normals, point to point otherwise.

    Args:
        source: points to move.
        target_vertices: points of the target, metres.
        target_faces: triangles of the target.
        max_iterations: cap on the rounds.
        tolerance_m: converged when a round moves the source's centre by less than this,
        tolerance_rad: and turns it by less than this.
        trim: share of the farthest pairs left out of each round, 0..1 (for parts without a counterpart).
        initial: where to start; None starts at rest.

    Raises:
        ShapeError: not (N, 3) arrays.
        DataError: fewer than three pairs remain, not finite, or a parameter outside its range.

    Source:
        Besl and McKay, PAMI 1992; point to plane: Chen and Medioni, Image and Vision Computing 1992.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target_vertices, dtype=np.float64)
    _check_clouds(source, target, trim, max_iterations)
    normals = None if target_faces is None else _vertex_normals(target, np.asarray(target_faces))
    tree = cKDTree(target)
    transform = np.eye(4) if initial is None else np.array(initial, dtype=np.float64)
    keep = max(3, int(np.ceil((1 - trim) * len(source))))
    iterations, is_converged = 0, False
    while iterations < max_iterations and not is_converged:
        moved = apply_transform(transform, source)
        distance, match = tree.query(moved)
        pairs = np.argsort(distance, kind="stable")[:keep]
        step = _step(moved[pairs], target[match[pairs]], None if normals is None else normals[match[pairs]])
        transform = step @ transform
        iterations += 1
        turn = Rotation.from_matrix(step[:3, :3]).magnitude()
        shift = np.linalg.norm(apply_transform(step, moved.mean(0)) - moved.mean(0))
        is_converged = bool(turn < tolerance_rad and shift < tolerance_m)
    distance = np.sort(tree.query(apply_transform(transform, source))[0])[:keep]
    rmse = float(np.sqrt((distance**2).mean()))
    return Registration(transform=transform, rmse=rmse, iterations=iterations, is_converged=is_converged)


def _check_clouds(source: np.ndarray, target: np.ndarray, trim: float, max_iterations: int) -> None:
    for name, points in (("source", source), ("target", target)):
        if points.ndim != 2 or points.shape[1] != 3:
            raise ShapeError(f"{name}: expected (N, 3), got {points.shape}.")
        if len(points) < 3 or not np.isfinite(points).all():
            raise DataError(f"{name}: expected at least three finite points, got {len(points)}.")
    if not 0 <= trim < 1 or max_iterations < 1:
        raise DataError(f"expected 0 <= trim < 1 and at least one iteration, got {trim} and {max_iterations}.")


def _vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals; zero where a vertex has no face."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    by_face = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, faces[:, k], by_face)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.divide(normals, length, out=np.zeros_like(normals), where=length > 0)


def _step(source: np.ndarray, target: np.ndarray, normals: np.ndarray | None) -> np.ndarray:
    """One round's small motion from matched pairs."""
    if normals is None:
        return register_points(source, target).transform
    centre = source.mean(0)  # turning about the centre keeps the 6x6 system well conditioned
    arm = source - centre
    rows = np.concatenate([np.cross(arm, normals), normals], axis=1)
    gap = ((target - source) * normals).sum(1)
    turn, shift = np.split(np.linalg.lstsq(rows, gap, rcond=1e-9)[0], 2)
    step = np.eye(4)
    step[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    step[:3, 3] = centre + shift - step[:3, :3] @ centre
    return step
