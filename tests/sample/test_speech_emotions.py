"""The small emotion2vec: its filters hear pitch whatever the phase, its channel changes colour and nothing else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from ecavatar.config import SpeechModelsSettings
from ecavatar.emotion import Emotion
from ecavatar.errors import DataError, ShapeError
from ecavatar.evaluation.emotion_accuracy import score_recogniser
from ecavatar.sample.emotion_front_end import filter_bank, front_end_layers, pitch_target
from ecavatar.sample.speech_corpus import SpokenClip, count_steps, speak_clips
from ecavatar.sample.speech_emotions import (
    sample_accuracy,
    through_a_channel,
    train_emotion_recogniser,
    write_emotion_recogniser,
)
from ecavatar.sample.voices import F0_RATE, HELD_OUT_SPEAKERS, SPEAKERS, TRAINING_SENTENCES, speak
from ecavatar.seeding import stream
from ecavatar.speech.track import RECOGNISED

SMALL = SpeechModelsSettings(
    threads=1,
    clips=12,
    held_out_clips=6,
    channels=[16] * 7,
    hidden=32,
    layers=2,
    heads=2,
    dropout=0.1,
    batch=8,
    crop_samples=8000,
    front_end_steps=150,
    front_end_rate=0.004,
    step_steps=3,
    ctc_steps=3,
    emotion_steps=150,
    emotion_samples=32000,
    rate=0.003,
)


def strengths(sound: torch.Tensor) -> torch.Tensor:
    """What GELU leaves of the bank, summed over the four phases of each band: (bands, steps)."""
    heard = functional.gelu(functional.conv1d(sound[None, None], filter_bank(), stride=160))[0]
    return heard.reshape(-1, 4, heard.shape[-1]).sum(dim=1)


def test_four_phases_add_up_to_a_band_whatever_the_phase() -> None:
    times = torch.arange(16000, dtype=torch.float32) / 16000
    for phase in (0.0, 0.7, 2.0):
        steady = strengths(0.3 * torch.sin(2 * np.pi * 200 * times + phase))
        loudest = steady.mean(dim=1).argmax()
        assert (steady[loudest].std() / steady[loudest].mean()).item() < 0.01
        assert loudest == 7  # 60 + 7 * 20 = 200 Hz
    low, high = (
        sum(strengths(0.1 * torch.sin(2 * np.pi * n * f0 * times)) for n in (1, 2, 3)).mean(dim=1)[:30]  # type: ignore[union-attr]
        for f0 in (95.0, 100.0)
    )
    assert functional.cosine_similarity(low, high, dim=0) < 0.98  # less than a semitone apart


def test_layers_answer_fifty_times_a_second() -> None:
    strides = [stride for _, _, stride in front_end_layers(SMALL)]
    assert 16000 / np.prod(strides) == 50


def test_pitch_targets_are_shares_around_the_true_f0() -> None:
    target = pitch_target(torch.tensor([[0.0, 100.0, 200.0, 60.0]]))[0]
    torch.testing.assert_close(target.sum(dim=-1), torch.ones(4))
    assert target[0, -1] == 1
    assert target[1:, -1].abs().max() == 0
    bins = target[1:, :-1].argmax(dim=-1)
    per_octave = 55 / np.log2(560 / 55)
    assert bins[1] - bins[0] == pytest.approx(per_octave, abs=1)


def test_the_labels_f0_is_what_sounds() -> None:
    """Against the autocorrelation of the sound at the middle of each voiced step."""
    (clip,) = speak_clips("test", 1, TRAINING_SENTENCES[2:], SPEAKERS[4:5], 0, 1, emotions=[Emotion.NEUTRAL])
    samples, pitch = clip.samples.numpy(), clip.pitch.numpy()
    assert len(pitch) == clip.steps == count_steps(len(samples))
    errors = []
    for step in np.flatnonzero(pitch > 0):
        middle = step * 320 + 200
        window = samples[max(middle - 400, 0) : middle + 400] * np.hanning(
            min(middle + 400, len(samples)) - max(middle - 400, 0)
        )
        curve = np.correlate(window, window, "full")[len(window) - 1 :]
        first, last = 16000 // 400, 16000 // 80
        errors.append(12 * abs(np.log2(16000 / (first + curve[first:last].argmax()) / pitch[step])))
    assert np.median(errors) < 1.0  # semitones
    utterance = speak(TRAINING_SENTENCES[2], SPEAKERS[4], Emotion.NEUTRAL, 1, 0)
    assert abs(len(utterance.f0) / F0_RATE - utterance.duration) < 0.05


def test_emotions_may_be_chosen_and_the_default_draws_as_before() -> None:
    only = speak_clips("test", 6, TRAINING_SENTENCES, SPEAKERS, 1, 1, emotions=[Emotion.SAD])
    assert {clip.emotion for clip in only} == {Emotion.SAD}
    everything = speak_clips("test", 6, TRAINING_SENTENCES, SPEAKERS, 1, 1)
    again = speak_clips("test", 6, TRAINING_SENTENCES, SPEAKERS, 1, 1, emotions=tuple(Emotion))
    assert [clip.emotion for clip in everything] == [clip.emotion for clip in again]


def test_a_channel_keeps_labels_timing_and_loudness() -> None:
    (clip,) = speak_clips("test", 1, TRAINING_SENTENCES, SPEAKERS, 1, 1)
    first, again, other = (through_a_channel(clip, stream(0, name)) for name in ("a", "a", "b"))
    assert torch.equal(first.samples, again.samples)
    assert not torch.equal(first.samples, other.samples)
    assert (first.emotion, first.level, first.text) == (clip.emotion, clip.level, clip.text)
    assert len(first.samples) == len(clip.samples)
    assert first.samples.mean().item() == pytest.approx(0, abs=1e-4)
    assert first.samples.std().item() == pytest.approx(1, abs=1e-2)
    envelopes = [np.convolve(c.samples.numpy() ** 2, np.ones(800), "same") for c in (clip, first)]
    assert np.corrcoef(*envelopes)[0, 1] > 0.6


def test_training_needs_an_emotion_it_knows() -> None:
    clips = speak_clips("test", 2, TRAINING_SENTENCES, SPEAKERS, 1, 1, emotions=[Emotion.CONTEMPT])
    with pytest.raises(DataError, match="raise `clips`"):
        train_emotion_recogniser(clips, SMALL, 0)


def test_pieces_too_short_to_hear_are_refused() -> None:
    clips = speak_clips("test", 2, TRAINING_SENTENCES, SPEAKERS, 1, 1, emotions=[Emotion.SAD])
    with pytest.raises(DataError, match="emotion_samples"):
        train_emotion_recogniser(clips, SMALL.model_copy(update={"emotion_samples": 1983}), 0)


@pytest.mark.slow
def test_a_recogniser_learns_loud_differences_and_new_speakers_keep_them(tmp_path: Path) -> None:
    """Sad and surprised at full strength, from voices it never heard."""
    pair = (Emotion.SAD, Emotion.SURPRISE)

    def strong(name: str, count: int, speakers: tuple) -> list[SpokenClip]:
        drawn = speak_clips(name, count, TRAINING_SENTENCES, speakers, 0, 1, emotions=pair)
        return [clip for clip in drawn if clip.level == 3]

    training, held_out = strong("a", 90, SPEAKERS), strong("b", 60, HELD_OUT_SPEAKERS)
    write_emotion_recogniser(tmp_path / "one", train_emotion_recogniser(training, SMALL, 0), SMALL)
    scores = sample_accuracy(tmp_path / "one", [*held_out, replace(held_out[0], emotion=Emotion.CONTEMPT)])
    assert scores.left_out == 1
    assert scores.emotions == tuple(emotion for emotion in RECOGNISED if emotion in pair)
    assert scores.recall > 0.85
    with pytest.raises(ShapeError, match="no utterance"):
        score_recogniser(tmp_path / "one", [])
