"""Fixtures shared by all rooms."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from ecavatar.face.model import ARKIT_NAMES, PARENTS, FaceAsset
from tests.fabricate import write_vocaset

settings.register_profile("same", derandomize=True, deadline=None)  # a commit passes or fails, whoever runs it
settings.load_profile("same")  # `pytest --hypothesis-profile=default` looks for new cases

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout under test."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Test-only data beside the checkout; tests that need it skip without it, saying so."""
    path = REPOSITORY.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("../shared/data (test-only licensed samples) is not beside this checkout")
    return path


@pytest.fixture(scope="session")
def small_face() -> FaceAsset:
    """A head of 226 vertices in the schema of every face model: an egg with ears, lips and a jaw that turns rigidly."""
    rings, spokes = 14, 16
    theta = np.linspace(0, np.pi, rings + 2)[1:-1, None]
    phi = np.linspace(0, 2 * np.pi, spokes, endpoint=False)[None] + np.pi / 2  # the first spoke runs down the face
    ball = np.stack([np.sin(theta) * -np.cos(phi), np.cos(theta) + 0 * phi, np.sin(theta) * np.sin(phi)], axis=-1)
    unit = np.concatenate([ball.reshape(-1, 3), [[0, 1, 0], [0, -1, 0]]])
    quads = [(r * spokes + s, r * spokes + (s + 1) % spokes) for r in range(rings) for s in range(spokes)]
    faces = [(a, a + spokes, b) for a, b in quads[:-spokes]] + [(b, a + spokes, b + spokes) for a, b in quads[:-spokes]]
    faces += [(spokes * rings, a, b) for a, b in quads[:spokes]]
    faces += [(spokes * rings + 1, b, a) for a, b in quads[-spokes:]]
    template = unit * (0.075, 0.11, 0.095)
    regions = _small_regions(unit)
    v, generator = len(unit), np.random.default_rng(5)
    jaw = np.isin(np.arange(v), regions["C"]) | (np.isin(np.arange(v), regions["lips"]) & (unit[:, 1] < -0.4))
    skinning = np.zeros((v, 5))
    skinning[np.arange(v), np.where(jaw, 2, 0)] = 1
    regressor = np.zeros((5, v))
    regressor[:, regions["left_ear"]] = 0.5 / len(regions["left_ear"])
    regressor[:, regions["right_ear"]] = 0.5 / len(regions["right_ear"])
    waves = np.cos(unit @ generator.normal(size=(3, 10)) * 1.5) * 0.003
    bases = waves[:, None, :] * generator.normal(size=(1, 3, 10))
    corners, third = len(unit), np.full((68, 3), 1 / 3)
    return FaceAsset(
        topology="small", basis="small", template=template, faces=np.array(faces), shape_basis=bases[..., :6],
        expression_basis=bases[..., 6:], pose_basis=np.zeros((v, 3, 36)), joint_regressor=regressor, skinning=skinning,
        parents=np.array(PARENTS), regions=regions, ibug68_faces=np.arange(68), ibug68_barycentrics=third,
        mediapipe_indices=np.arange(20), mediapipe_faces=np.arange(20), mediapipe_barycentrics=third[:20],
        uv=(unit[:, :2] + 1) / 2, uv_faces=np.array(faces) % corners, arkit_names=ARKIT_NAMES,
        arkit_expression=generator.normal(size=(52, 4)), arkit_jaw=np.zeros((52, 3)),
    )  # fmt: skip


@pytest.fixture(scope="session")
def small_vocaset(tmp_path_factory: pytest.TempPathFactory, small_face: FaceAsset) -> Path:
    """A raw VOCASET of `small_face`."""
    root = tmp_path_factory.mktemp("vocaset")
    write_vocaset(root, small_face)
    return root


@pytest.fixture(scope="session")
def load(tmp_path_factory):
    """`datasets.load_dataset` without a network and with a cache of its own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_DATASETS_OFFLINE", "1")
    patch.setenv("HF_HUB_OFFLINE", "1")
    cache = tmp_path_factory.mktemp("cache")

    def load(*args, **more):
        import datasets

        return datasets.load_dataset(*args, cache_dir=str(cache), **more)

    yield load
    patch.undo()


def _small_regions(unit: np.ndarray) -> dict[str, np.ndarray]:
    x, y, z = unit.T
    is_front = z > 0.2
    masks = {
        "left_ear": x > 0.9,
        "right_ear": x < -0.9,
        "lips": is_front & (abs(x) < 0.4) & (abs(y + 0.4) < 0.2),
        "nose": is_front & (abs(x) < 0.2) & (y > -0.2) & (y < 0.25),
        "neck": (y < -0.85) & ~is_front,
        "scalp": (y > 0.8) | ((z < -0.2) & (y > 0)),
        "left_eyeball": np.zeros(len(unit), bool),
        "right_eyeball": np.zeros(len(unit), bool),
        "forehead": is_front & (y > 0.5) & (y <= 0.8),
        "eye_region": is_front & (y > 0.1) & (y <= 0.5) & (abs(x) >= 0.2),
        "face": z > 0.1,
    }
    masks["upper_face"] = masks["forehead"] | masks["eye_region"]
    masks["L"] = masks["lips"]
    masks["C"] = is_front & (y < -0.2) & ~masks["lips"]
    masks["F"] = is_front & ~masks["L"] & ~masks["C"] & ~masks["nose"] & (y <= 0.8)
    masks["O"] = ~(masks["L"] | masks["C"] | masks["F"])
    return {name: np.flatnonzero(mask) for name, mask in masks.items()}
