"""A small VOCASET whose jaws turn rigidly, and the table of their true angles."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa

from ecavatar.face.model import FaceAsset
from ecavatar.storage.parquet import write_table
from tests.fabricate_mouth import turned_jaw

SPEAKERS = {"FaceTalk_170728_03272_TA": "sentence01", "FaceTalk_170809_00138_TA": "sentence21"}
"""One subject of train and one of test, and what each says."""
FRAMES = 24
"""Of each clip, at 60 a second."""


def write_talkers(root: Path, asset: FaceAsset, swing: float) -> Path:
    """Two heads of different size whose jaws open up to twice `swing` radians; truth.parquet has their angles."""
    meshes, index, audio, templates, rows = [], {}, {}, {}, []
    for number, (subject, sentence) in enumerate(SPEAKERS.items()):
        template = (1 + 0.04 * number) * asset.template.astype(np.float64)
        angles = swing * (1 - np.cos(np.arange(FRAMES) / 4 + number)) * (np.arange(FRAMES) > 3)
        index[subject] = {sentence: {frame: number * FRAMES + frame for frame in range(FRAMES)}}
        meshes.append(np.stack([turned_jaw(asset, template, angle) for angle in angles]).astype(np.float32))
        wave = (np.sin(np.arange(22000 * FRAMES // 60) / 30) * 9000).astype(np.int16)
        audio[subject] = {sentence: {"audio": wave, "sample_rate": 22000}}
        templates[subject] = template
        rows += [(f"{subject}_{sentence}", frame, angle) for frame, angle in enumerate(angles)]
    np.save(root / "data_verts.npy", np.concatenate(meshes))
    for name, value in (("subj_seq_to_idx", index), ("raw_audio_fixed", audio), ("templates", templates)):
        (root / f"{name}.pkl").write_bytes(pickle.dumps(value, protocol=2))
    names, frames, values = zip(*rows, strict=True)
    table = {"clip_id": pa.array(names), "frame": pa.array(frames, pa.int32()), "jaw_angle": pa.array(values)}
    write_table(root / "truth.parquet", pa.table(table))
    return root
