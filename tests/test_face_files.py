"""Laws of the folder that `ecavatar face` writes."""

import json

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from ecavatar.config import load_params
from ecavatar.errors import AssetMissingError, BasisError, DataError
from ecavatar.face.mesh_file import read_mesh
from ecavatar.face_files import read_face, write_face
from ecavatar.reconstruction.emica.encoder import Emica
from ecavatar.reconstruction.fitter import NoFaceError
from ecavatar.reconstruction.landmarks import FaceLandmarker
from ecavatar.reconstruction.neutral import expressive_vertices, neutral_vertices
from ecavatar.reconstruction.table import Reconstructor
from ecavatar.sample.head import build_open_head
from tests.fabricate_emica import FixedOutputs


@pytest.fixture(scope="module")
def reconstructor(repository) -> Reconstructor:
    return Reconstructor(build_open_head(), load_params(repository / "params.yaml").sample.reconstruct)


@pytest.fixture(scope="module")
def landmarker():
    with FaceLandmarker() as shared:
        yield shared


@pytest.fixture(scope="module")
def written(tmp_path_factory, reconstructor, landmarker):
    folder = tmp_path_factory.mktemp("face")
    Image.fromarray(astronaut()).save(folder / "photo.png")
    return folder / "out", write_face(folder / "photo.png", folder / "out", reconstructor, landmarker)


def test_the_folder_holds_the_face(written, reconstructor):
    out, fitted = written
    assert sorted(path.name for path in out.iterdir()) == [
        "coefficients.json", "expressive.ply", "neutral.ply", "overlay.png",
    ]  # fmt: skip
    face = read_face(out)
    assert (face.topology, face.basis, face.backend) == ("open-head", "open-head", "landmarks")
    assert np.array_equal(face.shape, fitted.reconstruction.shape)
    assert np.array_equal(face.expression, fitted.reconstruction.expression)
    for name, make in (("neutral", neutral_vertices), ("expressive", expressive_vertices)):
        vertices, faces = read_mesh(out / f"{name}.ply")
        assert np.array_equal(vertices, make(reconstructor.model, fitted.reconstruction))
        assert np.array_equal(faces, reconstructor.asset.faces)


def test_the_overlay_lies_on_the_face_and_nowhere_else(written, landmarker):
    picture = np.asarray(Image.open(written[0] / "overlay.png")).astype(int)
    photo, drawn = picture[:, :512], picture[:, 512:]
    assert np.array_equal(photo, astronaut())
    is_covered = np.abs(drawn - photo).max(axis=2) > 12
    points = landmarker.detect(astronaut()).points_px[:468].astype(int)
    assert is_covered[points[:, 1], points[:, 0]].mean() > 0.9
    rows, columns = np.nonzero(is_covered)
    low, high = points.min(axis=0), points.max(axis=0)
    size = (high - low).max()
    assert columns.min() > low[0] - 0.3 * size
    assert columns.max() < high[0] + 0.3 * size
    assert rows.min() > low[1] - 0.3 * size
    assert rows.max() < high[1] + 0.3 * size


def test_the_camera_is_told(written):
    value = json.loads((written[0] / "coefficients.json").read_text())
    found = written[1].reconstruction
    assert np.array_equal(value["camera"]["rotation"], found.rotation)
    assert value["camera"]["scale_px_per_m"] == found.scale_px_per_m
    assert (value["image_height_px"], value["image_width_px"], value["light"]) == (512, 512, None)


def test_emicas_light_is_kept_and_an_unknown_residual_is_null(tmp_path, landmarker, repository, monkeypatch):
    networks = FixedOutputs(cam=[6.0, 0, 0], lightcode=np.arange(27))
    emica = Emica(networks, "open-head", "cpu", 1)
    monkeypatch.setattr("ecavatar.reconstruction.table.load_emica", lambda *_: emica)
    settings = load_params(repository / "params.yaml").sample.reconstruct
    whole = settings.emica.model_copy(update={"whole_image": True})
    settings = settings.model_copy(update={"backend": "emica", "emica": whole})
    Image.fromarray(np.full((200, 300, 3), 99, np.uint8)).save(tmp_path / "wall.png")
    reconstructor = Reconstructor(build_open_head(), settings, tmp_path / "unused")
    write_face(tmp_path / "wall.png", tmp_path / "out", reconstructor, landmarker)
    value = json.loads((tmp_path / "out" / "coefficients.json").read_text())
    assert (value["backend"], value["residual_px"], value["light"]) == ("emica", None, list(range(27)))
    assert value["camera"]["scale_px_per_m"] == pytest.approx(6.0 * 112 * 299 / 223)


def test_a_face_is_written_again_over_itself_with_the_same_bytes(written, reconstructor, landmarker):
    out, _ = written
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    write_face(out.parent / "photo.png", out, reconstructor, landmarker)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_other_folders_are_not_overwritten(tmp_path, written, reconstructor, landmarker):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    for name, message in (("mine", "other files"), ("file", "is a file")):
        with pytest.raises(DataError, match=message):
            write_face(written[0].parent / "photo.png", tmp_path / name, reconstructor, landmarker)
    assert (tmp_path / "mine" / "thesis.tex").is_file()


def test_a_photo_without_a_face_leaves_nothing(tmp_path, reconstructor, landmarker):
    Image.fromarray(np.full((200, 200, 3), 99, np.uint8)).save(tmp_path / "wall.png")
    with pytest.raises(NoFaceError, match=r"wall\.png"):
        write_face(tmp_path / "wall.png", tmp_path / "out", reconstructor, landmarker)
    assert [path.name for path in tmp_path.iterdir()] == ["wall.png"]


def test_coefficients_of_another_basis_are_refused(written):
    face = read_face(written[0] / "coefficients.json")
    face.require_basis("open-head")
    with pytest.raises(BasisError, match="flame2020"):
        face.require_basis("flame2020")


@pytest.mark.parametrize("change", [{"format": "x"}, {"shape": ["a"]}, {"jaw_pose": [0, 0]}, {"expression": 3}])
def test_damaged_coefficients_are_refused(tmp_path, written, change):
    value = json.loads((written[0] / "coefficients.json").read_text()) | change
    (tmp_path / "coefficients.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"coefficients\.json"):
        read_face(tmp_path)
    with pytest.raises(AssetMissingError):
        read_face(tmp_path / "absent")
