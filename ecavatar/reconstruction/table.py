"""Many photographs to one table of faces: what a shard of `reconstruct_faces` computes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from ecavatar.config import ReconstructSettings
from ecavatar.errors import AssetMissingError, DataError
from ecavatar.face.model import FaceAsset, FaceModel
from ecavatar.reconstruction.emica.encoder import NoCameraError, load_emica
from ecavatar.reconstruction.emica.fitter import EmicaFitter, Sighting
from ecavatar.reconstruction.emica.networks import N_LIGHT
from ecavatar.reconstruction.fitter import (
    LandmarkFitter,
    NoFaceError,
    PoorFitError,
    Reconstruction,
    reconstruct_with,
)
from ecavatar.reconstruction.images import FaceBox, ImageError, Rgb, read_image
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
    ("alignment_is_converged", pa.bool_()),
    ("image_height_px", pa.int32()),
    ("image_width_px", pa.int32()),
)
"""What follows `shape` and `expression` in a row. `rotation` turns the head into the camera (row-major); with scale and
translation it is the weak-perspective camera. `removed_transform` (row-major 4 x 4, metres) took the posed mesh to pose
zero, leaving `alignment_residual_m`. EMICA takes no iterations; its residuals are NaN where no landmarks were seen."""
EMICA_SCHEMA = (("light", vector_type(N_LIGHT)),)
"""What follows in rows of the backend `emica`: 9 spherical harmonics by 3 colours, row-major."""
_BOX = ("face_x_px", "face_y_px", "face_width_px", "face_height_px")

Record = Mapping[str, object]
ReadRecord = Callable[[Record], Rgb]
ReadLandmarks = Callable[[Record], Float[np.ndarray, "68 2"] | None]
"""Gives the corpus's own 68 landmarks of a record, in pixels of its picture; None where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """One photograph's face and its alignment."""

    reconstruction: Reconstruction
    alignment: Alignment
    height_px: int
    width_px: int
    light: Float[np.ndarray, "27"] | None = None
    """Only EMICA says how the face is lit."""


@dataclass(frozen=True, slots=True)
class FaceTable:
    """Faces that were found, and records without one."""

    table: pa.Table
    rejects: list[Reject]


_Outcome = tuple[int, str, Fitted | DataError]
"""Place of the record, its id, and its face or why it has none."""


class Reconstructor:
    """Everything that turns photographs of one face model into rows; holds no open resources."""

    def __init__(self, asset: FaceAsset, settings: ReconstructSettings, emica: Path | None = None) -> None:
        """Prepare the backend that `settings` names.

        Args:
            asset: the face model.
            settings: of the backend and of the alignment.
            emica: EMICA's converted checkpoint; needed by the backend `emica` only.

        Raises:
            AssetMissingError: the checkpoint is needed and not there.
            BasisError: the checkpoint's coefficients are not the face model's.
            DataError: see `LandmarkFitter` and `load_emica`.
        """
        self.asset, self.settings, self.model = asset, settings, FaceModel(asset)
        self._backend = _backend(asset, settings, emica)

    @property
    def tags(self) -> dict[str, str]:
        """What a table of these faces must say about itself."""
        return {"topology": self.asset.topology, "basis": self.asset.basis, "backend": self.settings.backend}

    def face(
        self,
        image: Rgb,
        landmarker: FaceLandmarker,
        name: str,
        box: FaceBox | None = None,
        landmarks: Float[np.ndarray, "68 2"] | None = None,
    ) -> Fitted:
        """The face of one photograph.

        Args:
            image: 8-bit RGB.
            landmarker: finds landmarks.
            name: how messages call the image.
            box: where the face is, if known.
            landmarks: the corpus's own, for EMICA's setting `crop: corpus`.

        Raises:
            DataError: no face, or one that cannot be explained; the message starts a sentence with `name`.
        """
        if isinstance(self._backend, LandmarkFitter):
            found = reconstruct_with(self._backend, image, landmarker, name=name, box=box)
            return self._fitted(found, image.shape[0], image.shape[1])
        sighting = self._backend.sight(image, landmarker, name, box, landmarks)
        outcome = next(self._encoded(self._backend, [(0, name, sighting)]))[2]
        if isinstance(outcome, DataError):
            raise outcome
        return outcome

    def faces(
        self,
        records: pa.Table,
        read: ReadRecord,
        landmarker: FaceLandmarker,
        landmarks: ReadLandmarks | None = None,
    ) -> FaceTable:
        """A row for each record in which a face is found.

        Args:
            records: with `item_id`, optionally a face box; its columns start the table.
            read: gives a record's picture, or raises DataError.
            landmarker: of the thread that calls.
            landmarks: gives a record's own landmarks; needed for EMICA's setting `crop: corpus`.

        Raises:
            ConfigError: EMICA is to crop by the corpus's landmarks and `landmarks` is not given.
        """
        if isinstance(self._backend, LandmarkFitter):
            outcomes = self._one_by_one(records, read, landmarker)
        else:
            outcomes = self._in_batches(self._backend, records, read, landmarker, landmarks)
        kept: list[int] = []
        rows: list[tuple[object, ...]] = []  # of numbers only: a `Fitted` holds a whole mesh
        rejects: list[Reject] = []
        for place, name, outcome in outcomes:
            if isinstance(outcome, Fitted):
                kept.append(place)
                rows.append(_values(outcome))
            else:
                rejects.append(Reject(name, STAGE, _reason(outcome), str(outcome)))
        table = records.take(pa.array(kept, pa.int64()))
        for name, column in self._columns(rows).items():
            table = table.append_column(name, column)
        return FaceTable(table, rejects)

    def _one_by_one(self, records: pa.Table, read: ReadRecord, landmarker: FaceLandmarker) -> Iterator[_Outcome]:
        for place, record in enumerate(records.to_pylist()):
            name = str(record["item_id"])
            try:
                yield place, name, self.face(read(record), landmarker, name, _box(record))
            except DataError as error:
                yield place, name, error

    def _in_batches(
        self,
        emica: EmicaFitter,
        records: pa.Table,
        read: ReadRecord,
        landmarker: FaceLandmarker,
        landmarks: ReadLandmarks | None,
    ) -> Iterator[_Outcome]:
        """Outcomes in the records' order; at most one batch of crops is held, and no picture."""
        emica.require_landmarks(are_given=landmarks is not None)
        waiting: list[tuple[int, str, Sighting | DataError]] = []
        for place, record in enumerate(records.to_pylist()):
            name = str(record["item_id"])
            try:
                own = None if landmarks is None else landmarks(record)
                waiting.append((place, name, emica.sight(read(record), landmarker, name, _box(record), own)))
            except DataError as error:
                waiting.append((place, name, error))
            if sum(isinstance(item, Sighting) for _, _, item in waiting) == self.settings.emica.batch:
                yield from self._encoded(emica, waiting)
                waiting.clear()
        yield from self._encoded(emica, waiting)

    def _encoded(
        self, emica: EmicaFitter, waiting: Sequence[tuple[int, str, Sighting | DataError]]
    ) -> Iterator[_Outcome]:
        sightings = [item for _, _, item in waiting if isinstance(item, Sighting)]
        found = iter(emica.fit(sightings))
        for place, name, item in waiting:
            if isinstance(item, DataError):
                yield place, name, item
            elif isinstance(outcome := next(found), DataError):
                yield place, name, outcome
            else:
                size = item.height_px, item.width_px
                yield place, name, self._fitted(outcome.reconstruction, *size, light=outcome.light)

    def _fitted(
        self, found: Reconstruction, height_px: int, width_px: int, light: Float[np.ndarray, "27"] | None = None
    ) -> Fitted:
        aligned = align_to_zero_pose(self.model, found, self.settings.alignment)
        return Fitted(reconstruction=found, alignment=aligned, height_px=height_px, width_px=width_px, light=light)

    def _columns(self, rows: Sequence[tuple[object, ...]]) -> dict[str, pa.Array]:
        coefficients = (
            ("shape", vector_type(self.asset.n_shape)),
            ("expression", vector_type(self.asset.n_expression)),
        )
        more = () if isinstance(self._backend, LandmarkFitter) else EMICA_SCHEMA
        columns: dict[str, pa.Array] = {}
        for place, (name, kind) in enumerate((*coefficients, *FITTED_SCHEMA, *more)):
            values = [row[place] for row in rows]
            is_vector = pa.types.is_fixed_size_list(kind)
            columns[name] = _vectors(values, kind.list_size) if is_vector else pa.array(values, kind)
        return columns


def read_record_image(root: Path) -> ReadRecord:
    """Reads a record's `path` below `root`; refuses paths that lead elsewhere."""
    return lambda record: read_image(resolve_inside(root, str(record["path"])))


def _values(fitted: Fitted) -> tuple[object, ...]:
    """A row: shape, expression, then the values of `FITTED_SCHEMA` and `EMICA_SCHEMA`."""
    found, aligned = fitted.reconstruction, fitted.alignment
    return (
        found.shape.astype(np.float32),
        found.expression.astype(np.float32),
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
        aligned.is_converged,
        fitted.height_px,
        fitted.width_px,
        fitted.light,
    )


def _backend(asset: FaceAsset, settings: ReconstructSettings, emica: Path | None) -> LandmarkFitter | EmicaFitter:
    if settings.backend == "landmarks":
        return LandmarkFitter(asset, settings)
    if emica is None:
        raise AssetMissingError(
            "the backend emica needs EMICA's networks, and no file was given. Add yours with "
            "`ecavatar assets add emica FILE`, or set reconstruct.backend to landmarks."
        )
    networks = load_emica(emica, settings.emica.device, settings.emica.threads)
    return EmicaFitter(asset, networks, settings.emica)


def _vectors(rows: Sequence[object], width: int) -> pa.Array:
    return vector_column(np.array(rows, np.float32).reshape(len(rows), width))


def _box(record: Record) -> FaceBox | None:
    numbers = [record.get(name) for name in _BOX]
    return None if any(n is None for n in numbers) else FaceBox(*(float(str(n)) for n in numbers))


def _reason(error: DataError) -> str:
    if isinstance(error, NoFaceError):
        return "no_face"
    if isinstance(error, PoorFitError | NoCameraError):
        return "poor_fit"
    return error.reason if isinstance(error, ImageError) else "unreadable_image"
