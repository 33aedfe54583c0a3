"""From a face in a photograph to faces at zero pose: with its expression, and neutral.

The paper moves each reconstructed mesh to pose zero by rigid registration (section 3.2) and makes the neutral face by
setting the expression to zero (section 4). Neutral here also means a closed jaw: the jaw pose is a parameter of its
own, and left as it is it would keep the mouth open.

Where the parameters are known nothing needs registering: `expressive_vertices` and `neutral_vertices` leave all
rotations but the jaw's at zero. `align_to_zero_pose` takes the paper's way for one reconstruction; `align_meshes` is
for meshes of which nothing else is known.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits

from ecavatar.errors import DataError, ShapeError, TopologyError
from ecavatar.face.alignment import (
    Registration,
    apply_transform,
    iterative_closest_point,
    register_points,
    register_points_batch,
    root_mean_square,
)
from ecavatar.face.model import FaceAsset, FaceModel
from ecavatar.reconstruction.fitter import Reconstruction
from ecavatar.reconstruction.linear import JAW

RIGID_REGIONS = ("scalp", "left_ear", "right_ear", "forehead")
"""Where bone lies under the skin: the vertices that tell how a head is turned are among these.

Not the neck: most of the open head's neck is moved by neither expression nor jaw, but it stays behind when the head
turns on it (by 7 mm in the median at 0.2 rad), which would tilt the result by 1.4 degrees."""
STEADY_M = 1e-4
"""A vertex that expression and jaw move by no more than this counts as steady."""
NEAR_M = 4.5e-3
"""ICP tries further starts above it: a head's sparse points ended with an rmse of at most 2.3 mm where they were led
rightly (5.5 mm onto another person's head), and of 4.9 mm or more where not."""
Method = Literal["procrustes", "icp"]
_OPEN_JAW = (0.3, 0.0, 0.0)  # axis-angle: a mouth well open
_IDENTITY_NOISE_M = 5e-4  # what the shape basis need not explain of a rigid region
_STILL = 1e-7  # radians and metres
_MESHES_AT_ONCE = 64  # a piece's rigid points stay in the cache
_TURNS = np.array(sorted(Rotation.create_group("O").as_matrix().round(), key=lambda turn: -np.trace(turn)))
"""The 24 quarter turns, no turn first. Any rotation is within 63 degrees of one; from 50 degrees ICP always arrived."""

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
    """False: the registration hit its cap; the result may be tilted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedMeshes:
    """Meshes brought to pose zero, as columns."""

    vertices: Float[np.ndarray, "B V 3"]
    """At pose zero, metres, float32."""
    removed: Float[np.ndarray, "B 4 4"]
    """Rigid transforms that were applied, metres, float64."""
    residual_m: Float[np.ndarray, " B"]
    """Root mean square distance of the rigid regions to the target's; another identity's form is part of it."""
    is_converged: Bool[np.ndarray, " B"]


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
    """The vertices of the rigid regions that expression and jaw leave alone, sorted.

    Those that move by at most `STEADY_M`, and in a model that moves everything a little the steadier half. Measured is
    the root mean square over expressions together with the way of an open jaw.
    """
    candidates = np.unique(np.concatenate([asset.regions[name] for name in RIGID_REGIONS]))
    expression = np.sqrt((asset.expression_basis[candidates].astype(np.float64) ** 2).sum(axis=(1, 2)))
    reach = np.hypot(expression, _jaw_reach(asset, candidates))
    return candidates[reach <= max(STEADY_M, float(np.median(reach)))]


def align_to_zero_pose(model: FaceModel, reconstruction: Reconstruction, method: Method = "procrustes") -> Alignment:
    """The posed mesh moved back onto the zero pose by a rigid registration of the regions that expression leaves alone.

    Args:
        model: the face model.
        reconstruction: a face fitted with it.
        method: `procrustes` uses that both meshes have one topology (exact, closed form); `icp`, the paper's, matches
            points to the nearest ones and knows nothing of the fitted rotation: it starts unturned, and where that
            does not lead onto the head, from quarter turns.
    """
    posed, neutral = posed_vertices(model, reconstruction), neutral_vertices(model, reconstruction).astype(np.float64)
    rigid = rigid_vertices(model.asset)
    if method == "procrustes":
        registration = register_points(posed[rigid], neutral[rigid])
    else:
        registration = _icp_back(posed, neutral, rigid)
    return Alignment(
        vertices=apply_transform(registration.transform, posed),
        removed=registration.transform,
        residual_m=registration.rmse,
        is_converged=registration.is_converged,
    )


def align_meshes(
    vertices: Float[np.ndarray, "B V 3"],
    asset: FaceAsset,
    method: Method = "procrustes",
    *,
    target: Vertices | None = None,
) -> AlignedMeshes:
    """Meshes of unknown pose and expression at pose zero; works in pieces, so a memory map or a shard will do.

    Args:
        vertices: metres; the asset's topology for `procrustes`, any points of a head for `icp`.
        asset: tells the rigid regions and how identities differ.
        method: `procrustes` (Kabsch on the rigid regions) or `icp`.
        target: the same person's mesh at pose zero, (vertices of the asset, 3), metres. None stands for an unknown
            person: the template is the target, and `procrustes` weighs differences by how identities vary there, since
            a narrow head must not count as a turned one. (On random identities of the open head Kabsch alone is off by
            1.5 degrees in the median and 6.5 at worst, with the weights 0.2 and 0.6.) `icp` has no such remedy:
            1.8 degrees in the median, 6 at worst.

    Raises:
        ShapeError: not (B, V, 3), or a target of another size.
        TopologyError: `procrustes` on meshes that have not the asset's vertices.
        DataError: values that are not finite; the message names the first mesh.
    """
    vertices = _checked_meshes(vertices, asset, method, target)
    goal = asset.template if target is None else np.asarray(target)
    rigid = rigid_vertices(asset)
    count = len(vertices)
    result = AlignedMeshes(
        vertices=np.empty(vertices.shape, np.float32),
        removed=np.empty((count, 4, 4)),
        residual_m=np.empty(count),
        is_converged=np.empty(count, bool),
    )
    with threadpool_limits(1):  # many small products: two threads would wait for each other, and change last bits
        prior = _identity_prior(asset, rigid) if target is None and method == "procrustes" else None
        for first in range(0, count, _MESHES_AT_ONCE):
            rows = slice(first, first + _MESHES_AT_ONCE)
            piece = _finite_piece(vertices[rows], first)
            if method == "procrustes":
                points = np.take(piece, rigid, axis=1).astype(np.float64)
                found = _kabsch_piece(points, goal[rigid].astype(np.float64), prior)
            else:
                found = _icp_piece(piece, goal, rigid)
            result.removed[rows], result.residual_m[rows], result.is_converged[rows] = found
            _apply_piece(found[0], piece, result.vertices[rows])
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _IdentityPrior:
    """The small motion that explains what is left between a mesh and the template, identity taken into account.

    With rigid points x, template T, shape basis S and coefficients s ~ N(0, 1): x = T + turn x (T - centre) + shift
    + S s + noise. The most probable (turn, shift) is linear in x - T, by `rows`.
    """

    rows: Float[np.ndarray, "6 3 points"]
    template: Float[np.ndarray, "points 3"]
    centre: Float[np.ndarray, "3"]


def _identity_prior(asset: FaceAsset, rigid: np.ndarray) -> _IdentityPrior:
    template = asset.template[rigid].astype(np.float64)
    centre = template.mean(axis=0)
    turns = np.cross(np.eye(3)[None], (template - centre)[:, None]).transpose(0, 2, 1)
    shifts = np.broadcast_to(np.eye(3), turns.shape)
    columns = np.concatenate([turns, shifts, asset.shape_basis[rigid]], axis=2).reshape(len(rigid) * 3, -1)
    normal = columns.T @ columns
    normal[np.arange(6, len(normal)), np.arange(6, len(normal))] += _IDENTITY_NOISE_M**2  # the coefficients' prior
    motion = np.linalg.solve(normal, np.eye(len(normal), 6))
    rows = (columns @ motion).reshape(len(rigid), 3, 6)
    return _IdentityPrior(rows=rows.transpose(2, 1, 0), template=template, centre=centre)


def _kabsch_piece(
    points: np.ndarray, goal: np.ndarray, prior: _IdentityPrior | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Transforms, residuals and convergence of a piece's rigid points."""
    removed, residual = register_points_batch(points, goal)
    if prior is None:
        return removed, residual, np.ones(len(points), bool)
    removed, is_converged = _with_identity(points, removed, prior)
    moved = points @ removed[:, :3, :3].transpose(0, 2, 1) + removed[:, None, :3, 3]
    return removed, root_mean_square(moved - goal), is_converged


def _with_identity(
    points: np.ndarray, removed: np.ndarray, prior: _IdentityPrior, rounds: int = 50
) -> tuple[np.ndarray, np.ndarray]:
    """Transforms improved until the prior finds no motion left, and whether it came to that.

    The points enter linearly, so they are summed once and the rounds work on 6 x 3 x 3 numbers a mesh.
    """
    moments = (prior.rows.reshape(18, -1) @ points).reshape(-1, 6, 9)
    by_shift, at_rest = prior.rows.sum(axis=2), np.einsum("kip,pi->k", prior.rows, prior.template)
    improved = removed.copy()
    moving = np.arange(len(points))  # each mesh stops on its own, whatever company it is in
    for _ in range(rounds):
        turn, shift = improved[moving, :3, :3], improved[moving, :3, 3]
        left = (moments[moving] @ turn.reshape(-1, 9, 1))[..., 0] + shift @ by_shift.T - at_rest
        is_moving = np.abs(left).max(axis=1) >= _STILL
        moving, turn, shift, left = (values[is_moving] for values in (moving, turn, shift, left))
        if not moving.size:
            break
        back = Rotation.from_rotvec(-left[:, :3]).as_matrix()
        improved[moving, :3, :3] = back @ turn
        improved[moving, :3, 3] = np.einsum("bij,bj->bi", back, shift - prior.centre - left[:, 3:]) + prior.centre
    return improved, ~np.isin(np.arange(len(points)), moving)


def _icp_piece(piece: np.ndarray, goal: np.ndarray, rigid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found = [_icp_back(mesh, goal, rigid) for mesh in piece]
    return (
        np.stack([end.transform for end in found]),
        np.array([end.rmse for end in found]),
        np.array([end.is_converged for end in found]),
    )


def _icp_back(mesh: np.ndarray, goal: np.ndarray, rigid: np.ndarray) -> Registration:
    """The motion of `mesh` onto `goal`, found the other way round: only the goal's rigid points need be known."""
    there = iterative_closest_point(goal, mesh, steady=rigid, turns=_TURNS, near_m=NEAR_M)
    return replace(there, transform=np.linalg.inv(there.transform))


def _apply_piece(transforms: np.ndarray, piece: np.ndarray, into: np.ndarray) -> None:
    """`piece` moved into `into`; one product a mesh, which numpy hands to BLAS as it does not a stack of them."""
    for transform, mesh, moved in zip(transforms.astype(np.float32), piece, into, strict=True):
        np.matmul(mesh, transform[:3, :3].T, out=moved)
        moved += transform[:3, 3]


def _checked_meshes(vertices: np.ndarray, asset: FaceAsset, method: str, target: np.ndarray | None) -> np.ndarray:
    if vertices.ndim != 3 or vertices.shape[2] != 3:
        raise ShapeError(f"expected meshes (B, V, 3), got {vertices.shape}; one mesh is mesh[None].")
    if method == "procrustes" and vertices.shape[1] != asset.n_vertices:
        raise TopologyError(f"these meshes have {vertices.shape[1]} vertices, {asset.topology} has {asset.n_vertices}. "
                            "Use method 'icp', which needs no common topology.")  # fmt: skip
    if target is not None and target.shape != asset.template.shape:
        raise ShapeError(f"target: expected {asset.template.shape}, got {target.shape}.")
    return vertices


def _finite_piece(vertices: np.ndarray, first: int) -> np.ndarray:
    piece = np.asarray(vertices, np.float32)
    is_finite = np.isfinite(piece).all(axis=(1, 2))
    if not is_finite.all():
        bad = first + int(is_finite.argmin())
        raise DataError(f"mesh {bad} has vertices that are not finite numbers; leave it out or repair it.")
    return piece


def _jaw_reach(asset: FaceAsset, chosen: np.ndarray) -> Float[np.ndarray, " chosen"]:
    """How far an open jaw moves the template's vertices, at most: by skinning and by correctives, metres."""
    change = Rotation.from_rotvec(_OPEN_JAW).as_matrix() - np.eye(3)
    joint = asset.joint_regressor[JAW].astype(np.float64) @ asset.template
    skinned = asset.skinning[chosen, JAW] * np.linalg.norm((asset.template[chosen] - joint) @ change.T, axis=1)
    columns = slice(9 * (JAW - 1), 9 * JAW)  # the root has no correctives
    corrected = np.linalg.norm(asset.pose_basis[chosen, :, columns].astype(np.float64) @ change.ravel(), axis=1)
    return skinned + corrected


def _vertices(model: FaceModel, *coefficients: np.ndarray) -> Vertices:
    buffer = next(model.buffers())
    rows = (torch.as_tensor(c, dtype=torch.float32, device=buffer.device)[None] for c in coefficients)
    with torch.no_grad():
        return model(*rows)[0].cpu().numpy()
