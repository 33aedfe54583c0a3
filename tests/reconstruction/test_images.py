"""Laws of reading and cropping photographs."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ecavatar.errors import ShapeError
from ecavatar.reconstruction.images import (
    MAX_PIXELS,
    FaceBox,
    ImageError,
    check_image,
    decode_image,
    padded,
    read_image,
    square_crop,
)


def _picture(height=40, width=60):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp", "tif", "tiff"])
def test_lossless_pictures_come_back_as_written(tmp_path, suffix):
    path = tmp_path / f"face.{suffix}"
    Image.fromarray(_picture()).save(path)
    assert np.array_equal(read_image(path), _picture())


def _reason(path) -> str:
    with pytest.raises(ImageError, match=path.name) as caught:
        read_image(path)
    return caught.value.reason


def test_grey_and_palette_pictures_keep_their_colours(tmp_path):
    for mode in ("L", "P", "1"):
        path = tmp_path / f"{mode}.png"
        Image.fromarray(_picture()).convert(mode).save(path)
        assert np.array_equal(read_image(path), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize(("suffix", "tolerance"), [("tif", 0), ("jpg", 12)])
def test_cmyk_pictures_keep_their_colours(tmp_path, suffix, tolerance):
    bands = np.zeros((64, 96, 3), np.uint8)
    bands[:, :32], bands[:, 32:64], bands[:, 64:] = (200, 30, 40), (20, 180, 60), (30, 40, 190)
    path = tmp_path / f"face.{suffix}"
    Image.fromarray(bands).convert("CMYK").save(path, **({"quality": 95} if suffix == "jpg" else {}))
    middles = [(32, 16), (32, 48), (32, 80)]
    picture = read_image(path).astype(int)
    assert max(abs(picture[m] - bands[m]).max() for m in middles) <= tolerance


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_cut_off(tmp_path, suffix):
    grey = np.linspace(0, 65535, 24 * 32).astype(np.uint16).reshape(24, 32)
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(grey).save(path)
    picture = read_image(path)
    assert np.array_equal(picture[..., 0], np.round(grey / 257))
    assert (picture == picture[..., :1]).all()


def test_16_bit_colour_is_scaled_not_cut_off(tmp_path):
    deep = (_picture().astype(np.uint16) * 257).astype(">u2")
    path = tmp_path / "deep.png"
    path.write_bytes(_png(deep.tobytes(), width=60, height=40, bit_depth=16, colour_type=2))
    assert np.array_equal(read_image(path), _picture())


@pytest.mark.parametrize("value", [-1, 70000])
def test_pixels_of_32_bits_have_no_known_range(tmp_path, value):
    Image.fromarray(np.full((8, 8), value, np.int32)).save(tmp_path / "int.tif")
    Image.fromarray(np.full((8, 8), value, np.float32)).save(tmp_path / "float.tif")
    assert _reason(tmp_path / "int.tif") == _reason(tmp_path / "float.tif") == "unreadable_image"


def test_transparent_pixels_lie_over_white(tmp_path):
    layer = np.dstack([_picture(), np.full((40, 60), 255, np.uint8)])
    layer[:20, :, 3], layer[20:, :30, 3] = 0, 128
    Image.fromarray(layer).save(tmp_path / "face.png")
    picture = read_image(tmp_path / "face.png")
    assert (picture[:20] == 255).all()
    half = (255 + _picture()[20:, :30].astype(float)) / 2
    assert abs(picture[20:, :30] - half).max() < 2
    assert np.array_equal(picture[20:, 30:], _picture()[20:, 30:])


def test_a_picture_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held a quarter turn
    Image.fromarray(_picture()).save(tmp_path / "face.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "face.png"), np.rot90(_picture(), -1))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_animations_and_pages_are_refused(tmp_path, suffix):
    frames = [Image.fromarray(np.full((8, 8, 3), shade, np.uint8)) for shade in (0, 120, 250)]
    frames[0].save(tmp_path / f"moving.{suffix}", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / f"still.{suffix}")
    assert _reason(tmp_path / f"moving.{suffix}") == "animated_image"
    assert read_image(tmp_path / f"still.{suffix}").shape == (8, 8, 3)


def test_of_several_views_of_one_photograph_the_first_is_taken(tmp_path):
    views = [Image.fromarray(np.full((16, 16, 3), shade, np.uint8)) for shade in (40, 200)]
    views[0].save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=views[1:])
    assert abs(read_image(tmp_path / "phone.jpg").astype(int) - 40).max() < 3


def test_files_without_a_picture_are_refused_by_name_and_reason(tmp_path):
    Image.fromarray(_picture(300, 300)).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[:9000])
    (tmp_path / "almost.jpg").write_bytes(whole[:-40])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    for name in ("cut.jpg", "almost.jpg", "text.png", "script.eps", "folder.jpg"):
        assert _reason(tmp_path / name) == "unreadable_image"
    assert _reason(tmp_path / "empty.jpg") == "empty_image"
    assert _reason(tmp_path / "absent.jpg") == "missing_image"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("edge", [10_000, 40_000])
def test_a_small_file_that_claims_to_be_huge_is_refused_unopened(tmp_path, edge):
    assert edge**2 > MAX_PIXELS
    path = tmp_path / "bomb.png"
    path.write_bytes(_png(b"", width=edge, height=edge, bit_depth=8, colour_type=2))
    assert _reason(path) == "oversized_image"


@given(
    st.sampled_from(["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
    st.integers(0, 10_000),
)
def test_damaged_files_give_a_picture_or_a_reject_nothing_else(kind, changes, length):
    buffer = io.BytesIO()
    Image.fromarray(_picture()).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    for place, value in changes:
        data[place % len(data)] = value
    with contextlib.suppress(ImageError):
        check_image(decode_image(bytes(data[: max(1, length)]), "damaged"))


def _png(pixels: bytes, *, width: int, height: int, bit_depth: int, colour_type: int) -> bytes:
    """A PNG file; of no pixels, when there are none."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0))
    line = len(pixels) // height
    rows = b"".join(b"\0" + pixels[row * line : (row + 1) * line] for row in range(height if pixels else 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_crop_inside_the_picture_is_that_part_of_it():
    picture = _picture()
    crop = square_crop(picture, FaceBox(20, 10, 10, 20), margin=0.0)
    assert (crop.left_px, crop.top_px) == (15, 10)
    assert np.array_equal(crop.image, picture[10:30, 15:35])


def test_padding_keeps_the_picture_and_repeats_its_border():
    picture = _picture(50, 50)
    crop = padded(picture, margin=0.5)
    assert crop.image.shape == (100, 100, 3)
    assert np.array_equal(crop.image[-crop.top_px :][:50, -crop.left_px :][:, :50], picture)
    assert (crop.image[0, 30:70] == crop.image[10, 30:70]).all()


@pytest.mark.parametrize("box", [(0, 0, -1, 5), (0, 0, 0, 0), (float("nan"), 0, 5, 5)])
def test_impossible_boxes_are_not_usable(box):
    assert not FaceBox(*box).is_usable


@pytest.mark.parametrize("image", [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_only_8_bit_rgb_is_an_image(image):
    with pytest.raises(ShapeError):
        check_image(image)
