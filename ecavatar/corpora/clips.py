"""A take of emotional speech, whichever corpus it comes from."""

from dataclasses import dataclass, field
from pathlib import Path

from ecavatar.emotion import Emotion, LabelPair
from ecavatar.storage.rejects import Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechClip:
    """One take: who said what in which emotion, and where its sound and picture lie."""

    clip_id: str
    """Unique within the corpus."""
    corpus: str
    """`ravdess` or `mead`."""
    subject: str
    """The actor, as the corpus names them."""
    emotion: Emotion
    level: int
    """1, 2 or 3."""
    sentence: str
    """What is said; empty where the corpus does not tell."""
    video: Path | None
    """The film, or None where only sound was released."""
    audio: Path
    """A sound file, or the film itself where the sound is in it."""

    @property
    def label(self) -> LabelPair:
        """Emotion and level together."""
        return LabelPair(self.emotion, self.level)


@dataclass(frozen=True, slots=True)
class ClipListing:
    """What a corpus folder holds."""

    clips: list[SpeechClip]
    """Sorted by clip_id."""
    rejects: list[Reject] = field(default_factory=list)
    """Files that look like takes and are none, with the reason."""
