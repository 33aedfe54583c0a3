"""Sound files -> mono float32 samples at the rate that speech models expect."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ecavatar.errors import DataError
from ecavatar.speech.sound_facts import Level
from ecavatar.speech.sound_file import decoding, require_sound_file

SPEECH_RATE: Final = 16000
"""Samples per second of every speech model used here."""

_PIECE_S: Final = 30.0
_QUALITY: Final = "HQ"  # linear phase, 20 bits


def read_audio(path: Path, rate: int = SPEECH_RATE, *, remove_offset: bool = False) -> NDArray[np.float32]:
    """The sound of `path`, mono, resampled to `rate`.

    Level, clipping and a constant offset stay as recorded: `sound_facts.measure_sound` reports them, and the mean is
    taken out where an encoder's processor asks for it (`SpeechEncoder.prepare`).

    Args:
        path: wav, flac, ogg, aiff or au (read by libsndfile); any other sound or video file is decoded by the ffmpeg
            binary of imageio-ffmpeg.
        rate: samples per second of the result.
        remove_offset: subtract the mean.

    Returns:
        (N,) samples, about -1..1, N at least 1. Channels are averaged.

    Raises:
        AssetMissingError: the file is missing.
        DataError: it is a directory, unreadable, without sound track, empty, cut short, says a rate of zero, or holds
            samples that are not finite.
        MissingDependencyError: ffmpeg is needed and not there.
    """
    samples = np.concatenate(list(audio_blocks(path, _PIECE_S, rate)))
    return samples - samples.mean(dtype=np.float64).astype(np.float32) if remove_offset else samples


def audio_blocks(path: Path, seconds: float, rate: int = SPEECH_RATE) -> Iterator[NDArray[np.float32]]:
    """The same samples as `read_audio`, block by block in constant memory, for recordings of any length.

    Args:
        path: as for `read_audio`.
        seconds: length of a block.
        rate: samples per second of the result.

    Returns:
        Blocks of exactly `seconds` (to the nearest sample); the last one may be shorter, never empty.

    Raises:
        AssetMissingError, DataError, MissingDependencyError: as for `read_audio`; at once for a missing file or an
            impossible length or rate, else from the iterator.
    """
    path, size = Path(path), round(seconds * rate)
    require_sound_file(path)
    if size < 1:
        raise DataError(f"blocks of {seconds} s at {rate} Hz hold no sample; ask for positive seconds and rate.")
    return _even(_resampled(path, seconds, rate), size)


def resample(samples: NDArray[np.floating], rate: int, new_rate: int) -> NDArray[np.float32]:
    """`samples` (N,) or (N, channels) at `rate`, at `new_rate` (soxr, high quality); float32, same duration.

    Raises:
        DataError: a rate is not positive.
    """
    if rate <= 0 or new_rate <= 0:
        raise DataError(f"sampling rates must be positive, got {rate} and {new_rate} Hz. Check the sound's header.")
    if rate == new_rate:
        return np.ascontiguousarray(samples, dtype=np.float32)
    import soxr  # loads a native library; only when needed

    return soxr.resample(np.asarray(samples, dtype=np.float32), rate, new_rate, quality=_QUALITY).astype(np.float32)


def normalise(samples: NDArray[np.floating], level: Level | None = None) -> NDArray[np.float32]:
    """`samples` (N,) with mean 0 and variance 1, as HuBERT's and wav2vec2's processors do; silence stays zero.

    Args:
        samples: one clip, or one block of it.
        level: of the whole recording, from `sound_facts.measure_sound`, so that its blocks come out as they would
            within the whole; None: of `samples`.
    """
    wide = np.asarray(samples, dtype=np.float64)
    mean = wide.mean() if level is None else level.mean
    centred = wide - mean
    variance = centred.var() if level is None else level.variance
    return (centred / np.sqrt(variance + 1e-7)).astype(np.float32)


def _resampled(path: Path, seconds: float, rate: int) -> Iterator[NDArray[np.float32]]:
    """Mono pieces at `rate`; at least one sample in all."""
    with decoding(path, seconds) as sound:
        mono = (_mono(path, piece) for piece in sound.pieces)
        n_samples = 0
        for piece in mono if sound.rate == rate else _soxr_pieces(mono, sound.rate, rate):
            n_samples += len(piece)
            yield piece
    if not n_samples:
        raise DataError(f"{path} holds no sound. Expected at least one sample; export it again.")


def _mono(path: Path, piece: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(piece).all():
        raise DataError(f"{path} holds samples that are not finite numbers. Export it again as 16-bit wav.")
    return piece[:, 0] if piece.shape[1] == 1 else piece.mean(axis=1)


def _soxr_pieces(pieces: Iterable[NDArray[np.float32]], rate: int, new_rate: int) -> Iterator[NDArray[np.float32]]:
    import soxr  # loads a native library; only when needed

    stream = soxr.ResampleStream(rate, new_rate, 1, dtype="float32", quality=_QUALITY)
    for piece in pieces:
        yield stream.resample_chunk(piece)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _even(pieces: Iterable[NDArray[np.float32]], size: int) -> Iterator[NDArray[np.float32]]:
    """The same samples in blocks of `size`; the last may be shorter."""
    waiting: list[NDArray[np.float32]] = []
    held = 0
    for piece in pieces:
        waiting.append(piece)
        held += len(piece)
        if held >= size:
            joined = np.concatenate(waiting)
            held %= size
            whole = len(joined) - held
            yield from (joined[start : start + size] for start in range(0, whole, size))
            waiting = [joined[whole:]]
    if held:
        yield np.concatenate(waiting)
