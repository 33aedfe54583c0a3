"""What an Emolib release consists of: its columns, its splits, and what it says about itself."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from ecavatar.storage.parquet import vector_type

SCHEMA_VERSION = "1.0.0"
SPLITS = ("train", "val")


def schema(n_shape: int, n_expression: int) -> pa.Schema:
    """Columns of one Emolib row."""
    return pa.schema(
        [
            ("item_id", pa.string()),
            ("source_id", pa.string()),
            ("split", pa.string()),
            ("emotion", pa.string()),
            ("emotion_code", pa.int8()),
            ("level", pa.int8()),
            ("valence", pa.float32()),
            ("arousal", pa.float32()),
            ("shape", vector_type(n_shape)),
            ("expression", vector_type(n_expression)),
            ("jaw_pose", vector_type(3)),
            ("removed_transform", vector_type(16)),
            ("alignment_residual_m", pa.float32()),
            ("residual_mm", pa.float32()),
            ("topology", pa.string()),
            ("basis", pa.string()),
        ]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EmolibInfo:
    """What a release says about itself."""

    topology: str
    basis: str
    backend: str
    n_shape: int
    n_expression: int
    counts: Mapping[str, Mapping[str, int]]
    """Items by emotion label and level."""
