"""A small head-like face asset whose landmarks, jaw and regions behave like a real one's."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from ecavatar.config import EmicaSettings, ReconstructSettings
from ecavatar.face.model import ARKIT_INDEX, ARKIT_NAMES, PARENTS, REGION_NAMES, FaceAsset

N_VERTICES, N_SHAPE, N_EXPRESSION, N_LANDMARKS = 300, 12, 15, 120


def _sphere(count: int) -> np.ndarray:
    height = 1 - 2 * (np.arange(count) + 0.5) / count
    turn = np.arange(count) * np.pi * (3 - 5**0.5)
    ring = np.sqrt(1 - height**2)
    return np.column_stack([ring * np.cos(turn), height, ring * np.sin(turn)])


def _regions(template: np.ndarray) -> dict[str, np.ndarray]:
    x, y, z = template.T
    is_back = z < -0.02
    parts = {"L": (~is_back) & (y < -0.03) & (z > 0.06), "C": (~is_back) & (y < -0.03) & (z <= 0.06),
             "F": (~is_back) & (y >= -0.03), "O": is_back}  # fmt: skip
    named = {"scalp": is_back & (y > 0), "left_ear": is_back & (x > 0.04), "right_ear": is_back & (x < -0.04),
             "upper_face": (~is_back) & (y > 0.02)}  # fmt: skip
    masks = {name: np.zeros(len(template), bool) for name in REGION_NAMES} | parts | named
    return {name: np.flatnonzero(mask) for name, mask in masks.items()}


@pytest.fixture(scope="session")
def asset() -> FaceAsset:
    """300 vertices on an ellipsoid; expression and jaw move the front only."""
    rng = np.random.default_rng(5)
    template = _sphere(N_VERTICES) * [0.08, 0.11, 0.1]
    faces = ConvexHull(template).simplices
    front = np.clip(template[:, 2] / 0.1, 0, 1)[:, None, None]
    jaw = ((template[:, 1] < -0.02) & (template[:, 2] > 0.0)).astype(float)
    skinning = np.zeros((N_VERTICES, 5))
    skinning[:, 2], skinning[:, 0] = jaw * 0.9, 1 - jaw * 0.9
    regressor = np.zeros((5, N_VERTICES))
    regressor[:, :20] = 1 / 20
    visible = np.flatnonzero(template[faces].mean(axis=1)[:, 2] > 0.03)
    chosen = rng.choice(visible, N_LANDMARKS)
    arkit_jaw = np.zeros((52, 3))
    arkit_jaw[ARKIT_INDEX["jawOpen"], 0] = 0.4
    return FaceAsset(
        topology="toy",
        basis="toy",
        template=template,
        faces=faces,
        shape_basis=rng.normal(size=(N_VERTICES, 3, N_SHAPE)) * 0.003,
        expression_basis=rng.normal(size=(N_VERTICES, 3, N_EXPRESSION)) * 0.003 * front,
        pose_basis=rng.normal(size=(N_VERTICES, 3, 36)) * 0.001 * front,
        joint_regressor=regressor,
        skinning=skinning,
        parents=np.array(PARENTS),
        regions=_regions(template),
        ibug68_faces=np.zeros(68),
        ibug68_barycentrics=np.full((68, 3), 1 / 3),
        mediapipe_indices=np.sort(rng.choice(478, N_LANDMARKS, replace=False)),
        mediapipe_faces=chosen,
        mediapipe_barycentrics=rng.dirichlet(np.ones(3), N_LANDMARKS),
        uv=np.zeros((1, 2)),
        uv_faces=np.zeros_like(faces),
        arkit_names=ARKIT_NAMES,
        arkit_expression=rng.normal(size=(52, N_EXPRESSION)) * 0.5,
        arkit_jaw=arkit_jaw,
    )


@pytest.fixture
def settings() -> ReconstructSettings:
    """Priors so weak that exact landmarks decide."""
    return ReconstructSettings(
        backend="landmarks",
        emica=EmicaSettings(device="cpu", batch=4, threads=1, crop="mediapipe", whole_image=False),
        shape_components=N_SHAPE,
        shape_sigma=100.0,
        expression_sigma=100.0,
        score_sigma=1.0,
        jaw_sigma=100.0,
        landmark_sigma_mm=0.1,
        depth_sigma_mm=0.1,
        max_iterations=100,
        max_residual_mm=5.0,
        units={},
        alignment="procrustes",
        shards=1,
        max_rejects=0.5,
    )
