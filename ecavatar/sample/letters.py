"""When each letter of a spoken sentence sounds: its letters laid along its phones."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np

from ecavatar.errors import DataError

WORD_BOUNDARY: Final = "|"
"""The letter between two words, as in LibriSpeech's vocabulary."""

_LETTERS_OF: Final[dict[str, str]] = {
    "b": "B", "d": "D", "f": "FPG", "h": "HW", "j": "YIEU", "k": "KCQX", "l": "L", "m": "M", "n": "NKG", "p": "P",
    "s": "SCX", "t": "TD", "T": "T", "v": "VF", "w": "WUO", "z": "ZSX", "ð": "TH", "ŋ": "NG", "ɡ": "G", "ɹ": "R",
    "ɾ": "T", "θ": "TH", "ʃ": "SCTH", "ʒ": "SGZ", "ʤ": "JGD", "ʧ": "CHT", "A": "AEIY", "I": "IYE", "O": "OAWE",
    "W": "OUW", "Y": "OIY", "æ": "A", "ɐ": "AOU", "ɑ": "OA", "ɔ": "OAU", "ə": "AEIOU", "ᵊ": "AEIOU", "ɛ": "EA",
    "ɜ": "EIOUA", "ɪ": "IEYU", "ᵻ": "IE", "i": "EIYA", "ʊ": "OU", "u": "OUEW", "ʌ": "UO",
}  # fmt: skip
"""Letters that commonly spell each phone."""

_SECOND_LETTERS: Final = "HGEWUKLRY'"
"""Letters that are often silent or the second half of a digraph; they cost little next to any phone."""

_WRONG_LETTER, _SILENT_LETTER, _SKIPPED_PHONE = 1.0, 0.4, 0.6


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
    """The letters of `words` in time, with a "|" of no length, or of the pause's, between words.

    Within a word, letters are matched to phones in order at least cost (a letter that commonly spells the phone costs
    nothing); letters that share a phone share its time equally, and a phone without a letter lengthens the one before.

    Raises:
        DataError: a word has no letters or no phones.
    """
    letters: list[Letter] = []
    for word in words:
        spoken = _letters_of_word(word)
        if letters:
            letters.append(Letter(WORD_BOUNDARY, min(letters[-1].end, spoken[0].start), spoken[0].start))
        letters.extend(spoken)
    return tuple(letters)


def _letters_of_word(word: Word) -> list[Letter]:
    text = "".join(c for c in word.text.upper() if "A" <= c <= "Z" or c == "'")
    if not text or not word.phones:
        raise DataError(f"word {word.text!r} needs letters and phones, got {text!r} and {len(word.phones)} phones.")
    owner = _match(text, [phone.symbol for phone in word.phones])
    letters: list[Letter] = []
    for _, group in groupby(range(len(text)), key=lambda position: owner[position]):
        members = list(group)
        is_last = members[-1] == len(text) - 1
        start = word.phones[0].start if members[0] == 0 else letters[-1].end
        following = word.phones[-1].end if is_last else word.phones[owner[members[-1] + 1]].start
        edges = np.linspace(start, max(start, following), len(members) + 1)
        letters.extend(
            Letter(text[position], float(edges[k]), float(edges[k + 1])) for k, position in enumerate(members)
        )
    return letters


def _match(text: str, symbols: Sequence[str]) -> list[int]:
    """For each letter the index of its phone, never decreasing, at least total cost."""
    n_letters, n_phones = len(text), len(symbols)
    cost = np.full((n_letters, n_phones), np.inf)
    came_from = np.zeros((n_letters, n_phones), dtype=int)
    for position, letter in enumerate(text):
        for index, symbol in enumerate(symbols):
            own = _letter_cost(letter, symbol)
            if position == 0:
                cost[0, index] = own + index * _SKIPPED_PHONE
                continue
            steps = index - np.arange(index + 1)  # phones moved on since the previous letter
            sharing = np.where(steps == 0, 0.05, (steps - 1) * _SKIPPED_PHONE)
            totals = cost[position - 1, : index + 1] + sharing
            came_from[position, index] = int(totals.argmin())
            cost[position, index] = own + totals.min()
    leftover = (n_phones - 1 - np.arange(n_phones)) * _SKIPPED_PHONE
    owner = [int((cost[-1] + leftover).argmin())]
    for position in range(n_letters - 1, 0, -1):
        owner.append(int(came_from[position, owner[-1]]))
    return owner[::-1]


def _letter_cost(letter: str, symbol: str) -> float:
    if letter in _LETTERS_OF.get(symbol, ""):
        return 0.0
    return _SILENT_LETTER if letter in _SECOND_LETTERS else _WRONG_LETTER
