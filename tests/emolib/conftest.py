"""A small Emolib: forty invented faces of the small head."""

import numpy as np
import pyarrow as pa
import pytest

from ecavatar.config import ExportSettings
from ecavatar.emolib.dataset import write_emolib
from ecavatar.emotion import Emotion
from ecavatar.storage.parquet import vector_column


def invented_faces(count: int, seed: int = 0) -> pa.Table:
    """Rows as `reconstruct_faces` writes them; every eighth is of val, none is contempt, fear has no level 1."""
    rng = np.random.default_rng(seed)
    emotions = rng.integers(0, 7, count)
    levels = np.where(emotions == Emotion.FEAR, rng.integers(2, 4, count), rng.integers(1, 4, count))
    return pa.table(
        {
            "item_id": [f"item_{i:06d}" for i in range(count)],
            "source_id": [f"1/{i}.jpg" for i in range(count)],
            "path": [f"1/{i}.JPG" for i in range(count)],
            "split": ["val" if i % 8 == 0 else "train" for i in range(count)],
            "emotion": [Emotion(int(code)).label for code in emotions],
            "level": levels,
            "valence": rng.uniform(-1, 1, count),
            "arousal": rng.uniform(-1, 1, count),
            "content_sha256": [rng.bytes(32).hex() for _ in range(count)],
            "perceptual_hash": [rng.bytes(32).hex() for _ in range(count)],
            "shape": vector_column(rng.normal(size=(count, 6))),
            "expression": vector_column(rng.normal(size=(count, 4))),
            "jaw_pose": vector_column(rng.normal(size=(count, 3)) * 0.1),
            "rotation": vector_column(np.tile(np.eye(3).ravel(), (count, 1))),
            "scale_px_per_m": rng.uniform(500, 1500, count),
            "translation_px": vector_column(rng.uniform(0, 200, (count, 2))),
            "residual_px": np.ones(count),
            "residual_mm": np.where(np.arange(count) % 5, 1.0, np.nan),
            "iterations": np.full(count, 7),
            "is_converged": np.ones(count, bool),
            "removed_transform": vector_column(np.tile(np.eye(4).ravel(), (count, 1))),
            "alignment_residual_m": np.zeros(count),
            "alignment_is_converged": np.ones(count, bool),
            "image_height_px": np.full(count, 224),
            "image_width_px": np.full(count, 200),
        }
    )


def export_settings(vertices: str = "none", *, images: bool = False, rows_per_file: int = 1000) -> ExportSettings:
    """What a release holds."""
    return ExportSettings(vertices=vertices, images=images, rows_per_file=rows_per_file)


@pytest.fixture(scope="session")
def faces() -> pa.Table:
    """Forty faces."""
    return invented_faces(40)


@pytest.fixture(scope="session")
def picture_of():
    """Bytes of a small picture for each row, as `read_image_bytes` gives them."""
    import io

    from PIL import Image

    def read(record):
        buffer = io.BytesIO()
        colour = (int(record["source_id"][2:-4]) % 256, 100, 50)
        Image.new("RGB", (6, 4), colour).save(buffer, "PNG")
        return buffer.getvalue()

    return read


@pytest.fixture(scope="session")
def write(small_face):
    """`write_emolib` for the small head."""

    def write(directory, faces, settings=None, **more):
        how = {"asset": small_face, "backend": "landmarks", "settings": settings or export_settings()}
        return write_emolib(directory, faces, **(how | more))

    return write


@pytest.fixture(scope="session")
def full_release(tmp_path_factory, write, faces, picture_of):
    """A release of every config but int16, three files of train and one of val; do not change it."""
    directory = tmp_path_factory.mktemp("release") / "emolib"
    settings = export_settings("float32", images=True, rows_per_file=13)
    write(directory, faces, settings, read_image_bytes=picture_of, source="sample")
    return directory


@pytest.fixture(scope="session")
def int16_release(tmp_path_factory, write, faces):
    """A release with meshes in steps of 10 micrometres; do not change it."""
    directory = tmp_path_factory.mktemp("release") / "emolib"
    write(directory, faces, export_settings("int16", rows_per_file=13), source="affectnet")
    return directory
