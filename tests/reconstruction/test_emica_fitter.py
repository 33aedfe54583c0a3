"""Laws of EMICA as a backend: its camera on the photograph, batches, rejects, settings."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.spatial.transform import Rotation
from skimage.data import astronaut
from torch import nn

from ecavatar.config import EmicaSettings, ReconstructSettings, load_params
from ecavatar.errors import AssetMissingError, BasisError, ConfigError, DataError
from ecavatar.face.landmarks import mediapipe_points
from ecavatar.face.model import FaceAsset, FaceModel
from ecavatar.reconstruction.emica.checkpoint import convert_checkpoint
from ecavatar.reconstruction.emica.crops import face_crops
from ecavatar.reconstruction.emica.encoder import Emica, resolve_device
from ecavatar.reconstruction.emica.fitter import EmicaFitter
from ecavatar.reconstruction.emica.networks import VARIANTS
from ecavatar.reconstruction.fitter import NoFaceError
from ecavatar.reconstruction.images import FaceBox
from ecavatar.reconstruction.landmarks import FaceLandmarker
from ecavatar.reconstruction.neutral import expressive_vertices
from ecavatar.reconstruction.table import EMICA_SCHEMA, FITTED_SCHEMA, Reconstructor
from ecavatar.sample.head import build_open_head
from ecavatar.storage.parquet import vector_array
from tests.fabricate_emica import FixedOutputs, emica_tensors, random_networks, write_plain

SETTINGS = EmicaSettings(device="cpu", batch=3, threads=1, crop="mediapipe", whole_image=False)
BLANK = np.full((200, 160, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def head() -> FaceAsset:
    """The open head under the name of the basis that EMICA gives: what is tested is the way, not the face."""
    return replace(build_open_head(), basis="flame2020")


@pytest.fixture(scope="module")
def landmarker():
    with FaceLandmarker() as shared:
        yield shared


def _fitter(head, settings=SETTINGS, **outputs) -> EmicaFitter:
    return EmicaFitter(head, Emica(FixedOutputs(**outputs), "flame2020", "cpu", 1), settings)


def _outputs(seed=0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "shapecode": generator.normal(size=300),
        "expcode": generator.normal(size=100) * 0.5,
        "jawpose": np.array([0.2, 0.02, -0.03]),
        "globalpose": np.array([0.3, -0.5, 0.2]),
        "cam": np.array([8.3, 0.02, -0.03]),
        "lightcode": generator.normal(size=27),
    }


def test_the_camera_shows_the_mesh_where_emica_shows_the_posed_one(head, landmarker):
    outputs = _outputs()
    fitter = _fitter(head, **outputs)
    sighting = fitter.sight(astronaut(), landmarker, "photo")
    (face,) = fitter.fit([sighting])
    model = FaceModel(head)
    rows = [
        torch.tensor(outputs[n], dtype=torch.float64)[None] for n in ("shapecode", "expcode", "jawpose", "globalpose")
    ]
    posed = model(*rows[:3], global_pose=rows[3])[0].numpy()
    scale, *shift = outputs["cam"]
    in_crop = scale * (posed[:, :2] + shift) * (1, -1)  # EMICA's weak perspective, then y down
    crop_px = (in_crop + 1) * 112
    box = sighting.crops.box
    expected = crop_px * box.size_px / 223 + (box.left_px, box.top_px)
    unposed = model(*rows[:3])[0].numpy()
    found = face.reconstruction.project(unposed)
    assert np.abs(found[:, :2] - expected).max() < 1e-3
    depth = -scale * posed[:, 2] * 112 * box.size_px / 223
    assert np.ptp(found[:, 2] - depth) < 1e-3  # depth up to a constant
    assert np.abs(expressive_vertices(model, face.reconstruction) - unposed).max() < 1e-5


def test_all_outputs_are_kept(head, landmarker):
    outputs = _outputs()
    fitter = _fitter(head, **outputs)
    found = fitter.fit([fitter.sight(astronaut(), landmarker, "photo")])[0]
    assert found.light == pytest.approx(outputs["lightcode"], abs=1e-6)
    assert found.reconstruction.shape == pytest.approx(outputs["shapecode"], abs=1e-6)
    assert found.reconstruction.expression == pytest.approx(outputs["expcode"], abs=1e-6)
    assert found.reconstruction.jaw_pose == pytest.approx(outputs["jawpose"], abs=1e-6)
    expected = Rotation.from_rotvec(outputs["globalpose"]).as_matrix()
    assert np.abs(found.reconstruction.rotation - expected).max() < 1e-6


def test_a_variant_without_jaw_keeps_it_closed(head, landmarker):
    outputs = _outputs() | {"jawpose": None}
    fitter = _fitter(head, **outputs)
    found = fitter.fit([fitter.sight(astronaut(), landmarker, "photo")])[0]
    assert not found.reconstruction.jaw_pose.any()


def test_the_residual_is_the_distance_between_seen_and_projected_landmarks(head, landmarker):
    fitter = _fitter(head, **_outputs())
    sighting = fitter.sight(astronaut(), landmarker, "photo")
    found = fitter.fit([sighting])[0].reconstruction
    points = mediapipe_points(head, expressive_vertices(FaceModel(head), found))
    still = head.mediapipe_indices < 468
    seen = landmarker.detect(astronaut()).points_px[head.mediapipe_indices[still]]
    missed = found.project(points[still])[:, :2] - seen
    assert found.residual_px == pytest.approx(np.sqrt((missed**2).sum(axis=1).mean()), rel=1e-4)
    assert found.residual_mm == pytest.approx(found.residual_px / found.scale_px_per_m * 1e3)


def test_a_good_camera_has_a_small_residual(head, landmarker):
    """The landmark fitter's camera, said in EMICA's words, puts the mesh onto the face."""
    seen = landmarker.detect(astronaut())
    fitter = _fitter(head, cam=[1.0, 0, 0])
    sighting = fitter.sight(astronaut(), landmarker, "photo")
    mean = mediapipe_points(head, head.template)[head.mediapipe_indices < 468]
    target = seen.points_px[:468]
    scale = np.linalg.norm(target - target.mean(axis=0)) / np.linalg.norm((mean - mean.mean(axis=0))[:, :2])
    box = sighting.crops.box
    in_crop = ((target.mean(axis=0) - (box.left_px, box.top_px)) * 223 / box.size_px / 112 - 1) * (1, -1)
    s = scale * 223 / box.size_px / 112
    shift = in_crop / s - mean.mean(axis=0)[:2]
    found = _fitter(head, cam=[s, *shift]).fit([sighting])[0].reconstruction
    assert found.scale_px_per_m == pytest.approx(scale, rel=1e-5)
    assert found.residual_mm < 12  # a mean face, not turned, on a turned head of another form


@pytest.mark.parametrize("camera", [[0.0, 0, 0], [-3.0, 0, 0], [np.nan, 0, 0]])
def test_a_face_that_is_nowhere_is_a_counted_reject(head, landmarker, repository, monkeypatch, camera):
    monkeypatch.setattr(
        "ecavatar.reconstruction.table.load_emica", lambda *_: Emica(FixedOutputs(cam=camera), "flame2020", "cpu", 1)
    )
    settings = _reconstruct(load_params(repository / "params.yaml").sample.reconstruct)
    reconstructor = Reconstructor(head, settings, repository / "unused")
    faces = reconstructor.faces(pa.table({"item_id": ["a"]}), lambda _: astronaut(), landmarker)
    assert faces.table.num_rows == 0
    assert [reject.reason for reject in faces.rejects] == ["poor_fit"]


def _reconstruct(settings: ReconstructSettings, **changes) -> ReconstructSettings:
    emica = settings.emica.model_copy(update={"batch": 3, "threads": 1, "device": "cpu"} | changes)
    return settings.model_copy(update={"backend": "emica", "emica": emica})


# --- pictures without a face, landmarks of the corpus -----------------------------------------------------------------


def test_a_picture_without_a_face_is_refused_unless_asked(head, landmarker):
    with pytest.raises(NoFaceError, match=r"wall\.png.*whole_image"):
        _fitter(head).sight(BLANK, landmarker, "wall.png")
    asked = _fitter(head, SETTINGS.model_copy(update={"whole_image": True}), cam=[5.0, 0, 0])
    sighting = asked.sight(BLANK, landmarker, "wall.png")
    assert sighting.crops.box.size_px == 199
    assert np.isnan(asked.fit([sighting])[0].reconstruction.residual_px)


class NeverAsked:
    def detect(self, image, box=None):
        raise AssertionError("MediaPipe was asked")


def test_the_corpuss_landmarks_place_the_crop_without_mediapipe(head, landmarker):
    points = landmarker.detect(astronaut()).ibug68_px
    by_mediapipe = _fitter(head).sight(astronaut(), landmarker, "photo")
    by_corpus = _fitter(head, SETTINGS.model_copy(update={"crop": "corpus"}))
    sighting = by_corpus.sight(astronaut(), NeverAsked(), "photo", None, points)
    assert sighting.crops.box == by_mediapipe.crops.box
    assert np.array_equal(sighting.crops.face, by_mediapipe.crops.face)
    with pytest.raises(NoFaceError, match="photo"):
        by_corpus.sight(astronaut(), NeverAsked(), "photo", None, None)


def test_cropping_by_landmarks_that_nobody_gives_is_refused(head, landmarker):
    fitter = _fitter(head, SETTINGS.model_copy(update={"crop": "corpus"}))
    with pytest.raises(ConfigError, match="Set it to mediapipe"):
        fitter.require_landmarks(are_given=False)
    _fitter(head).require_landmarks(are_given=False)


def test_another_basis_is_refused_with_what_to_do():
    other = build_open_head()
    with pytest.raises(BasisError, match=r"flame2020.*open-head.*assets add flame"):
        _fitter(other)


def test_too_few_components_are_refused(head):
    short = replace(head, shape_basis=head.shape_basis[..., :100])
    with pytest.raises(BasisError, match="100"):
        _fitter(short)


def test_threads_are_put_back(head, landmarker):
    before = torch.get_num_threads()

    class Watches(FixedOutputs):
        def forward(self, crops, faces):
            self.threads = torch.get_num_threads()
            return super().forward(crops, faces)

    networks = Watches(cam=[1.0, 0, 0])
    fitter = EmicaFitter(head, Emica(networks, "flame2020", "cpu", before + 1), SETTINGS)
    fitter.fit([fitter.sight(astronaut(), landmarker, "photo")])
    assert networks.threads == before + 1
    assert torch.get_num_threads() == before


def test_a_gpu_that_is_not_there_is_refused():
    assert resolve_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        assert resolve_device("auto").type == "cpu"
        with pytest.raises(ConfigError, match="auto or cpu"):
            resolve_device("cuda")


def test_nothing_to_encode_gives_nothing(head):
    assert _fitter(head).fit([]) == []


# --- with networks ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_batched_results_equal_those_one_by_one(landmarker):
    networks = random_networks(VARIANTS[0])
    for encoder in (networks.deca_encoder.encoder, networks.expression_encoder.encoder):
        encoder.layers[2].weight = nn.Parameter(encoder.layers[2].weight * 300)  # codes of the size of real ones
    emica = Emica(networks, "flame2020", "cpu", 2)
    points, photo = landmarker.detect(astronaut()).ibug68_px, astronaut()
    crops = [face_crops(image, points) for image in (photo, 255 - photo, photo // 3, photo[..., ::-1])]
    together, alone = emica.encode(crops), [emica.encode([crop])[0] for crop in crops]
    for name in ("shape", "expression", "jaw_pose", "global_pose", "camera", "light"):
        a, b = (np.stack([getattr(codes, name) for codes in results]) for results in (together, alone))
        assert np.abs(a - b).max() < 1e-4, name
        assert b.std(axis=0).max() > 0.02, name  # the networks do see the pictures


@pytest.mark.slow
def test_a_table_of_faces_from_a_converted_checkpoint(tmp_path, head, landmarker, repository):
    source, weights = write_plain(tmp_path / "emica.pt", emica_tensors(VARIANTS[0])), tmp_path / "emica.safetensors"
    convert_checkpoint(source, weights)
    settings = _reconstruct(load_params(repository / "params.yaml").sample.reconstruct, batch=2, threads=2)
    reconstructor = Reconstructor(head, settings, weights)
    assert reconstructor.tags == {"topology": "open-head", "basis": "flame2020", "backend": "emica"}
    pictures = {"a": astronaut(), "b": BLANK, "c": None, "d": astronaut()[:, ::-1], "e": astronaut()}

    def read(record):
        picture = pictures[record["item_id"]]
        if picture is None:
            raise DataError("cut short")
        return np.ascontiguousarray(picture)

    records = pa.table({"item_id": list(pictures), "emotion": ["sad"] * 5})
    faces = reconstructor.faces(records, read, landmarker)
    table = faces.table
    assert table["item_id"].to_pylist() == ["a", "d", "e"]
    assert [(r.item_id, r.reason) for r in faces.rejects] == [("b", "no_face"), ("c", "unreadable_image")]
    names = [name for name, _ in (*FITTED_SCHEMA, *EMICA_SCHEMA)]
    assert table.column_names == ["item_id", "emotion", "shape", "expression", *names]
    assert vector_array(table["shape"]).shape == (3, 300)
    assert vector_array(table["light"]).shape == (3, 27)
    assert all(table["alignment_is_converged"].to_pylist())
    assert np.abs(vector_array(table["shape"])[0] - vector_array(table["shape"])[2]).max() < 1e-5
    assert np.isfinite(table["residual_px"].to_numpy()).all()
    alone = reconstructor.face(astronaut(), landmarker, "a", FaceBox(0, 0, -1, -1))
    assert np.abs(alone.reconstruction.shape - vector_array(table["shape"])[0]).max() < 1e-4
    with pytest.raises(NoFaceError):
        reconstructor.face(BLANK, landmarker, "b")


def test_the_backend_needs_its_file(tmp_path, head, repository):
    settings = _reconstruct(load_params(repository / "params.yaml").sample.reconstruct)
    for path in (None, tmp_path / "absent.safetensors"):
        with pytest.raises(AssetMissingError, match="assets add emica"):
            Reconstructor(head, settings, path)
