"""The eight emotion categories, the three intensity levels, and how each corpus spells them.

Categories and codes are AffectNet's: 0 neutral .. 7 contempt (the paper's C0); levels are 1, 2, 3 (the paper's L0).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from ecavatar.errors import DataError


class Emotion(IntEnum):
    """Emotion category with AffectNet's code."""

    NEUTRAL = 0
    HAPPY = 1
    SAD = 2
    SURPRISE = 3
    FEAR = 4
    DISGUST = 5
    ANGER = 6
    CONTEMPT = 7

    @property
    def label(self) -> str:
        """Lower-case name as written in tables and on command lines."""
        return self.name.lower()

    @classmethod
    def from_label(cls, label: str) -> "Emotion":
        """The category called `label`.

        Raises:
            DataError: no category has this name; the message lists the names.
        """
        try:
            return cls[label.upper()]
        except KeyError:
            names = ", ".join(e.label for e in cls)
            raise DataError(f"unknown emotion {label!r}; expected one of: {names}.") from None


LEVELS = (1, 2, 3)


@dataclass(frozen=True, slots=True, order=True)
class LabelPair:
    """An emotion category and its intensity level."""

    emotion: Emotion
    level: int

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise DataError(f"level must be 1, 2 or 3, got {self.level!r}.")


RAVDESS_EMOTIONS: Mapping[str, Emotion] = {
    "01": Emotion.NEUTRAL,
    "02": Emotion.NEUTRAL,  # calm: no AffectNet category; the nearest one is neutral
    "03": Emotion.HAPPY,
    "04": Emotion.SAD,
    "05": Emotion.ANGER,
    "06": Emotion.FEAR,
    "07": Emotion.DISGUST,
    "08": Emotion.SURPRISE,
}
"""Third field of a RAVDESS file name (Livingstone and Russo, 2018)."""

RAVDESS_LEVELS: Mapping[str, int] = {"01": 2, "02": 3}
"""Fourth field of a RAVDESS file name, normal and strong: our reading, as the paper is silent. No weak level exists."""

MEAD_EMOTIONS: Mapping[str, Emotion] = {
    "angry": Emotion.ANGER,
    "contempt": Emotion.CONTEMPT,
    "disgusted": Emotion.DISGUST,
    "fear": Emotion.FEAR,
    "happy": Emotion.HAPPY,
    "neutral": Emotion.NEUTRAL,
    "sad": Emotion.SAD,
    "surprised": Emotion.SURPRISE,
}
"""Emotion folder names of MEAD (Wang et al., ECCV 2020)."""

EMOTION2VEC_LABELS = ("angry", "disgusted", "fearful", "happy", "neutral", "other", "sad", "surprised", "<unk>")
"""Output order of emotion2vec's nine classes (Ma et al., 2024)."""

EMOTION2VEC_EMOTIONS: Mapping[str, Emotion] = {
    "angry": Emotion.ANGER,
    "disgusted": Emotion.DISGUST,
    "fearful": Emotion.FEAR,
    "happy": Emotion.HAPPY,
    "neutral": Emotion.NEUTRAL,
    "sad": Emotion.SAD,
    "surprised": Emotion.SURPRISE,
}
"""The seven classes the paper keeps; 'other' and '<unk>' are dropped."""
