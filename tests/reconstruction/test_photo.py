"""From a real photograph to a face, with the open head and the sample profile's numbers."""

import numpy as np
import pyarrow as pa
import pytest
from skimage.data import astronaut

from ecavatar.config import ReconstructSettings, load_params
from ecavatar.errors import DataError
from ecavatar.face.model import FaceAsset
from ecavatar.reconstruction.fitter import LandmarkFitter, NoFaceError, reconstruct_with
from ecavatar.reconstruction.landmarks import FaceLandmarker
from ecavatar.reconstruction.neutral import expressive_vertices, neutral_vertices
from ecavatar.reconstruction.table import FITTED_SCHEMA, Reconstructor
from ecavatar.sample.head import build_open_head
from ecavatar.storage.parquet import vector_array


@pytest.fixture(scope="module")
def head() -> FaceAsset:
    return build_open_head()


@pytest.fixture(scope="module")
def landmarker():
    with FaceLandmarker() as shared:
        yield shared


@pytest.fixture(scope="module")
def sample_settings(repository) -> ReconstructSettings:
    return load_params(repository / "params.yaml").sample.reconstruct


@pytest.fixture(scope="module")
def reconstructor(head, sample_settings) -> Reconstructor:
    return Reconstructor(head, sample_settings)


@pytest.fixture(scope="module")
def found(landmarker, head, sample_settings):
    return reconstruct_with(LandmarkFitter(head, sample_settings), astronaut(), landmarker, name="astronaut")


def test_the_head_lies_on_the_photographed_face(found, landmarker, reconstructor, head):
    assert found.is_converged
    assert found.residual_mm < 3
    nose_tip = head.template[:, 2].argmax()
    projected = found.project(expressive_vertices(reconstructor.model, found)[nose_tip])[:2]
    assert np.linalg.norm(projected - landmarker.detect(astronaut()).points_px[1]) < 5


def test_the_head_is_turned_as_in_the_photograph(found):
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    facing = found.rotation @ [0, 0, 1]
    assert facing[2] > 0.9  # she looks at the camera
    assert found.rotation[0, 1] != 0  # with her head a little to the side


def test_a_smile_widens_the_mouth_and_neutral_takes_it_away(found, reconstructor, head):
    lips = head.regions["lips"]

    def width_m(vertices):
        return np.ptp(vertices[lips, 0])

    expressive, neutral = (make(reconstructor.model, found) for make in (expressive_vertices, neutral_vertices))
    assert width_m(expressive) > width_m(neutral) + 0.003


def test_a_picture_without_a_face_is_refused_by_name(landmarker, head, sample_settings):
    with pytest.raises(NoFaceError, match=r"wall\.png.*use a photo"):
        reconstruct_with(
            LandmarkFitter(head, sample_settings), np.full((256, 256, 3), 99, np.uint8), landmarker, name="wall.png"
        )


def test_a_table_keeps_faces_and_tells_why_others_are_missing(reconstructor, landmarker):
    def read(record):
        if record["item_id"] == "broken":
            raise DataError("cut short")
        return astronaut() if record["item_id"] == "good" else np.zeros((200, 200, 3), np.uint8)

    names = ["empty", "good", "broken"]
    faces = reconstructor.faces(pa.table({"item_id": names, "emotion": ["sad"] * 3}), read, landmarker)
    assert faces.table["item_id"].to_pylist() == ["good"]
    assert [(r.item_id, r.reason) for r in faces.rejects] == [("empty", "no_face"), ("broken", "unreadable_image")]
    assert faces.table.column_names == [
        "item_id",
        "emotion",
        "shape",
        "expression",
        *(name for name, _ in FITTED_SCHEMA),
    ]
    removed = vector_array(faces.table["removed_transform"]).reshape(4, 4)
    rotation = vector_array(faces.table["rotation"]).reshape(3, 3)
    assert np.abs(removed[:3, :3] @ rotation - np.eye(3)).max() < 1e-4
    assert faces.table["alignment_residual_m"][0].as_py() < 1e-5


def test_a_table_without_faces_has_the_same_columns(reconstructor, landmarker):
    def read(record):
        raise DataError(f"{record['item_id']} cannot be read")

    table = pa.table({"item_id": ["a"]})
    empty = reconstructor.faces(table, read, landmarker).table
    full = reconstructor.faces(table, lambda record: astronaut(), landmarker).table
    assert empty.num_rows == 0
    assert empty.schema.equals(full.schema)
