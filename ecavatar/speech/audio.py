"""Sound files -> mono float32 samples at the rate that speech models expect."""

import subprocess
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ecavatar.errors import DataError, MissingDependencyError

SPEECH_RATE: Final = 16000
"""Samples per second of every speech model used here."""

_SOUNDFILE_SUFFIXES: Final = frozenset({".wav", ".flac", ".ogg", ".aiff", ".aif", ".au"})
_STEREO_AXES: Final = 2


def read_audio(path: Path, rate: int = SPEECH_RATE) -> NDArray[np.float32]:
    """The sound of `path`, mono, resampled to `rate`.

    Args:
        path: wav, flac, ogg, aiff or au (read by libsndfile); any other sound or video file is decoded by the ffmpeg
            binary of imageio-ffmpeg.
        rate: samples per second of the result.

    Returns:
        (N,) samples, about -1..1, N at least 1. Channels are averaged.

    Raises:
        DataError: the file is missing, unreadable, has no sound track, is empty, or holds samples that are not finite.
        MissingDependencyError: ffmpeg is needed and not there.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"sound file {path} does not exist. Check the path; wav, flac, ogg, mp3, m4a and mp4 can be read."
        )
    native = _read_soundfile(path) if path.suffix.lower() in _SOUNDFILE_SUFFIXES else _read_ffmpeg(path)
    samples, native_rate = native
    if samples.ndim == _STEREO_AXES:
        samples = samples.mean(axis=1)
    if not len(samples):
        raise DataError(f"{path} holds no sound. Expected at least one sample; export it again.")
    if not np.isfinite(samples).all():
        raise DataError(f"{path} holds samples that are not finite numbers. Export it again as 16-bit wav.")
    return resample(samples, native_rate, rate)


def resample(samples: NDArray[np.floating], rate: int, new_rate: int) -> NDArray[np.float32]:
    """`samples` (N,) or (N, channels) at `rate`, at `new_rate` (soxr, high quality); float32, same duration.

    Raises:
        DataError: a rate is not positive.
    """
    if rate <= 0 or new_rate <= 0:
        raise DataError(f"sampling rates must be positive, got {rate} and {new_rate} Hz.")
    if rate == new_rate:
        return np.ascontiguousarray(samples, dtype=np.float32)
    import soxr  # loads a native library; only when needed

    return soxr.resample(np.asarray(samples, dtype=np.float32), rate, new_rate, quality="HQ").astype(np.float32)


def normalise(samples: NDArray[np.floating]) -> NDArray[np.float32]:
    """`samples` (N,) with mean 0 and variance 1, as HuBERT's and wav2vec2's processors do; silence stays zero."""
    wide = np.asarray(samples, dtype=np.float64)
    centred = wide - wide.mean()
    return (centred / np.sqrt(centred.var() + 1e-7)).astype(np.float32)


def _read_soundfile(path: Path) -> tuple[NDArray[np.float32], int]:
    import soundfile  # loads libsndfile; only when needed

    try:
        samples, rate = soundfile.read(path, dtype="float32")
        return np.asarray(samples, np.float32), rate
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(
            f"{path} cannot be read as sound ({error}). Export it again, for instance as 16-bit wav."
        ) from None


def _read_ffmpeg(path: Path) -> tuple[NDArray[np.float32], int]:
    try:
        import imageio_ffmpeg

        binary = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError(
            f"reading {path.suffix or 'this'} files needs ffmpeg, which is not there ({error}). "
            "Install imageio-ffmpeg, or convert the file to wav."
        ) from None
    with tempfile.TemporaryDirectory() as scratch:
        wav = Path(scratch) / "sound.wav"
        command = [
            binary,
            "-nostdin",
            "-v",
            "error",
            "-i",
            str(path),
            "-vn",
            "-c:a",
            "pcm_f32le",
            "-bitexact",
            str(wav),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not wav.is_file():
            lines = done.stderr.strip().splitlines()
            reason = lines[-1] if lines else f"ffmpeg ended with {done.returncode}"
            raise DataError(f"{path} has no readable sound track ({reason}). Give a sound file, or a video with sound.")
        return _read_soundfile(wav)
