"""Laws of EMICA's crops: hand-computed boxes, the training code's resampling, an alignment that hits its reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.data import astronaut
from skimage.transform import SimilarityTransform, warp

from ecavatar.errors import DataError, ShapeError
from ecavatar.reconstruction.emica.crops import (
    ARCFACE_POINTS,
    CropBox,
    apply,
    face_crops,
    five_points,
    inverse,
    landmark_box,
    similarity,
    warp_cubic,
    warp_linear,
    whole_image_box,
    whole_image_crops,
)
from ecavatar.reconstruction.landmarks import IBUG68, Detection


def _points(left, top, right, bottom) -> np.ndarray:
    generator = np.random.default_rng(0)
    points = generator.uniform((left, top), (right, bottom), (68, 2))
    points[0], points[1] = (left, top), (right, bottom)
    return points


def _similarity(scale, angle, shift) -> np.ndarray:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([turn, shift])


def _landmarks_with(five: np.ndarray) -> np.ndarray:
    """68 points whose eye centres, nose tip and mouth corners are `five`."""
    points = np.tile(five.mean(axis=0), (68, 1)) + np.random.default_rng(2).normal(size=(68, 2)) * 30
    ring = np.random.default_rng(1).normal(size=(6, 2)) * 3
    for eye, first in zip(five[:2], (36, 42), strict=True):
        points[first : first + 6] = eye + ring - ring.mean(axis=0)
    points[30], points[48], points[54] = five[2:]
    return points


@pytest.mark.parametrize(
    ("edges", "box"),
    [
        ((100, 50, 200, 150), (81.5, 31.5, 137)),  # old size 110, times 1.25 is 137.5, cut to 137
        ((0, 0, 40, 120), (-35, 5, 110)),  # mean side 80, old size 88
        ((-10.5, 3, 30.5, 30), (-13, -6.5, 46)),  # mean side 34, old size 37.4
    ],
)
def test_boxes_are_those_computed_by_hand(edges, box):
    found = landmark_box(_points(*edges))
    assert (found.left_px, found.top_px, found.size_px) == pytest.approx(box, abs=1e-9)


def test_the_boxs_corners_become_the_crops():
    corners = np.array([[81.5, 31.5], [81.5, 168.5], [218.5, 31.5]])
    assert apply(CropBox(81.5, 31.5, 137.0).from_image, corners) == pytest.approx(
        np.array([[0, 0], [0, 223], [223, 0]]), abs=1e-9
    )


@given(st.floats(-300, 300), st.floats(-300, 300), st.floats(5, 2000), st.floats(-3, 3))
def test_a_crop_and_its_inverse_leave_coordinates_alone(left, top, size, angle):
    points = np.random.default_rng(0).uniform(-100, 600, (20, 2))
    for transform in (CropBox(left, top, size).from_image, _similarity(224 / size, angle, (left, top))):
        assert np.abs(apply(inverse(transform), apply(transform, points)) - points).max() < 1e-6


@given(st.floats(0.2, 8), st.floats(-3, 3), st.floats(-500, 500), st.floats(-500, 500))
def test_five_points_land_on_the_reference(scale, angle, x, y):
    five = apply(_similarity(scale, angle, (x, y)), ARCFACE_POINTS)
    points = _landmarks_with(five)
    assert five_points(points) == pytest.approx(five, abs=1e-6)
    aligned = similarity(five_points(points), ARCFACE_POINTS)
    assert np.abs(apply(aligned, five) - ARCFACE_POINTS).max() < 1e-6


def test_the_similarity_is_the_best_one_without_reflection():
    generator = np.random.default_rng(3)
    source, target = generator.normal(size=(5, 2)) * 20, generator.normal(size=(5, 2)) * 20
    found = similarity(source, target)
    oracle = SimilarityTransform.from_estimate(source, target).params[:2]
    assert found == pytest.approx(oracle, abs=1e-9)
    mirrored = similarity(ARCFACE_POINTS, ARCFACE_POINTS * (-1, 1))
    assert np.linalg.det(mirrored[:, :2]) > 0


@pytest.mark.parametrize(
    "box", [CropBox(160.2, 70.5, 123.0), CropBox(-90.0, -60.5, 400.0), CropBox(-5.0, 300.0, 900.0)]
)
@pytest.mark.parametrize("is_bright", [False, True])
def test_resampling_is_the_training_codes(box, is_bright):
    image, whole = astronaut(), np.vstack([box.from_image, [0, 0, 1]])
    image = 120 + image // 3 if is_bright else image  # without black, where the range of the picture matters beyond it
    expected = warp(image, np.linalg.inv(whole), output_shape=(224, 224), order=3, mode="constant")
    assert np.abs(warp_cubic(image, box.from_image, 224) - expected).max() < 1e-6


def test_linear_resampling_agrees_with_an_independent_one():
    image, transform = astronaut() / 255.0, _similarity(0.3, 0.4, (10, -20))
    expected = warp(image, np.linalg.inv(np.vstack([transform, [0, 0, 1]])), output_shape=(112, 112), order=1)
    assert np.abs(warp_linear(image, transform, 112) - expected).max() < 1e-6


def test_crops_have_the_networks_ranges_and_show_the_face():
    five = apply(_similarity(1.1, 0.05, (165, 50)), ARCFACE_POINTS)
    crops = face_crops(astronaut(), _landmarks_with(five))
    assert crops.crop.shape == (3, 224, 224)
    assert crops.face.shape == (3, 112, 112)
    assert crops.crop.dtype == crops.face.dtype == np.float32
    assert 0 <= crops.crop.min() < 0.1 < 0.9 < crops.crop.max() <= 1
    assert -1 <= crops.face.min() < -0.9 < 0.9 < crops.face.max() <= 1


def test_a_drawn_face_has_its_marks_where_arcface_wants_them():
    five = apply(_similarity(2.2, 0.2, (150, 90)), ARCFACE_POINTS)
    rows, columns = np.mgrid[:480, :640]
    image = np.zeros((480, 640, 3), np.uint8)
    for x, y in five:
        blob = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 32)
        image[..., 0] += blob.astype(np.uint8)  # red, so the colours' order is seen too
    points = _landmarks_with(five)
    points[:2] = five.min(axis=0) - 80, five.max(axis=0) + 80
    red, green, blue = (face_crops(image, points).face + 1) / 2
    assert green.max() == blue.max() == 0
    rows, columns = np.mgrid[:112, :112]
    for x, y in ARCFACE_POINTS:
        near = red * ((columns - x) ** 2 + (rows - y) ** 2 < 7**2)
        assert np.hypot((near * columns).sum() / near.sum() - x, (near * rows).sum() / near.sum() - y) < 0.05


def test_beyond_the_picture_is_black():
    white = np.full((50, 50, 3), 255, np.uint8)
    crops = face_crops(white, _landmarks_with(apply(_similarity(2.0, 0.0, (-60, -60)), ARCFACE_POINTS)))
    assert crops.crop[:, :, 0].max() == 0
    assert crops.face.min() == -1


def test_the_whole_picture_fills_the_crop():
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    crops = whole_image_crops(image)
    assert np.abs(crops.crop.transpose(1, 2, 0) - image / 255).max() < 1e-6
    wide = whole_image_box(np.zeros((100, 300, 3), np.uint8))
    assert (wide.left_px, wide.top_px, wide.size_px) == (0, -100, 299)


def test_mediapipes_stand_ins_are_taken():
    points = np.random.default_rng(0).uniform(0, 100, (478, 2))
    detection = Detection(points_px=points, depth_px=np.zeros(478), blendshapes=np.zeros(52))
    assert np.array_equal(detection.ibug68_px, points[list(IBUG68)])
    assert len(set(IBUG68)) == 68


@pytest.mark.parametrize("points", [np.zeros((68, 2)), np.full((68, 2), np.nan)])
def test_landmarks_that_show_no_face_are_refused(points):
    with pytest.raises(DataError, match="mark the face again"):
        landmark_box(points)


def test_other_numbers_of_landmarks_are_refused():
    with pytest.raises(ShapeError, match="68"):
        landmark_box(np.zeros((5, 2)))


@pytest.mark.parametrize("shift", [(500, 0), (0, 500), (-500, 0), (0, -500)])
def test_landmarks_outside_the_picture_are_no_black_face(shift):
    points = _points(20, 20, 60, 60) + shift
    with pytest.raises(DataError, match="outside the picture"):
        face_crops(np.full((100, 100, 3), 200, np.uint8), points)
