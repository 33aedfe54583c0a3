"""A tiny face asset with every part filled, for tests of the schema and the forward pass."""

import numpy as np
import pytest

from ecavatar.face.model import ARKIT_NAMES, PARENTS, REGION_NAMES, FaceAsset

V, F, S, E, K = 24, 30, 5, 4, 3


def tiny_fields(seed: int = 0) -> dict:
    draw = np.random.default_rng(seed)
    skinning = draw.random((V, 5)) + 0.01
    regressor = draw.random((5, V))
    barycentrics = draw.dirichlet([1, 1, 1], 68)
    parts = np.array_split(draw.permutation(V), 4)
    regions = {name: np.array([1, 5]) for name in REGION_NAMES}
    regions |= {name: np.sort(part) for name, part in zip("LCFO", parts, strict=True)}
    return {
        "topology": "tiny", "basis": "tiny-basis", "template": draw.normal(0, 0.1, (V, 3)),
        "faces": draw.integers(0, V, (F, 3)), "shape_basis": draw.normal(0, 0.01, (V, 3, S)),
        "expression_basis": draw.normal(0, 0.01, (V, 3, E)), "pose_basis": draw.normal(0, 0.01, (V, 3, 36)),
        "joint_regressor": regressor / regressor.sum(1, keepdims=True),
        "skinning": skinning / skinning.sum(1, keepdims=True), "parents": np.array(PARENTS), "regions": regions,
        "ibug68_faces": draw.integers(0, F, 68), "ibug68_barycentrics": barycentrics,
        "mediapipe_indices": np.arange(K), "mediapipe_faces": draw.integers(0, F, K),
        "mediapipe_barycentrics": barycentrics[:K], "uv": draw.random((V, 2)), "uv_faces": draw.integers(0, V, (F, 3)),
        "arkit_names": ARKIT_NAMES, "arkit_expression": draw.normal(0, 1, (52, E)),
        "arkit_jaw": draw.normal(0, 0.1, (52, 3)),
    }  # fmt: skip


@pytest.fixture
def fields() -> dict:
    return tiny_fields()


@pytest.fixture
def asset() -> FaceAsset:
    return FaceAsset(**tiny_fields())
