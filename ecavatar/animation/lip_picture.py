"""The picture of a spoken clip: how far lips and jaw open, over the sound."""

from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ecavatar.errors import ShapeError
from ecavatar.speech.audio import SPEECH_RATE
from ecavatar.storage.files import atomic_path

_COLUMNS = 2000  # more than the picture has pixels across
_SOUND, _LIPS, _JAW = "#8a8f98", "#2f6db3", "#d9822b"
_STYLE = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False,
}  # fmt: skip
_WIDTH_IN, _HEIGHT_IN, _DPI = 9.0, 4.0, 110


class SoundEnvelope:
    """Lowest and highest sample of each column of a picture, taken block by block."""

    def __init__(self, seconds: float) -> None:
        """An empty one.

        Args:
            seconds: length of the whole recording.
        """
        self.seconds = seconds
        self._size = max(1, round(seconds * SPEECH_RATE))
        self.low, self.high = np.zeros(_COLUMNS, np.float32), np.zeros(_COLUMNS, np.float32)
        self._heard = 0

    def add(self, samples: Float[np.ndarray, " samples"]) -> None:
        """Take in the next block, 16 kHz."""
        columns = np.minimum((self._heard + np.arange(len(samples))) * _COLUMNS // self._size, _COLUMNS - 1)
        np.minimum.at(self.low, columns, samples)
        np.maximum.at(self.high, columns, samples)
        self._heard += len(samples)

    @property
    def times(self) -> Float[np.ndarray, " columns"]:
        """Seconds of each column's middle."""
        return (np.arange(_COLUMNS) + 0.5) / _COLUMNS * self.seconds


def write_lip_picture(
    path: Path,
    sound: SoundEnvelope,
    opening_m: Float[np.ndarray, " frames"],
    angles: Float[np.ndarray, " frames"] | None,
    fps: float,
) -> None:
    """Lip opening in millimetres and jaw angle in degrees over the waveform, as PNG, whole or not at all.

    Args:
        path: where to.
        sound: of the recording.
        opening_m: distance between the inner lips.
        angles: of the jaw, radians; None leaves them out.
        fps: frames a second of both.

    Raises:
        ShapeError: different numbers of frames.
    """
    if angles is not None and len(angles) != len(opening_m):
        raise ShapeError(f"{len(opening_m)} lip openings and {len(angles)} jaw angles; expected as many.")
    times = np.arange(len(opening_m)) / fps
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), layout="constrained")
        wave, lips = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
        wave.fill_between(sound.times, sound.low, sound.high, color=_SOUND, lw=0)
        wave.set(ylabel="sound", xlim=(0, max(sound.seconds, 1 / fps)))
        (drawn,) = lips.plot(times, 1000 * opening_m, color=_LIPS, lw=1.2, label="lip opening")
        lips.set(xlabel="seconds", ylabel="lip opening, mm", ylim=(0, None))
        handles = [drawn]
        if angles is not None:
            jaw = lips.twinx()
            handles += jaw.plot(times, np.degrees(angles), color=_JAW, lw=1.2, label="jaw angle")
            jaw.set_ylabel("jaw angle, degrees")
            jaw.grid(visible=False)
            jaw.spines["right"].set_visible(True)
        lips.legend(handles=handles, loc="upper right", ncols=2)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=_DPI, metadata={"Software": None})
