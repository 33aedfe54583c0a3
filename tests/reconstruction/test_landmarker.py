"""Laws of the landmark detector on a real photograph."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from skimage.data import astronaut

from ecavatar.errors import AssetMissingError, ShapeError
from ecavatar.reconstruction.images import FaceBox
from ecavatar.reconstruction.landmarks import BLENDSHAPES, FaceLandmarker


@pytest.fixture(scope="module")
def landmarker():
    with FaceLandmarker() as shared:
        yield shared


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return astronaut()


def test_a_smiling_person_is_found_smiling(landmarker, photo):
    found = landmarker.detect(photo)
    smile = found.scores(["mouthSmileLeft", "mouthSmileRight", "tongueOut"])
    assert smile[0] > 0.5
    assert smile[1] > 0.5
    assert smile[2] == 0
    assert found.points_px.shape == (478, 2)
    nose, chin = found.points_px[1], found.points_px[152]
    assert 180 < nose[0] < 270
    assert nose[1] < chin[1] < 200
    assert found.depth_px[1] < found.depth_px[[234, 454]].min()  # the tip of the nose is nearer than both cheeks


def test_threads_sharing_a_landmarker_get_the_same_numbers(landmarker, photo):
    alone = landmarker.detect(photo)
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(landmarker.detect, [photo, photo[:, ::-1], photo]))
    for found in (together[0], together[2]):
        assert np.array_equal(found.points_px, alone.points_px)
        assert np.array_equal(found.blendshapes, alone.blendshapes)


def test_a_picture_without_a_face_gives_none(landmarker):
    assert landmarker.detect(np.full((200, 200, 3), 127, np.uint8)) is None


def test_a_tight_crop_is_found_by_padding_and_lies_where_it_should(landmarker, photo):
    whole = landmarker.detect(photo)
    left, top = (int(v) for v in whole.points_px.min(axis=0))
    right, bottom = (int(v) + 1 for v in whole.points_px.max(axis=0))
    found = landmarker.detect(np.ascontiguousarray(photo[top:bottom, left:right]))
    assert found is not None
    assert np.abs(found.points_px + np.array([left, top]) - whole.points_px).mean() < 3


def test_a_box_chooses_the_face(landmarker, photo):
    both = np.concatenate([photo, photo], axis=1)
    shift = photo.shape[1]
    found = [landmarker.detect(both, FaceBox(180 + x, 70, 90, 110)) for x in (0, shift)]
    assert np.abs(found[1].points_px - found[0].points_px - (shift, 0)).max() < 0.01


def test_wrong_input_is_refused(landmarker, tmp_path):
    with pytest.raises(ShapeError):
        landmarker.detect(np.zeros((10, 10), np.uint8))
    with pytest.raises(AssetMissingError, match=r"no\.task"):
        FaceLandmarker(tmp_path / "no.task")


def test_52_names():
    assert len(BLENDSHAPES) == len(set(BLENDSHAPES)) == 52
