"""Sound files come back as the sound that was written."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile

from ecavatar.errors import DataError
from ecavatar.speech.audio import normalise, read_audio, resample


def tone(rate: int, seconds: float = 0.5, pitch: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def test_resampling_keeps_duration_pitch_and_loudness(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(48000), 48000)
    samples = read_audio(tmp_path / "a.wav")
    assert samples.dtype == np.float32
    assert abs(len(samples) - 8000) <= 1
    np.testing.assert_allclose(samples[500:-500], tone(16000)[500 : len(samples) - 500], atol=2e-3)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left = tone(16000)
    soundfile.write(tmp_path / "a.flac", np.stack([left, -left], axis=1), 16000)
    assert np.abs(read_audio(tmp_path / "a.flac")).max() < 1e-4


def test_the_sound_of_a_video_is_its_sound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(16000, 1.0), 16000)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", "color=black:s=64x64:d=1"]
    command += ["-i", str(tmp_path / "a.wav"), "-c:a", "aac", "-shortest", str(tmp_path / "a.mp4")]
    subprocess.run(command, check=True)
    samples = read_audio(tmp_path / "a.mp4")
    spectrum = np.abs(np.fft.rfft(samples[2000:14000]))
    assert abs(np.fft.rfftfreq(12000, 1 / 16000)[spectrum.argmax()] - 440) < 2
    assert 0.3 < np.abs(samples).max() < 0.7


def test_normalised_samples_have_mean_zero_and_variance_one() -> None:
    samples = normalise(0.01 * tone(16000) + 0.3)
    assert abs(samples.mean()) < 1e-5
    assert abs(samples.var() - 1) < 1e-2
    assert not normalise(np.zeros(100)).any()


def test_resampling_to_the_same_rate_changes_nothing() -> None:
    np.testing.assert_array_equal(resample(tone(16000), 16000, 16000), tone(16000))


@pytest.mark.parametrize("name", ["missing.wav", "text.wav", "text.mp4", "empty.wav", "silent.mp4", "nan.wav"])
def test_unusable_sound_is_refused_with_its_path(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("text"):
        path.write_text("this is no sound")
    elif name == "empty.wav":
        soundfile.write(path, np.zeros(0, np.float32), 16000)
    elif name == "nan.wav":
        soundfile.write(path, np.full(100, np.nan, np.float32), 16000, subtype="FLOAT")
    elif name == "silent.mp4":
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", "color=black:s=64x64:d=0.2"]
        subprocess.run([*command, str(path)], check=True)
    with pytest.raises(DataError, match=name):
        read_audio(path)


def test_a_real_recording_is_read(shared_data: Path) -> None:
    path = next((shared_data / "emodb_cc0").rglob("*.wav"))
    samples = read_audio(path)
    assert len(samples) > 8000
    assert 0.01 < np.abs(samples).max() <= 1.0
