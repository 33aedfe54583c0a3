"""Laws of the mesh over the photograph."""

import numpy as np
import pytest

from ecavatar.errors import ShapeError
from ecavatar.rendering.overlay import overlay

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
SQUARE = np.array([[20.0, 10, 0], [50, 10, 0], [50, 40, 0], [20, 40, 0]])
FACES = np.array([[0, 1, 2], [0, 2, 3]])


def test_the_mesh_covers_its_pixels_and_no_others():
    drawn = overlay(IMAGE, SQUARE, FACES, opacity=1.0)
    inside = np.zeros(IMAGE.shape[:2], bool)
    inside[10:40, 20:50] = True
    assert np.array_equal(drawn[~inside], IMAGE[~inside])
    assert np.ptp(drawn[inside].astype(int), axis=0).max() <= 1  # one flat colour


def test_without_opacity_the_photograph_stays():
    assert np.array_equal(overlay(IMAGE, SQUARE, FACES, opacity=0.0), IMAGE)


def test_opacity_mixes():
    full, half = (overlay(IMAGE, SQUARE, FACES, opacity=o).astype(float) for o in (1.0, 0.5))
    assert np.abs(half - (full + IMAGE) / 2).max() <= 1


def test_smaller_depth_hides_larger():
    both = np.concatenate([SQUARE, SQUARE + np.array([0, 0, 5])])
    tilted = both.copy()
    tilted[4:6, 2] += 40  # the hidden square is tilted, so its shade would differ
    faces = np.concatenate([FACES, FACES + 4])
    alone = overlay(IMAGE, SQUARE, FACES, opacity=1.0)
    assert np.array_equal(overlay(IMAGE, tilted, faces, opacity=1.0), alone)
    assert not np.array_equal(
        overlay(IMAGE, tilted - np.repeat([[0, 0, 0], [0, 0, 90.0]], 4, axis=0), faces, opacity=1.0), alone
    )


def test_a_mesh_beyond_the_picture_leaves_it_alone():
    assert np.array_equal(overlay(IMAGE, SQUARE + np.array([500, 0, 0]), FACES), IMAGE)


@pytest.mark.parametrize(
    ("image", "vertices", "opacity"),
    [
        (IMAGE.astype(float), SQUARE, 0.5),
        (IMAGE[..., 0], SQUARE, 0.5),
        (IMAGE, SQUARE[:, :2], 0.5),
        (IMAGE, SQUARE, 1.5),
    ],
)
def test_wrong_shapes_are_refused(image, vertices, opacity):
    with pytest.raises(ShapeError):
        overlay(image, vertices, FACES, opacity=opacity)
