"""Laws of finding copies of images."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from ecavatar.emolib import duplicates
from ecavatar.emolib.duplicates import KnownImages, hash_bytes, near_pairs, perceptual_hash


def _scene(seed, size=224):
    """A random picture whose detail falls off with its fineness as in photographs (1/f), without clipped pixels."""
    rng = np.random.default_rng(seed)
    fineness = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    fineness[0, 0] = np.inf
    waves = np.fft.fft2(rng.normal(size=(3, size, size))) / fineness
    planes = np.fft.ifft2(waves).real
    scaled = 128 + 30 * planes / planes.std(axis=(1, 2), keepdims=True)
    return np.clip(scaled, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def _bits(text):
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))


def _distance(one, other):
    return int((_bits(perceptual_hash(one)) != _bits(perceptual_hash(other))).sum())


def _recompressed(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=60)
    return np.asarray(Image.open(io.BytesIO(buffer.getvalue())))


def _resized(picture, size):
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS))


def _brightened(picture):
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(picture)).enhance(1.05))


COPIES = {
    "recompressed": _recompressed,
    "halved": lambda picture: _resized(picture, 112),
    "enlarged": lambda picture: _resized(picture, 336),
    "brightened": _brightened,
    "grey": lambda picture: np.repeat(np.asarray(Image.fromarray(picture).convert("L"))[..., None], 3, axis=2),
}


def test_a_hash_has_256_bits_of_which_half_are_set():
    assert len(perceptual_hash(_scene(0))) == 64
    assert _bits(perceptual_hash(_scene(0))).sum() == 128


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_copies_are_near_and_others_far(copy):
    scenes = [_scene(seed) for seed in range(12)]
    assert max(_distance(scene, copy(scene)) for scene in scenes) <= 8
    assert min(_distance(copy(a), b) for a in scenes for b in scenes if a is not b) > 64


def test_a_blank_picture_has_one_hash_whatever_its_shade():
    hashes = {
        perceptual_hash(np.full((size, size, 3), shade, np.uint8)) for size in (50, 64, 91) for shade in (0, 99, 255)
    }
    assert hashes == {"0" * 64}


def _close_hashes(rng, count, flips):
    """Hashes in clusters: each differs from one of five others in up to `flips` bits."""
    centres = rng.integers(0, 2, (5, 256), dtype=np.uint8)
    bits = centres[rng.integers(0, 5, count)]
    for row in bits:
        row[rng.choice(256, rng.integers(0, flips + 1), replace=False)] ^= 1
    return np.packbits(bits, axis=1)


@given(st.integers(0, 2**32), st.integers(0, 40), st.integers(0, 64), st.data())
def test_bands_find_the_same_pairs_as_comparing_all(seed, count, near_bits, data):
    hashes = _close_hashes(np.random.default_rng(seed), count, flips=max(1, near_bits))
    first_new = data.draw(st.integers(0, count))
    bits = np.unpackbits(hashes, axis=1).astype(int)
    expected = [
        (later, earlier)
        for later in range(first_new, count)
        for earlier in range(later)
        if (bits[later] != bits[earlier]).sum() <= near_bits
    ]
    assert [tuple(pair) for pair in near_pairs(hashes, first_new, near_bits).tolist()] == expected


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(0, 64), st.integers(1, 40))
def test_an_image_is_accepted_if_no_accepted_one_is_near_however_they_come(seed, count, near_bits, at_once):
    rng = np.random.default_rng(seed)
    hashes = _close_hashes(rng, count, flips=max(1, near_bits))
    bits = np.unpackbits(hashes, axis=1).astype(int)
    sums = [f"{n:064x}" for n in range(count)]
    accepted: list[int] = []
    expected = []
    for row in range(count):
        near = [n for n in accepted if (bits[row] != bits[n]).sum() <= near_bits]
        expected.append((near[0], int((bits[row] != bits[near[0]]).sum())) if near else None)
        accepted += [] if near else [row]
    known = KnownImages(near_bits)
    found = []
    for start in range(0, count, at_once):
        part = slice(start, start + at_once)
        found += known.admit([str(n) for n in range(count)][part], hash_bytes(sums[part]), hashes[part])
    assert [(int(twin.name), twin.bits) if twin else None for twin in found] == expected


def test_the_same_bytes_are_told_from_the_same_picture():
    known = KnownImages(0)
    one, other = "11" * 32, "22" * 32
    found = known.admit(["a", "b", "c", "d"], hash_bytes([one, one, other, other]), hash_bytes(["ab" * 32] * 4))
    assert found[0] is None
    assert [(twin.name, twin.is_same_bytes) for twin in found[1:]] == [("a", True), ("a", False), ("a", False)]


def test_thousands_of_equal_pictures_cost_no_more_than_different_ones():
    hashes = hash_bytes(["ab" * 32] * 20_000)
    sums = hash_bytes([f"{n:064x}" for n in range(len(hashes))])
    twins = KnownImages(8).admit([str(n) for n in range(len(hashes))], sums, hashes)
    assert twins[0] is None
    assert {twin.name for twin in twins[1:]} == {"0"}


def test_pairs_are_the_same_whether_few_or_many_rows_are_unpacked_at_once(monkeypatch):
    hashes = np.random.default_rng(0).integers(0, 256, (20, 32), dtype=np.uint8)
    hashes[10:] = hashes[:10]
    whole = near_pairs(hashes, 0, 8)
    monkeypatch.setattr(duplicates, "_ROWS_AT_ONCE", 3)
    assert near_pairs(hashes, 0, 8).tolist() == whole.tolist() == [[10 + row, row] for row in range(10)]
