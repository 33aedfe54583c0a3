"""What really happened: VOCASET's own meshes, and the motion that made the sample world's films."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from ecavatar.animation.motion import Motion
from ecavatar.corpora.vocaset import Vocaset
from ecavatar.errors import ShapeError
from ecavatar.evaluation.protocol import VOCASET_FPS
from ecavatar.face.model import FaceAsset, FaceModel
from ecavatar.face.tags import require_basis
from ecavatar.storage.parquet import read_table, table_metadata, vector_array


def vocaset_truth(root: Path, topology: str) -> Iterator[tuple[str, Motion]]:
    """Clip id and true motion of VOCASET's test clips, in order."""
    vocaset = Vocaset.open(root)
    for clip in vocaset.clips:
        if clip.split == "test":
            yield (
                clip.clip_id,
                Motion(
                    vertices=vocaset.vertices(clip, VOCASET_FPS),
                    fps=VOCASET_FPS,
                    topology=topology,
                    template=vocaset.templates[clip.subject],
                ),
            )


def acted_truth(path: Path, asset: FaceAsset) -> Iterator[tuple[str, Motion]]:
    """Clip id and true motion of the sample world's films, in order.

    Args:
        path: truth/<corpus>.parquet: one row per frame with clip_id, frame, shape, expression, jaw_pose; frames per
            second in the metadata.
        asset: the face model whose basis the coefficients belong to.

    Raises:
        BasisError: they belong to another.
    """
    table = read_table(path)
    metadata = table_metadata(path)
    require_basis(asset, metadata.get("basis"), path)
    fps = float(metadata["fps"])
    model = FaceModel(asset)
    clip_ids = table["clip_id"].to_numpy(zero_copy_only=False)
    columns = [torch.from_numpy(np.array(vector_array(table[name]))) for name in ("shape", "expression", "jaw_pose")]
    for clip_id in pd.unique(clip_ids):
        rows = np.flatnonzero(clip_ids == clip_id)
        shape, expression, jaw = (column[rows] for column in columns)
        with torch.inference_mode():
            vertices = model(shape, expression, jaw).numpy()
            template = model(shape[:1], expression[:1] * 0)[0].numpy()
        yield str(clip_id), Motion(vertices=vertices, fps=fps, topology=asset.topology, template=template)


def correlation(estimated: Float[np.ndarray, "*any"], true: Float[np.ndarray, "*any"]) -> float:
    """Pearson correlation over all numbers of two arrays of one shape.

    Raises:
        ShapeError: shapes differ.
    """
    if estimated.shape != true.shape:
        raise ShapeError(f"correlation needs arrays of one shape, got {estimated.shape} and {true.shape}.")
    return float(np.corrcoef(estimated.reshape(-1).astype(np.float64), true.reshape(-1).astype(np.float64))[0, 1])


def region_displacements(
    model: FaceModel,
    shape: Float[np.ndarray, "faces s"],
    expression: Float[np.ndarray, "faces e"],
    jaw_pose: Float[np.ndarray, "faces 3"],
    region: Int[np.ndarray, "k"],
) -> Float[np.ndarray, "faces k 3"]:
    """Displacement of a region's vertices from each face's own neutral, metres."""
    shapes, expressions, jaws = (torch.as_tensor(np.array(x, np.float32)) for x in (shape, expression, jaw_pose))
    with torch.inference_mode():
        moved = model(shapes, expressions, jaws) - model(shapes, expressions * 0)
    return moved.numpy()[:, region]
