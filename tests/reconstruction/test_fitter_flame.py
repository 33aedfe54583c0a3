"""The landmark fit of a model without ARKit units, as FLAME is."""

import numpy as np
import pytest
import torch

from ecavatar.errors import DataError
from ecavatar.face.landmarks import mediapipe_points
from ecavatar.face.model import FaceAsset, FaceModel
from ecavatar.reconstruction.fitter import LandmarkFitter, Reconstruction
from ecavatar.reconstruction.landmarks import Detection


@pytest.fixture(scope="module")
def bare(asset) -> FaceAsset:
    fields = {name: getattr(asset, name) for name in asset.__dataclass_fields__}
    expression, jaw = np.zeros((0, asset.n_expression)), np.zeros((0, 3))
    return FaceAsset(**fields | {"arkit_names": (), "arkit_expression": expression, "arkit_jaw": jaw})


def seen(asset: FaceAsset, jaw: float, scores: float) -> tuple[Reconstruction, Detection]:
    draw = np.random.default_rng(2)
    truth = Reconstruction(
        shape=draw.normal(size=asset.n_shape), expression=draw.normal(size=asset.n_expression),
        jaw_pose=np.array([jaw, 0, 0]), rotation=np.eye(3), scale_px_per_m=1200.0,
        translation_px=np.array([128.0, 128.0]), residual_px=0.0, residual_mm=0.0, iterations=0, is_converged=True,
    )  # fmt: skip
    rows = [torch.tensor(c, dtype=torch.float64)[None] for c in (truth.shape, truth.expression, truth.jaw_pose)]
    everything = np.zeros((478, 3))
    everything[asset.mediapipe_indices] = truth.project(mediapipe_points(asset, FaceModel(asset)(*rows)[0].numpy()))
    detection = Detection(points_px=everything[:, :2], depth_px=everything[:, 2], blendshapes=np.full(52, scores))
    return truth, detection


def test_landmarks_alone_decide_and_scores_change_nothing(bare, settings):
    fitter = LandmarkFitter(bare, settings)
    truth, detection = seen(bare, jaw=0.25, scores=0.0)
    found, again = fitter.fit(detection), fitter.fit(seen(bare, jaw=0.25, scores=0.9)[1])
    np.testing.assert_array_equal(found.expression, again.expression)
    np.testing.assert_array_equal(found.jaw_pose, again.jaw_pose)
    assert found.is_converged
    assert found.residual_mm < 0.3
    assert abs(found.jaw_pose[0] - truth.jaw_pose[0]) < 0.05
    assert np.corrcoef(found.expression, truth.expression)[0, 1] > 0.9


def test_calibrations_of_units_that_the_model_lacks_are_no_error(bare, settings):
    from ecavatar.config import UnitCalibration

    units = {"jawOpen": UnitCalibration(offset=0.1, gain=2.0)}
    fitter = LandmarkFitter(bare, settings.model_copy(update={"units": units}))
    assert fitter.fit(seen(bare, jaw=0.1, scores=0.5)[1]).is_converged


def test_a_model_without_mediapipe_landmarks_is_refused_with_what_to_add(bare, settings):
    fields = {name: getattr(bare, name) for name in bare.__dataclass_fields__}
    none = {
        "mediapipe_indices": np.zeros(0),
        "mediapipe_faces": np.zeros(0),
        "mediapipe_barycentrics": np.zeros((0, 3)),
    }
    with pytest.raises(DataError, match="assets add flame-mediapipe FILE"):
        LandmarkFitter(FaceAsset(**fields | none), settings)
