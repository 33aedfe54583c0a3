"""One real photo and one real recording become a film; each way the input can be wrong ends with one message and 2."""

import wave
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from ecavatar.rendering.video import read_frames, video_facts
from ecavatar.speech.audio import SPEECH_RATE, read_audio

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    Image.fromarray(skimage.data.astronaut()).save(path)
    return path


def animate(built, *arguments, check=True):
    return built.python("-m", "ecavatar.cli", "animate", *map(str, arguments), check=check)


@pytest.mark.parametrize("label", [("--emotion", "happy", "--level", "3"), ()], ids=["given", "recognised"])
def test_a_real_photo_speaks_a_real_voice(built, photo, shared_data, tmp_path, label):
    voice = shared_data / "emodb_cc0" / "wav" / "03a01Fa.wav"
    out = tmp_path / "clip.mp4"
    done = animate(built, photo, voice, "--out", out, "--size", "128", *label)
    if label:
        assert "emotion: happy 3" in done.stdout
    facts = video_facts(out)
    seconds = len(read_audio(voice)) / SPEECH_RATE
    frames = np.stack(list(read_frames(out)))
    assert facts.fps == 30
    assert len(frames) == round(seconds * 30)
    assert len(read_audio(out)) / SPEECH_RATE == pytest.approx(seconds, abs=0.1), "the film has its sound"
    changes = np.abs(np.diff(frames.astype(int), axis=0)).max(axis=(1, 2, 3))
    assert (changes > 20).any(), "the face moves"


def test_the_same_call_gives_the_same_film(built, photo, tmp_path):
    voice = next((built.root / "data/sample/raw/ravdess").rglob("*.mp4"))
    for name in ("one.mp4", "other.mp4"):
        animate(built, photo, voice, "--out", tmp_path / name, "--size", "64", "--emotion", "sad")
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "other.mp4").read_bytes()


def test_wrong_input_ends_with_2_and_leaves_nothing(built, photo, tmp_path):
    empty = tmp_path / "wall.png"
    Image.new("RGB", (256, 256), "grey").save(empty)
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF nonsense")
    voice = tmp_path / "voice.wav"
    with wave.open(str(voice), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(bytes(32000))
    out = tmp_path / "clip.mp4"
    wrong = {
        "face": (empty, voice),
        "nowhere.png": (tmp_path / "nowhere.png", voice),
        "broken.wav": (photo, broken),
        "unknown emotion": (photo, voice, "--emotion", "hapy"),
        "--level needs --emotion": (photo, voice, "--level", "2"),
        "give it without --emotion": (photo, voice, "--emotion", "sad", "--track", broken),
        "mine.json": (photo, voice, "--track", tmp_path / "mine.json"),
    }
    for words, (picture, sound, *options) in wrong.items():
        done = animate(built, picture, sound, "--out", out, *options, check=False)
        assert done.returncode == 2, (words, done.stdout, done.stderr)
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert not out.exists()
