"""Laws of the landmark model and its fit."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ecavatar.config import UnitCalibration
from ecavatar.errors import DataError, ShapeError
from ecavatar.face.landmarks import surface_points
from ecavatar.face.model import ARKIT_INDEX, ARKIT_NAMES, FaceModel
from ecavatar.reconstruction.fitter import (
    FIRST_IRIS,
    LandmarkFitter,
    PoorFitError,
    Reconstruction,
    calibrated,
)
from ecavatar.reconstruction.landmarks import Detection
from ecavatar.reconstruction.linear import LandmarkModel, rotation_derivatives

N_LANDMARKS = 120


def _truth(asset, seed=0) -> Reconstruction:
    rng = np.random.default_rng(seed)
    return Reconstruction(
        shape=rng.normal(size=asset.n_shape),
        expression=rng.normal(size=asset.n_expression),
        jaw_pose=np.array([0.2, 0.03, -0.02]),
        rotation=Rotation.from_euler("yxz", [25, -10, 8], degrees=True).as_matrix(),
        scale_px_per_m=1100.0,
        translation_px=np.array([120.0, 100.0]),
        residual_px=0.0,
        residual_mm=0.0,
        iterations=0,
        is_converged=True,
    )


def _vertices(asset, truth) -> np.ndarray:
    rows = [torch.tensor(c, dtype=torch.float64)[None] for c in (truth.shape, truth.expression, truth.jaw_pose)]
    return FaceModel(asset)(*rows)[0].numpy()


def _detection(asset, truth, noise_px=0.0) -> Detection:
    points = surface_points(_vertices(asset, truth), asset.faces, asset.mediapipe_faces, asset.mediapipe_barycentrics)
    seen = truth.project(points) + np.random.default_rng(1).normal(size=points.shape) * noise_px
    everything = np.zeros((478, 3))
    everything[asset.mediapipe_indices] = seen
    return Detection(points_px=everything[:, :2], depth_px=everything[:, 2] + 37.0, blendshapes=np.zeros(52))


def test_landmark_model_equals_the_face_model(asset):
    truth = _truth(asset)
    expected = surface_points(_vertices(asset, truth), asset.faces, asset.mediapipe_faces, asset.mediapipe_barycentrics)
    model = LandmarkModel.build(asset, asset.n_shape, np.arange(N_LANDMARKS))
    found = model.points(np.concatenate([truth.shape, truth.expression]), truth.jaw_pose)
    assert np.abs(found - expected).max() < 1e-7


@pytest.mark.parametrize("jaw_pose", [np.zeros(3), np.array([0.3, -0.1, 0.05])])
def test_derivatives_equal_finite_differences(asset, jaw_pose):
    model, rng, step = LandmarkModel.build(asset, 5, np.arange(N_LANDMARKS)), np.random.default_rng(2), 1e-6
    point = np.concatenate([rng.normal(size=5 + asset.n_expression), jaw_pose])
    exact = model.derivatives(point[:-3], point[-3:])
    for unknown, axis in enumerate(np.eye(len(point)) * step):
        after, before = (model.points((point + s * axis)[:-3], (point + s * axis)[-3:]) for s in (1, -1))
        assert np.abs((after - before) / (2 * step) - exact[:, :, unknown]).max() < 1e-7


def test_rotation_derivatives_at_rest_and_turned():
    for vector in (np.zeros(3), np.array([0.4, -1.2, 0.7])):
        for axis, derivative in zip(np.eye(3) * 1e-6, rotation_derivatives(vector), strict=True):
            after, before = (Rotation.from_rotvec(vector + s * axis).as_matrix() for s in (1, -1))
            assert np.abs((after - before) / 2e-6 - derivative).max() < 1e-8


def test_fit_recovers_the_face_that_made_the_landmarks(asset, settings):
    truth = _truth(asset)
    found = LandmarkFitter(asset, settings).fit(_detection(asset, truth))
    assert found.is_converged
    assert found.residual_mm < 0.02
    assert Rotation.from_matrix(found.rotation @ truth.rotation.T).magnitude() < np.radians(0.5)
    assert np.abs(found.jaw_pose - truth.jaw_pose).max() < 0.02
    assert np.corrcoef(found.expression, truth.expression)[0, 1] > 0.99
    assert np.linalg.det(found.rotation) == pytest.approx(1)


def test_projection_of_the_fit_lies_on_the_landmarks(asset, settings):
    detection = _detection(asset, _truth(asset), noise_px=0.3)
    found = LandmarkFitter(asset, settings).fit(detection)
    points = surface_points(_vertices(asset, found), asset.faces, asset.mediapipe_faces, asset.mediapipe_barycentrics)
    missed = (found.project(points)[:, :2] - detection.points_px[asset.mediapipe_indices])[
        asset.mediapipe_indices < FIRST_IRIS
    ]
    assert np.sqrt((missed**2).sum(axis=1).mean()) == pytest.approx(found.residual_px, rel=1e-4)


def test_fit_is_equivariant_to_the_size_and_place_of_the_picture(asset, settings):
    detection = _detection(asset, _truth(asset), noise_px=0.5)
    moved = Detection(
        points_px=detection.points_px * 3 + [50, -20], depth_px=detection.depth_px * 3, blendshapes=np.zeros(52)
    )
    one, other = (LandmarkFitter(asset, settings).fit(d) for d in (detection, moved))
    assert other.scale_px_per_m == pytest.approx(3 * one.scale_px_per_m, rel=1e-4)
    assert other.residual_mm == pytest.approx(one.residual_mm, rel=1e-3)
    assert np.abs(other.expression - one.expression).max() < 1e-2


def test_fit_gives_the_same_bits_twice(asset, settings):
    fitter, detection = LandmarkFitter(asset, settings), _detection(asset, _truth(asset), noise_px=1.0)
    one, other = fitter.fit(detection), fitter.fit(detection)
    assert np.array_equal(one.expression, other.expression)
    assert one.residual_px == other.residual_px


def test_strong_prior_keeps_the_expression_of_the_scores(asset, settings):
    truth = _truth(asset)
    seen = _detection(asset, truth)
    scores = np.zeros(52)
    scores[1 + ARKIT_INDEX["jawOpen"]] = 0.5
    detection = Detection(points_px=seen.points_px, depth_px=seen.depth_px, blendshapes=scores)
    tight = settings.model_copy(update={"expression_sigma": 1e-6, "score_sigma": 1e-6, "jaw_sigma": 1e-6})
    found = LandmarkFitter(asset, tight).fit(detection)
    assert np.abs(found.expression - 0.5 * asset.arkit_expression[ARKIT_INDEX["jawOpen"]]).max() < 1e-3
    assert found.jaw_pose == pytest.approx([0.2, 0, 0], abs=1e-4)


def test_unfitted_shape_components_are_zero(asset, settings):
    found = LandmarkFitter(asset, settings.model_copy(update={"shape_components": 4})).fit(
        _detection(asset, _truth(asset))
    )
    assert found.shape.shape == (asset.n_shape,)
    assert not found.shape[4:].any()
    assert found.shape[:4].any()


def test_a_face_that_cannot_be_explained_is_refused_by_name(asset, settings):
    fitter = LandmarkFitter(asset, settings.model_copy(update={"max_residual_mm": 1e-4}))
    detection = _detection(asset, _truth(asset), noise_px=2.0)
    with pytest.raises(PoorFitError, match=r"photo\.jpg"):
        fitter.checked(fitter.fit(detection), "photo.jpg")


def test_calibration_scales_shifts_and_stays_in_range():
    scores = np.zeros(52)
    scores[ARKIT_INDEX["jawOpen"]], scores[ARKIT_INDEX["browInnerUp"]] = 0.4, 0.9
    units = {"jawOpen": UnitCalibration(offset=0.1, gain=2.0), "browInnerUp": UnitCalibration(offset=0.0, gain=3.0)}
    weights = calibrated(scores, ARKIT_NAMES, units)
    assert weights[ARKIT_INDEX["jawOpen"]] == pytest.approx(0.6)
    assert weights[ARKIT_INDEX["browInnerUp"]] == 1.0
    assert weights.sum() == pytest.approx(1.6)


def test_calibration_refuses_unknown_units_and_wrong_lengths():
    with pytest.raises(DataError, match="jawOpn"):
        calibrated(np.zeros(52), ARKIT_NAMES, {"jawOpn": UnitCalibration(offset=0.0, gain=1.0)})
    with pytest.raises(ShapeError, match="52"):
        calibrated(np.zeros(51), ARKIT_NAMES, {})
