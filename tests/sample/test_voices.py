"""The voices say what is written, when they say they do, and each in its own way."""

import dataclasses

import numpy as np
import pytest

from ecavatar.emotion import Emotion
from ecavatar.errors import DataError
from ecavatar.sample.letters import Phone, Word, letter_timings
from ecavatar.sample.voices import (
    HELD_OUT_SENTENCES,
    HELD_OUT_SPEAKERS,
    MEAD_SENTENCES,
    RATE,
    RAVDESS_SENTENCES,
    SILENCE,
    SPEAKERS,
    TRAINING_SENTENCES,
    VOCASET_SENTENCES,
    SpeakerVoice,
    Utterance,
    speak,
)

SENTENCE = "We are waiting for the bus again."


def pitch(utterance: Utterance) -> float:
    """Median pitch in hertz: the strongest line of the cepstrum of 60 ms pieces."""
    size = int(0.06 * utterance.rate)
    low, high = utterance.rate // 400, utterance.rate // 75
    found = []
    for start in range(0, len(utterance.samples) - size, size // 4):
        piece = utterance.samples[start : start + size].astype(np.float64)
        spectrum = np.abs(np.fft.rfft(piece * np.hanning(size), 4096))
        spectrum[4096 * 4000 // utterance.rate :] = spectrum.max() * 1e-3
        cepstrum = np.fft.irfft(np.log(spectrum + 1e-6))[low:high]
        if piece.std() > 0.5 * utterance.samples.std() and cepstrum.max() > 0.1:
            found.append(utterance.rate / (low + cepstrum.argmax()))
    return float(np.median(found))


def usual_pitch(speaker: SpeakerVoice, emotion: Emotion) -> float:
    """Median pitch over a few sentences, in hertz."""
    return float(np.median([pitch(speak(text, speaker, emotion, 3, 0)) for text in VOCASET_SENTENCES[:4]]))


def loudness(utterance: Utterance, start: float, end: float) -> float:
    piece = utterance.samples[int(start * utterance.rate) : int(end * utterance.rate)]
    return float(np.sqrt(np.square(piece).mean()))


def test_equal_arguments_give_equal_bytes_and_another_seed_another_delivery() -> None:
    first, again, other = (speak(SENTENCE, SPEAKERS[1], Emotion.FEAR, 2, seed) for seed in (0, 0, 1))
    assert first.samples.tobytes() == again.samples.tobytes()
    assert first.phones == again.phones
    assert first.samples.tobytes() != other.samples.tobytes()


@pytest.mark.parametrize("speaker", [SPEAKERS[0], SPEAKERS[3], SPEAKERS[14]])
@pytest.mark.parametrize("emotion", [Emotion.NEUTRAL, Emotion.SAD, Emotion.FEAR])
def test_phones_cover_the_clip_and_sound_where_they_are(speaker: SpeakerVoice, emotion: Emotion) -> None:
    utterance = speak(SENTENCE, speaker, emotion, 3, 0)
    assert utterance.phones[0].start == 0
    assert utterance.phones[-1].end == pytest.approx(utterance.duration)
    for before, after in zip(utterance.phones, utterance.phones[1:], strict=False):
        assert before.end == pytest.approx(after.start)
        assert before.end > before.start
    vowels = [p for p in utterance.phones if p.symbol in "AIOWiɑɔɛæuʌ"]
    spoken = np.mean([loudness(utterance, p.start, p.end) for p in vowels])
    pauses = [p for p in utterance.phones if p.symbol == SILENCE]
    assert pauses[0].start == 0
    assert loudness(utterance, 0.0, pauses[0].end - 0.03) < 0.05 * spoken
    assert loudness(utterance, pauses[-1].start + 0.03, utterance.duration) < 0.1 * spoken


def test_letters_spell_the_sentence_in_time() -> None:
    for text in (*RAVDESS_SENTENCES, *VOCASET_SENTENCES[:4], "I don't know, do you?"):
        utterance = speak(text, SPEAKERS[0], Emotion.NEUTRAL, 1, 0)
        words = "".join(c for c in text.upper() if c.isalpha() or c in " '").split()
        assert "".join(letter.symbol for letter in utterance.letters) == "|".join(words)
        for before, after in zip(utterance.letters, utterance.letters[1:], strict=False):
            assert before.start <= before.end <= after.start + 1e-9
        assert utterance.letters[-1].end <= utterance.duration


def test_letters_lie_on_the_phones_they_spell() -> None:
    phones = [Phone(symbol, i * 0.1, i * 0.1 + 0.1) for i, symbol in enumerate("ʃip")]
    letters = letter_timings([Word("sheep", tuple(phones))])
    assert [(x.symbol, round(x.start, 3), round(x.end, 3)) for x in letters] == [
        ("S", 0.0, 0.05),
        ("H", 0.05, 0.1),
        ("E", 0.1, 0.15),
        ("E", 0.15, 0.2),
        ("P", 0.2, 0.3),
    ]
    with pytest.raises(DataError):
        letter_timings([Word("sheep", ())])


def test_speakers_have_their_own_pitch() -> None:
    reference = usual_pitch(SPEAKERS[0], Emotion.NEUTRAL)
    for speaker in (SPEAKERS[1], SPEAKERS[6], SPEAKERS[11]):
        assert usual_pitch(speaker, Emotion.NEUTRAL) / reference == pytest.approx(speaker.f0_scale, rel=0.1)


def test_emotions_change_pitch_tempo_and_loudness_more_at_higher_levels() -> None:
    def said(emotion: Emotion, level: int) -> Utterance:
        return speak(SENTENCE, SPEAKERS[0], emotion, level, 0)

    neutral = said(Emotion.NEUTRAL, 3)
    assert usual_pitch(SPEAKERS[0], Emotion.FEAR) > 1.2 * usual_pitch(SPEAKERS[0], Emotion.NEUTRAL)
    assert said(Emotion.SAD, 3).duration > 1.1 * neutral.duration
    louder = [
        np.mean([loudness(speak(SENTENCE, SPEAKERS[0], Emotion.ANGER, level, seed), 0, 9) for seed in range(4)])
        for level in (1, 2, 3)
    ]
    assert loudness(neutral, 0, 9) < louder[0] < louder[1] < louder[2]
    assert np.abs(said(Emotion.ANGER, 3).samples).max() <= 0.98 + 1e-6


def test_the_neutral_voice_has_no_level() -> None:
    durations = {speak(SENTENCE, SPEAKERS[0], Emotion.NEUTRAL, level, 0).duration for level in (1, 2, 3)}
    assert max(durations) - min(durations) < 0.25


def test_there_are_enough_voices_and_sentences_and_none_is_on_two_lists() -> None:
    everyone = (*SPEAKERS, *HELD_OUT_SPEAKERS)
    assert len(SPEAKERS) >= 12
    assert (
        len({dataclasses.astuple(speaker)[1:] for speaker in everyone})
        == len({s.name for s in everyone})
        == len(everyone)
    )
    lists = (VOCASET_SENTENCES, RAVDESS_SENTENCES, MEAD_SENTENCES, TRAINING_SENTENCES, HELD_OUT_SENTENCES)
    assert len(VOCASET_SENTENCES) >= 40
    assert len(set().union(*lists)) == sum(map(len, lists))


@pytest.mark.parametrize("text", ["", "...", "Call 911 now.", "word " * 200])
def test_text_that_cannot_be_spoken_is_refused(text: str) -> None:
    with pytest.raises(DataError):
        speak(text, SPEAKERS[0], Emotion.NEUTRAL, 1, 0)


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(DataError, match="level"):
        speak(SENTENCE, SPEAKERS[0], Emotion.HAPPY, 4, 0)


def test_samples_are_24_khz_mono_float() -> None:
    utterance = speak(SENTENCE, SPEAKERS[0], Emotion.NEUTRAL, 1, 0)
    assert utterance.rate == RATE == 24000
    assert utterance.samples.dtype == np.float32
    assert utterance.samples.ndim == 1
