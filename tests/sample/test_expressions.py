"""What emotions look like, and how they mix with speech."""

import numpy as np
import pytest

from ecavatar.emotion import LEVELS, Emotion
from ecavatar.errors import DataError, ShapeError
from ecavatar.face.model import ARKIT_INDEX, ARKIT_NAMES
from ecavatar.sample.acting import MOUTH_SHARE, act, mix, wander
from ecavatar.sample.expressions import LEVEL_AMPLITUDES, PROTOTYPES, emotion_weights, sides, upper_face_units
from ecavatar.sample.letters import Phone
from ecavatar.seeding import stream


def test_every_prototype_is_made_of_arkit_units() -> None:
    assert set(PROTOTYPES) == set(Emotion)
    for prototype in PROTOTYPES.values():
        for name, weight in prototype.items():
            assert all(ARKIT_NAMES[unit].startswith(name) for unit in sides(name))
            assert 0 < weight <= 1
    with pytest.raises(DataError, match="no ARKit unit"):
        sides("browSideways")


def test_an_emotion_is_nearer_to_its_own_prototype_than_to_any_other() -> None:
    means = {e: np.mean([emotion_weights(e, 1, stream(1, e, k)) for k in range(20)], axis=0) for e in Emotion}
    for emotion in Emotion:
        shown = emotion_weights(emotion, 0.8, stream(2, emotion))
        assert min(means, key=lambda e: float(np.linalg.norm(means[e] * 0.8 - shown))) is emotion


def test_weights_are_bounded_repeatable_and_personal() -> None:
    for emotion in Emotion:
        weights = emotion_weights(emotion, 1, stream(3, emotion))
        assert weights.dtype == np.float32
        assert weights.min() >= 0
        assert weights.max() <= 1
        assert np.array_equal(weights, emotion_weights(emotion, 1, stream(3, emotion)))
        assert not np.array_equal(weights, emotion_weights(emotion, 1, stream(4, emotion)))


def test_a_higher_level_is_a_stronger_expression() -> None:
    for emotion in set(Emotion) - {Emotion.NEUTRAL}:
        sizes = [np.linalg.norm(emotion_weights(emotion, LEVEL_AMPLITUDES[level], stream(5))) for level in LEVELS]
        assert sizes == sorted(sizes)
        assert sizes[2] > 1.8 * sizes[0]
    assert np.abs(emotion_weights(Emotion.ANGER, 0, stream(6))).max() <= 0.05
    with pytest.raises(DataError, match="amplitude"):
        emotion_weights(Emotion.ANGER, 1.1, stream(6))


def test_contempt_is_one_sided() -> None:
    weights = emotion_weights(Emotion.CONTEMPT, 1, stream(7))
    left, right = (weights[ARKIT_INDEX[f"mouthDimple{side}"]] for side in ("Left", "Right"))
    assert left > 0.4
    assert right == 0


def test_lips_stay_closed_on_bilabials_and_the_upper_face_belongs_to_the_emotion() -> None:
    speech, emotion = np.zeros((2, 52), np.float32), np.zeros((2, 52), np.float32)
    speech[:, ARKIT_INDEX["jawOpen"]] = 0.1
    speech[0, ARKIT_INDEX["mouthClose"]] = 0.1
    emotion[:, ARKIT_INDEX["jawOpen"]] = 0.6
    emotion[:, sides("mouthUpperUp")] = 0.5
    emotion[:, ARKIT_INDEX["browInnerUp"]] = 0.9
    mixed = mix(speech, emotion)
    assert mixed[0, ARKIT_INDEX["jawOpen"]] == mixed[0, ARKIT_INDEX["mouthClose"]]
    assert (mixed[0, sides("mouthUpperUp")] == 0).all()
    assert mixed[1, ARKIT_INDEX["jawOpen"]] == pytest.approx(0.1 + MOUTH_SHARE * 0.6)
    upper = upper_face_units() > 0
    assert np.array_equal(mixed[:, upper], emotion[:, upper])
    with pytest.raises(ShapeError):
        mix(speech, emotion[:1])


PHONES = (Phone("sil", 0, 0.2), Phone("m", 0.2, 0.35), Phone("i", 0.35, 0.7), Phone("sil", 0.7, 1.0))


def test_neutral_speech_begins_at_rest() -> None:
    weights = act(PHONES, 1.0, 25, Emotion.NEUTRAL, 1, stream(8))
    assert weights.shape == (25, 52)
    assert np.abs(weights[0]).max() == 0
    assert weights[:, sides("browDown")].max() < 0.1


def test_emotional_speech_shows_the_emotion_from_the_first_frame() -> None:
    weights = act(PHONES, 1.0, 25, Emotion.SURPRISE, 3, stream(9))
    brow = weights[:, ARKIT_INDEX["browInnerUp"]]
    assert brow[0] > 0.4
    assert brow[8:].mean() > brow[0]
    assert np.abs(np.diff(weights, axis=0)[:, upper_face_units() > 0]).max() < 0.15


def test_wandering_is_smooth_and_has_the_asked_for_spread() -> None:
    curves = np.stack([wander(100, 25, stream(10, k), 0.5) for k in range(200)])
    assert curves.std() == pytest.approx(0.5, rel=0.1)
    assert np.abs(np.diff(curves, axis=1)).max() < 0.5
