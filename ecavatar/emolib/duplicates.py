"""Images that are one image: the same bytes, or nearly the same picture.

The perceptual hash is a DCT hash: signs of the low frequencies of a small grey picture, which survive recompression,
scaling and brightness. Source: Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010
(pHash), there with 64 bits of 8 x 8 frequencies; here 256 bits of 16 x 16, which tell similar faces apart.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from jaxtyping import Int, UInt8, UInt64
from PIL import Image

from ecavatar.reconstruction.images import Rgb

HASH_BITS = 256
HASH_BYTES = HASH_BITS // 8
_THUMBNAIL_PX = 64
_FREQUENCIES = slice(1, 17)  # without the mean, and as pHash without the first row and column
_SMALLEST_BAND_BITS = 7  # narrower bands agree so often that comparing all pairs is quicker
_PAIRS_AT_ONCE = 1 << 17
_ROWS_AT_ONCE = 1 << 14

Hashes = UInt8[np.ndarray, "images 32"]
"""256 bits of each image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """An earlier image that is the same one."""

    name: str
    is_same_bytes: bool
    bits: int
    """In how many bits the perceptual hashes differ."""


def perceptual_hash(image: Rgb) -> str:
    """256 bits of a picture as 64 hexadecimal digits: which low frequencies exceed their median."""
    small = Image.fromarray(image).convert("L").resize((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.LANCZOS)
    waves = scipy.fft.dctn(np.asarray(small, np.float64))[_FREQUENCIES, _FREQUENCIES]
    rounded = np.round(waves, 3)  # the last bits of a transform differ between machines
    return np.packbits(rounded > np.median(rounded)).tobytes().hex()


class KnownImages:
    """Images that were accepted, and what a further one is a copy of."""

    def __init__(self, near_bits: int) -> None:
        """Start empty.

        Args:
            near_bits: two images are one when their perceptual hashes differ in at most so many bits.
        """
        self.near_bits = near_bits
        self._names: list[str] = []
        self._digests = np.zeros((0, HASH_BYTES), np.uint8)
        self._hashes = np.zeros((0, HASH_BYTES), np.uint8)

    def admit(self, names: Sequence[str], digests: Hashes, perceptual_hashes: Hashes) -> list[Twin | None]:
        """Take images in the order given: None for one that is accepted, else the accepted one that it copies.

        Args:
            names: what a message calls each image.
            digests: SHA-256 of each file, see `hash_bytes`.
            perceptual_hashes: of each picture.
        """
        first_new = len(self._names)
        all_names = [*self._names, *names]
        digests = np.concatenate([self._digests, digests])
        hashes = np.concatenate([self._hashes, perceptual_hashes])
        twin_of = _first_accepted(hashes, first_new, self.near_bits)
        is_kept = twin_of < 0
        words = hashes.view(np.uint64)
        found: list[Twin | None] = []
        for row in range(first_new, len(all_names)):
            twin = int(twin_of[row])
            is_same = twin >= 0 and bool((digests[row] == digests[twin]).all())
            bits = int(_distances(words, np.array([row]), np.array([twin]))[0]) if twin >= 0 else 0
            found.append(Twin(name=all_names[twin], is_same_bytes=is_same, bits=bits) if twin >= 0 else None)
        self._names = [name for name, keep in zip(all_names, is_kept, strict=True) if keep]
        self._digests, self._hashes = digests[is_kept], hashes[is_kept]
        return found


def hash_bytes(texts: Sequence[str]) -> Hashes:
    """The bytes of hashes that are written as 64 hexadecimal digits each."""
    return np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(len(texts), HASH_BYTES)


def hash_texts(hashes: Hashes) -> list[str]:
    """64 hexadecimal digits of each; what `hash_bytes` reads."""
    text = np.ascontiguousarray(hashes).tobytes().hex()
    return [text[start : start + 2 * HASH_BYTES] for start in range(0, len(text), 2 * HASH_BYTES)]


def near_pairs(hashes: Hashes, first_new: int, near_bits: int) -> Int[np.ndarray, "pairs 2"]:
    """All pairs (later, earlier) of rows whose hashes differ in at most `near_bits` bits, sorted.

    Two hashes that differ in k bits agree in at least one of k + 1 bands (the pigeonhole principle), so only images
    that share a band are compared.

    Args:
        hashes: of all images.
        first_new: pairs among the rows before this one are not looked for.
        near_bits: 0..256.
    """
    words = hashes.view(np.uint64)
    found = [np.zeros((0, 2), np.int64)]
    for keys in _band_keys(hashes, near_bits):
        for later, earlier in _pairs_of_equal(keys, first_new):
            is_near = _distances(words, later, earlier) <= near_bits
            found.append(np.stack([later[is_near], earlier[is_near]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _first_accepted(hashes: Hashes, first_new: int, near_bits: int) -> Int[np.ndarray, " images"]:
    """For each row the first accepted row that it copies, or -1 where it is accepted itself; in the order of rows."""
    _, first, group = np.unique(hashes.view(f"V{HASH_BYTES}").ravel(), return_index=True, return_inverse=True)
    same_as = first[group]  # of many equal hashes only the first is compared, however many there are
    singles = np.flatnonzero(same_as == np.arange(len(hashes)))
    pairs = near_pairs(hashes[singles], int(np.searchsorted(singles, first_new)), near_bits)
    twin_of = np.full(len(hashes), -1)
    for later, earlier in singles[pairs].tolist():
        if twin_of[later] < 0 and twin_of[earlier] < 0:
            twin_of[later] = earlier
    repeats = np.flatnonzero(same_as != np.arange(len(hashes)))
    original = same_as[repeats]
    twin_of[repeats] = np.where(twin_of[original] < 0, original, twin_of[original])
    return twin_of


def _band_keys(hashes: Hashes, near_bits: int) -> Iterator[UInt64[np.ndarray, " images"]]:
    """For each band a number per image that is equal where the band's bits are; bands take their bits in turn."""
    bands = near_bits + 1
    if HASH_BITS // bands < _SMALLEST_BAND_BITS:
        yield np.zeros(len(hashes), np.uint64)
        return
    for band in range(bands):
        keys = np.zeros((len(hashes), 8), np.uint8)
        for start in range(0, len(hashes), _ROWS_AT_ONCE):
            bits = np.unpackbits(hashes[start : start + _ROWS_AT_ONCE], axis=1)
            packed = np.packbits(bits[:, band::bands][:, :64], axis=1)  # 64 bits of a wider band are enough
            keys[start : start + len(bits), : packed.shape[1]] = packed
        yield keys.view(np.uint64)[:, 0]


def _pairs_of_equal(
    keys: UInt64[np.ndarray, " images"], first_new: int
) -> Iterator[tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]]:
    """Rows (later, earlier) with equal keys, some at a time."""
    order = np.argsort(keys, kind="stable")  # so rows of one run are in ascending order
    places = np.arange(len(keys))
    is_start = np.r_[True, keys[order][1:] != keys[order][:-1]][: len(keys)]
    start = np.maximum.accumulate(np.where(is_start, places, 0))
    chosen = np.flatnonzero((order >= first_new) & (places > start))
    counts = (places - start)[chosen]
    while len(chosen):
        size = max(1, int(np.searchsorted(np.cumsum(counts), _PAIRS_AT_ONCE, side="right")))
        part, repeats = chosen[:size], counts[:size]
        within = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        yield np.repeat(order[part], repeats), order[np.repeat(start[part], repeats) + within]
        chosen, counts = chosen[size:], counts[size:]


def _distances(
    words: UInt64[np.ndarray, "images 4"], left: Int[np.ndarray, " pairs"], right: Int[np.ndarray, " pairs"]
) -> Int[np.ndarray, " pairs"]:
    return np.bitwise_count(words[left] ^ words[right]).sum(axis=1, dtype=np.int64)
