"""Photographs as arrays: read, checked, cropped round an annotated face."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from ecavatar.errors import DataError, ShapeError

Rgb = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True, slots=True)
class FaceBox:
    """A face's bounding box as corpora annotate it: top-left corner and size in pixels of the image."""

    x_px: float
    y_px: float
    width_px: float
    height_px: float

    @property
    def is_usable(self) -> bool:
        """False for the negative, zero or missing sizes that corpora contain."""
        numbers = (self.x_px, self.y_px, self.width_px, self.height_px)
        return bool(np.isfinite(numbers).all()) and self.width_px > 0 and self.height_px > 0


@dataclass(frozen=True, slots=True)
class Crop:
    """A square part of an image, and where its top-left pixel lies in the image (it may lie outside)."""

    image: Rgb
    left_px: int
    top_px: int


def read_image(path: Path) -> Rgb:
    """The picture at `path`, upright, 8-bit RGB.

    Raises:
        DataError: not there, not an image, or cut short.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read an image from {path}: {error}. Give a complete jpg, png, bmp or tif.") from None


def check_image(image: np.ndarray) -> None:
    """Refuse what is not an 8-bit RGB picture.

    Raises:
        ShapeError: wrong dtype, number of axes or channels, or no pixels.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ShapeError(f"expected an image (height, width, 3) uint8, got {image.shape} {image.dtype}.")


def square_crop(image: Rgb, box: FaceBox, *, margin: float) -> Crop:
    """The square round the middle of `box`, `1 + 2 * margin` times as wide as the box's longer side.

    Pixels outside the image repeat its border.
    """
    side = max(2, round(max(box.width_px, box.height_px) * (1 + 2 * margin)))
    left = round(box.x_px + box.width_px / 2 - side / 2)
    top = round(box.y_px + box.height_px / 2 - side / 2)
    rows = np.clip(np.arange(top, top + side), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(left, left + side), 0, image.shape[1] - 1)
    return Crop(np.ascontiguousarray(image[rows[:, None], columns[None, :]]), left, top)


def padded(image: Rgb, *, margin: float) -> Crop:
    """The whole image in a square with `margin` times its longer side of repeated border on the longer sides."""
    height, width = image.shape[:2]
    return square_crop(image, FaceBox(0, 0, width, height), margin=margin)
