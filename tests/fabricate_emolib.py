"""Small Emolib releases for tests: random faces of any face model, labelled and placed like real ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from ecavatar.config import ExportSettings
from ecavatar.emolib.dataset import write_emolib
from ecavatar.emotion import LEVELS, Emotion
from ecavatar.face.model import FaceAsset
from ecavatar.storage.parquet import vector_column

LEAN = ExportSettings(vertices="none", images=False, rows_per_file=1000)


def fabricated_faces(asset: FaceAsset, count: int = 48, seed: int = 0) -> pa.Table:
    """`count` faces over all 24 label pairs, every eighth in val; row k depends on seed and k alone."""
    rows = [_row(asset, seed, k) for k in range(count)]
    vectors = {name: vector_column(np.stack([row[name] for row in rows])) for name, value in rows[0].items()
               if isinstance(value, np.ndarray)}  # fmt: skip
    others = {name: pa.array([row[name] for row in rows]) for name in rows[0] if name not in vectors}
    return pa.table({**others, **vectors}).sort_by("item_id")


def _row(asset: FaceAsset, seed: int, k: int) -> dict[str, object]:
    generator = np.random.default_rng([seed, k])
    emotion, level = list(Emotion)[k % 8], LEVELS[k // 8 % 3]
    rotation = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    return {
        "item_id": f"{emotion.label}_{level}_{k // 24:06d}",
        "source_id": f"{k % 7}/{generator.bytes(16).hex()}.jpg",
        "path": f"images/{k}.jpg",
        "split": "val" if k % 9 == 8 else "train",
        "emotion": emotion.label,
        "level": level,
        "valence": float(generator.uniform(-1, 1)),
        "arousal": float(generator.uniform(-1, 1)),
        "shape": generator.normal(size=asset.n_shape),
        "expression": generator.normal(size=asset.n_expression),
        "jaw_pose": generator.normal(size=3) * 0.1,
        "rotation": rotation.reshape(-1),
        "scale_px_per_m": float(generator.uniform(500, 900)),
        "translation_px": generator.normal(size=2) * 100,
        "image_height_px": 224,
        "image_width_px": 224,
        "removed_transform": np.eye(4).reshape(-1),
        "alignment_residual_m": 1e-4,
        "alignment_is_converged": True,
        "residual_mm": 1.5,
        "perceptual_hash": generator.bytes(32).hex(),
    }


def write_release(
    directory: Path, asset: FaceAsset, faces: pa.Table | Sequence[Path], settings: ExportSettings = LEAN
) -> Path:
    """A release of the sample world's faces."""
    write_emolib(
        directory, faces, asset=asset, backend="landmarks", settings=settings, source="sample",
        read_image_bytes=lambda record: str(record["source_id"]).encode(),
    )  # fmt: skip
    return directory


def changed_column(table: pa.Table, name: str, values: Sequence[object]) -> pa.Table:
    """`table` with other values in one column, its type kept."""
    column = pa.array(values, table.schema.field(name).type)
    return table.set_column(table.schema.get_field_index(name), name, column)
