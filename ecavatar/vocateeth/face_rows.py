"""Columns of VOCATeeth's meshes, stored with or without the mouth."""

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from ecavatar.corpora.vocaset import VocasetClip
from ecavatar.vocateeth.dataset import TeethClip


def face_schema(n_vertices: int) -> pa.Schema:
    """One row a frame. Nothing can be null, also inwards: without marks for nulls, meshes are read a third quicker."""
    point = pa.list_(pa.field("element", pa.float32(), nullable=False), 3)
    mesh = pa.list_(pa.field("element", point, nullable=False), n_vertices)
    texts = [(name, pa.string()) for name in ("clip_id", "subject", "sentence", "split")]
    columns = [*texts, ("frame", pa.int32()), ("angle", pa.float32()), ("vertices", mesh)]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns])


def face_table(
    clip: VocasetClip | TeethClip,
    angles: Float[np.ndarray, " T"],
    vertices: Float[np.ndarray, "T N 3"],
    schema: pa.Schema,
) -> pa.Table:
    """All frames of a clip as rows of `schema`."""
    count, mesh = len(vertices), schema.field("vertices").type
    flat = pa.array(np.ascontiguousarray(vertices, dtype=np.float32).reshape(-1))
    points = pa.FixedSizeListArray.from_arrays(flat, type=mesh.value_type)
    columns = [
        *(pa.array([value] * count) for value in (clip.clip_id, clip.subject, clip.sentence, clip.split)),
        pa.array(np.arange(count, dtype=np.int32)),
        pa.array(angles.astype(np.float32)),
        pa.FixedSizeListArray.from_arrays(points, type=mesh),
    ]
    return pa.table(columns, schema=schema)
