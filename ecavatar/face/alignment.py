"""Rigid registration of point sets and meshes: Kabsch with correspondences, ICP without.

ICP is small_gicp's point to point, in two steps: a sparse choice of all points finds the neighbourhood, then only
points that keep their form decide. `bench/align.py` compares it with other ways on pairs of heads (5 to 20 degrees,
open mouths, 2 mm of non-rigid change): whatever takes the whole head is tilted by the open mouth, by 0.6 degrees in the
median and 1 at worst against our 0.04 and 0.3; open3d's point to point in our two steps ends where ours does and takes
several times as long; point to plane, of either library, and GICP end farther off. On one thread small_gicp is
reproducible to the bit.
"""

from dataclasses import dataclass

import numpy as np
import small_gicp
from jaxtyping import Float, Int

from ecavatar.errors import DataError, ShapeError

_SPARSE_POINTS = 1250
"""Of a head's 5,023 points every fourth finds the neighbourhood as well as all of them, in a third of the time."""
_COARSE, _FINE = (2e-3, 1e-4), (1e-6, 1e-7)
"""A step has converged when a round turns by less than the first (radians) and shifts by less than the second (m)."""


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
    source: Float[np.ndarray, "B N 3"], target: Float[np.ndarray, "N 3"]
) -> tuple[Float[np.ndarray, "B 4 4"], Float[np.ndarray, " B"]]:
    """Transforms and rmse of many registrations onto one target at once: `register_points`, unweighted, in float64.

    Raises:
        ShapeError: shapes do not fit.
        DataError: points on one line, fewer than three, or not finite; the message names the first such set.
    """
    if source.ndim != 3 or source.shape[2] != 3 or target.shape != source.shape[1:]:
        raise ShapeError(f"expected source (B, N, 3) and target (N, 3), got {source.shape} and {target.shape}.")
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    source_mean, target_mean = source.mean(axis=1, keepdims=True), target.mean(axis=0)
    source, target = source - source_mean, target - target_mean
    covariance = target.T @ source
    is_finite = np.isfinite(covariance).all(axis=(1, 2))
    left, scale, right = np.linalg.svd(np.where(is_finite[:, None, None], covariance, 0))
    is_bad = ~is_finite | (scale[:, 1] <= 1e-12 * np.maximum(scale[:, 0], np.finfo(float).tiny))
    if is_bad.any() or len(target) < 3:
        first = int(is_bad.argmax())
        raise DataError(f"set {first}: registration needs at least three finite points that do not lie on one line.")
    left[:, :, 2] *= np.sign(np.linalg.det(left @ right))[:, None]  # never a reflection
    transforms = np.tile(np.eye(4), (len(source), 1, 1))
    transforms[:, :3, :3] = left @ right
    turned_back = transforms[:, :3, :3].transpose(0, 2, 1)
    transforms[:, :3, 3] = target_mean - (source_mean @ turned_back)[:, 0]
    return transforms, root_mean_square(source @ turned_back - target)


def root_mean_square(offsets: Float[np.ndarray, "B N 3"]) -> Float[np.ndarray, " B"]:
    """Root mean square length of each set of offsets, in their unit."""
    return np.sqrt(np.einsum("bni,bni->b", offsets, offsets) / offsets.shape[1])


def iterative_closest_point(
    source: Float[np.ndarray, "N 3"],
    target: Float[np.ndarray, "M 3"],
    *,
    steady: Int[np.ndarray, " K"] | None = None,
    turns: Float[np.ndarray, "S 3 3"] | None = None,
    near_m: float = 0.0,
    max_iterations: int = 200,
) -> Registration:
    """The rigid motion that lays `source` on a target of unknown correspondence.

    Starts with the centroids on one another. A sparse choice of all points finds the neighbourhood; then the steady
    ones alone decide, so that an open mouth does not tilt a head.

    Args:
        source: points to move, metres.
        target: points to meet, metres, irregular as a mesh's are: on a regular grid ICP may rest one step beside.
        steady: indices of the points of `source` that keep their form; None means all.
        turns: rotations to start from, in this order; None starts unturned.
        near_m: once a start leads the sparse points to a smaller rmse, no further one is tried; else the best leads on.
        max_iterations: cap on the rounds of each of the two steps.

    Returns:
        The motion with the rmse of the steady points to their nearest ones, and how the last step ended.

    Raises:
        ShapeError: not (N, 3) arrays.
        DataError: fewer than three points, not finite, `steady` outside the source, no start, or no round.

    Source:
        Besl and McKay, PAMI 1992 (the paper's ICP), as small_gicp computes it.
    """
    source, target = np.ascontiguousarray(source, np.float64), np.ascontiguousarray(target, np.float64)
    chosen = np.arange(len(source)) if steady is None else np.asarray(steady)
    turns = np.eye(3)[None] if turns is None else np.asarray(turns, np.float64)
    _check_clouds(source, target, chosen, turns, max_iterations)
    cloud = small_gicp.PointCloud(target)
    tree = small_gicp.KdTree(cloud)
    sparse = np.ascontiguousarray(source[:: max(1, len(source) // _SPARSE_POINTS)])
    ends: list[Registration] = []
    for turn in turns:
        start = np.eye(4)
        start[:3, :3], start[:3, 3] = turn, target.mean(0) - turn @ source.mean(0)
        ends.append(_closest_points(sparse, cloud, tree, start, _COARSE, max_iterations))
        if ends[-1].rmse < near_m:
            break
    near = min(ends, key=lambda end: end.rmse)
    return _closest_points(source[chosen], cloud, tree, near.transform, _FINE, max_iterations)


def _closest_points(
    source: np.ndarray,
    cloud: small_gicp.PointCloud,
    tree: small_gicp.KdTree,
    start: np.ndarray,
    tolerance: tuple[float, float],
    max_iterations: int,
) -> Registration:
    """small_gicp's ICP to convergence; `tolerance` in radians and metres."""
    result = small_gicp.align(
        cloud,
        small_gicp.PointCloud(source),
        tree,
        start,
        registration_type="ICP",
        max_correspondence_distance=np.inf,
        num_threads=1,  # sums over threads differ in the last bits
        max_iterations=max_iterations,
        rotation_epsilon=tolerance[0],
        translation_epsilon=tolerance[1],
    )
    transform = np.ascontiguousarray(result.T_target_source)
    _, squares = tree.batch_nearest_neighbor_search(apply_transform(transform, source))
    return Registration(
        transform=transform,
        rmse=float(np.sqrt(np.mean(squares))),
        iterations=result.iterations + 1,  # small_gicp counts from 0
        is_converged=result.converged,
    )


def _check_clouds(
    source: np.ndarray, target: np.ndarray, steady: np.ndarray, turns: np.ndarray, max_iterations: int
) -> None:
    for name, points in (("source", source), ("target", target)):
        if points.ndim != 2 or points.shape[1] != 3:
            raise ShapeError(f"{name}: expected (N, 3), got {points.shape}.")
        if len(points) < 3 or not np.isfinite(points).all():
            raise DataError(f"{name}: expected at least three finite points, got {len(points)}.")
    if turns.ndim != 3 or turns.shape[1:] != (3, 3) or not len(turns) or max_iterations < 1:
        raise DataError(f"ICP needs rotations (S, 3, 3) to start from and at least one round, got {turns.shape} and "
                        f"{max_iterations}.")  # fmt: skip
    if steady.ndim != 1 or len(steady) < 3 or steady.min() < 0 or steady.max() >= len(source):
        raise DataError(f"ICP needs at least three steady points out of 0..{len(source) - 1}, got {steady.shape}.")
