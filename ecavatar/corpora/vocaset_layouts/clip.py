"""What every layout gives: clips with their set, the meshes and the sound of each, and clips that cannot be used."""

import functools
import json
import re
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from ecavatar.errors import DataError
from ecavatar.storage.rejects import Reject

STAGE = "read_vocaset"
_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*", re.ASCII)
_SENTENCE = re.compile(r"sentence\d\d", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Who and what belongs to one of VOCA's sets."""

    subjects: tuple[str, ...]
    first_sentence: int
    last_sentence: int

    @property
    def nominal_clips(self) -> int:
        """Clips of the set if no recording had failed: subjects times sentences."""
        return len(self.subjects) * (self.last_sentence - self.first_sentence + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class VocasetClip:
    """One sentence of one subject."""

    clip_id: str
    """<subject>_<sentence>."""
    subject: str
    sentence: str
    """sentence01 .. sentence40."""
    split: str
    """train, val, test, or empty for a clip that VOCA uses in none."""
    rows: Int[np.ndarray, " frames"] = field(compare=False, repr=False)
    """Rows of the array that holds its meshes, in order of time at 60 frames a second."""

    @property
    def frames(self) -> int:
        """Number of frames at 60 a second."""
        return len(self.rows)


class Layout(Protocol):
    """Where an opened corpus has its meshes and its sound."""

    def meshes(self, clip: VocasetClip) -> Float[np.ndarray, "rows vertices 3"]:
        """The array that `clip.rows` counts in, mapped from disk; float32 or float64, metres."""
        ...

    def sound(self, clip: VocasetClip) -> tuple[Float[np.ndarray, " samples"], int]:
        """Mono float32 samples in -1..1 and their rate."""
        ...

    def sound_seconds(self, clip: VocasetClip) -> float:
        """How long the sound is, told without decoding it."""
        ...

    def sound_files(self) -> list[Path]:
        """The files that hold the sound, sorted."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Listing:
    """What a layout's files hold."""

    templates: dict[str, Float[np.ndarray, "vertices 3"]]
    clips: list[VocasetClip]
    rejects: list[Reject]
    layout: Layout


class UnusableClipError(DataError):
    """A clip that is set aside; the message says what was seen."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        """The same for all clips with the same fault."""


def vocaset_splits() -> dict[str, Split]:
    """VOCA's train, val and test sets; a subject is in one only."""
    return dict(_published_splits())


@functools.cache
def _published_splits() -> dict[str, Split]:
    text = resources.files("ecavatar.corpora").joinpath("data/vocaset_splits.json").read_text()
    return {
        name: Split(
            subjects=tuple(entry["subjects"]),
            first_sentence=entry["first_sentence"],
            last_sentence=entry["last_sentence"],
        )
        for name, entry in json.loads(text).items()
        if name != "source"
    }


def split_of(subject: str, sentence: str) -> str:
    """The set that VOCA uses a clip in: train, val, test, or empty."""
    digits = sentence.removeprefix("sentence")
    number = int(digits) if digits.isdecimal() else -1
    for name, split in _published_splits().items():
        if subject in split.subjects and split.first_sentence <= number <= split.last_sentence:
            return name
    return ""


def clip_of(subject: str, sentence: str, rows: Int[np.ndarray, " frames"]) -> VocasetClip:
    """The clip with its id and set."""
    names = {"clip_id": f"{subject}_{sentence}", "subject": subject, "sentence": sentence}
    return VocasetClip(**names, split=split_of(subject, sentence), rows=rows)


def rejected(name: str, problem: UnusableClipError, root: Path) -> Reject:
    """The record of a clip that is set aside: the same on every machine, and text that any table can hold."""
    detail = str(problem).replace(f"{root}/", "").replace(str(root), "the corpus")
    item_id, detail = (text.encode("ascii", "backslashreplace").decode() for text in (name, detail))
    return Reject(item_id, STAGE, problem.reason, detail)


def check_names(subject: object, sentence: object) -> None:
    """Make sure that a clip is called as VOCASET's are: its id becomes a file's name.

    Raises:
        UnusableClipError: the subject holds other than letters, digits, - and _, or the sentence is not sentenceNN.
    """
    is_subject = isinstance(subject, str) and _SUBJECT.fullmatch(subject)
    if not is_subject or not isinstance(sentence, str) or not _SENTENCE.fullmatch(sentence):
        raise UnusableClipError("odd_name", f"expected <subject>_sentenceNN, got {f'{subject}_{sentence}'[:80]!r}")


def check_template(subject: str, templates: dict[str, np.ndarray]) -> None:
    """Make sure that the subject has a neutral mesh.

    Raises:
        UnusableClipError: it has none.
    """
    if subject not in templates:
        raise UnusableClipError("no_template", "templates.pkl has no mesh of the subject")
