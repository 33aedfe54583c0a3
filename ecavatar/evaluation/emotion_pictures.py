"""Pictures of recognised emotions: confusion matrices and an emotion track against its sound."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ecavatar.emotion import LEVELS, Emotion
from ecavatar.errors import ShapeError
from ecavatar.evaluation.emotion_accuracy import EmotionAccuracy, describe_accuracy
from ecavatar.evaluation.figures import STYLE, save_figure
from ecavatar.speech.track import RECOGNISED, EmotionTrack

COLOURS: Final[Mapping[Emotion, str]] = {
    Emotion.NEUTRAL: "#8a8f98",
    Emotion.HAPPY: "#e0a526",
    Emotion.SAD: "#2f6db3",
    Emotion.SURPRISE: "#3aa6a0",
    Emotion.FEAR: "#7a55b0",
    Emotion.DISGUST: "#6f8f2f",
    Emotion.ANGER: "#c23b32",
    Emotion.CONTEMPT: "#a0653c",
}
_POINTS: Final = 2000  # columns of the drawn sound
_STRENGTH: Final = {1: 0.3, 2: 0.55, 3: 0.85}


def emotion_figures(folder: Path, scores: Mapping[str, EmotionAccuracy]) -> dict[str, Any]:
    """Write one confusion picture per collection and return what a report says about them.

    Args:
        folder: pictures go here, `emotions-<name>.png`.
        scores: accuracy by collection, for instance `held-out voices`, `RAVDESS`, `EMO-DB`.

    Returns:
        By collection: the figures of `EmotionAccuracy.to_json`, `sentence` and `picture` (file name).
    """
    figures = {}
    for name, accuracy in scores.items():
        picture = f"emotions-{name.lower().replace(' ', '-')}.png"
        write_confusion(folder / picture, accuracy, name)
        figures[name] = {**accuracy.to_json(), "sentence": describe_accuracy(name, accuracy), "picture": picture}
    return figures


def write_confusion(path: Path, accuracy: EmotionAccuracy, title: str) -> None:
    """The confusion matrix as a picture: rows are what was acted, columns what was heard; with shares and counts."""
    shares = accuracy.confusion / accuracy.confusion.sum(axis=1, keepdims=True)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(4.9, 0.42 * len(accuracy.emotions) + 1.9), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
        for (row, column), share in np.ndenumerate(shares):
            if accuracy.confusion[row, column]:
                colour = "white" if share > 0.55 else "black"
                text = f"{share:.0%}\n{accuracy.confusion[row, column]}"
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
        axes.set_xticks(range(len(RECOGNISED)), [emotion.label for emotion in RECOGNISED], rotation=40, ha="right")
        axes.set_yticks(range(len(accuracy.emotions)), [emotion.label for emotion in accuracy.emotions])
        axes.set(xlabel="recognised", ylabel="acted")
        low, high = accuracy.recall_interval
        axes.set_title(
            f"{title}: {accuracy.clips} utterances\n"
            f"unweighted recall {accuracy.recall:.0%} ({low:.0%} to {high:.0%}), chance {accuracy.chance:.0%}",
            fontsize=9,
        )
        save_figure(figure, path)


def write_track_plot(path: Path, samples: Float[np.ndarray, " samples"], rate: int, track: EmotionTrack) -> None:
    """The sound with its emotion windows behind it (stronger colour: higher level), and their probabilities below.

    Args:
        path: png to write.
        samples: the speech, mono.
        rate: its samples per second.
        track: its emotions.

    Raises:
        ShapeError: no sound, or more than one channel.
    """
    if samples.ndim != 1 or not len(samples) or rate <= 0:
        raise ShapeError(f"expected mono sound, got shape {samples.shape} at {rate} Hz. Read it with `read_audio`.")
    has_shares = any(window.probabilities for window in track.windows)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 4.2 if has_shares else 2.4), layout="constrained")
        panels = figure.subplots(2 if has_shares else 1, 1, sharex=True, squeeze=False)[:, 0]
        _draw_sound(panels[0], samples, rate, track)
        if has_shares:
            _draw_probabilities(panels[1], track)
        panels[-1].set(xlabel="seconds", xlim=(0.0, max(track.duration, len(samples) / rate)))
        save_figure(figure, path)


def _draw_sound(axes: Axes, samples: Float[np.ndarray, " samples"], rate: int, track: EmotionTrack) -> None:
    edges = np.unique(np.linspace(0, len(samples), min(_POINTS, len(samples)) + 1).astype(int))[:-1]
    low, high = np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)
    tall = 1.05 * max(float(np.abs(samples).max()), 1e-6)
    axes.fill_between(edges / rate, low, high, color="#30343b", lw=0.3, zorder=2)
    for window in track.windows:
        axes.axvspan(window.start, window.end, color=COLOURS[window.emotion], alpha=_STRENGTH[window.level], lw=0)
        axes.axvline(window.end, color="white", lw=1.0)
        width = window.end - window.start
        text = f"{window.emotion.label}\nlevel {window.level}" if width > track.duration / 14 else str(window.level)
        axes.text((window.start + window.end) / 2, 1.06 * tall, text, ha="center", va="bottom", fontsize=8)
    axes.set(ylabel="sound", ylim=(-tall, 1.45 * tall))
    axes.grid(visible=False)
    felt = sorted({window.emotion for window in track.windows})
    axes.legend(
        handles=[Patch(color=COLOURS[emotion], label=emotion.label) for emotion in felt],
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        title=f"level {LEVELS[0]} to {LEVELS[-1]}: pale to strong",
        fontsize=8,
        title_fontsize=8,
    )


def _draw_probabilities(axes: Axes, track: EmotionTrack) -> None:
    """Stacked shares of the seven emotions in every window; a window labelled by hand has none."""
    for window in track.windows:
        bottom = 0.0
        for emotion, share in zip(RECOGNISED, window.probabilities, strict=False):
            middle, width = (window.start + window.end) / 2, window.end - window.start
            axes.bar(middle, share, width, bottom, color=COLOURS[emotion], edgecolor="white", linewidth=0.5)
            bottom += share
    axes.set(ylabel="probability", ylim=(0.0, 1.0))
    axes.legend(
        handles=[Patch(color=COLOURS[emotion], label=emotion.label) for emotion in RECOGNISED],
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        fontsize=8,
    )
