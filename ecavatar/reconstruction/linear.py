"""Face landmarks as functions of coefficients, with exact derivatives.

A landmark lies on a triangle, and the face model is linear in its coefficients apart from the jaw's rotation. So the
few vertices that carry landmarks collapse into small matrices once, and a fit never touches the full mesh.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from ecavatar.face.model import FaceAsset

JAW = 2
"""The jaw's index among the joints; its 9 pose features start at 9 * (JAW - 1)."""


@dataclass(frozen=True, slots=True)
class LinearPart:
    """Something that depends linearly on the coefficients: `offset + basis @ coefficients + pose @ features`."""

    offset: Float[np.ndarray, "points 3"]
    basis: Float[np.ndarray, "points 3 coefficients"]
    pose: Float[np.ndarray, "points 3 9"]

    def at(
        self,
        coefficients: Float[np.ndarray, " coefficients"],
        features: Float[np.ndarray, "9"],
    ) -> Float[np.ndarray, "points 3"]:
        """The points, in metres."""
        return self.offset + self.basis @ coefficients + self.pose @ features


@dataclass(frozen=True, slots=True)
class LandmarkModel:
    """The landmarks of one face asset for a leading part of its shape components and all expression components."""

    still: LinearPart
    """The share of each landmark that stays with the skull, already multiplied by its weight."""
    moving: LinearPart
    """The share that follows the jaw, multiplied by its weight."""
    jaw_share: Float[np.ndarray, " points"]
    jaw_joint: LinearPart
    shape_components: int

    @classmethod
    def build(cls, asset: FaceAsset, shape_components: int) -> Self:
        """Collapse `asset` to its MediaPipe landmarks, keeping the first `shape_components` of its shape basis."""
        corners = asset.faces[asset.mediapipe_faces]
        weights = asset.mediapipe_barycentrics.astype(np.float64)
        jaw = asset.skinning[corners, JAW].astype(np.float64)
        part = (asset, corners, shape_components)
        return cls(
            still=_weighted(*part, weights * (1 - jaw)),
            moving=_weighted(*part, weights * jaw),
            jaw_share=(weights * jaw).sum(axis=1),
            jaw_joint=_joint(asset, shape_components),
            shape_components=shape_components,
        )

    def points(
        self,
        coefficients: Float[np.ndarray, " coefficients"],
        jaw_pose: Float[np.ndarray, "3"],
    ) -> Float[np.ndarray, "points 3"]:
        """Landmarks of the face at zero head pose, metres."""
        turn = Rotation.from_rotvec(jaw_pose).as_matrix()
        features = (turn - np.eye(3)).ravel()
        joint = self.jaw_joint.at(coefficients, features)[0]
        moving = self.moving.at(coefficients, features) - self.jaw_share[:, None] * joint
        return self.still.at(coefficients, features) + moving @ turn.T + self.jaw_share[:, None] * joint

    def derivatives(
        self,
        coefficients: Float[np.ndarray, " coefficients"],
        jaw_pose: Float[np.ndarray, "3"],
    ) -> Float[np.ndarray, "points 3 unknowns"]:
        """Derivatives of `points` by the coefficients, then by the three components of `jaw_pose`."""
        turn = Rotation.from_rotvec(jaw_pose).as_matrix()
        features = (turn - np.eye(3)).ravel()
        share = self.jaw_share[:, None, None]
        by_coefficients = (
            self.still.basis + turn @ self.moving.basis + share * ((np.eye(3) - turn) @ self.jaw_joint.basis)
        )
        joint = self.jaw_joint.at(coefficients, features)[0]
        moving = self.moving.at(coefficients, features) - self.jaw_share[:, None] * joint
        turns = rotation_derivatives(jaw_pose)
        by_features = self.still.pose + turn @ self.moving.pose
        by_jaw = np.stack([moving @ d.T + by_features @ d.ravel() for d in turns], axis=2)
        return np.concatenate([by_coefficients, by_jaw], axis=2)


def rotation_derivatives(
    axis_angle: Float[np.ndarray, "3"],
) -> Float[np.ndarray, "3 3 3"]:
    """Derivatives of the rotation matrix by the three components of its axis-angle vector (first axis).

    Source:
        Gallego and Yezzi, "A compact formula for the derivative of a 3-D rotation in exponential coordinates", 2015.
    """
    turn = Rotation.from_rotvec(axis_angle).as_matrix()
    squared = float(axis_angle @ axis_angle)
    if squared < 1e-16:
        return np.stack([cross_matrix(axis) for axis in np.eye(3)])
    columns = ((np.eye(3) - turn)[:, i] for i in range(3))
    return np.stack(
        [
            (axis_angle[i] * cross_matrix(axis_angle) + cross_matrix(np.cross(axis_angle, column))) @ turn / squared
            for i, column in enumerate(columns)
        ]
    )


def cross_matrix(vector: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """The matrix that takes the cross product of `vector` with what it multiplies."""
    x, y, z = vector
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def _bases(asset: FaceAsset, vertices: np.ndarray, shape_components: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficient basis (..., 3, S' + E) and jaw pose basis (..., 3, 9) of some vertices, float64."""
    shape = asset.shape_basis[vertices][..., :shape_components]
    basis = np.concatenate([shape, asset.expression_basis[vertices]], axis=-1).astype(np.float64)
    first = 9 * (JAW - 1)
    return basis, asset.pose_basis[vertices][..., first : first + 9].astype(np.float64)


def _weighted(asset: FaceAsset, corners: np.ndarray, shape_components: int, weights: np.ndarray) -> LinearPart:
    basis, pose = _bases(asset, corners, shape_components)
    return LinearPart(
        offset=np.einsum("kc,kcx->kx", weights, asset.template[corners].astype(np.float64)),
        basis=np.einsum("kc,kcxp->kxp", weights, basis),
        pose=np.einsum("kc,kcxp->kxp", weights, pose),
    )


def _joint(asset: FaceAsset, shape_components: int) -> LinearPart:
    row = asset.joint_regressor[JAW].astype(np.float64)
    used = np.flatnonzero(row)
    basis, _ = _bases(asset, used, shape_components)
    return LinearPart(
        offset=(row[used] @ asset.template[used].astype(np.float64))[None],
        basis=np.einsum("v,vxp->xp", row[used], basis)[None],
        pose=np.zeros((1, 3, 9)),
    )
