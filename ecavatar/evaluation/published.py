"""Numbers of the ECAvatar paper (ACM MM 2024, doi 10.1145/3664647.3681328) that the report shows beside ours.

Table 1: images per category and level. Table 3: errors, unit 1e-5 m^2; the papers print "x 10^-5 mm", but their scripts
average *squared metres*. Both come from licensed corpora, Table 3 with the authors' released checkpoints: not
comparable with numbers of the sample world.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ecavatar.emotion import Emotion


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One method of Table 3."""

    method: str
    vocaset_lve: float
    ravdess_eve: float
    mead_eve: float


ECAVATAR_TABLE_3 = (
    PublishedRow("VOCA", 4.05, 2.99, 2.11),
    PublishedRow("FaceFormer", 3.81, 2.80, 2.08),
    PublishedRow("CodeTalker", 3.47, 3.00, 2.00),
    PublishedRow("SelfTalk", 2.88, 3.23, 1.87),
    PublishedRow("FaceDiffuser", 4.24, 3.03, 2.12),
    PublishedRow("DiffSpeaker", 3.32, 2.98, 2.00),
    PublishedRow("EMOTE", 6.46, 3.29, 1.84),
    PublishedRow("ECAvatar", 2.74, 1.39, 0.67),
)

TABLE_1: Mapping[Emotion, tuple[int, int, int]] = {
    Emotion.NEUTRAL: (500, 500, 500),
    Emotion.HAPPY: (500, 500, 500),
    Emotion.SAD: (500, 500, 359),
    Emotion.SURPRISE: (262, 500, 500),
    Emotion.FEAR: (108, 500, 500),
    Emotion.DISGUST: (205, 500, 424),
    Emotion.ANGER: (500, 500, 500),
    Emotion.CONTEMPT: (378, 500, 500),
}
"""Images per category at levels 1, 2, 3; 10,736 in all."""
