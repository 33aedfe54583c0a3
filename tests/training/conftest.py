"""A trained-from-nothing world small enough to train on in seconds."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ecavatar.config import FuNetSettings, PairsSettings, RigSettings, SelfTalkSettings, TrainingSettings
from ecavatar.corpora.vocaset import Vocaset
from ecavatar.storage.parquet import vector_column, write_table
from ecavatar.storage.shards import shard_path
from ecavatar.training.pairs import FacePool, draw_pairs, write_pairs
from ecavatar.vocateeth.dataset import VocaTeeth, finish_vocateeth, subjects_of, write_subject

TRAINING = TrainingSettings(
    device="cpu", precision="no", threads=1, epochs=4, batch=3, learning_rate=0.01, schedule="cosine", clip_norm=1.0,
    validate_every=2, checkpoint_every=1,
)  # fmt: skip


@pytest.fixture(scope="session")
def training_settings():
    return TRAINING


@pytest.fixture(scope="session")
def selftalk_settings():
    return SelfTalkSettings(
        feature_dim=8, heads=2, dropout=0.1, output_scale_m=0.01, encoder="frozen", interpreter_layers=1,
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
    vocaset, rig = Vocaset.open(small_vocaset), RigSettings(fps=30, patch_mm=0.0, max_rejects=0.1)
    for subject in subjects_of(vocaset):
        write_subject(root / "vocateeth", vocaset, subject, small_face, rig)
    finish_vocateeth(root / "vocateeth", vocaset, small_face, rig)
    _write_hubert(root / "hubert")
    _write_pool(root / "pool")
    (root / "pairs").mkdir()
    teeth, pool = VocaTeeth.open(root / "vocateeth"), FacePool.open(root / "pool")
    pairs = draw_pairs(teeth, pool.item_ids, PairsSettings(train=20, validation=5, validation_faces=0.25), seed=3)
    write_pairs(root / "pairs", pairs, teeth)
    return root


def _write_pool(directory: Path, count: int = 12) -> None:
    generator = np.random.default_rng(4)
    columns = {
        "item_id": pa.array([f"face{index:02d}" for index in range(count)]),
        "shape": vector_column(generator.normal(size=(count, 6))),
        "expression": vector_column(generator.normal(size=(count, 4))),
        "jaw_pose": vector_column(generator.normal(size=(count, 3)) * 0.1),
    }
    write_table(shard_path(directory, 0, 1), pa.table(columns), {"topology": "small", "basis": "small"})


def _write_hubert(directory: Path) -> None:
    import torch
    from transformers import HubertConfig, HubertForCTC, Wav2Vec2CTCTokenizer

    directory.mkdir()
    letters = {letter: index for index, letter in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", "E", "T", "A"])}
    (directory / "letters.json").write_text(json.dumps(letters))
    Wav2Vec2CTCTokenizer(str(directory / "letters.json")).save_pretrained(directory)
    with torch.random.fork_rng():
        torch.manual_seed(9)
        config = HubertConfig(
            vocab_size=len(letters), pad_token_id=0, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=24, conv_dim=[8, 8], conv_kernel=[10, 8], conv_stride=[10, 32],
            num_feat_extract_layers=2, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
        )  # fmt: skip
        HubertForCTC(config).save_pretrained(directory)
