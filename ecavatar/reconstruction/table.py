"""Many photographs to one table of faces: what a shard of `reconstruct_faces` computes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ecavatar.config import ReconstructSettings
from ecavatar.errors import DataError
from ecavatar.face.model import FaceAsset, FaceModel
from ecavatar.reconstruction.fitter import (
    LandmarkFitter,
    NoFaceError,
    PoorFitError,
    Reconstruction,
    reconstruct_with,
)
from ecavatar.reconstruction.images import FaceBox, Rgb, read_image
from ecavatar.reconstruction.landmarks import FaceLandmarker
from ecavatar.reconstruction.neutral import Alignment, align_to_zero_pose
from ecavatar.storage.files import resolve_inside
from ecavatar.storage.parquet import vector_column, vector_type
from ecavatar.storage.rejects import Reject

STAGE = "reconstruct_faces"
FITTED_SCHEMA = (
    ("jaw_pose", vector_type(3)),
    ("rotation", vector_type(9)),
    ("scale_px_per_m", pa.float32()),
    ("translation_px", vector_type(2)),
    ("residual_px", pa.float32()),
    ("residual_mm", pa.float32()),
    ("iterations", pa.int32()),
    ("is_converged", pa.bool_()),
    ("removed_transform", vector_type(16)),
    ("alignment_residual_m", pa.float32()),
    ("image_height_px", pa.int32()),
    ("image_width_px", pa.int32()),
)
"""What follows `shape` and `expression` in a row. `rotation` turns the head into the camera (row-major); with scale and
translation it is the weak-perspective camera. `removed_transform` (row-major 4 x 4, metres) took the posed mesh to pose
zero, leaving `alignment_residual_m`."""
_BOX = ("face_x_px", "face_y_px", "face_width_px", "face_height_px")

Record = Mapping[str, object]
ReadRecord = Callable[[Record], Rgb]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """One photograph's face and its alignment."""

    reconstruction: Reconstruction
    alignment: Alignment
    height_px: int
    width_px: int


@dataclass(frozen=True, slots=True)
class FaceTable:
    """Faces that were found, and records without one."""

    table: pa.Table
    rejects: list[Reject]


class Reconstructor:
    """Everything that turns photographs of one face model into rows; holds no open resources."""

    def __init__(self, asset: FaceAsset, settings: ReconstructSettings) -> None:
        """Prepare fitter and model; see `LandmarkFitter` for errors."""
        self.asset, self.settings = asset, settings
        self.fitter, self.model = LandmarkFitter(asset, settings), FaceModel(asset)

    @property
    def tags(self) -> dict[str, str]:
        """What a table of these faces must say about itself."""
        return {"topology": self.asset.topology, "basis": self.asset.basis, "backend": self.settings.backend}

    def face(self, image: Rgb, landmarker: FaceLandmarker, name: str, box: FaceBox | None = None) -> Fitted:
        """The face of one photograph.

        Raises:
            DataError: no face, or one that cannot be explained; the message starts a sentence with `name`.
        """
        found = reconstruct_with(self.fitter, image, landmarker, name=name, box=box)
        aligned = align_to_zero_pose(self.model, found, self.settings.alignment)
        return Fitted(reconstruction=found, alignment=aligned, height_px=image.shape[0], width_px=image.shape[1])

    def faces(self, records: pa.Table, read: ReadRecord, landmarker: FaceLandmarker) -> FaceTable:
        """A row for each record in which a face is found.

        Args:
            records: with `item_id`, optionally a face box; its columns start the table.
            read: gives a record's picture, or raises DataError.
            landmarker: of the thread that calls.
        """
        kept: list[int] = []
        fitted: list[Fitted] = []
        rejects: list[Reject] = []
        for place, record in enumerate(records.to_pylist()):
            name = str(record["item_id"])
            try:
                fitted.append(self.face(read(record), landmarker, name, _box(record)))
                kept.append(place)
            except DataError as error:
                rejects.append(Reject(name, STAGE, _reason(error), str(error)))
        table = records.take(pa.array(kept, pa.int64()))
        for name, column in self._columns(fitted).items():
            table = table.append_column(name, column)
        return FaceTable(table, rejects)

    def _columns(self, fitted: Sequence[Fitted]) -> dict[str, pa.Array]:
        columns: dict[str, pa.Array] = {
            "shape": _vectors([f.reconstruction.shape for f in fitted], self.asset.n_shape),
            "expression": _vectors([f.reconstruction.expression for f in fitted], self.asset.n_expression),
        }
        rows = [_fitted_values(f) for f in fitted]
        for place, (name, kind) in enumerate(FITTED_SCHEMA):
            values = [row[place] for row in rows]
            is_vector = pa.types.is_fixed_size_list(kind)
            columns[name] = _vectors(values, kind.list_size) if is_vector else pa.array(values, kind)
        return columns


def read_record_image(root: Path) -> ReadRecord:
    """Reads a record's `path` below `root`; refuses paths that lead elsewhere."""
    return lambda record: read_image(resolve_inside(root, str(record["path"])))


def _fitted_values(fitted: Fitted) -> tuple[object, ...]:
    found, aligned = fitted.reconstruction, fitted.alignment
    return (
        found.jaw_pose,
        found.rotation.ravel(),
        found.scale_px_per_m,
        found.translation_px,
        found.residual_px,
        found.residual_mm,
        found.iterations,
        found.is_converged,
        aligned.removed.ravel(),
        aligned.residual_m,
        fitted.height_px,
        fitted.width_px,
    )


def _vectors(rows: Sequence[object], width: int) -> pa.Array:
    return vector_column(np.array(rows, np.float32).reshape(len(rows), width))


def _box(record: Record) -> FaceBox | None:
    numbers = [record.get(name) for name in _BOX]
    return None if any(n is None for n in numbers) else FaceBox(*(float(str(n)) for n in numbers))


def _reason(error: DataError) -> str:
    if isinstance(error, NoFaceError):
        return "no_face"
    return "poor_fit" if isinstance(error, PoorFitError) else "unreadable_image"
