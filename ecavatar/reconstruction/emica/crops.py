"""What EMICA's networks see of a photograph: the 224 px crop and, inside it, the aligned 112 px face.

Both follow from 68 landmarks in iBUG's order, the corpus's own or those of MediaPipe's that stand for them, because the
crop was defined on such points when the networks were trained. Coordinates are pixels of the landmarks' own convention.

Source:
    Feng et al. (DECA), SIGGRAPH 2021, and the training code of EMICA (crop); Deng et al., ArcFace, CVPR 2019 (five
    reference points); Umeyama, PAMI 1991 (similarity); Keys, IEEE ASSP 1981 (cubic convolution).
"""

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float, UInt8

from ecavatar.errors import DataError, ShapeError
from ecavatar.reconstruction.emica.networks import ARCFACE_PX, CROP_PX
from ecavatar.reconstruction.images import Rgb, check_image

LANDMARK_BOX = 1.1
"""Mean side of the landmarks' box times this is the face's size."""
MARGIN = 1.25
"""The crop's side is the face's size times this, cut to whole pixels."""
ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where eyes, nose tip and mouth corners belong in the 112 px face: the eye at the picture's left first."""
_RIGHT_EYE, _LEFT_EYE = slice(36, 42), slice(42, 48)
_NOSE_TIP, _MOUTH_CORNERS = 30, (48, 54)

Points = Float[np.ndarray, "68 2"]
Similarity = Float[np.ndarray, "2 3"]


@dataclass(frozen=True, slots=True)
class CropBox:
    """A square of the photograph that becomes the crop; it may reach beyond the borders."""

    left_px: float
    top_px: float
    size_px: float

    @property
    def from_image(self) -> Similarity:
        """Takes image pixels to crop pixels: the corners left top, left bottom, right top to 0 and 223."""
        scale = (CROP_PX - 1) / self.size_px
        return np.array([[scale, 0.0, -scale * self.left_px], [0.0, scale, -scale * self.top_px]])


@dataclass(frozen=True, slots=True)
class FaceCrops:
    """The networks' input for one photograph."""

    crop: Float[np.ndarray, "3 224 224"]
    """RGB in 0..1, float32."""
    face: Float[np.ndarray, "3 112 112"]
    """RGB in -1..1, float32."""
    box: CropBox


def landmark_box(points: Points) -> CropBox:
    """The square round 68 landmarks.

    Raises:
        DataError: the landmarks are not finite or lie in one point.
    """
    _check_points(points)
    low, high = points.min(axis=0), points.max(axis=0)
    size = int((high - low).mean() * LANDMARK_BOX * MARGIN)
    if size < 1:
        raise DataError("the landmarks lie in one point, so there is nothing to crop; mark the face again.")
    left, top = (low + high) / 2 - size / 2
    return CropBox(float(left), float(top), float(size))


def whole_image_box(image: Rgb) -> CropBox:
    """The smallest square with the picture's centre that holds all of it."""
    height, width = image.shape[:2]
    size = max(height, width) - 1  # from the first pixel's centre to the last one's
    return CropBox((width - 1 - size) / 2, (height - 1 - size) / 2, float(max(size, 1)))


def five_points(points: Points) -> Float[np.ndarray, "5 2"]:
    """Eye centres (means of each eye's six points, the picture's left first), nose tip and mouth corners.

    Of MediaPipe: the means of 33, 160, 158, 133, 153, 144 and of 362, 385, 387, 263, 373, 380, then 4, 61 and 291.
    """
    eyes = [points[eye].mean(axis=0) for eye in (_RIGHT_EYE, _LEFT_EYE)]
    return np.stack([*eyes, points[_NOSE_TIP], *points[list(_MOUTH_CORNERS)]])


def similarity(source: Float[np.ndarray, "N 2"], target: Float[np.ndarray, "N 2"]) -> Similarity:
    """Scale, rotation (never a reflection) and shift that take `source` to `target` with least squared error.

    Raises:
        DataError: the source points lie in one point, or fit no rotation at all.
    """
    from_mean, to_mean = source.mean(axis=0), target.mean(axis=0)
    a, b = source - from_mean, target - to_mean
    spread = float((a**2).sum())
    if not spread > 0:
        raise DataError("eyes, nose and mouth lie in one point, so the face cannot be aligned; mark it again.")
    # in the plane, Umeyama's solution is one complex factor
    real, imaginary = float((a * b).sum()) / spread, float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / spread
    if not real**2 + imaginary**2 > 0:
        raise DataError("eyes, nose and mouth are in disorder, so the face cannot be aligned; mark it again.")
    turn = np.array([[real, -imaginary], [imaginary, real]])
    return np.column_stack([turn, to_mean - turn @ from_mean])


def inverse(transform: Similarity) -> Similarity:
    """The similarity that undoes `transform`."""
    linear = np.linalg.inv(transform[:, :2])
    return np.column_stack([linear, -linear @ transform[:, 2]])


def apply(transform: Similarity, points: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 2"]:
    """`points` moved."""
    return points @ transform[:, :2].T + transform[:, 2]


def face_crops(image: Rgb, points: Points) -> FaceCrops:
    """The crops round the face with these 68 landmarks; black beyond the picture.

    The aligned face is taken from the crop, as in training, not from the photograph.

    Raises:
        DataError: the landmarks lie outside the picture; see also `landmark_box` and `similarity`.
        ShapeError: no 8-bit RGB image, or not 68 points.
    """
    check_image(image)
    box = landmark_box(points)
    height, width = image.shape[:2]
    is_seen = -box.size_px < box.left_px < width and -box.size_px < box.top_px < height
    if not is_seen:
        raise DataError(f"the landmarks lie outside the picture of {width} x {height} pixels; mark the face again.")
    crop = warp_cubic(image, box.from_image, CROP_PX)
    aligned = similarity(apply(box.from_image, five_points(points)), ARCFACE_POINTS)
    return _crops(crop, warp_linear(crop, aligned, ARCFACE_PX), box)


def whole_image_crops(image: Rgb) -> FaceCrops:
    """The whole picture as crop and, smaller, as face: for pictures that are tight crops already.

    Raises:
        ShapeError: no 8-bit RGB image.
    """
    check_image(image)
    box = whole_image_box(image)
    crop = warp_cubic(image, box.from_image, CROP_PX)
    scale = (ARCFACE_PX - 1) / (CROP_PX - 1)
    face = warp_linear(crop, np.array([[scale, 0.0, 0.0], [0.0, scale, 0.0]]), ARCFACE_PX)
    return _crops(crop, face, box)


def warp_cubic(image: Float[np.ndarray, "H W 3"] | Rgb, transform: Similarity, size_px: int) -> np.ndarray:
    """The square picture (size, size, 3), float32, whose pixel `transform @ p` shows the image's pixel `p`.

    Cubic convolution over 4 x 4 pixels, cut to the range of the image; 0 beyond it. 8-bit images give 0..1.
    """
    values, scale = np.ascontiguousarray(image), 1 / 255 if image.dtype == np.uint8 else 1.0
    result = np.empty((size_px, size_px, 3), np.float32)
    _warp_cubic(values, inverse(transform), scale, result)
    low = 0.0 if result.min() <= 0 else values.min() * scale  # black beyond the picture belongs to the range
    return np.clip(result, low, values.max() * scale)


def warp_linear(image: Float[np.ndarray, "H W 3"], transform: Similarity, size_px: int) -> np.ndarray:
    """`warp_cubic` with linear interpolation between 2 x 2 pixels, as aligned faces are cut."""
    result = np.empty((size_px, size_px, 3), np.float32)
    _warp_linear(np.ascontiguousarray(image), inverse(transform), result)
    return result


def _crops(crop: UInt8[np.ndarray, "S S 3"], face: np.ndarray, box: CropBox) -> FaceCrops:
    normalised = (face * np.float32(255) - np.float32(127.5)) / np.float32(127.5)
    return FaceCrops(*(np.ascontiguousarray(part.transpose(2, 0, 1), np.float32) for part in (crop, normalised)), box)


def _check_points(points: np.ndarray) -> None:
    if points.shape != (68, 2):
        raise ShapeError(f"expected 68 landmarks (68, 2), got {points.shape}.")
    if not np.isfinite(points).all():
        raise DataError("the face's landmarks are not all finite numbers; mark the face again or leave it out.")


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _warp_cubic(image: np.ndarray, back: np.ndarray, scale: float, result: np.ndarray) -> None:
    height, width = image.shape[0], image.shape[1]
    along_x, along_y = np.zeros(4), np.zeros(4)
    for row in range(result.shape[0]):
        for column in range(result.shape[1]):
            x = back[0, 0] * column + back[0, 1] * row + back[0, 2]
            y = back[1, 0] * column + back[1, 1] * row + back[1, 2]
            x0, y0 = int(np.floor(x)), int(np.floor(y))
            _cubic_weights(x - x0, along_x)
            _cubic_weights(y - y0, along_y)
            red, green, blue = 0.0, 0.0, 0.0
            for j in range(4):
                v = y0 + j - 1
                if v < 0 or v >= height:
                    continue
                for i in range(4):
                    u = x0 + i - 1
                    if u < 0 or u >= width:
                        continue
                    weight = along_x[i] * along_y[j]
                    red += weight * image[v, u, 0]
                    green += weight * image[v, u, 1]
                    blue += weight * image[v, u, 2]
            result[row, column, 0], result[row, column, 1] = red * scale, green * scale
            result[row, column, 2] = blue * scale


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _cubic_weights(t: float, weights: np.ndarray) -> None:
    """Keys' cubic convolution with a = -1/2 at distance t behind the second of four samples."""
    weights[0] = ((-0.5 * t + 1.0) * t - 0.5) * t
    weights[1] = (1.5 * t - 2.5) * t * t + 1.0
    weights[2] = ((-1.5 * t + 2.0) * t + 0.5) * t
    weights[3] = (0.5 * t - 0.5) * t * t


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _warp_linear(image: np.ndarray, back: np.ndarray, result: np.ndarray) -> None:
    height, width = image.shape[0], image.shape[1]
    for row in range(result.shape[0]):
        for column in range(result.shape[1]):
            x = back[0, 0] * column + back[0, 1] * row + back[0, 2]
            y = back[1, 0] * column + back[1, 1] * row + back[1, 2]
            x0, y0 = int(np.floor(x)), int(np.floor(y))
            fx, fy = x - x0, y - y0
            red, green, blue = 0.0, 0.0, 0.0
            for j in range(2):
                for i in range(2):
                    u, v = x0 + i, y0 + j
                    if u < 0 or u >= width or v < 0 or v >= height:
                        continue
                    weight = (fx if i else 1.0 - fx) * (fy if j else 1.0 - fy)
                    red += weight * image[v, u, 0]
                    green += weight * image[v, u, 1]
                    blue += weight * image[v, u, 2]
            result[row, column, 0], result[row, column, 1], result[row, column, 2] = red, green, blue
