"""A trained-from-nothing world small enough to train on in seconds."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ecavatar.config import FuNetSettings, PairsSettings, RigSettings, SelfTalkSettings, TrainingSettings
from ecavatar.corpora.vocaset import Vocaset
from ecavatar.face.model import FaceAsset
from ecavatar.mouth.fit import MouthFit
from ecavatar.storage.parquet import vector_column, write_table
from ecavatar.storage.shards import shard_path
from ecavatar.training.pairs import FacePool, draw_pairs, write_pairs
from ecavatar.vocateeth import build
from ecavatar.vocateeth.dataset import VocaTeeth
from tests.fabricate import write_hubert
from tests.fabricate_mouth import small_mouth

TRAINING = TrainingSettings(
    device="cpu", precision="no", threads=1, epochs=4, batch=3, accumulate=1, bucket=False, patience=None,
    learning_rate=0.01, schedule="cosine", clip_norm=1.0, validate_every=2, checkpoint_every=1,
)  # fmt: skip


@pytest.fixture(scope="session")
def training_settings():
    return TRAINING


@pytest.fixture(scope="session")
def selftalk_settings():
    return SelfTalkSettings(
        feature_dim=8, heads=2, dropout=0.1, output_scale_m=0.01, encoder="frozen", resample="before_projection",
        mouth="rigged", interpreter_layers=1,
        interpreter_heads=2, interpreter_ffn=8, reconstruction=1000.0, velocity=1000.0, latent=0.001, text=0.0001,
        angle=0.1, training=TRAINING,
    )  # fmt: skip


@pytest.fixture(scope="session")
def funet_settings():
    return FuNetSettings(
        channels=[2, 2, 2], hidden=8, normalise=True, residual="none", identity_sigma=0.0, warm_start=0,
        reduction="mean", chin_lip=0.35,
        chin_emotional=0.65, terms=["lip", "chin", "expression", "identity"], training=TRAINING,
    )  # fmt: skip


@pytest.fixture(scope="session")
def world(tmp_path_factory, small_face, small_vocaset) -> Path:
    """face.npz, vocateeth/, hubert/, pool/ and pairs/ of the small face."""
    root = tmp_path_factory.mktemp("world")
    small_face.save(root / "face.npz")
    _write_teeth(root / "vocateeth", Vocaset.open(small_vocaset), small_face)
    write_hubert(root / "hubert")
    _write_pool(root / "pool")
    (root / "pairs").mkdir()
    teeth, pool = VocaTeeth.open(root / "vocateeth"), FacePool.open(root / "pool")
    pairs = draw_pairs(teeth, pool.item_ids, PairsSettings(train=20, validation=5, validation_faces=0.25), seed=3)
    write_pairs(root / "pairs", pairs, teeth)
    return root


def _write_teeth(directory: Path, vocaset: Vocaset, asset: FaceAsset) -> None:
    """Networks read faces and angles alone, so the mouth lies anywhere: the small face has no lips to fit one to."""
    mouth, rig = small_mouth(), RigSettings(mouth="procedural", fps=30, patch_mm=0.0, max_rejects=0.1)
    fit = MouthFit(scale=1.0, rotation=np.eye(3), translation=np.zeros(3), axis=np.eye(3)[0], pivot=np.zeros(3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "fit_mouth", lambda *_: fit)
        patch.setattr(build, "outer_skin", lambda face: face.faces)
        for subject in build.subjects_of(vocaset):
            build.write_subject(directory, vocaset, subject, asset, mouth, rig)
    build.finish_vocateeth(directory, vocaset, asset, mouth, rig)


def _write_pool(directory: Path, count: int = 12) -> None:
    generator = np.random.default_rng(4)
    columns = {
        "item_id": pa.array([f"face{index:02d}" for index in range(count)]),
        "shape": vector_column(generator.normal(size=(count, 6))),
        "expression": vector_column(generator.normal(size=(count, 4))),
        "jaw_pose": vector_column(generator.normal(size=(count, 3)) * 0.1),
    }
    write_table(shard_path(directory, 0, 1), pa.table(columns), {"topology": "small", "basis": "small"})
