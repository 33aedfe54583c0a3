"""Photographs as arrays: read, checked, cropped round an annotated face."""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageOps

from ecavatar.errors import DataError, ShapeError

Rgb = UInt8[np.ndarray, "height width 3"]

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""What is opened. Pillow knows more, some of which (EPS) start other programs."""
MAX_PIXELS = 89_478_485
"""A larger picture is refused unopened: a small file can claim any size (Pillow warns from this number on)."""
MAX_BYTES = 1 << 28
_BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow's readers raise on damaged files."""


class ImageError(DataError):
    """A file that holds no usable picture."""

    def __init__(self, reason: str, message: str) -> None:
        """Say `message`; `reason` is short and countable: missing_image, empty_image, unreadable_image,
        animated_image or oversized_image.
        """
        super().__init__(message)
        self.reason = reason


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
    """The picture at `path`, upright, 8-bit RGB; see `decode_image` for what becomes of other kinds.

    Raises:
        ImageError: not there, not an image, cut short, animated or too large.
    """
    return decode_image(read_image_bytes(path), str(path))


def read_image_bytes(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        ImageError: not there, not readable or too large.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ImageError("oversized_image", f"{path} is larger than {MAX_BYTES >> 20} MiB. Give a smaller picture.")
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError("missing_image", f"image {path} not found. Check the path.") from None
    except OSError as error:
        raise ImageError("unreadable_image", f"cannot read {path}: {error}. Give a jpg, png, bmp or tif.") from None


def decode_image(data: bytes, name: str) -> Rgb:
    """The picture in the bytes of an image file: turned upright as its EXIF says, 8-bit RGB.

    Grey, palette and CMYK pictures are converted; 16 bits are scaled to 8; transparent pixels lie over white. Colour
    profiles are not applied. Of several views of one photograph (MPO, as phones write it) the first is taken.

    Args:
        data: the whole file.
        name: of the file, for messages.

    Raises:
        ImageError: not an image, cut short, more than one frame or page, or too large.
    """
    if not data:
        raise ImageError("empty_image", f"{name} is empty (0 bytes). Copy the file again.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_unusual(image, name)
            return _to_rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("oversized_image", f"{name} is refused: {error}") from None
    except ImageError:
        raise
    except _BROKEN as error:
        raise ImageError(
            "unreadable_image",
            f"cannot read an image from {name}: {error or type(error).__name__}. Give a complete jpg, png, bmp or tif.",
        ) from None


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


def _refuse_unusual(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError("oversized_image", f"{name} has {width} x {height} pixels, more than {MAX_PIXELS}.")
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ImageError("animated_image", f"{name} has more than one frame or page. Give a single picture.")


def _to_rgb(image: Image.Image) -> Rgb:
    if image.mode.startswith("I"):
        return np.repeat(_eight_bits(np.asarray(image))[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range nobody states")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _eight_bits(grey: Integer[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width"]:
    """16-bit values scaled to 8 bits; Pillow's own conversion would cut everything above 255."""
    if grey.size and (int(grey.min()) < 0 or int(grey.max()) > 0xFFFF):
        raise ValueError("its pixels have 32 bits, whose range nobody states")
    return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
