"""How well emotions are recognised from speech: accuracy, unweighted recall with intervals, confusion.

Unweighted recall is the mean over emotions of the share recognised, so it does not depend on how often each occurs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Int

from ecavatar.emotion import EMOTION2VEC_EMOTIONS, EMOTION2VEC_LABELS, LEVELS, Emotion
from ecavatar.errors import AssetMissingError, DataError, ShapeError
from ecavatar.evaluation.protocol import SpokenClip
from ecavatar.speech.audio import SPEECH_RATE, read_audio
from ecavatar.speech.emotion import recognise_emotions
from ecavatar.speech.track import RECOGNISED, EmotionTrack

EMODB_EMOTIONS: Final[Mapping[str, Emotion | None]] = {
    "W": Emotion.ANGER,
    "L": None,  # boredom: no AffectNet category; left out and counted
    "E": Emotion.DISGUST,
    "A": Emotion.FEAR,
    "F": Emotion.HAPPY,
    "T": Emotion.SAD,
    "N": Emotion.NEUTRAL,
}
"""Sixth letter of a file name of EMO-DB (Burkhardt et al., Interspeech 2005), after the German words."""

_Z: Final = 1.959964  # of a two-sided 95 % interval
_SEVEN: Final = [EMOTION2VEC_LABELS.index(label) for label in EMOTION2VEC_EMOTIONS]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledSpeech:
    """One utterance whose emotion is known."""

    clip_id: str
    subject: str
    emotion: Emotion
    level: int | None  # None where the corpus gives none
    read: Callable[[], Float[np.ndarray, " samples"]] = field(repr=False)  # 16 kHz mono


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmotionAccuracy:
    """What a recogniser made of utterances whose emotion is known; intervals are 95 %.

    The intervals tell how other utterances of the same speakers would come out, not other speakers: most collections
    here have too few speakers to say that.

    Attributes:
        emotions: the emotions that occur, in the order of `RECOGNISED`; rows of `confusion`.
        confusion: how often each emotion (row) was taken for each of `RECOGNISED` (column).
        accuracy: share recognised, with Wilson's interval.
        recall: unweighted recall, with a normal interval.
        of_level: share recognised at each level that the labels give; empty without levels.
        left_out: utterances in an emotion that cannot be recognised.
    """

    emotions: tuple[Emotion, ...]
    confusion: Int[np.ndarray, "emotions 7"]
    accuracy: float
    accuracy_interval: tuple[float, float]
    recall: float
    recall_interval: tuple[float, float]
    of_level: Mapping[int, float]
    left_out: int

    @property
    def clips(self) -> int:
        """Number of utterances scored."""
        return int(self.confusion.sum())

    @property
    def chance(self) -> float:
        """Unweighted recall of the best guesser that does not listen."""
        return 1 / len(self.emotions)

    @property
    def is_above_chance(self) -> bool:
        """Whether the whole interval of the unweighted recall lies above chance."""
        return self.recall_interval[0] > self.chance

    def to_json(self) -> dict[str, Any]:
        """As plain values for a json file; a row of `confusion` is seven counts in the order of `RECOGNISED`."""
        return {
            "accuracy": self.accuracy,
            "accuracy_low": self.accuracy_interval[0],
            "accuracy_high": self.accuracy_interval[1],
            "unweighted_recall": self.recall,
            "unweighted_recall_low": self.recall_interval[0],
            "unweighted_recall_high": self.recall_interval[1],
            "chance": self.chance,
            "is_above_chance": self.is_above_chance,
            "accuracy_of_level": {str(level): share for level, share in sorted(self.of_level.items())},
            "recall_of_emotion": {
                emotion.label: float(row[RECOGNISED.index(emotion)] / row.sum())
                for emotion, row in zip(self.emotions, self.confusion, strict=True)
            },
            "confusion": {
                emotion.label: " ".join(map(str, row))
                for emotion, row in zip(self.emotions, self.confusion, strict=True)
            },
            "clips": self.clips,
            "left_out": self.left_out,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "EmotionAccuracy":
        """The accuracy that `to_json` wrote.

        Raises:
            DataError: keys are missing or values of the wrong kind.
        """
        try:
            return cls(
                emotions=tuple(Emotion.from_label(label) for label in value["confusion"]),
                confusion=np.array([[int(n) for n in row.split()] for row in value["confusion"].values()]),
                accuracy=value["accuracy"],
                accuracy_interval=(value["accuracy_low"], value["accuracy_high"]),
                recall=value["unweighted_recall"],
                recall_interval=(value["unweighted_recall_low"], value["unweighted_recall_high"]),
                of_level={int(level): share for level, share in value["accuracy_of_level"].items()},
                left_out=value["left_out"],
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(
                f"expected emotion accuracy as `to_json` writes it, got keys {sorted(value)} ({error!r}). "
                "Run the stage that measures it again."
            ) from None


def score_guesses(
    truth: Sequence[Emotion],
    guesses: Sequence[Emotion],
    *,
    levels: Sequence[int | None] | None = None,
) -> EmotionAccuracy:
    """The accuracy of `guesses`; utterances whose true emotion is not among `RECOGNISED` are left out and counted.

    Args:
        truth: the emotion of each utterance.
        guesses: what was recognised, one of `RECOGNISED` each.
        levels: the true level of each utterance, None where unknown.

    Raises:
        ShapeError: counts differ, or nothing is left to score.
    """
    known = levels if levels is not None else [None] * len(truth)
    if not len(truth) == len(guesses) == len(known):
        raise ShapeError(
            f"expected one guess and level per utterance, got {len(truth)} emotions, {len(guesses)} guesses and "
            f"{len(known)} levels. Give them in the same order."
        )
    scored = [row for row in zip(truth, guesses, known, strict=True) if row[0] in RECOGNISED]
    if not scored:
        raise ShapeError("no utterance in an emotion that speech can tell; expected at least one. Check the labels.")
    confusion = np.zeros((len(RECOGNISED), len(RECOGNISED)), dtype=np.int64)
    for emotion, guess, _ in scored:
        confusion[RECOGNISED.index(emotion), RECOGNISED.index(guess)] += 1
    occurs = confusion.sum(axis=1) > 0
    hits, counts = np.diagonal(confusion)[occurs], confusion.sum(axis=1)[occurs]
    return EmotionAccuracy(
        emotions=tuple(emotion for emotion, is_there in zip(RECOGNISED, occurs, strict=True) if is_there),
        confusion=confusion[occurs],
        accuracy=float(hits.sum() / counts.sum()),
        accuracy_interval=wilson_interval(int(hits.sum()), int(counts.sum())),
        recall=float((hits / counts).mean()),
        recall_interval=_recall_interval(hits, counts),
        of_level={
            level: float(np.mean([emotion is guess for emotion, guess, one in scored if one == level]))
            for level in LEVELS
            if any(one == level for _, _, one in scored)
        },
        left_out=len(truth) - len(scored),
    )


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `hits` in `count` trials.

    Raises:
        ShapeError: no trial, or more hits than trials.

    Source: Wilson, Journal of the American Statistical Association, 1927.
    """
    if not 0 <= hits <= count or count == 0:
        raise ShapeError(f"expected 0 <= hits <= count and a count above 0, got {hits} of {count}. Count again.")
    share, spread = hits / count, _Z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = _Z * np.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return float(max(middle - half, 0.0)), float(min(middle + half, 1.0))


def _recall_interval(hits: Int[np.ndarray, " k"], counts: Int[np.ndarray, " k"]) -> tuple[float, float]:
    """Normal interval of the mean of independent shares; one more hit and miss each keep the variance of an emotion
    that was always or never recognised, in a handful of utterances, from being nought.
    """
    careful = (hits + 1) / (counts + 2)
    half = _Z * np.sqrt((careful * (1 - careful) / counts).sum()) / len(hits)
    middle = (hits / counts).mean()
    return float(max(middle - half, 0.0)), float(min(middle + half, 1.0))


def score_recogniser(model: str | Path, speech: Sequence[LabelledSpeech]) -> EmotionAccuracy:
    """The accuracy of the emotion2vec `model` (a funasr directory, or a published id) on whole utterances.

    Raises:
        AssetMissingError: the model is missing.
        ShapeError: no utterance can be scored.
    """
    known = [item for item in speech if item.emotion in RECOGNISED]
    scores = recognise_emotions(model, [(item.read(), SPEECH_RATE) for item in known])
    guesses = iter(guesses_of(scores))
    return score_guesses(
        [item.emotion for item in speech],
        [next(guesses) if item.emotion in RECOGNISED else RECOGNISED[0] for item in speech],
        levels=[item.level for item in speech],
    )


def guesses_of(scores: Float[np.ndarray, "clips 9"]) -> list[Emotion]:
    """The most probable of the seven emotions in each row of scores in `EMOTION2VEC_LABELS` order."""
    return [RECOGNISED[int(best)] for best in scores[:, _SEVEN].argmax(axis=1)]


def score_tracks(tracks: Mapping[str, EmotionTrack], clips: Sequence[SpokenClip]) -> EmotionAccuracy:
    """The accuracy of the emotion that lasts longest in the track of each clip, against the corpus's label.

    Raises:
        DataError: a clip has no track.
        ShapeError: no clip can be scored.
    """
    absent = [clip.clip_id for clip in clips if clip.clip_id not in tracks]
    if absent:
        raise DataError(f"expected a track of every clip, {len(absent)} lack one, first {absent[0]}. Track them again.")
    return score_guesses(
        [clip.label.emotion for clip in clips],
        [predominant_emotion(tracks[clip.clip_id]) for clip in clips],
        levels=[clip.label.level for clip in clips],
    )


def predominant_emotion(track: EmotionTrack) -> Emotion:
    """The emotion that lasts longest; of several equally long ones the first in AffectNet's order."""
    lengths: dict[Emotion, float] = {}
    for window in track.windows:
        lengths[window.emotion] = lengths.get(window.emotion, 0.0) + window.end - window.start
    return max(sorted(lengths), key=lengths.__getitem__)


def read_emodb(root: Path) -> list[LabelledSpeech]:
    """The utterances of EMO-DB in the folder `root` (`wav/03a01Fa.wav`), sorted; boredom, which has no category here,
    is left out.

    Raises:
        AssetMissingError: no `wav` folder there.
        DataError: file names that are not EMO-DB's, or none.
    """
    folder = Path(root) / "wav"
    if not folder.is_dir():
        raise AssetMissingError(
            f"EMO-DB: folder {folder} not found. Put the corpus there as it ships: wav/03a01Fa.wav."
        )
    files = sorted(folder.glob("*.wav"))
    foreign = [path.name for path in files if len(path.stem) != 7 or path.stem[5] not in EMODB_EMOTIONS]
    if foreign or not files:
        raise DataError(
            f"EMO-DB: expected names such as 03a01Fa.wav in {folder}, got {', '.join(foreign[:5]) or 'no wav file'}. "
            "Keep the names as they ship."
        )
    return [
        LabelledSpeech(clip_id=path.stem, subject=path.stem[:2], emotion=emotion, level=None, read=_reader(path))
        for path in files
        if (emotion := EMODB_EMOTIONS[path.stem[5]]) is not None
    ]


def _reader(path: Path) -> Callable[[], Float[np.ndarray, " samples"]]:
    return lambda: read_audio(path, SPEECH_RATE)


def describe_accuracy(name: str, scores: EmotionAccuracy) -> str:
    """One honest sentence for a report: what was measured, on how much, and whether it is above chance."""
    low, high = scores.recall_interval
    verdict = "clearly above chance" if scores.is_above_chance else "not clearly above chance"
    if high < scores.chance:
        verdict = "below chance"
    left_out = f"; {scores.left_out} more in an emotion that it cannot name are left out" if scores.left_out else ""
    return (
        f"{name}: {scores.accuracy:.0%} of {scores.clips} utterances recognised, unweighted recall {scores.recall:.0%} "
        f"(95 % interval {low:.0%} to {high:.0%}, chance {scores.chance:.0%}): {verdict}{left_out}."
    )
