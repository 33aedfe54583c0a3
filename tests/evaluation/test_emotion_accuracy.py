"""Emotion scores: counted by hand, against scikit-learn, honest about chance; EMO-DB by its file names."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ecavatar.emotion import Emotion
from ecavatar.errors import AssetMissingError, DataError, ShapeError
from ecavatar.evaluation.emotion_accuracy import (
    EmotionAccuracy,
    describe_accuracy,
    guesses_of,
    predominant_emotion,
    read_emodb,
    score_guesses,
    wilson_interval,
)
from ecavatar.evaluation.emotion_pictures import emotion_figures, write_track_plot
from ecavatar.speech.track import RECOGNISED, EmotionTrack, EmotionWindow

EMODB = Path(__file__).resolve().parents[3] / "shared" / "data" / "emodb_cc0"
ANGER, HAPPY, SAD, FEAR = Emotion.ANGER, Emotion.HAPPY, Emotion.SAD, Emotion.FEAR


def test_a_case_counted_by_hand() -> None:
    truth = [ANGER, ANGER, ANGER, ANGER, SAD, Emotion.CONTEMPT]
    guesses = [ANGER, ANGER, ANGER, HAPPY, HAPPY, SAD]
    scores = score_guesses(truth, guesses, levels=[1, 1, 2, 2, 3, 3])
    assert scores.emotions == (ANGER, SAD)
    assert scores.confusion[0, RECOGNISED.index(ANGER)] == 3
    assert scores.confusion[:, RECOGNISED.index(HAPPY)].tolist() == [1, 1]
    assert scores.accuracy == pytest.approx(3 / 5)
    assert scores.recall == pytest.approx((3 / 4 + 0) / 2)
    assert scores.of_level == {1: 1.0, 2: 0.5, 3: 0.0}
    assert (scores.clips, scores.left_out, scores.chance) == (5, 1, 0.5)


@given(st.lists(st.tuples(st.sampled_from(RECOGNISED), st.sampled_from(RECOGNISED)), min_size=1, max_size=60))
@settings(deadline=None, max_examples=50)
def test_scores_agree_with_scikit_learn(pairs: Sequence[tuple[Emotion, Emotion]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    truth, guesses = zip(*pairs, strict=True)
    scores = score_guesses(truth, guesses)
    assert scores.accuracy == pytest.approx(metrics.accuracy_score(truth, guesses))
    present = list(scores.emotions)
    assert scores.recall == pytest.approx(metrics.recall_score(truth, guesses, labels=present, average="macro"))
    full = metrics.confusion_matrix(truth, guesses, labels=list(RECOGNISED))
    np.testing.assert_array_equal(scores.confusion, full[[RECOGNISED.index(emotion) for emotion in present]])
    assert scores.accuracy_interval[0] <= scores.accuracy <= scores.accuracy_interval[1]


def test_wilsons_interval_of_a_published_case() -> None:
    # Newcombe, Statistics in Medicine 1998, table I: 81 of 263 and 0 of 20.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    with pytest.raises(ShapeError):
        wilson_interval(3, 2)


def test_only_what_listens_is_above_chance() -> None:
    truth = list(RECOGNISED) * 20
    deaf = score_guesses(truth, [SAD] * len(truth))
    assert deaf.recall == pytest.approx(deaf.chance)
    assert not deaf.is_above_chance
    assert "not clearly above chance" in describe_accuracy("deaf", deaf)
    perfect = score_guesses(truth, truth)
    assert perfect.is_above_chance
    assert "clearly above chance" in describe_accuracy("perfect", perfect)
    chance = score_guesses([e for e in RECOGNISED[:6] for _ in range(4)], [*[ANGER] * 4, *[SAD] * 18, FEAR, FEAR])
    assert chance.recall == pytest.approx(1 / 6 + 2 / 24, abs=0.09)
    assert not chance.is_above_chance
    few = score_guesses([ANGER, HAPPY, SAD], [ANGER, HAPPY, HAPPY])
    assert few.recall > few.chance
    assert not few.is_above_chance  # three utterances prove nothing
    wrong = score_guesses([ANGER] * 20 + [SAD] * 20, [SAD] * 20 + [ANGER] * 20)
    assert "below chance" in describe_accuracy("wrong", wrong)


def test_json_gives_the_accuracy_back() -> None:
    truth = list(RECOGNISED) * 3
    scores = score_guesses(truth, truth[2:] + truth[:2], levels=[1, 2, 3] * 7)
    value = json.loads(json.dumps(scores.to_json()))
    assert EmotionAccuracy.from_json(value).to_json() == value
    with pytest.raises(DataError, match="to_json"):
        EmotionAccuracy.from_json({"accuracy": 1})


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ShapeError, match="2 emotions, 1 guesses"):
        score_guesses([ANGER, SAD], [ANGER])
    with pytest.raises(ShapeError, match="no utterance"):
        score_guesses([Emotion.CONTEMPT], [ANGER])


def test_other_and_unknown_are_never_guessed() -> None:
    scores = np.array([[0.1, 0, 0, 0.2, 0, 0.6, 0, 0, 0.1]])
    assert guesses_of(scores) == [HAPPY]


def test_the_emotion_that_lasts_longest_is_the_clips() -> None:
    def window(start: float, end: float, emotion: Emotion) -> EmotionWindow:
        return EmotionWindow(start=start, end=end, emotion=emotion, level=1, probabilities=())

    track = EmotionTrack((window(0, 1, SAD), window(1, 2.5, HAPPY), window(2.5, 4, SAD)))
    assert predominant_emotion(track) is SAD


def test_emodb_is_read_by_its_names(tmp_path: Path) -> None:
    with pytest.raises(AssetMissingError, match="EMO-DB"):
        read_emodb(tmp_path)
    (tmp_path / "wav").mkdir()
    with pytest.raises(DataError, match="no wav file"):
        read_emodb(tmp_path)
    for name in ("03a01Fa", "08a01Lc", "09a02Ea"):
        soundfile.write(tmp_path / "wav" / f"{name}.wav", np.zeros(2205), 22050)
    speech = read_emodb(tmp_path)
    assert [(item.clip_id, item.subject, item.emotion) for item in speech] == [
        ("03a01Fa", "03", HAPPY),
        ("09a02Ea", "09", Emotion.DISGUST),
    ]
    assert len(speech[0].read()) == 1600
    (tmp_path / "wav" / "hello.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"hello\.wav"):
        read_emodb(tmp_path)


def test_the_real_corpus_has_six_emotions_of_three_speakers() -> None:
    if not EMODB.is_dir():
        pytest.skip(f"EMO-DB's 28 utterances are not in {EMODB}")
    speech = read_emodb(EMODB)
    assert len(speech) == 24
    assert {item.subject for item in speech} == {"03", "08", "09"}
    counts = [sum(item.emotion is emotion for item in speech) for emotion in RECOGNISED]
    assert sorted(counts) == [0, 4, 4, 4, 4, 4, 4]
    assert all(1.0 < len(item.read()) / 16000 < 10.0 for item in speech)


def test_pictures_are_written_whole_and_equal(tmp_path: Path) -> None:
    truth = list(RECOGNISED) * 3
    scores = {"held-out voices": score_guesses(truth, truth[1:] + truth[:1]), "EMO-DB": score_guesses(truth, truth)}
    first, second = (emotion_figures(tmp_path / name, scores) for name in "ab")
    assert first == second
    for entry in first.values():
        a, b = ((tmp_path / name / entry["picture"]).read_bytes() for name in "ab")
        assert a == b
    assert first["EMO-DB"]["unweighted_recall"] == 1.0


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_track_is_drawn_with_and_without_probabilities(tmp_path: Path, by_hand: bool) -> None:
    shares = () if by_hand else (0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
    track = EmotionTrack(
        tuple(
            EmotionWindow(start=i, end=i + 1, emotion=e, level=1 + i % 3, probabilities=shares)
            for i, e in enumerate((ANGER, Emotion.CONTEMPT, SAD))
        )
    )
    path = tmp_path / "track.png"
    write_track_plot(path, np.sin(np.arange(48000) / 50).astype(np.float32), 16000, track)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] > 800
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    with pytest.raises(ShapeError):
        write_track_plot(path, np.zeros((2, 100)), 16000, track)
