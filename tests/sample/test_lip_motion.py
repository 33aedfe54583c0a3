"""The mouth closes where speech closes it, rests in pauses and anticipates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecavatar.emotion import Emotion
from ecavatar.errors import DataError, ShapeError
from ecavatar.face.model import ARKIT_INDEX, ARKIT_NAMES
from ecavatar.sample.letters import Phone
from ecavatar.sample.lip_motion import CLOSED_PHONES, articulate
from ecavatar.sample.voices import SPEAKERS, VOCASET_SENTENCES, speak

PARTING = ("mouthFunnel", "mouthLowerDownLeft", "mouthUpperUpRight", "mouthStretchLeft", "mouthSmileRight")


def row(text: str, step: float = 0.08, pause: float = 0.3) -> tuple[list[Phone], float]:
    """Phones of equal length between two pauses, and the length of the clip."""
    sounds = [Phone(symbol, pause + i * step, pause + (i + 1) * step) for i, symbol in enumerate(text)]
    end = sounds[-1].end
    return [Phone("sil", 0.0, pause), *sounds, Phone("sil", end, end + pause)], end + pause


def unit(weights: np.ndarray, name: str) -> np.ndarray:
    return weights[:, ARKIT_INDEX[name]]


@pytest.mark.parametrize("fps", [25, 30, 60])
@pytest.mark.parametrize("sentence", VOCASET_SENTENCES[:4])
def test_lips_touch_in_every_closure_of_real_speech(sentence: str, fps: int) -> None:
    utterance = speak(sentence, SPEAKERS[0], Emotion.NEUTRAL, 1, 0)
    weights = articulate(utterance.phones, utterance.duration, fps)
    assert weights.shape == (round(utterance.duration * fps), 52)
    gap = unit(weights, "jawOpen") - unit(weights, "mouthClose") + sum(unit(weights, name) for name in PARTING)
    for phone in utterance.phones:
        if phone.symbol in CLOSED_PHONES:
            middle = (phone.start + phone.end) / 2 * fps
            frames = [
                i for i in range(len(weights)) if abs(i - middle) <= max(phone.end - phone.start, 0.045) * fps / 2
            ]
            assert frames
            assert max(gap[i] for i in frames) < 1e-6


def test_open_vowels_open_and_hissing_does_not() -> None:
    openings = {}
    for vowel in "ɑæiuə":
        phones, duration = row(f"k{vowel}k", step=0.12)
        openings[vowel] = float(unit(articulate(phones, duration, 60), "jawOpen").max())
    assert openings["ɑ"] > openings["ə"] > openings["i"]
    assert openings["ɑ"] > 0.25
    phones, duration = row("ssss")
    assert unit(articulate(phones, duration, 60), "jawOpen").max() < 0.08


def test_lips_round_before_a_rounded_vowel_and_not_before_a_spread_one() -> None:
    rounded, duration = row("stu")
    spread, _ = row("sti")
    during_t = slice(round(0.38 * 60), round(0.46 * 60))
    pucker = [unit(articulate(phones, duration, 60), "mouthPucker")[during_t].mean() for phones in (rounded, spread)]
    assert pucker[0] > 5 * pucker[1] + 0.1


def test_the_mouth_rests_in_pauses() -> None:
    phones, duration = row("bɑbi")
    weights = articulate(phones, duration, 60)
    times = np.arange(len(weights)) / 60
    still = (times < 0.3 - 0.15) | (times > duration - 0.3 + 0.15)
    assert not weights[still].any()
    assert not articulate([], 1.0, 30).any()


def test_common_moments_look_the_same_at_any_frame_rate() -> None:
    phones, duration = row("pApəɹ")
    np.testing.assert_allclose(articulate(phones, duration, 60)[::2], articulate(phones, duration, 30), atol=1e-6)


@given(st.text("pbmfvszʃɹwkɑiuəɛIOW", min_size=1, max_size=8), st.floats(0.03, 0.2))
@settings(max_examples=40, deadline=None)
def test_weights_stay_in_range_move_smoothly_and_only_around_the_mouth(text: str, step: float) -> None:
    phones, duration = row(text, step)
    weights = articulate(phones, duration, 120)
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert np.abs(np.diff(weights, axis=0)).max() < 0.12
    moving = {name for name, column in zip(ARKIT_NAMES, weights.T, strict=True) if column.any()}
    assert all(name.startswith(("jaw", "mouth", "tongue")) for name in moving)


def test_an_open_speaker_opens_wider() -> None:
    phones, duration = row("kɑk", step=0.12)
    narrow, wide = (unit(articulate(phones, duration, 60, openness=o), "jawOpen").max() for o in (0.7, 1.3))
    assert wide == pytest.approx(narrow * 1.3 / 0.7, rel=1e-3)


def test_left_and_right_move_alike() -> None:
    phones, duration = row("fiʃ")
    weights = articulate(phones, duration, 60)
    for name in ARKIT_NAMES:
        if name.endswith("Left") and name not in ("jawLeft", "mouthLeft"):
            np.testing.assert_array_equal(unit(weights, name), unit(weights, name[:-4] + "Right"))


def test_unknown_or_overlapping_phones_are_refused() -> None:
    with pytest.raises(DataError, match="unknown phones §"):
        articulate([Phone("§", 0, 1)], 1, 30)
    with pytest.raises(DataError, match="before"):
        articulate([Phone("b", 0, 0.5), Phone("i", 0.4, 1)], 1, 30)
    for duration, fps, openness in ((0, 30, 1), (1, 0, 1), (0.001, 30, 1), (1, 30, 0)):
        with pytest.raises(ShapeError):
            articulate([], duration, fps, openness)
