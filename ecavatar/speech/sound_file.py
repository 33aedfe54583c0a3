"""Sound files and the sound of films, decoded piece by piece: what audio.py resamples.

libsndfile reads what it can; the ffmpeg program of imageio-ffmpeg decodes the rest into a pipe. Either way nothing but
the current piece is in memory.
"""

import contextlib
import logging
import struct
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from jaxtyping import Float

from ecavatar.errors import AssetMissingError, DataError, MissingDependencyError

logger = logging.getLogger(__name__)

READABLE: Final = "wav, flac, ogg, mp3, m4a, mp4 and whatever else ffmpeg decodes"
_SOUNDFILE_SUFFIXES: Final = frozenset({".wav", ".flac", ".ogg", ".aiff", ".aif", ".au"})
_AU_HEADER: Final = struct.Struct(">4sIIIII")  # magic, offset of the samples, bytes, encoding, rate, channels
_AU_FLOAT: Final = 6


@dataclass(frozen=True, slots=True)
class DecodedSound:
    """A sound that is being decoded."""

    rate: int
    """Frames per second, positive."""
    pieces: Iterator[Float[np.ndarray, "frames channels"]]
    """float32 samples, about -1..1, in order; the last piece may be shorter. Empty for a file without samples."""


def require_sound_file(path: Path) -> None:
    """Checks what can be known without decoding.

    Raises:
        AssetMissingError: no such file.
        DataError: a directory, or a file of no bytes.
    """
    if path.is_dir():
        raise DataError(f"{path} is a directory; expected one sound file ({READABLE}). Name the file in it.")
    if not path.is_file():
        raise AssetMissingError(f"sound file {path} does not exist. Check the path; {READABLE} can be read.")
    if not path.stat().st_size:
        raise DataError(f"{path} is an empty file (0 bytes); expected sound. Record or export it again.")


@contextlib.contextmanager
def decoding(path: Path, seconds: float) -> Generator[DecodedSound]:
    """The sound of `path`, decoded in pieces of `seconds`.

    Args:
        path: a file that `require_sound_file` has accepted.
        seconds: length of a piece, positive.

    Raises:
        DataError: unreadable, no sound track, cut short; also while the pieces are iterated over.
        MissingDependencyError: ffmpeg is needed and not there.
    """
    opened = _soundfile(path, seconds) if path.suffix.lower() in _SOUNDFILE_SUFFIXES else _ffmpeg(path, seconds)
    with opened as sound:
        if sound.rate <= 0:
            raise DataError(f"{path} says {sound.rate} samples per second; expected a positive rate. Export it again.")
        yield sound


@contextlib.contextmanager
def _soundfile(path: Path, seconds: float) -> Generator[DecodedSound]:
    import soundfile  # loads libsndfile; only when needed

    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(
            f"{path} cannot be read as sound ({error}). Export it again, for instance as 16-bit wav."
        ) from None
    with file:
        yield DecodedSound(file.samplerate, _soundfile_pieces(path, file, max(1, round(seconds * file.samplerate))))


def _soundfile_pieces(path: Path, file: Any, frames: int) -> Iterator[np.ndarray]:
    import soundfile

    read = 0
    while True:
        try:
            piece = file.read(frames, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise DataError(f"{path} is damaged after {read} samples ({error}). Export it again.") from None
        read += len(piece)
        if len(piece):
            yield piece
        if len(piece) < frames:
            break
    if read < file.frames:
        raise DataError(f"{path} promises {file.frames} samples and ends after {read}. Copy or export it again.")


@contextlib.contextmanager
def _ffmpeg(path: Path, seconds: float) -> Generator[DecodedSound]:
    command = [_ffmpeg_program(path), "-nostdin", "-v", "error", "-i", f"file:{path}", "-vn"]
    command += ["-c:a", "pcm_f32be", "-bitexact", "-f", "au", "pipe:1"]
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints)
        pipe = process.stdout
        try:
            if pipe is None:
                raise RuntimeError("a process started with a pipe has none")
            rate, channels = _au_header(pipe.read(_AU_HEADER.size), pipe) or _no_sound(path, process, complaints)
            frames = max(1, round(seconds * rate))
            yield DecodedSound(rate, _ffmpeg_pieces(path, process, complaints, channels, frames))
        finally:
            process.kill()  # does nothing once it has ended
            process.communicate()


def _ffmpeg_program(path: Path) -> str:
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError(
            f"reading {path.suffix or 'this'} files needs ffmpeg, which is not there ({error}). "
            "Install imageio-ffmpeg, or convert the file to wav."
        ) from None


def _au_header(header: bytes, pipe: IO[bytes]) -> tuple[int, int] | None:
    """Rate and channels of Sun's au format, and the pipe moved to the samples; None without a header."""
    if len(header) < _AU_HEADER.size:
        return None
    magic, offset, _, encoding, rate, channels = _AU_HEADER.unpack(header)
    if magic != b".snd" or encoding != _AU_FLOAT or not channels or offset < len(header):
        raise RuntimeError(f"ffmpeg answered {header!r} where float samples in au format were asked for")
    pipe.read(offset - len(header))
    return rate, channels


def _no_sound(path: Path, process: subprocess.Popen[bytes], complaints: IO[bytes]) -> tuple[int, int]:
    process.wait()  # it has closed its output; what it complains about may still be on its way
    reason = _complaint(complaints) or f"ffmpeg ended with {process.returncode}"
    raise DataError(f"{path} has no readable sound track ({reason}). Give a sound file, or a video with sound.")


def _ffmpeg_pieces(
    path: Path, process: subprocess.Popen[bytes], complaints: IO[bytes], channels: int, frames: int
) -> Iterator[np.ndarray]:
    pipe, size = process.stdout, frames * channels * 4
    while pipe is not None and (raw := pipe.read(size)):
        whole = len(raw) - len(raw) % (channels * 4)
        yield np.frombuffer(raw[:whole], ">f4").reshape(-1, channels).astype(np.float32)
    if process.wait():
        reason = _complaint(complaints) or f"ffmpeg ended with {process.returncode}"
        raise DataError(f"{path} cannot be decoded to its end ({reason}). Copy or export it again.")
    if reason := _complaint(complaints):
        logger.warning("%s: decoded, but ffmpeg complains: %s. Listen to it, or export it again.", path, reason)


def _complaint(complaints: IO[bytes]) -> str:
    """The last line that ffmpeg wrote."""
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
