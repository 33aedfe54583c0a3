"""Face landmarks as functions of coefficients, with exact derivatives.

A landmark lies on a triangle, and the face model is linear in its coefficients apart from the jaw's rotation. So the
few vertices that carry landmarks collapse into small matrices once, and a fit never touches the full mesh.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float, Int
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
    """The share that follows the jaw, multiplied by its weight; only the landmarks `jaw_points`."""
    jaw_points: Int[np.ndarray, " jaw_points"]
    jaw_share: Float[np.ndarray, "jaw_points 1"]
    jaw_joint: LinearPart
    shape_components: int

    @classmethod
    def build(cls, asset: FaceAsset, shape_components: int, landmarks: Int[np.ndarray, " points"]) -> Self:
        """Collapse `asset` to some of its MediaPipe landmarks and the first of its shape components.

        Args:
            asset: the face model.
            shape_components: how many leading components of the shape basis to keep.
            landmarks: rows of the asset's MediaPipe embedding.
        """
        corners = asset.faces[asset.mediapipe_faces[landmarks]]
        weights = asset.mediapipe_barycentrics[landmarks].astype(np.float64)
        jaw = asset.skinning[corners, JAW].astype(np.float64)
        share = (weights * jaw).sum(axis=1)
        moved = np.flatnonzero(share > 0)
        return cls(
            still=_weighted(asset, corners, shape_components, weights * (1 - jaw)),
            moving=_weighted(asset, corners[moved], shape_components, (weights * jaw)[moved]),
            jaw_points=moved,
            jaw_share=share[moved, None],
            jaw_joint=_joint(asset, shape_components),
            shape_components=shape_components,
        )

    def points(
        self, coefficients: Float[np.ndarray, " coefficients"], jaw_pose: Float[np.ndarray, "3"]
    ) -> Float[np.ndarray, "points 3"]:
        """Landmarks of the face at zero head pose, metres."""
        turn, features = _turned(jaw_pose)
        joint = self.jaw_joint.at(coefficients, features)[0]
        points = self.still.at(coefficients, features)
        arm = self.moving.at(coefficients, features) - self.jaw_share * joint
        points[self.jaw_points] += arm @ turn.T + self.jaw_share * joint
        return points

    def derivatives(
        self, coefficients: Float[np.ndarray, " coefficients"], jaw_pose: Float[np.ndarray, "3"]
    ) -> Float[np.ndarray, "points 3 unknowns"]:
        """Derivatives of `points` by the coefficients, then by the three components of `jaw_pose`."""
        turn, features = _turned(jaw_pose)
        by_turn = rotation_derivatives(jaw_pose)
        joint = self.jaw_joint.at(coefficients, features)[0]
        arm = self.moving.at(coefficients, features) - self.jaw_share * joint
        result = np.empty((*self.still.offset.shape, len(coefficients) + 3))
        result[:, :, :-3] = self.still.basis
        result[:, :, -3:] = self.still.pose @ by_turn.reshape(3, 9).T
        of_joint = (np.eye(3) - turn) @ self.jaw_joint.basis[0]
        result[self.jaw_points, :, :-3] += turned_basis(turn, self.moving.basis) + self.jaw_share[:, None] * of_joint
        of_pose = turned_basis(turn, self.moving.pose) @ by_turn.reshape(3, 9).T
        result[self.jaw_points, :, -3:] += np.einsum("jab,kb->kaj", by_turn, arm) + of_pose
        return result


def turned_basis(
    matrix: Float[np.ndarray, "3 3"], basis: Float[np.ndarray, "points 3 unknowns"]
) -> Float[np.ndarray, "points 3 unknowns"]:
    """`matrix @ basis` for each point, spelled out: thrice as fast as numpy's product of many small matrices."""
    x, y, z = basis[:, 0], basis[:, 1], basis[:, 2]
    result = np.empty_like(basis)
    for row in range(3):
        np.multiply(x, matrix[row, 0], out=result[:, row])
        result[:, row] += matrix[row, 1] * y
        result[:, row] += matrix[row, 2] * z
    return result


def _turned(jaw_pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The jaw's rotation matrix and its pose features."""
    turn = Rotation.from_rotvec(jaw_pose).as_matrix()
    return turn, (turn - np.eye(3)).ravel()


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
