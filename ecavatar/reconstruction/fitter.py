"""A face model's coefficients from the landmarks of one photograph.

Levenberg-Marquardt over identity, expression, jaw, head rotation and a weak-perspective camera. MediaPipe's expression
scores, turned into the model's own coefficients, are where the expression starts and what it is drawn back to.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.transform import Rotation

from ecavatar.config import ReconstructSettings, UnitCalibration
from ecavatar.errors import DataError, ShapeError
from ecavatar.face.alignment import register_points
from ecavatar.face.model import FaceAsset, arkit_coefficients
from ecavatar.reconstruction.images import FaceBox, Rgb
from ecavatar.reconstruction.landmarks import Detection, FaceLandmarker
from ecavatar.reconstruction.linear import LandmarkModel, turned_basis

CAMERA_UNKNOWNS = 7
"""Rotation step (3), logarithm of the scale (1), translation in the image and in depth (3)."""
JAW_UNKNOWNS = 3
FIRST_IRIS = 468
"""MediaPipe's landmarks from here on lie on the irises: they follow the gaze, which is not fitted."""
RELATIVE_TOLERANCE = 1e-5
"""The fit has converged when an accepted step lowers the cost by less than this share."""
_UNSCORED_JAW = 0.2  # standard deviation of the jaw's rotation where no score says how open it is, radians
FLIP = np.array([1.0, -1.0, -1.0])
"""Turns image axes (x right, y down, z away) into camera axes (x right, y up, z towards the viewer)."""


class NoFaceError(DataError):
    """A picture in which no face is found."""


class PoorFitError(DataError):
    """A face whose landmarks the face model cannot explain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """A face in a photograph: coefficients, and the camera that shows it there."""

    shape: Float[np.ndarray, " shape_components"]
    """All components of the asset; those that are not fitted are 0."""
    expression: Float[np.ndarray, " expression_components"]
    jaw_pose: Float[np.ndarray, "3"]
    """Axis-angle, radians."""
    rotation: Float[np.ndarray, "3 3"]
    """Head to camera; camera axes are x right, y up, z towards the viewer."""
    scale_px_per_m: float
    translation_px: Float[np.ndarray, "2"]
    """Where the head's origin appears in the image, x right and y down."""
    residual_px: float
    """Root mean square distance between fitted and seen landmarks."""
    residual_mm: float
    """The same at the size of the head."""
    iterations: int
    is_converged: bool
    """False: the iterations ended at their limit."""

    def project(self, points: Float[np.ndarray, "*points 3"]) -> Float[np.ndarray, "*points 3"]:
        """Pixels (x right, y down) and depth in pixels (smaller is nearer) of points in the head's frame, metres."""
        seen = self.scale_px_per_m * (np.asarray(points, np.float64) @ self.rotation.T) * FLIP
        return seen + np.array([*self.translation_px, 0.0])


@dataclass(frozen=True, slots=True)
class _State:
    coefficients: Float[np.ndarray, " coefficients"]
    jaw: Float[np.ndarray, "3"]
    rotation: Float[np.ndarray, "3 3"]
    scale: float
    translation: Float[np.ndarray, "3"]

    def seen(self, points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3"]:
        return self.scale * points @ self.rotation.T + self.translation

    def moved(self, step: Float[np.ndarray, " unknowns"]) -> "_State":
        return _State(
            self.coefficients + step[CAMERA_UNKNOWNS:-JAW_UNKNOWNS],
            self.jaw + step[-JAW_UNKNOWNS:],
            Rotation.from_rotvec(step[:3]).as_matrix() @ self.rotation,
            self.scale * float(np.exp(step[3])),
            self.translation + step[4:CAMERA_UNKNOWNS],
        )


class LandmarkFitter:
    """Fits one face asset to detections; build it once and use it for many photographs and threads.

    A model without ARKit units (FLAME as it ships) cannot use MediaPipe's expression scores: its expression and jaw
    start at rest, with the wide spread of any face, and the landmarks alone decide.
    """

    def __init__(self, asset: FaceAsset, settings: ReconstructSettings) -> None:
        """Prepare the fit.

        Raises:
            DataError: the asset has no MediaPipe landmark embedding.
        """
        rows = np.flatnonzero(asset.mediapipe_indices < FIRST_IRIS)
        if len(rows) < 20:
            raise DataError(
                f"face model {asset.topology!r} carries {len(rows)} MediaPipe landmarks outside the irises; the "
                "landmark fitter needs at least 20. Add an embedding with `ecavatar assets add flame-mediapipe FILE`."
            )
        self._asset = asset
        self._settings = settings
        n_shape = min(settings.shape_components, asset.shape_basis.shape[2])
        self._landmarks = asset.mediapipe_indices[rows]
        self._model = LandmarkModel.build(asset, n_shape, rows)
        self._prior = _prior_precision(asset, settings, n_shape)

    def fit(self, detection: Detection) -> Reconstruction:
        """The face that shows `detection`'s landmarks best, given the priors of the settings."""
        settings = self._settings
        target = _camera_points(detection)[self._landmarks]
        centre = self._prior_centre(detection)
        state = self._start(centre, target)
        sigma_px = state.scale * 1e-3 * np.array([*[settings.landmark_sigma_mm] * 2, settings.depth_sigma_mm])
        problem = _Problem(self._model, target, 1 / sigma_px, self._prior, centre)
        state, iterations, is_converged = problem.solve(state, settings.max_iterations)
        error = (state.seen(self._model.points(state.coefficients, state.jaw)) - target)[:, :2]
        residual_px = float(np.sqrt((error**2).sum(axis=1).mean()))
        return self._result(state, residual_px, iterations, is_converged=is_converged)

    def checked(self, reconstruction: Reconstruction, name: str) -> Reconstruction:
        """`reconstruction`, if it explains the landmarks.

        Raises:
            PoorFitError: its residual is above `settings.max_residual_mm`.
        """
        limit = self._settings.max_residual_mm
        if not reconstruction.residual_mm <= limit:
            raise PoorFitError(
                f"the face found in {name} cannot be explained: {reconstruction.residual_mm:.1f} mm from its landmarks "
                f"(limit {limit:g} mm). Use a photo where the whole face is visible and not from the side."
            )
        return reconstruction

    def _prior_centre(self, detection: Detection) -> Float[np.ndarray, " unknowns"]:
        """Expected coefficients and jaw pose: the mean identity with the expression of the scores, or at rest."""
        if not self._asset.arkit_names:
            return np.zeros(len(self._prior))
        weights = calibrated(
            detection.scores(self._asset.arkit_names),
            self._asset.arkit_names,
            self._settings.units,
        )
        expression, jaw = arkit_coefficients(self._asset, weights[None])
        return np.concatenate([np.zeros(self._model.shape_components), expression[0], jaw[0]])

    def _start(
        self,
        centre: Float[np.ndarray, " unknowns"],
        target: Float[np.ndarray, "points 3"],
    ) -> _State:
        coefficients, jaw = centre[:-JAW_UNKNOWNS], centre[-JAW_UNKNOWNS:]
        points = self._model.points(coefficients, jaw)
        spread = np.linalg.norm(points - points.mean(axis=0)) / np.linalg.norm(target - target.mean(axis=0))
        turn = register_points(points, target * spread).transform[:3, :3]
        turned = points @ turn.T
        flat, flat_target = (
            turned[:, :2] - turned[:, :2].mean(axis=0),
            target[:, :2] - target[:, :2].mean(axis=0),
        )
        scale = float((flat * flat_target).sum() / (flat**2).sum())
        if not scale > 0:
            raise PoorFitError("the landmarks do not look like a face from the front; use a photo that shows the face.")
        return _State(
            coefficients,
            jaw,
            turn,
            scale,
            target.mean(axis=0) - scale * turned.mean(axis=0),
        )

    def _result(self, state: _State, residual_px: float, iterations: int, *, is_converged: bool) -> Reconstruction:
        n_shape = self._model.shape_components
        shape = np.zeros(self._asset.shape_basis.shape[2])
        shape[:n_shape] = state.coefficients[:n_shape]
        return Reconstruction(
            shape=shape,
            expression=state.coefficients[n_shape:],
            jaw_pose=state.jaw,
            rotation=state.rotation,
            scale_px_per_m=state.scale,
            translation_px=state.translation[:2] * FLIP[:2],
            residual_px=residual_px,
            residual_mm=residual_px / state.scale * 1e3,
            iterations=iterations,
            is_converged=is_converged,
        )


def reconstruct_with(
    fitter: LandmarkFitter,
    image: Rgb,
    landmarker: FaceLandmarker,
    *,
    name: str,
    box: FaceBox | None = None,
) -> Reconstruction:
    """The face in one photograph.

    Args:
        fitter: of the face model; it serves many photographs.
        image: 8-bit RGB.
        landmarker: finds the landmarks.
        name: how messages call the image, for instance its path.
        box: where the face is, if known.

    Raises:
        NoFaceError: no face is found.
        PoorFitError: the fit misses the landmarks by more than the settings allow.
        ShapeError: `image` is not 8-bit RGB.
    """
    detection = landmarker.detect(image, box)
    if detection is None:
        raise NoFaceError(f"no face found in {name}: use a photo where one face is clearly visible from the front.")
    return fitter.checked(fitter.fit(detection), name)


def calibrated(
    scores: Float[np.ndarray, " units"],
    names: tuple[str, ...],
    units: Mapping[str, UnitCalibration],
) -> Float[np.ndarray, " units"]:
    """Expression weights 0..1 from scores: `gain * (score - offset)` for the units that have a calibration.

    Raises:
        ShapeError: as many scores as names are needed.
        DataError: a calibrated unit does not exist.
    """
    if len(scores) != len(names):
        raise ShapeError(f"expected {len(names)} expression scores, got {len(scores)}.")
    if unknown := sorted(set(units) - set(names)):
        raise DataError(f"reconstruct.units names no ARKit unit: {', '.join(unknown)}.")
    identity = UnitCalibration(offset=0.0, gain=1.0)
    used = [units.get(name, identity) for name in names]
    gained = [unit.gain * (score - unit.offset) for unit, score in zip(used, scores, strict=True)]
    return np.clip(gained, 0.0, 1.0)


def _camera_points(detection: Detection) -> Float[np.ndarray, "478 3"]:
    return np.column_stack([detection.points_px, detection.depth_px]) * FLIP


def _prior_precision(
    asset: FaceAsset, settings: ReconstructSettings, n_shape: int
) -> Float[np.ndarray, "unknowns unknowns"]:
    """Inverse covariance of coefficients and jaw pose round their expected values.

    Expression errors are errors of the scores, carried through the ARKit units, plus a little in every direction.
    Without units there is no score to be near to: expressions spread as the basis says.
    """
    units, n_expression = asset.arkit_expression.astype(np.float64), asset.n_expression
    has_units = len(units) > 0
    expression_sigma, jaw_sigma = (settings.expression_sigma, settings.jaw_sigma) if has_units else (1.0, _UNSCORED_JAW)
    spread = settings.score_sigma**2 * units.T @ units + expression_sigma**2 * np.eye(n_expression)
    precision = np.zeros([n_shape + n_expression + JAW_UNKNOWNS] * 2)
    np.fill_diagonal(precision[:n_shape, :n_shape], settings.shape_sigma**-2)
    precision[n_shape:-JAW_UNKNOWNS, n_shape:-JAW_UNKNOWNS] = np.linalg.inv(spread)
    np.fill_diagonal(precision[-JAW_UNKNOWNS:, -JAW_UNKNOWNS:], jaw_sigma**-2)
    return precision


@dataclass(frozen=True, slots=True)
class _Problem:
    """Weighted landmark distances plus the prior, as a function of a `_State`."""

    model: LandmarkModel
    target: Float[np.ndarray, "points 3"]
    weight: Float[np.ndarray, "3"]
    precision: Float[np.ndarray, "unknowns unknowns"]
    centre: Float[np.ndarray, " unknowns"]

    def solve(self, state: _State, max_iterations: int) -> tuple[_State, int, bool]:
        """Where Levenberg-Marquardt ends, after how many iterations, and whether it converged."""
        damping, points = 1e-3, self.points(state)
        cost = self.cost(state, points)
        for iteration in range(1, max_iterations + 1):
            hessian, gradient = self.normal_equations(state, points)
            hessian[np.diag_indices_from(hessian)] *= 1 + damping
            moved = state.moved(-cho_solve(cho_factor(hessian), gradient))
            moved_points = self.points(moved)
            moved_cost = self.cost(moved, moved_points)
            if moved_cost > cost:
                damping *= 10
                if damping > 1e8:
                    return state, iteration, False
                continue
            is_done = cost - moved_cost <= RELATIVE_TOLERANCE * cost
            state, points, cost, damping = moved, moved_points, moved_cost, max(damping / 10, 1e-9)
            if is_done:
                return state, iteration, True
        return state, max_iterations, False

    def points(self, state: _State) -> Float[np.ndarray, "points 3"]:
        """Landmarks of a state at zero head pose, metres."""
        return self.model.points(state.coefficients, state.jaw)

    def cost(self, state: _State, points: Float[np.ndarray, "points 3"]) -> float:
        """Sum of squares that the fit makes small."""
        missed = (state.seen(points) - self.target) * self.weight
        away = self._away(state)
        return float((missed**2).sum() + away @ self.precision @ away)

    def normal_equations(
        self, state: _State, points: Float[np.ndarray, "points 3"]
    ) -> tuple[Float[np.ndarray, "unknowns unknowns"], Float[np.ndarray, " unknowns"]]:
        """Gauss-Newton matrix and half gradient."""
        turned = state.scale * points @ state.rotation.T
        jacobian = np.empty((*points.shape, CAMERA_UNKNOWNS + len(self.centre)))
        jacobian[:, :, :3] = np.cross(np.eye(3)[None], turned[:, None]).transpose(0, 2, 1)
        jacobian[:, :, 3] = turned
        jacobian[:, :, 4:CAMERA_UNKNOWNS] = np.eye(3)
        jacobian[:, :, :CAMERA_UNKNOWNS] *= self.weight[:, None]
        derivatives = self.model.derivatives(state.coefficients, state.jaw)
        camera = self.weight[:, None] * (state.scale * state.rotation)
        jacobian[:, :, CAMERA_UNKNOWNS:] = turned_basis(camera, derivatives)
        flat = jacobian.reshape(-1, jacobian.shape[-1])
        missed = ((turned + state.translation - self.target) * self.weight).ravel()
        hessian, gradient = flat.T @ flat, flat.T @ missed
        hessian[CAMERA_UNKNOWNS:, CAMERA_UNKNOWNS:] += self.precision
        gradient[CAMERA_UNKNOWNS:] += self.precision @ self._away(state)
        return hessian, gradient

    def _away(self, state: _State) -> Float[np.ndarray, " unknowns"]:
        return np.concatenate([state.coefficients, state.jaw]) - self.centre
