"""An Emolib release as one folder per item, the layout in which the field exchanges such data.

    <emotion>/level<k>/<item_id>/mesh.obj    expressive mesh at zero pose, metres, float32 digits
                                 shape.npy   float32 (S,)
                                 exp.npy     float32 (E,)
                                 jaw.npy     float32 (3,), axis-angle, radians
                                 label.json  item_id, source_id, split, emotion, level, valence, arousal

`ecavatar.corpora.emolib_zip` reads it back. It is over a hundred times the size of the release and slow to read; use
it for programs that know nothing else. Meshes carry the face model in them: where its licence forbids passing
it on, these folders must not be passed on either.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ecavatar.emolib.dataset import read_emolib, read_info
from ecavatar.emolib.meshes import expressive_vertices
from ecavatar.errors import BasisError, DataError
from ecavatar.face.mesh_file import write_mesh
from ecavatar.face.model import FaceAsset, FaceModel
from ecavatar.storage.files import atomic_path, resolve_inside, write_json

_ROWS = 16  # meshes made at a time
_ARRAYS = {"shape.npy": "shape", "exp.npy": "expression", "jaw.npy": "jaw_pose"}
_LABEL = ("item_id", "source_id", "split", "emotion", "level", "valence", "arousal")


def export_item_folders(release: Path, out: Path, asset: FaceAsset) -> int:
    """Write the items of `release` as folders below `out`, whole or not at all, and return how many.

    Args:
        release: an Emolib release.
        out: the folder to make; must not exist.
        asset: the face model of the release's basis.

    Raises:
        AssetMissingError: no release there.
        BasisError: `asset` is of another basis than the release's coefficients.
        DataError: `out` exists, or an item's id cannot name a folder.
        ShapeError: `asset` has fewer components than the release.
    """
    info = read_info(release)
    if asset.basis != info.basis:
        raise BasisError(
            f"{release} has coefficients of basis {info.basis!r}, the model is {asset.basis!r}. Give its own model."
        )
    if out.exists():
        raise DataError(f"{out} exists, and would be replaced. Name a folder that does not exist.")
    faces, model = read_emolib(release), FaceModel(asset)
    with atomic_path(out) as temporary:
        temporary.mkdir()
        for start in range(0, faces.num_rows, _ROWS):
            _write_items(temporary, faces.slice(start, _ROWS), model)
    return faces.num_rows


def _write_items(root: Path, faces: pa.Table, model: FaceModel) -> None:
    meshes = expressive_vertices(model, faces)
    for row, vertices in zip(faces.select([*_LABEL, *_ARRAYS.values()]).to_pylist(), meshes, strict=True):
        folder = resolve_inside(root, f"{row['emotion']}/level{row['level']}/{_folder_name(row['item_id'])}")
        folder.mkdir(parents=True)
        write_mesh(folder / "mesh.obj", vertices, model.asset.faces)
        for name, column in _ARRAYS.items():
            np.save(folder / name, np.array(row[column], np.float32), allow_pickle=False)
        write_json(folder / "label.json", _label(row))


def _folder_name(item_id: str) -> str:
    """The id itself, or where it is a path, as those of the authors' items are, with %2F for each slash."""
    if item_id in ("", ".", ".."):
        raise DataError(f"item id {item_id!r} cannot name a folder; select the images again.")
    return item_id.replace("%", "%25").replace("/", "%2F")


def _label(row: Mapping[str, Any]) -> dict[str, Any]:  # Any: a row of a table
    values = {name: row[name] for name in _LABEL}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}
