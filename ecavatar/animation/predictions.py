"""Predicted motions of one method on disk: one Parquet file per corpus and subject, face vertices only.

Rows are frames, sorted by clip and frame; the subject's neutral face and the frame rate travel with them. The mouth is
left out: it is a cheap function of the face and the jaw angle.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecavatar.animation.motion import Motion
from ecavatar.errors import DataError
from ecavatar.storage.parquet import mesh_array, mesh_column, write_table

_FPS, _TOPOLOGY = "ecavatar.fps", "ecavatar.topology"


def subject_file(directory: Path, corpus: str, subject: str) -> Path:
    """Where the predictions of one corpus and subject lie inside a method's directory."""
    return directory / corpus / f"{subject}.parquet"


def write_predictions(path: Path, clips: Iterable[tuple[str, Motion]]) -> None:
    """Write the clips of one subject, whole or not at all.

    Row 0 of the file is the subject's neutral face, with an empty clip id and frame -1.

    Args:
        path: see `subject_file`.
        clips: clip id and motion, all of one topology, frame rate and template.

    Raises:
        DataError: no clips, or they disagree.
    """
    named = sorted(clips, key=lambda item: item[0])
    if not named:
        raise DataError(f"no clips to write to {path}.")
    first = named[0][1]
    for clip_id, motion in named:
        same_template = np.array_equal(motion.template, first.template)
        if (motion.fps, motion.topology) != (first.fps, first.topology) or not same_template:
            raise DataError(f"{clip_id} differs from {named[0][0]} in frame rate, topology or neutral face.")
    clip_ids = [""] + [clip_id for clip_id, motion in named for _ in range(len(motion.vertices))]
    frames = [-1] + [frame for _, motion in named for frame in range(len(motion.vertices))]
    vertices = np.concatenate([first.template[None], *(motion.vertices for _, motion in named)])
    table = pa.table(
        {
            "clip_id": pa.array(clip_ids, pa.string()),
            "frame": pa.array(frames, pa.int32()),
            "vertices": mesh_column(vertices.astype(np.float32)),
        }
    )
    write_table(path, table, metadata={_FPS: str(first.fps), _TOPOLOGY: first.topology})


def read_predictions(path: Path) -> Iterator[tuple[str, Motion]]:
    """The clips of one subject, in order.

    Raises:
        DataError: the file was not written by `write_predictions`.
    """
    table = pq.read_table(path)
    facts = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    if _FPS not in facts or table.num_rows == 0:
        raise DataError(f"{path} is not a predictions file.")
    clip_ids = table["clip_id"].to_numpy()
    vertices = mesh_array(table["vertices"])
    starts = np.flatnonzero(np.r_[True, clip_ids[1:] != clip_ids[:-1]])
    ends = np.r_[starts[1:], len(clip_ids)]
    for start, end in list(zip(starts, ends, strict=True))[1:]:
        yield (
            str(clip_ids[start]),
            Motion(
                vertices=vertices[start:end],
                fps=float(facts[_FPS]),
                topology=facts[_TOPOLOGY],
                template=vertices[0],
            ),
        )
