"""The pictures of the report: what the datasets and the methods look like."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image

from ecavatar.animation.motion import Motion
from ecavatar.emotion import LEVELS, Emotion
from ecavatar.evaluation.figures import write_sheet
from ecavatar.face.model import FaceAsset, FaceModel
from ecavatar.reconstruction.fitter import Reconstruction
from ecavatar.reconstruction.images import read_image
from ecavatar.rendering.film import face_picture
from ecavatar.rendering.overlay import overlay, shown_faces
from ecavatar.storage.files import resolve_inside
from ecavatar.storage.parquet import vector_array

_NOTHING = np.zeros((0, 0, 3), np.uint8)


def draw_emolib(path: Path, faces: pa.Table, asset: FaceAsset, size_px: int) -> None:
    """One Emolib mesh per category and level: the first item by id."""
    pictures = [[_first_mesh(faces, emotion, level, asset, size_px) for level in LEVELS] for emotion in Emotion]
    write_sheet(path, pictures, rows=[e.label for e in Emotion], columns=[f"level {level}" for level in LEVELS])


def _first_mesh(faces: pa.Table, emotion: Emotion, level: int, asset: FaceAsset, size_px: int) -> np.ndarray:
    chosen = faces.filter(pc.and_(pc.equal(faces["emotion"], emotion.label), pc.equal(faces["level"], level)))
    if chosen.num_rows == 0:
        return _NOTHING
    return face_picture(_meshes(chosen.slice(0, 1), asset)[0], asset, size_px)


def draw_reconstruction(path: Path, faces: pa.Table, affectnet: Path, asset: FaceAsset, size_px: int) -> None:
    """For each category the strongest item: photo, the face laid over it, the face at pose zero, its neutral face.

    Args:
        path: PNG to write.
        faces: reconstructed Emolib faces with `path`, `emotion`, `level` and coefficients.
        affectnet: root of the corpus.
        asset: the face model.
        size_px: edge of one picture.
    """
    columns: list[list[np.ndarray]] = []
    names = []
    for emotion in Emotion:
        rows = faces.filter(pc.equal(faces["emotion"], emotion.label)).sort_by(
            [("level", "descending"), ("item_id", "ascending")]
        )
        if rows.num_rows == 0:
            continue
        names.append(emotion.label)
        row = rows.slice(0, 1)
        photo = read_image(resolve_inside(affectnet, row["path"][0].as_py()))
        meshes = (_meshes(row, asset)[0], _meshes(row, asset, neutral=True)[0])
        overlaid = overlay(photo, _camera(row).project(meshes[0]), shown_faces(asset))
        resized = [_square(picture, size_px) for picture in (photo, overlaid)]
        columns.append([*resized, *(face_picture(mesh, asset, size_px) for mesh in meshes)])
    rows_of_pictures = [list(row) for row in zip(*columns, strict=True)]
    write_sheet(path, rows_of_pictures, rows=["photo", "on photo", "face", "neutral"], columns=names)


def draw_motions(path: Path, motions: Mapping[str, Motion], asset: FaceAsset, size_px: int, count: int = 8) -> None:
    """The same moments of one clip, one row per method."""
    frames = min(len(motion.vertices) for motion in motions.values())
    moments = np.linspace(0, frames - 1, count).round().astype(int)
    fps = next(iter(motions.values())).fps
    pictures = [[face_picture(m.vertices[t], asset, size_px) for t in moments] for m in motions.values()]
    write_sheet(path, pictures, rows=list(motions), columns=[f"{t / fps:.2f} s" for t in moments])


def draw_emotions(path: Path, motions: Sequence[tuple[str, Motion]], asset: FaceAsset, size_px: int) -> None:
    """The middle frame of one clip per label, from the front and from the side."""
    middles = [(name, motion.vertices[len(motion.vertices) // 2]) for name, motion in motions]
    pictures = [[face_picture(mesh, asset, size_px, yaw=yaw) for _, mesh in middles] for yaw in (0.0, 0.6)]
    write_sheet(path, pictures, rows=["front", "three-quarter"], columns=[name for name, _ in middles])


def _square(picture: np.ndarray, size_px: int) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((size_px, size_px), Image.Resampling.LANCZOS))


def _camera(row: pa.Table) -> Reconstruction:
    """The reconstruction that a row of faces holds."""
    vectors = {name: vector_array(row[name])[0] for name in ("shape", "expression", "jaw_pose", "translation_px")}
    scalars = ("scale_px_per_m", "residual_px", "residual_mm", "iterations", "is_converged")
    rotation = vector_array(row["rotation"])[0].reshape(3, 3)
    return Reconstruction(rotation=rotation, **vectors, **{name: row[name][0].as_py() for name in scalars})


def _meshes(rows: pa.Table, asset: FaceAsset, *, neutral: bool = False) -> np.ndarray:
    shape, expression, jaw = (
        torch.from_numpy(np.array(vector_array(rows[name]))) for name in ("shape", "expression", "jaw_pose")
    )
    with torch.inference_mode():
        return FaceModel(asset)(shape, expression * (not neutral), jaw * (not neutral)).numpy()
