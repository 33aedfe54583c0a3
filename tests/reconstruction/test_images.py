"""Laws of reading and cropping photographs."""

import numpy as np
import pytest
from PIL import Image

from ecavatar.errors import DataError, ShapeError
from ecavatar.reconstruction.images import FaceBox, check_image, padded, read_image, square_crop


def _picture(height=40, width=60):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp", "tif", "tiff"])
def test_lossless_pictures_come_back_as_written(tmp_path, suffix):
    path = tmp_path / f"face.{suffix}"
    Image.fromarray(_picture()).save(path)
    assert np.array_equal(read_image(path), _picture())


def test_grey_palette_and_transparent_pictures_become_rgb(tmp_path):
    for mode in ("L", "P", "RGBA", "CMYK"):
        path = tmp_path / f"{mode}.tif"
        Image.fromarray(_picture()).convert(mode).save(path)
        assert read_image(path).shape == (40, 60, 3)


def test_unreadable_pictures_are_refused_by_name(tmp_path):
    Image.fromarray(_picture(300, 300)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:9000])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.jpg").touch()
    for name in ("cut.jpg", "text.png", "empty.jpg", "absent.jpg"):
        with pytest.raises(DataError, match=name):
            read_image(tmp_path / name)


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
