"""A recording and a neutral face become a speaking head: with and without mouth, in memory, on disk and live."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from ecavatar.animation.lip_picture import SoundEnvelope, write_lip_picture
from ecavatar.animation.lip_stream import ChunkPlan
from ecavatar.animation.lips import LipSpeaker, bfloat16_change_mm, lip_opening, read_template, speak, write_lips
from ecavatar.animation.motion import read_motion
from ecavatar.errors import AssetMissingError, ConfigError, DataError, EcavatarError, ShapeError, TopologyError
from ecavatar.face.mesh_file import write_mesh
from ecavatar.models.selftalk import LipReadingInterpreter, SelfTalk
from ecavatar.mouth.fit import fit_mouth, pose_mouth
from ecavatar.mouth.procedural import procedural_mouth
from ecavatar.speech.audio import SPEECH_RATE, read_audio
from ecavatar.speech.recogniser import CtcRecogniser
from ecavatar.training.weights import save_weights
from tests.animation.test_lip_stream import ENCODER, speech
from tests.fabricate_mouth import open_face, small_mouth

PLAN = ChunkPlan(hop_s=1.0, left_s=0.5, right_s=0.3, fade_s=0.1)


def write_selftalk(directory, asset, kind="rigged", n_mouth=0, **facts):
    """A random network that moves lips by millimetres and the jaw by degrees."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = SelfTalk(
            encoder=ENCODER, frozen="all", n_vertices=asset.n_vertices, feature_dim=8, heads=2, dropout=0.1,
            output_scale_m=0.001, mouth=kind, n_mouth=n_mouth,
        )  # fmt: skip
        with torch.no_grad():
            network.vertex_map.weight.normal_()
            if network.angle_map is not None:
                network.angle_map.weight.normal_(std=0.02)
    save_weights(directory, network, {"topology": asset.topology, "fps": 30} | facts)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """face.npz, template.ply, selftalk/ and voice.wav of the open head."""
    root, asset = tmp_path_factory.mktemp("lips"), open_face()
    asset.save(root / "face.npz")
    write_mesh(root / "template.ply", asset.template, asset.faces)
    write_selftalk(root / "selftalk", asset)
    soundfile.write(root / "voice.wav", speech(3.1), SPEECH_RATE)
    return root


@pytest.fixture(scope="module")
def speaker(place) -> LipSpeaker:
    return LipSpeaker.load(selftalk=place / "selftalk", face_model=place / "face.npz")


def test_a_head_with_the_open_mouth_has_15051_vertices_face_first(place, speaker):
    mouth = procedural_mouth()
    with_mouth = speak(place / "voice.wav", place / "template.ply", speaker, mouth=mouth, plan=PLAN)
    face = speak(place / "voice.wav", place / "template.ply", speaker, plan=PLAN)
    assert with_mouth.motion.vertices.shape == (93, 15051, 3)
    assert (with_mouth.motion.topology, face.motion.topology) == ("open-head+mouth", "open-head")
    assert np.array_equal(with_mouth.motion.vertices[:, :5023], face.motion.vertices)
    fit = fit_mouth(mouth, face.motion.template, speaker.asset)
    posed = pose_mouth(mouth, fit, with_mouth.angles)
    np.testing.assert_allclose(with_mouth.motion.vertices[:, 5023:], posed, atol=1e-6)
    np.testing.assert_allclose(with_mouth.motion.template[5023:], fit.closed(mouth), atol=1e-7)


def test_what_is_written_is_what_is_spoken(tmp_path, place, speaker):
    spoken = speak(place / "voice.wav", place / "template.ply", speaker, mouth=small_mouth(), plan=PLAN)
    for name in ("a", "b"):
        curves, sound = write_lips(
            place / "voice.wav", place / "template.ply", tmp_path / f"{name}.npz", speaker, mouth=small_mouth(),
            picture=tmp_path / f"{name}.png", plan=PLAN,
        )  # fmt: skip
    motion = read_motion(tmp_path / "a.npz")
    assert np.array_equal(motion.vertices, spoken.motion.vertices)
    assert np.array_equal(motion.template, spoken.motion.template)
    assert (motion.fps, motion.topology) == (30, "open-head+mouth")
    assert np.array_equal(curves.angles, spoken.angles)
    assert np.array_equal(curves.opening_m, lip_opening(speaker.asset, spoken.motion.vertices[:, :5023]))
    assert sound.seconds == pytest.approx(3.1)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as data:
        assert np.array_equal(data["angles"], spoken.angles)
    for kind in ("npz", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_live_lips_in_any_blocks_are_those_of_the_file(place, speaker):
    spoken = speak(place / "voice.wav", place / "template.ply", speaker, mouth=small_mouth(), plan=PLAN)
    samples = read_audio(place / "voice.wav")
    live = speaker.live(spoken.motion.template[:5023], small_mouth(), plan=PLAN, level=spoken.sound.level)
    parts = [part for block in np.array_split(samples, 37) for part in live.push(block)] + live.finish()
    assert np.array_equal(np.concatenate([part.vertices for part in parts]), spoken.motion.vertices)
    assert live.latency_s == pytest.approx(1.325)


def test_a_face_folder_serves_as_template(tmp_path, place, speaker):
    write_mesh(tmp_path / "neutral.ply", speaker.asset.template, speaker.asset.faces)
    assert np.array_equal(read_template(tmp_path, speaker.asset), read_template(place / "template.ply", speaker.asset))
    with pytest.raises(AssetMissingError, match="neutral"):
        read_template(place, speaker.asset)


def test_a_network_that_regresses_the_mouth_speaks_with_its_own_mouth_only(tmp_path, place, speaker):
    mouth = small_mouth()
    count = len(mouth.vertices)
    write_selftalk(tmp_path / "w", speaker.asset, "regressed", count, mouth={"name": "small", "vertices": count})
    regressing = LipSpeaker.load(selftalk=tmp_path / "w", face_model=place / "face.npz")
    spoken = speak(place / "voice.wav", place / "template.ply", regressing, mouth=mouth, plan=PLAN)
    assert spoken.angles is None
    assert spoken.motion.vertices.shape == (93, 5023 + count, 3)
    face = speak(place / "voice.wav", place / "template.ply", regressing, plan=PLAN)
    np.testing.assert_allclose(face.motion.vertices, spoken.motion.vertices[:, :5023], atol=1e-6)
    with pytest.raises(DataError, match="trained with"):
        speak(place / "voice.wav", place / "template.ply", regressing, mouth=procedural_mouth())
    write_selftalk(tmp_path / "nameless", speaker.asset, "regressed", count - 1)
    nameless = LipSpeaker.load(selftalk=tmp_path / "nameless", face_model=place / "face.npz")
    with pytest.raises(DataError, match=f"{count - 1} vertices"):
        nameless.head(speaker.asset.template, mouth)


def test_neither_interpreter_nor_recogniser_is_built(place, monkeypatch):
    def forbidden(*_args, **_kwargs):
        raise AssertionError("speaking must not need it")

    for cls in (LipReadingInterpreter, CtcRecogniser):
        monkeypatch.setattr(cls, "__init__", forbidden)
    fresh = LipSpeaker.load(selftalk=place / "selftalk", face_model=place / "face.npz")
    assert len(speak(place / "voice.wav", place / "template.ply", fresh, plan=PLAN).motion.vertices) == 93


def test_what_does_not_fit_is_refused(tmp_path, place, speaker, small_face):
    voice, template = place / "voice.wav", place / "template.ply"
    write_mesh(tmp_path / "small.ply", small_face.template, small_face.faces)
    shuffled = speaker.asset.template[np.random.default_rng(0).permutation(5023)]
    write_mesh(tmp_path / "shuffled.ply", shuffled, speaker.asset.faces)
    write_mesh(tmp_path / "millimetres.ply", 1000 * speaker.asset.template, speaker.asset.faces)
    for name, error, word in (
        ("small.ply", TopologyError, "5023"), ("shuffled.ply", TopologyError, "open-head"),
        ("millimetres.ply", DataError, "millimetres"), ("nowhere.ply", AssetMissingError, "nowhere"),
    ):  # fmt: skip
        with pytest.raises(error, match=word):
            write_lips(voice, tmp_path / name, tmp_path / "out.npz", speaker)
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "none.wav", np.zeros(0), SPEECH_RATE)
    for sound in ("empty.wav", "none.wav", "nowhere.wav"):
        with pytest.raises(EcavatarError, match=sound.split(".")[0]):
            write_lips(tmp_path / sound, template, tmp_path / "out.npz", speaker)
    assert not (tmp_path / "out.npz").exists()


def test_weights_of_another_mesh_or_width_or_none_are_refused(tmp_path, place, speaker, small_face):
    face = place / "face.npz"
    with pytest.raises(AssetMissingError):
        LipSpeaker.load(selftalk=tmp_path / "nowhere", face_model=face)
    write_selftalk(tmp_path / "small", small_face)
    with pytest.raises(TopologyError):
        LipSpeaker.load(selftalk=tmp_path / "small", face_model=face)
    write_selftalk(tmp_path / "narrow", small_face, topology="open-head")
    with pytest.raises(DataError, match="226"):
        LipSpeaker.load(selftalk=tmp_path / "narrow", face_model=face)
    write_selftalk(tmp_path / "timeless", speaker.asset, fps=None)
    with pytest.raises(DataError, match="frame rate"):
        LipSpeaker.load(selftalk=tmp_path / "timeless", face_model=face)


def test_bfloat16_is_offered_where_it_moves_nothing_noticeably(place, monkeypatch):
    monkeypatch.setattr("ecavatar.animation.lips.multiplies_bfloat16", lambda _device: True)
    loose = LipSpeaker.load(selftalk=place / "selftalk", face_model=place / "face.npz")
    with pytest.raises(ConfigError, match=r"0\.05 mm"):
        loose.to_bfloat16(speech(1.0))
    strict = LipSpeaker.load(selftalk=place / "selftalk", face_model=place / "face.npz")
    with torch.no_grad():
        strict.network.vertex_map.weight.mul_(0.01)
    assert 0 < strict.to_bfloat16(speech(1.0)) < 0.05
    monkeypatch.setattr("ecavatar.animation.lips.multiplies_bfloat16", lambda _device: False)
    with pytest.raises(ConfigError, match="slower"):
        loose.to_bfloat16(speech(1.0))


def test_the_change_by_bfloat16_is_the_largest_distance_between_vertices(place):
    exact = LipSpeaker.load(selftalk=place / "selftalk", face_model=place / "face.npz").network
    rough = LipSpeaker.load(selftalk=place / "selftalk", face_model=place / "face.npz").network
    samples = speech(1.0)
    before = exact.offsets(torch.from_numpy(samples), 30).vertices
    change = bfloat16_change_mm(rough, samples, 30)
    after = rough.offsets(torch.from_numpy(samples), 30).vertices
    assert change == pytest.approx(1000 * float((after - before).norm(dim=-1).max()), rel=1e-5)


def test_the_envelope_holds_every_peak_whatever_the_blocks():
    samples = speech(2.0)
    samples[12345] = 0.9
    whole, pieces = SoundEnvelope(2.0), SoundEnvelope(2.0)
    whole.add(samples)
    for block in np.array_split(samples, 11):
        pieces.add(block)
    assert np.array_equal(whole.low, pieces.low)
    assert np.array_equal(whole.high, pieces.high)
    assert whole.high.max() == np.float32(0.9)
    assert abs(whole.times[whole.high.argmax()] - 12345 / SPEECH_RATE) < 2.0 / 1000


def test_the_picture_is_drawn_without_an_angle_too_and_checks_its_curves(tmp_path):
    envelope = SoundEnvelope(1.0)
    envelope.add(speech(1.0))
    opening = np.linspace(0, 0.01, 30)
    write_lip_picture(tmp_path / "a.png", envelope, opening, None, 30)
    write_lip_picture(tmp_path / "b.png", envelope, opening, opening * 20, 30)
    with Image.open(tmp_path / "a.png") as without, Image.open(tmp_path / "b.png") as with_angle:
        assert without.size == with_angle.size
        assert without.tobytes() != with_angle.tobytes()
    with pytest.raises(ShapeError, match="as many"):
        write_lip_picture(tmp_path / "c.png", envelope, opening, opening[1:], 30)


@pytest.mark.slow
def test_ten_minutes_take_no_more_memory_than_two(tmp_path, small_face):
    small_face.save(tmp_path / "face.npz")
    write_mesh(tmp_path / "template.ply", small_face.template, small_face.faces)
    write_selftalk(tmp_path / "selftalk", small_face)
    speaker = LipSpeaker.load(selftalk=tmp_path / "selftalk", face_model=tmp_path / "face.npz")
    minute, peaks = (speech(60.0) * 32767).astype(np.int16), {}
    for minutes in (2, 10):
        with soundfile.SoundFile(tmp_path / "voice.wav", "w", SPEECH_RATE, 1) as file:
            for _ in range(minutes):
                file.write(minute)
        tracemalloc.start()
        write_lips(tmp_path / "voice.wav", tmp_path / "template.ply", tmp_path / "out.npz", speaker)
        peaks[minutes] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[10] < 1.1 * peaks[2] + 10 * 60 * 30 * 16, "but for the curves, 16 bytes a frame"
    motion = np.load(tmp_path / "out.npz")["vertices"]
    assert motion.shape == (18000, small_face.n_vertices, 3)
    assert np.isfinite(motion).all()
