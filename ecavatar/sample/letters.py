"""When each letter of a spoken sentence sounds: its letters laid along its phones."""

from collections.abc import Sequence
from dataclasses import dataclass

from ecavatar.errors import DataError


@dataclass(frozen=True, slots=True)
class Phone:
    """One speech sound; `symbol` in the phoneme alphabet of misaki/Kokoro (one IPA-like character), or `sil`."""

    symbol: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Letter:
    """One written character, upper case, "'" or "|" for the space between words."""

    symbol: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Word:
    """A written word and the phones it is spoken with."""

    text: str
    phones: tuple[Phone, ...]


def letter_timings(words: Sequence[Word]) -> tuple[Letter, ...]:
    """The letters of `words` in time, with a "|" between words."""
    raise NotImplementedError
