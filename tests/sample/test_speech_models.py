"""The stand-in speech models: honest labels, real file formats, the same bytes twice."""

import itertools
import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import HubertForCTC, Wav2Vec2ForCTC

from ecavatar.config import SpeechModelsSettings
from ecavatar.emotion import EMOTION2VEC_LABELS, Emotion
from ecavatar.errors import AssetMissingError, DataError, ShapeError, TrainingError
from ecavatar.sample.letters import Letter
from ecavatar.sample.speech_corpus import LETTERS, PHONES, count_steps, letter_labels, speak_clips
from ecavatar.sample.speech_models import make_speech_models
from ecavatar.sample.speech_recognisers import edit_distance, extract_features, optimise, train_front_end
from ecavatar.sample.voices import SPEAKERS, TRAINING_SENTENCES
from ecavatar.speech.emotion import MODEL_FILES, recognise_emotions
from ecavatar.speech.encoder import SpeechEncoder
from ecavatar.speech.recogniser import CtcRecogniser
from ecavatar.storage.files import read_json

TINY = SpeechModelsSettings(
    threads=1,
    clips=12,
    held_out_clips=6,
    channels=[8] * 7,
    hidden=16,
    layers=2,
    heads=2,
    dropout=0.1,
    batch=4,
    crop_samples=4000,
    front_end_steps=3,
    front_end_rate=0.003,
    step_steps=3,
    ctc_steps=3,
    emotion_steps=3,
    emotion_samples=8000,
    rate=0.002,
)


def collapse(labels: np.ndarray) -> str:
    return "".join(LETTERS[token] for token, _ in itertools.groupby(labels.tolist()) if token)


@given(
    st.lists(st.tuples(st.sampled_from("EETTAOL|'"), st.floats(0, 0.12)), min_size=1, max_size=25),
    st.floats(0, 0.3),
)
@settings(max_examples=200, deadline=None)
def test_step_labels_read_back_as_the_letters(spelled: list[tuple[str, float]], start: float) -> None:
    letters, now = [], start
    for symbol, length in spelled:
        letters.append(Letter(symbol, now, now + length))
        now += length
    steps = max(int((now + 0.1) * 50), 2 * len(letters))
    labels = letter_labels(letters, steps)
    assert collapse(labels) == "".join(symbol for symbol, _ in spelled)


def test_long_letters_are_labelled_where_they_sound() -> None:
    letters = [Letter("A", 0.2, 0.6), Letter("B", 0.6, 0.8), Letter("B", 0.8, 1.0)]
    labels = letter_labels(letters, 60)
    assert LETTERS[labels[20]] == "A"
    assert LETTERS[labels[35]] == LETTERS[labels[46]] == "B"
    assert not labels[:10].any()
    assert not labels[50:].any()
    with pytest.raises(ShapeError):
        letter_labels(letters, 3)


def test_clips_do_not_depend_on_the_number_of_workers() -> None:
    one, three = (speak_clips("test", 5, TRAINING_SENTENCES, SPEAKERS, 7, workers) for workers in (1, 3))
    for a, b in zip(one, three, strict=True):
        assert torch.equal(a.samples, b.samples)
        assert torch.equal(a.letters, b.letters)
        assert (a.text, a.emotion, a.level) == (b.text, b.emotion, b.level)
    other = speak_clips("other", 5, TRAINING_SENTENCES, SPEAKERS, 7, 1)
    assert any(len(a.samples) != len(b.samples) for a, b in zip(one, other, strict=True))


def test_every_label_has_one_entry_per_step_and_tells_the_truth() -> None:
    for clip in speak_clips("test", 4, TRAINING_SENTENCES, SPEAKERS, 0, 1):
        assert clip.steps == count_steps(len(clip.samples)) == len(clip.phones) == len(clip.spectrum)
        assert collapse(clip.letters.numpy()).replace("|", " ") == clip.text
        assert "".join(LETTERS[token] for token in clip.tokens).replace("|", " ") == clip.text
        silent = clip.phones == PHONES.index("sil")
        assert clip.spectrum[silent].mean() < clip.spectrum[~silent].mean() - 1


@given(st.text("abc", max_size=6), st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_edit_distance_is_a_metric(a: str, b: str, c: str) -> None:
    assert edit_distance(a, a) == 0
    assert edit_distance(a, b) == edit_distance(b, a) >= abs(len(a) - len(b))
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)


def test_edit_distance_of_a_known_pair() -> None:
    assert edit_distance("KITTEN", "SITTING") == 3


def test_the_front_end_learns_and_is_then_fixed() -> None:
    clips = speak_clips("test", 6, TRAINING_SENTENCES, SPEAKERS, 0, 1)
    extractor = train_front_end(clips, TINY, 0)
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    features = extract_features(extractor, clips)
    assert all(len(item.values) == item.clip.steps for item in features)
    again = extract_features(train_front_end(clips, TINY, 0), clips)
    assert all(torch.equal(a.values, b.values) for a, b in zip(features, again, strict=True))


def test_pieces_may_be_of_any_length_that_some_clip_has() -> None:
    clips = speak_clips("test", 3, TRAINING_SENTENCES, SPEAKERS, 0, 1)
    longest = max(len(clip.samples) for clip in clips)
    for length in (400, 719, 720, longest):
        train_front_end(clips, TINY.model_copy(update={"crop_samples": length, "front_end_steps": 2}), 0)
    with pytest.raises(DataError, match="crop_samples"):
        train_front_end(clips, TINY.model_copy(update={"crop_samples": longest + 1}), 0)


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    weight = torch.nn.Parameter(torch.tensor(1.0))
    with pytest.raises(TrainingError, match="toy"):
        optimise([weight], lambda: weight / 0, 3, 0.1, "toy")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The models, made twice."""
    roots = []
    for attempt in ("first", "second"):
        root = tmp_path_factory.mktemp(attempt)
        make_speech_models(
            TINY, 3, root / "hubert", root / "wav2vec2", root / "emotion2vec", root / "speech_figures.json"
        )
        roots.append(root)
    return roots[0], roots[1]


def test_two_runs_write_the_same_bytes(made: tuple[Path, Path]) -> None:
    first, second = (
        {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
        for root in made
    )
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert {path.name for path in made[0].iterdir()} == {"hubert", "wav2vec2", "emotion2vec", "speech_figures.json"}


def test_recognisers_are_transformers_directories_of_their_class(made: tuple[Path, Path]) -> None:
    for name, network in (("hubert", HubertForCTC), ("wav2vec2", Wav2Vec2ForCTC)):
        recogniser = CtcRecogniser.load(made[0] / name)
        assert isinstance(recogniser.model, network)
        assert recogniser.blank == 0
        assert recogniser.tokens("a cab").tolist() == [LETTERS.index(c) for c in "A|CAB"]
        encoder = SpeechEncoder.load(made[0] / name)
        assert encoder.width == 16
        assert encoder.model.config.conv_stride == [5, 2, 2, 2, 2, 2, 2]


def test_the_recognisers_share_their_front_end_and_not_their_letters(made: tuple[Path, Path]) -> None:
    hubert, wav2vec2 = (CtcRecogniser.load(made[0] / name).model for name in ("hubert", "wav2vec2"))
    for a, b in zip(
        hubert.base_model.feature_extractor.parameters(),
        wav2vec2.base_model.feature_extractor.parameters(),
        strict=True,
    ):
        assert torch.equal(a, b)
    assert not torch.equal(hubert.lm_head.weight, wav2vec2.lm_head.weight)


def test_emotions_are_scored_in_order_and_nothing_of_the_process_changes(made: tuple[Path, Path]) -> None:
    rng = np.random.default_rng(0)
    clips = [(rng.standard_normal(8000), 16000), (rng.standard_normal(24000), 24000)]
    handlers, level, threads = logging.getLogger().handlers[:], logging.getLogger().level, torch.get_num_threads()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    scores = recognise_emotions(made[0] / "emotion2vec", clips)
    assert scores.shape == (2, len(EMOTION2VEC_LABELS))
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert (logging.getLogger().handlers, logging.getLogger().level, torch.get_num_threads()) == (
        handlers,
        level,
        threads,
    )
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    alone = recognise_emotions(made[0] / "emotion2vec", clips[1:])
    np.testing.assert_allclose(alone[0], scores[1], atol=1e-6)
    assert recognise_emotions(made[0] / "emotion2vec", []).shape == (0, 9)


def test_figures_name_what_they_measure(made: tuple[Path, Path]) -> None:
    figures = read_json(made[0] / "speech_figures.json")
    for name in ("hubert", "wav2vec2"):
        assert figures[name]["character_error_rate"] >= 0
        assert figures[name]["clips"] == TINY.held_out_clips
    assert 0 <= figures["emotion2vec"]["accuracy"] <= 1
    assert figures["emotion2vec"]["chance"] == pytest.approx(1 / 7)
    assert Emotion.CONTEMPT.label not in figures["emotion2vec"]["recall_of_emotion"]
    assert figures["emotion2vec"]["clips"] > TINY.held_out_clips
    low, mean, high = (figures["emotion2vec"][f"unweighted_recall{end}"] for end in ("_low", "", "_high"))
    assert low < mean < high


def test_a_missing_emotion_model_is_named_before_anything_slow(tmp_path: Path) -> None:
    for missing in MODEL_FILES:
        (tmp_path / missing).write_text("")
    (tmp_path / "model.pt").unlink()
    with pytest.raises(AssetMissingError, match=r"model\.pt"):
        recognise_emotions(tmp_path, [(np.zeros(16000), 16000)])


def test_clips_too_short_to_judge_are_refused(made: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match="clip 1"):
        recognise_emotions(made[0] / "emotion2vec", [(np.zeros(16000), 16000), (np.zeros(100), 16000)])
