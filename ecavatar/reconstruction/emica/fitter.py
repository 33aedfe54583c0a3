"""EMICA as a backend of reconstruction: from a photograph to a `Reconstruction`, in two steps so that faces can batch.

A picture is looked at alone (`sight`): its face is found and cut out. Sightings are encoded together (`fit`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from ecavatar.config import EmicaSettings
from ecavatar.errors import ConfigError
from ecavatar.face.model import FaceAsset
from ecavatar.reconstruction.emica.crops import FaceCrops, face_crops, whole_image_crops
from ecavatar.reconstruction.emica.encoder import (
    Emica,
    EmicaCodes,
    NoCameraError,
    RootJoint,
    image_camera,
    require_basis,
)
from ecavatar.reconstruction.fitter import FIRST_IRIS, NoFaceError, Reconstruction
from ecavatar.reconstruction.images import FaceBox, Rgb, check_image
from ecavatar.reconstruction.landmarks import Detection, FaceLandmarker
from ecavatar.reconstruction.linear import LandmarkModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One photograph's face, cut out and ready for the networks; the photograph itself is not kept."""

    crops: FaceCrops
    detection: Detection | None
    """MediaPipe's landmarks, where they placed the crop."""
    height_px: int
    width_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EmicaFace:
    """What EMICA makes of one sighting."""

    reconstruction: Reconstruction
    light: Float[np.ndarray, "27"]
    """9 spherical harmonics by 3 colours, row-major."""


class EmicaFitter:
    """EMICA for one face model; build it once and use it for many photographs and threads."""

    def __init__(self, asset: FaceAsset, emica: Emica, settings: EmicaSettings) -> None:
        """Prepare the camera and the landmarks that tell how well a face fits.

        Raises:
            BasisError: the networks' coefficients are not the face model's.
        """
        require_basis(asset, emica.basis)
        self._asset, self._emica, self._settings = asset, emica, settings
        self._root = RootJoint(asset)
        rows = np.flatnonzero(asset.mediapipe_indices < FIRST_IRIS)
        self._seen = asset.mediapipe_indices[rows]
        self._landmarks = LandmarkModel.build(asset, asset.n_shape, rows) if len(rows) else None

    def require_landmarks(self, *, are_given: bool) -> None:
        """Refuse the setting `crop: corpus` where no landmarks of the corpus can be had.

        Raises:
            ConfigError: they are needed and not given.
        """
        if self._settings.crop == "corpus" and not are_given:
            raise ConfigError(
                "reconstruct.emica.crop is corpus, but these pictures come without landmarks of their own. Set it to "
                "mediapipe."
            )

    def sight(
        self,
        image: Rgb,
        landmarker: FaceLandmarker,
        name: str,
        box: FaceBox | None = None,
        landmarks: Float[np.ndarray, "68 2"] | None = None,
    ) -> Sighting:
        """The face of one photograph, cut out.

        Args:
            image: 8-bit RGB.
            landmarker: finds the landmarks, unless the corpus's are to be used.
            name: how messages call the image.
            box: where the face is, if known.
            landmarks: the corpus's 68, in pixels of `image`; used with `crop: corpus` only.

        Raises:
            NoFaceError: no landmarks, and the settings do not allow to take the whole picture.
            DataError: landmarks that show no face.
            ShapeError: no 8-bit RGB image, or not 68 landmarks.
        """
        check_image(image)
        detection, points = None, landmarks
        if self._settings.crop == "mediapipe":
            detection = landmarker.detect(image, box)
            points = None if detection is None else detection.ibug68_px
        if points is None and not self._settings.whole_image:
            raise NoFaceError(self._nothing_found(name))
        crops = whole_image_crops(image) if points is None else face_crops(image, points)
        return Sighting(crops=crops, detection=detection, height_px=image.shape[0], width_px=image.shape[1])

    def _nothing_found(self, name: str) -> str:
        whole = "reconstruct.emica.whole_image for pictures that are tight crops of a face."
        if self._settings.crop == "corpus":
            return f"the corpus gives no landmarks of {name}: set reconstruct.emica.crop to mediapipe, or {whole}"
        return f"no face found in {name}: use a photo where one face is clearly visible from the front, or set {whole}"

    def fit(self, sightings: Sequence[Sighting]) -> list[EmicaFace | NoCameraError]:
        """The faces of a batch, in its order; an error in place of a face that the networks show nowhere."""
        codes = self._emica.encode([sighting.crops for sighting in sightings])
        return [self._face(sighting, code) for sighting, code in zip(sightings, codes, strict=True)]

    def _face(self, sighting: Sighting, codes: EmicaCodes) -> EmicaFace | NoCameraError:
        shape = np.zeros(self._asset.n_shape)
        expression = np.zeros(self._asset.n_expression)
        shape[: len(codes.shape)], expression[: len(codes.expression)] = codes.shape, codes.expression
        try:
            camera = image_camera(codes, self._root.at(shape, expression), sighting.crops.box)
        except NoCameraError as error:
            return error
        unmeasured = Reconstruction(
            shape=shape,
            expression=expression,
            jaw_pose=codes.jaw_pose.astype(np.float64),
            rotation=camera.rotation,
            scale_px_per_m=camera.scale_px_per_m,
            translation_px=camera.translation_px,
            residual_px=float("nan"),
            residual_mm=float("nan"),
            iterations=0,
            is_converged=True,
        )
        missed_px = self._residual_px(unmeasured, sighting.detection)
        missed_mm = missed_px / camera.scale_px_per_m * 1e3
        return EmicaFace(
            reconstruction=replace(unmeasured, residual_px=missed_px, residual_mm=missed_mm), light=codes.light
        )

    def _residual_px(self, found: Reconstruction, detection: Detection | None) -> float:
        """Root mean square distance between the mesh's landmarks and MediaPipe's; NaN where one of them is missing."""
        if detection is None or self._landmarks is None:
            return float("nan")
        points = self._landmarks.points(np.concatenate([found.shape, found.expression]), found.jaw_pose)
        missed = found.project(points)[:, :2] - detection.points_px[self._seen]
        return float(np.sqrt((missed**2).sum(axis=1).mean()))
