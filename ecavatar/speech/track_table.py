"""Emotion tracks of many clips: recognised together (loading the recogniser is slow), kept in one Parquet file."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from ecavatar.emotion import Emotion
from ecavatar.errors import ShapeError
from ecavatar.speech.audio import SPEECH_RATE
from ecavatar.speech.emotion import recognise_emotions
from ecavatar.speech.track import DEFAULT_RULE, EmotionTrack, EmotionWindow, LabelRule, track_from_scores
from ecavatar.storage.parquet import read_table, write_table


def cut_windows(duration: float, window: float) -> list[tuple[float, float]]:
    """Start and end of consecutive windows of `window` seconds over `duration` seconds.

    What is left at the end joins the last window when it is shorter than half a window: too little speech to judge.

    Raises:
        ShapeError: nothing to cut.
    """
    if duration <= 0 or window <= 0:
        raise ShapeError(f"duration and window must be positive, got {duration} and {window} seconds.")
    count = max(1, int(duration / window + 0.5))
    starts = [index * window for index in range(count)]
    return list(zip(starts, [*starts[1:], duration], strict=True))


def track_clips(
    model: str | Path,
    clips: Mapping[str, Float[np.ndarray, " samples"]],
    window: float,
    rule: LabelRule = DEFAULT_RULE,
    *,
    device: str = "cpu",
) -> dict[str, EmotionTrack]:
    """The emotion track of every clip.

    Args:
        model: an emotion2vec: a funasr directory, or a published id (see `recognise_emotions`).
        clips: 16 kHz mono samples by clip id.
        window: the paper's t, seconds.
        rule: how scores become category and level.
        device: where the network runs.

    Raises:
        AssetMissingError: no model there.
        DataError: a clip is shorter than the network can judge.
    """
    times = {clip_id: cut_windows(len(samples) / SPEECH_RATE, window) for clip_id, samples in clips.items()}
    pieces = [
        (clips[clip_id][round(start * SPEECH_RATE) : round(end * SPEECH_RATE)], SPEECH_RATE)
        for clip_id, spans in times.items()
        for start, end in spans
    ]
    scores = recognise_emotions(model, pieces, device=device)
    ends = np.cumsum([len(spans) for spans in times.values()])
    parts = np.split(scores, ends[:-1])
    return {clip_id: track_from_scores(part, times[clip_id], rule) for clip_id, part in zip(times, parts, strict=True)}


def write_tracks(path: Path, tracks: Mapping[str, EmotionTrack]) -> None:
    """Write one row per window, sorted by clip id and start."""
    rows = [(clip_id, window) for clip_id in sorted(tracks) for window in tracks[clip_id].windows]
    table = pa.table(
        {
            "clip_id": pa.array([clip_id for clip_id, _ in rows], pa.string()),
            "start": pa.array([window.start for _, window in rows], pa.float64()),
            "end": pa.array([window.end for _, window in rows], pa.float64()),
            "emotion": pa.array([window.emotion.label for _, window in rows], pa.string()),
            "level": pa.array([window.level for _, window in rows], pa.int8()),
            "probabilities": pa.array([list(window.probabilities) for _, window in rows], pa.list_(pa.float64())),
        }
    )
    write_table(path, table)


def read_tracks(path: Path) -> dict[str, EmotionTrack]:
    """The tracks written by `write_tracks`, by clip id.

    Raises:
        AssetMissingError: the file is not there.
    """
    windows: dict[str, list[EmotionWindow]] = {}
    for row in read_table(path).to_pylist():
        windows.setdefault(row["clip_id"], []).append(
            EmotionWindow(
                start=row["start"],
                end=row["end"],
                emotion=Emotion.from_label(row["emotion"]),
                level=row["level"],
                probabilities=tuple(row["probabilities"]),
            )
        )
    return {clip_id: EmotionTrack(tuple(rows)) for clip_id, rows in windows.items()}
