"""The emotion track of one sound file, to be looked at, edited and fed back."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from ecavatar.errors import DataError
from ecavatar.speech.audio import SPEECH_RATE, read_audio
from ecavatar.speech.emotion import check_emotion_model
from ecavatar.speech.track import DEFAULT_RULE, EmotionTrack, LabelRule, write_track
from ecavatar.speech.track_table import track_clips


def write_emotion_track(
    audio: Path,
    out: Path,
    *,
    model: str | Path,
    window: float,
    rule: LabelRule = DEFAULT_RULE,
    device: str = "cpu",
) -> tuple[EmotionTrack, Float[np.ndarray, " samples"]]:
    """Recognise the emotions along a sound file and write them as an emotion track (json).

    Args:
        audio: speech, any format `read_audio` knows.
        out: json to write, whole or not at all.
        model: an emotion2vec: a funasr folder, or a published id (see `recognise_emotions`).
        window: the paper's t, seconds.
        rule: how scores become category and level.
        device: where the network runs.

    Returns:
        The track, and the sound at 16 kHz that it belongs to, for instance for a plot.

    Raises:
        AssetMissingError: sound or model is missing; said before anything slow.
        DataError: unreadable or too short sound, or `out` is the sound itself.
    """
    check_emotion_model(model)
    if Path(out).resolve() == Path(audio).resolve():
        raise DataError(f"{out} is the sound; expected another file to write the emotion track to. Name a json file.")
    samples = read_audio(audio, SPEECH_RATE)
    track = track_clips(model, {"clip": samples}, window, rule, device=device)["clip"]
    write_track(out, track)
    return track, samples
