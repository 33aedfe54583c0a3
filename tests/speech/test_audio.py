"""Sound files come back as the sound that was written."""

import struct
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from ecavatar.errors import AssetMissingError, DataError, EcavatarError
from ecavatar.seeding import stream
from ecavatar.speech.audio import audio_blocks, normalise, read_audio, resample
from ecavatar.speech.sound_facts import measure_sound


def tone(rate: int, seconds: float = 0.5, pitch: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *map(str, arguments)], check=True)


def pitch_of(samples: np.ndarray) -> float:
    inner = samples[len(samples) // 8 : -len(samples) // 8]
    return np.fft.rfftfreq(len(inner), 1 / 16000)[np.abs(np.fft.rfft(inner)).argmax()]


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_resampling_keeps_duration_pitch_and_loudness(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(rate), rate)
    samples = read_audio(tmp_path / "a.wav")
    assert samples.dtype == np.float32
    assert abs(len(samples) - 8000) <= 1
    np.testing.assert_allclose(samples[500:-500], tone(16000)[500 : len(samples) - 500], atol=2e-3)


def test_resampling_leaves_no_alias_of_what_the_new_rate_cannot_carry() -> None:
    heard = resample(tone(48000, pitch=11000.0), 48000, 16000)  # would fold to 5 kHz
    assert np.abs(heard[200:-200]).max() < 1e-4


def test_channels_are_averaged(tmp_path: Path) -> None:
    left = tone(16000)
    soundfile.write(tmp_path / "a.flac", np.stack([left, -left], axis=1), 16000)
    assert np.abs(read_audio(tmp_path / "a.flac")).max() < 1e-4
    soundfile.write(tmp_path / "a.wav", np.stack([left] + 5 * [0 * left], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), left / 6, atol=1e-6)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "m4a", "mp4", "mkv", "opus"])
def test_every_format_gives_its_tone_at_its_place(tmp_path: Path, suffix: str) -> None:
    silence_then_tone = np.concatenate([np.zeros(24000, np.float32), tone(48000)])
    source, path = tmp_path / "source.wav", tmp_path / f"a.{suffix}"
    soundfile.write(source, np.stack(2 * [silence_then_tone], axis=1), 48000)
    picture = ["-f", "lavfi", "-i", "color=black:s=64x64:d=1"] if suffix in ("mp4", "mkv") else []
    ffmpeg(*picture, "-i", source, path) if suffix != "wav" else source.rename(path)
    samples = read_audio(path)
    assert abs(len(samples) / 16000 - 1) < 0.06, "codecs may add padding"
    assert abs(pitch_of(samples[8800:15200]) - 440) < 4
    assert 0.4 < np.abs(samples[9600:15200]).max() < 0.6
    assert np.abs(samples[:7200]).max() < 0.02


def test_normalised_samples_have_mean_zero_and_variance_one() -> None:
    samples = normalise(0.01 * tone(16000) + 0.3)
    assert abs(samples.mean()) < 1e-5
    assert abs(samples.var() - 1) < 1e-2
    assert not normalise(np.zeros(100)).any()


def test_normalising_is_what_the_processor_of_transformers_does() -> None:
    from transformers import Wav2Vec2FeatureExtractor

    samples = (0.1 * stream(0, "noise").standard_normal(5000) + 0.05).astype(np.float32)
    expected = Wav2Vec2FeatureExtractor(do_normalize=True)(samples, sampling_rate=16000)["input_values"][0]
    np.testing.assert_allclose(normalise(samples), expected, atol=1e-5)


def test_resampling_to_the_same_rate_changes_nothing() -> None:
    np.testing.assert_array_equal(resample(tone(16000), 16000, 16000), tone(16000))


@pytest.mark.parametrize(("rate", "new_rate"), [(0, 16000), (16000, 0), (-8000, 16000)])
def test_impossible_rates_are_refused(rate: int, new_rate: int) -> None:
    with pytest.raises(DataError, match="positive"):
        resample(tone(16000), rate, new_rate)


# --- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.mp4"])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_blocks_are_the_whole_in_pieces(tmp_path: Path, name: str, rate: int) -> None:
    noise = 0.2 * stream(0, "blocks", rate).standard_normal((rate * 3 + 77, 2)).astype(np.float32)
    soundfile.write(tmp_path / "source.flac", noise, rate)
    ffmpeg("-i", tmp_path / "source.flac", tmp_path / name)
    whole = read_audio(tmp_path / name)
    for seconds in (0.1, 0.7, 100.0):
        blocks = list(audio_blocks(tmp_path / name, seconds))
        assert {len(block) for block in blocks[:-1]} <= {round(seconds * 16000)}
        assert 0 < len(blocks[-1]) <= round(seconds * 16000)
        np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-5)


def test_blocks_equal_resampling_everything_at_once(tmp_path: Path) -> None:
    noise = 0.2 * stream(0, "blocks").standard_normal(48000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, 22050, subtype="FLOAT")
    np.testing.assert_allclose(
        np.concatenate(list(audio_blocks(tmp_path / "a.wav", 0.25))), resample(noise, 22050, 16000), atol=1e-5
    )


@pytest.mark.parametrize("suffix", ["wav", "m4a"])
def test_reading_blocks_of_a_long_recording_takes_little_memory(tmp_path: Path, suffix: str) -> None:
    import tracemalloc

    path = tmp_path / f"long.{suffix}"
    ffmpeg("-f", "lavfi", "-i", "anoisesrc=d=300:r=22050:a=0.1:s=1", path)
    tracemalloc.start()
    try:
        n_samples = sum(len(block) for block in audio_blocks(path, 5.0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert abs(n_samples - 300 * 16000) < 3000
    assert peak < 4_000_000, "five minutes are 19 MB"


def test_a_reader_that_stops_early_leaves_no_decoder_behind(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "anoisesrc=d=60:r=48000:a=0.1:s=1", tmp_path / "a.mka")
    blocks = audio_blocks(tmp_path / "a.mka", 0.5)
    assert len(next(blocks)) == 8000
    blocks.close()  # pyright: ignore[reportAttributeAccessIssue]
    children = Path("/proc/self/task").glob("*/children")
    running = {pid for file in children for pid in file.read_text().split()}
    assert not [pid for pid in running if "ffmpeg" in Path(f"/proc/{pid}/cmdline").read_text()]


def test_blocks_of_no_length_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(16000), 16000)
    for seconds, rate in [(0.0, 16000), (-1.0, 16000), (1.0, 0)]:
        with pytest.raises(DataError, match="no sample"):
            audio_blocks(tmp_path / "a.wav", seconds, rate)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.floats(-0.5, 0.5), st.floats(0.001, 0.5))
def test_facts_of_blocks_are_those_of_the_whole(counts: list[int], offset: float, scale: float) -> None:
    rng = stream(0, "facts")
    blocks = [scale * rng.standard_normal(count) + offset for count in [*counts, 3]]
    whole = np.concatenate(blocks)
    facts = measure_sound(blocks, 16000)
    assert facts.level.mean == pytest.approx(whole.mean(), abs=1e-12)
    assert facts.level.variance == pytest.approx(whole.var(), abs=1e-12)
    assert (facts.peak, facts.seconds) == (np.abs(whole).max(), len(whole) / 16000)
    together = np.concatenate([normalise(block, facts.level) for block in blocks])
    np.testing.assert_allclose(together, normalise(whole), atol=1e-5)


# --- what is unusual --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "word"),
    [
        (np.zeros(16000), "silent"),
        (np.full(16000, 0.2), "silent"),
        (0.1 * tone(16000) + 0.05, "shifted by +0.05"),
        (np.clip(4 * tone(16000), -1, 1), "clipped"),
        (tone(16000, 0.01), "10 ms"),
    ],
)
def test_unusual_sound_is_reported(samples: np.ndarray, word: str) -> None:
    assert any(word in warning for warning in measure_sound([samples], 16000).warnings())


def test_ordinary_speech_gives_no_warning() -> None:
    assert not measure_sound([tone(16000)], 16000).warnings()
    loud = stream(0, "loud").standard_normal(16000)
    assert not measure_sound([loud / np.abs(loud).max()], 16000).warnings(), "peak-normalised"


def test_clipping_is_still_seen_after_resampling(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.clip(4 * tone(44100), -1, 1), 44100)
    assert measure_sound([read_audio(tmp_path / "a.wav")], 16000).clipped_share > 0.1


def test_an_offset_is_kept_unless_asked(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(16000) + 0.2, 16000, subtype="FLOAT")
    assert read_audio(tmp_path / "a.wav").mean() == pytest.approx(0.2, abs=1e-3)
    without = read_audio(tmp_path / "a.wav", remove_offset=True)
    assert without.dtype == np.float32
    np.testing.assert_allclose(without, tone(16000), atol=1e-3)


def test_nothing_has_no_facts() -> None:
    with pytest.raises(DataError, match="no samples"):
        measure_sound([np.zeros(0)], 16000)


# --- bad input --------------------------------------------------------------------------------------------------------


def spoil(path: Path) -> None:
    """Write the unusable file that the name describes."""
    if path.stem == "text":
        path.write_text("this is no sound")
    elif path.stem == "bytes":
        path.write_bytes(b"")
    elif path.stem == "empty":
        soundfile.write(path, np.zeros(0, np.float32), 16000)
    elif path.stem == "nan":
        soundfile.write(path, np.full(100, np.nan, np.float32), 16000, subtype="FLOAT")
    elif path.stem == "silent":
        ffmpeg("-f", "lavfi", "-i", "color=black:s=64x64:d=0.2", path)
    elif path.stem == "folder":
        path.mkdir()
    elif path.stem == "rateless":
        soundfile.write(path, tone(16000), 16000)
        content = bytearray(path.read_bytes())
        content[24:28] = struct.pack("<I", 0)
        path.write_bytes(content)
    elif path.stem == "cut":
        whole = path.with_stem("whole")
        soundfile.write(whole.with_suffix(".wav"), 0.2 * stream(0, "cut").standard_normal(160000), 16000)
        ffmpeg("-i", whole.with_suffix(".wav"), whole)
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])


@pytest.mark.parametrize(
    "name",
    ["text.wav", "text.mp4", "text.mp3", "bytes.wav", "bytes.m4a", "empty.wav", "silent.mp4", "nan.wav", "folder.wav",
     "folder", "rateless.wav", "cut.flac", "cut.m4a"],
)  # fmt: skip
def test_unusable_sound_is_refused_with_its_path(tmp_path: Path, name: str) -> None:
    spoil(tmp_path / name)
    with pytest.raises(DataError, match=name) as caught:
        read_audio(tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=name):
        list(audio_blocks(tmp_path / name, 0.5))


def test_a_missing_file_is_named_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(AssetMissingError, match=r"missing\.wav"):
        read_audio(tmp_path / "missing.wav")
    with pytest.raises(EcavatarError, match=r"missing\.wav"):
        audio_blocks(tmp_path / "missing.wav", 1.0)


def test_a_name_that_ffmpeg_would_take_for_a_protocol_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", tone(16000), 16000)
    ffmpeg("-i", tmp_path / "a.wav", "-f", "mp3", f"file:{tmp_path / '-concat:b.mp3'}")
    monkeypatch.chdir(tmp_path)
    assert abs(len(read_audio(Path("-concat:b.mp3"))) / 16000 - 0.5) < 0.1


def test_a_real_recording_is_read(shared_data: Path) -> None:
    path = next((shared_data / "emodb_cc0").rglob("*.wav"))
    samples = read_audio(path)
    assert len(samples) > 8000
    assert 0.01 < np.abs(samples).max() <= 1.0
    assert not measure_sound([samples], 16000).warnings()
