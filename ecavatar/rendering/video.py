"""Films on disk, through the ffmpeg program that imageio-ffmpeg carries.

The same frames and sound give the same bytes: one encoding thread, no dates, no version strings.
"""

import subprocess
import tempfile
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float, UInt8

from ecavatar.errors import AssetMissingError, DataError, ShapeError
from ecavatar.storage.files import atomic_path

BITEXACT = ("-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact", "-map_metadata", "-1")
MP4 = ("-movflags", "+faststart", "-f", "mp4")
AAC = ("-c:a", "aac", "-b:a", "96k")
COLOUR = "bt709"


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a film's header says."""

    height: int
    width: int
    fps: float
    duration: float
    has_audio: bool


def ffmpeg_program() -> str:
    """Path of the ffmpeg program."""
    import imageio_ffmpeg  # here, because finding the program touches the disk

    return imageio_ffmpeg.get_ffmpeg_exe()


def write_video(
    path: Path,
    frames: Iterable[UInt8[np.ndarray, "height width 3"]],
    fps: float,
    audio: tuple[Float[np.ndarray, " samples"], int] | None = None,
    *,
    quality: int = 20,
) -> int:
    """Write an mp4 (H.264, 4:2:0, and AAC where there is sound); it appears whole or not at all.

    Args:
        path: ends in .mp4; its folder exists.
        frames: sRGB bytes, all of one even size, at least one.
        fps: frames a second.
        audio: mono samples in -1..1 and their rate; cut, or filled up with silence, to the length of the picture.
        quality: x264's constant rate factor; smaller is better and bigger.

    Returns:
        Number of frames written.

    Raises:
        ShapeError: no frame, an odd size, frames of different sizes or not uint8.
        DataError: ffmpeg failed; its last words are in the message.
    """
    stream = iter(frames)
    first = next(stream, None)
    if first is None:
        raise ShapeError(f"a film needs at least one frame, got none for {path.name}.")
    height, width = _checked_frame(first, first.shape).shape[:2]
    if height % 2 or width % 2:
        raise ShapeError(f"H.264 with 4:2:0 colour needs even sides, got {height} x {width} for {path.name}.")
    with atomic_path(path) as temporary, tempfile.TemporaryDirectory() as scratch:
        silent = temporary if audio is None else Path(scratch) / "silent.mp4"
        picture = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps}", "-i", "-"]
        command = [*_ffmpeg(), *picture, *_encoder(quality), str(silent)]
        count = _feed(command, chain([first], stream), first.shape, path)
        if audio is not None:
            _add_sound(silent, audio, count / fps, temporary)
    return count


def write_sound(path: Path, samples: Float[np.ndarray, " samples"], rate: int) -> None:
    """Write mono sound as AAC in an .m4a; it appears whole or not at all.

    Args:
        path: its folder exists.
        samples: -1..1; what is beyond is clipped.
        rate: samples a second.

    Raises:
        DataError: ffmpeg failed; its last words are in the message.
    """
    with atomic_path(path) as temporary, tempfile.TemporaryDirectory() as scratch:
        wav = Path(scratch) / "sound.wav"
        soundfile.write(wav, np.clip(samples, -1, 1), rate, subtype="PCM_16")
        _run([*_ffmpeg(), "-i", str(wav), *AAC, *BITEXACT, "-f", "ipod", str(temporary)], path)


def _add_sound(silent: Path, audio: tuple[np.ndarray, int], duration: float, path: Path) -> None:
    """Put the sound, cut or filled up to the picture's length beforehand, into a film.

    ffmpeg's own -shortest ends at a point that depends on how its threads happen to run.
    """
    samples, rate = audio
    length = round(duration * rate)
    wav = silent.with_name("sound.wav")
    soundfile.write(wav, np.clip(np.pad(samples, (0, max(0, length - len(samples))))[:length], -1, 1), rate, "PCM_16")
    _run([*_ffmpeg(), "-i", str(silent), "-i", str(wav), "-c:v", "copy", *AAC, *BITEXACT, *MP4, str(path)], path)


def _ffmpeg() -> list[str]:
    return [ffmpeg_program(), "-y", "-nostdin", "-v", "error"]


def _encoder(quality: int) -> list[str]:
    colour = f"scale=out_color_matrix={COLOUR}:out_range=tv:flags=bicubic+accurate_rnd+bitexact"
    tags = ["-colorspace", COLOUR, "-color_primaries", COLOUR, "-color_trc", COLOUR, "-color_range", "tv"]
    codec = ["-c:v", "libx264", "-preset", "veryfast", "-crf", str(quality), "-pix_fmt", "yuv420p", "-threads", "1"]
    return ["-vf", colour, *codec, *tags, *BITEXACT, *MP4]


def _run(command: list[str], path: Path) -> None:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise DataError(f"ffmpeg could not write {path}: {done.stderr.decode(errors='replace').strip()[-500:]}")


def _feed(command: list[str], frames: Iterable[np.ndarray], shape: tuple[int, ...], path: Path) -> int:
    """Run ffmpeg and hand it the frames; the number of frames."""
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=words)
        pipe = process.stdin
        if pipe is None:  # never, given PIPE above; tells the type checker
            raise DataError("ffmpeg took no input.")
        count = 0
        try:
            for frame in frames:
                pipe.write(np.ascontiguousarray(_checked_frame(frame, shape)).data)
                count += 1
            pipe.close()
        except BrokenPipeError:
            pass  # ffmpeg stopped early: the exit code below says why
        except BaseException:
            process.kill()
            raise
        finally:
            process.wait()
        if process.returncode:
            words.seek(0)
            raise DataError(f"ffmpeg could not write {path}: {words.read().decode(errors='replace').strip()[-500:]}")
    return count


def _checked_frame(frame: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shape:
        raise ShapeError(
            f"a film's frames must be uint8 (height, width, 3) of one size, got {frame.dtype} {frame.shape} after "
            f"{shape}."
        )
    return frame


def video_facts(path: Path) -> VideoFacts:
    """Size, frame rate and length of a film.

    Raises:
        AssetMissingError: no such file.
        DataError: not a film that ffmpeg can read.
    """
    reader = _open_reader(path)
    try:
        facts = next(reader)
    except (OSError, RuntimeError, StopIteration) as error:
        raise DataError(f"{path} is not a film that can be read: {str(error)[-300:]}") from None
    finally:
        reader.close()
    width, height = facts["size"]
    return VideoFacts(
        height, width, float(facts["fps"]), float(facts["duration"]), facts.get("audio_codec") is not None
    )


def read_frames(path: Path) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """The frames of a film, sRGB bytes, one after the other.

    Raises:
        AssetMissingError: no such file.
        DataError: not a film that ffmpeg can read.
    """
    reader = _open_reader(path)
    try:
        width, height = next(reader)["size"]
        for data in reader:
            yield np.frombuffer(data, dtype=np.uint8).reshape(height, width, 3)
    except (OSError, RuntimeError, StopIteration) as error:
        raise DataError(f"{path} is not a film that can be read: {str(error)[-300:]}") from None
    finally:
        reader.close()


def _open_reader(path: Path) -> Generator[Any, None, None]:  # first a dict of facts, then bytes
    import imageio_ffmpeg  # here, because finding the program touches the disk

    if not path.is_file():
        raise AssetMissingError(f"no film at {path}.")
    return imageio_ffmpeg.read_frames(str(path), pix_fmt="rgb24")
