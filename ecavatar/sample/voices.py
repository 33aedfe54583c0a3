"""Speech of the sample world: English sentences spoken by many voices in eight emotions, with known phone timings.

One neural voice (PyPI `hibari-tts`, Apache-2.0) predicts, per 12.5 ms frame, a fundamental frequency and the spectra of
a harmonic and a noise branch; we change those before the waveform is synthesised: another F0 and stretched formants
make another speaker, another melody, tempo, loudness, spectral tilt, tremor and breath make an emotion.
"""

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ecavatar.emotion import LEVELS, Emotion
from ecavatar.errors import DataError, MissingDependencyError
from ecavatar.sample.letters import Letter, Phone, Word, letter_timings
from ecavatar.sample.sentences import (
    HELD_OUT_SENTENCES,
    MEAD_SENTENCES,
    RAVDESS_SENTENCES,
    TRAINING_SENTENCES,
    VOCASET_SENTENCES,
)
from ecavatar.seeding import stream

__all__ = [
    "F0_RATE",
    "HELD_OUT_SENTENCES",
    "HELD_OUT_SPEAKERS",
    "MEAD_SENTENCES",
    "RAVDESS_SENTENCES",
    "SILENCE",
    "SPEAKERS",
    "TRAINING_SENTENCES",
    "VOCASET_SENTENCES",
    "Letter",
    "Phone",
    "SpeakerVoice",
    "Utterance",
    "speak",
]

SILENCE: Final = "sil"
"""Symbol of a `Phone` that is a pause."""

RATE: Final = 24000
"""Samples per second that `speak` returns."""

F0_RATE: Final = 80.0
"""F0 values per second of an `Utterance`; the network's spectral frames come as often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerVoice:
    """How one speaker differs from the voice in the package (a woman of about 200 Hz)."""

    name: str
    f0_scale: float  # factor on the fundamental frequency
    formant_scale: float  # factor on every formant; below 1 is a longer vocal tract
    tempo: float  # factor on speaking speed
    melody: float  # factor on the F0 range
    tilt_db: float  # brightness, dB per octave
    breath: float  # aspiration noise relative to the harmonics, 0..1


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One spoken sentence."""

    text: str
    samples: NDArray[np.float32]  # mono, about -1..1
    rate: int  # samples per second
    phones: tuple[Phone, ...]  # cover [0, duration] without gaps, pauses included
    letters: tuple[Letter, ...]  # upper-case letters, "'" and "|" between words, in order
    f0: NDArray[np.float32]  # hertz every 12.5 ms from 0, 0 where nothing is voiced

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate


def _voice(
    name: str, f0: float, formants: float, tempo: float, melody: float, tilt_db: float, breath: float
) -> SpeakerVoice:
    return SpeakerVoice(
        name=name, f0_scale=f0, formant_scale=formants, tempo=tempo, melody=melody, tilt_db=tilt_db, breath=breath
    )


SPEAKERS: Final[tuple[SpeakerVoice, ...]] = (
    _voice("voice00", 1.00, 1.00, 1.00, 1.00, 0.0, 0.00),
    _voice("voice01", 0.56, 0.85, 0.98, 1.10, 0.0, 0.05),
    _voice("voice02", 1.14, 1.05, 1.06, 1.15, 0.5, 0.02),
    _voice("voice03", 0.50, 0.82, 0.94, 0.90, -1.0, 0.08),
    _voice("voice04", 0.88, 0.97, 0.95, 0.85, -1.0, 0.15),
    _voice("voice05", 0.63, 0.89, 1.07, 1.20, 1.0, 0.03),
    _voice("voice06", 1.22, 1.09, 1.02, 1.05, 0.8, 0.10),
    _voice("voice07", 0.59, 0.87, 1.02, 0.80, 0.6, 0.12),
    _voice("voice08", 0.94, 1.02, 1.10, 1.10, 1.2, 0.00),
    _voice("voice09", 0.53, 0.84, 1.05, 1.05, -0.5, 0.02),
    _voice("voice10", 1.07, 1.03, 0.92, 0.90, -0.6, 0.06),
    _voice("voice11", 0.66, 0.91, 0.96, 1.00, -1.2, 0.10),
    _voice("voice12", 0.82, 0.95, 1.03, 1.20, 0.3, 0.04),
    _voice("voice13", 0.48, 0.80, 1.00, 1.00, 0.2, 0.06),
    _voice("voice14", 1.30, 1.12, 1.00, 1.00, -0.3, 0.03),
    _voice("voice15", 0.61, 0.86, 0.90, 1.15, 0.9, 0.00),
)
"""The speakers of the sample corpora: even numbers sound female, odd ones male."""

HELD_OUT_SPEAKERS: Final[tuple[SpeakerVoice, ...]] = (
    _voice("voice16", 1.10, 1.01, 0.97, 1.08, 0.4, 0.07),
    _voice("voice17", 0.57, 0.88, 1.01, 0.92, -0.4, 0.04),
    _voice("voice18", 0.91, 0.99, 1.04, 0.95, 0.7, 0.01),
    _voice("voice19", 0.51, 0.83, 0.96, 1.12, -0.8, 0.09),
)
"""Speakers that nothing is trained on; they score the stand-in speech models."""


def speak(text: str, speaker: SpeakerVoice, emotion: Emotion, level: int, seed: int) -> Utterance:
    """The sentence `text` as `speaker` says it in `emotion` at intensity `level`; equal arguments give equal bytes.

    Args:
        text: one English sentence of words and punctuation, no digits.
        speaker: whose voice.
        emotion: how it is said.
        level: 1, 2 or 3; without effect on the neutral voice.
        seed: draws the noise and small variations of the delivery.

    Returns:
        24 kHz mono with about 0.15 s of silence at both ends.

    Raises:
        DataError: no word in `text`, a digit in it, more than 400 phonemes, or a level that does not exist.
        MissingDependencyError: `hibari-tts` is not installed.
    """
    if level not in LEVELS:
        raise DataError(f"level must be 1, 2 or 3, got {level!r}.")
    rng = stream(seed, "speak", text, speaker.name, emotion.label, level)
    engine = _engine()
    tokens = engine.tokens(text)
    delivery = _deliver(speaker, emotion, level, rng)
    prediction = engine.predict("".join(token.phonemes + token.gap for token in tokens), delivery.tempo)
    f0 = _melody(prediction.f0, delivery, rng)
    samples = _synthesise(prediction, f0, delivery, rng)
    words, phones = _time_phones(tokens, prediction, samples)
    return _cut(text, samples, f0, words, phones, delivery.gain_db)


# --- the neural voice -------------------------------------------------------------------------------------------------

_STEP: Final = 0.025
"""Seconds per unit of the duration predictor; a unit is two spectral frames."""

_LAG: Final = 0.08
"""Predicted durations run behind the sound by 0.084 s (sd 0.021), measured against energy and forced alignment."""

_DURATIONS: Final = b"/Cast_32_output_0"
"""Name of the tensor inside the network that counts units per phoneme."""

_MAX_PHONEMES: Final = 400  # the network's own limit
_VOICED_HZ: Final = 40.0  # below this F0 the network means unvoiced


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    phonemes: str
    gap: str  # " " when the text has one behind it


@dataclass(frozen=True, slots=True)
class _Prediction:
    """What the network says: spectra (601, F) of its three branches, F0 (F,), duration units per symbol."""

    harmonic: NDArray[np.float32]
    phase: NDArray[np.float32]
    noise: NDArray[np.float32]
    free: NDArray[np.float32]
    free_phase: NDArray[np.float32]
    f0: NDArray[np.float32]
    symbols: str  # one character per predicted unit count, "_" for the pads at both ends
    units: NDArray[np.int64]


class _Engine:
    """The network with its duration tensor made visible, and its text front end."""

    def __init__(self) -> None:
        try:
            import onnxruntime
            from hibari import Hibari
            from hibari.g2p.normalize import normalize
            from hibari.voices import voice_path
        except ImportError as error:
            raise MissingDependencyError(
                f"the sample voices need `hibari-tts` and `onnxruntime` ({error}). Run `make setup`."
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        with open(voice_path("heart", download_missing=False), "rb") as file:  # noqa: PTH123 (a str path of the package)
            network = _with_output(file.read(), _DURATIONS)
        self._session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        self._voice = Hibari(threads=1)
        self._normalise = normalize
        self._lock = threading.Lock()  # the text front end loads its parts lazily

    def tokens(self, text: str) -> list[_Token]:
        """Words and punctuation of `text` with their phonemes."""
        if any(c.isdigit() for c in text) or not any(c.isalpha() for c in text):
            raise DataError(f"expected a sentence of written-out words, got {text!r}. Spell numbers as words.")
        with self._lock:
            g2p = self._voice.g2p
            tokens = g2p.phonemize_tokens(g2p.tokenize(self._normalise(text)))
        return [_Token(t.text, t.phonemes or "", " " if t.whitespace else "") for t in tokens]

    def predict(self, phonemes: str, tempo: float) -> _Prediction:
        """Spectra, F0 and durations of `phonemes`."""
        known = "".join(c for c in phonemes.rstrip() if c in self._voice.vocab)
        if not 1 <= len(known) <= _MAX_PHONEMES:
            raise DataError(f"a sentence may have 1 to {_MAX_PHONEMES} phonemes, got {len(known)}. Split the text.")
        inputs = {"ids": np.asarray([self._voice.ids(known)], np.int64), "speed": np.asarray([tempo], np.float32)}
        *outputs, units = self._session.run(None, inputs)
        return _Prediction(*(output[0] for output in outputs), symbols=f"_{known}_", units=units.ravel())


def _with_output(network: bytes, tensor: bytes) -> bytes:
    """The ONNX file with one more output, `tensor`.

    A protobuf message may be extended by appending: `ModelProto.graph` (field 7) merges with the one already there, and
    so gains a `GraphProto.output` (field 12) whose `ValueInfoProto.name` (field 1) is the tensor's.
    """

    def field(number: int, payload: bytes) -> bytes:
        return bytes([number << 3 | 2, len(payload)]) + payload

    return network + field(7, field(12, field(1, tensor)))


_engine_lock = threading.Lock()


@functools.cache
def _engine_once() -> _Engine:
    return _Engine()


def _engine() -> _Engine:
    """The one engine of this process; onnxruntime sessions may be run from several threads."""
    with _engine_lock:
        return _engine_once()


# --- delivery: speaker and emotion ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recipe:
    """What an emotion at full strength changes in a voice; defaults change nothing."""

    pitch_st: float = 0.0  # semitones on the mean F0
    melody: float = 1.0  # factor on the F0 range
    ending_st: float = 0.0  # semitones that the last half second glides by
    tempo: float = 1.0
    gain_db: float = 0.0
    tilt_db: float = 0.0  # dB per octave
    breath: float = 0.0
    tremor: float = 0.0  # depth of a 7 Hz wobble of F0, relative
    jitter: float = 0.0  # frame to frame F0 noise, relative
    formants: float = 1.0


_RECIPES: Final[dict[Emotion, _Recipe]] = {
    Emotion.NEUTRAL: _Recipe(),
    Emotion.HAPPY: _Recipe(pitch_st=4.0, melody=1.7, tempo=1.08, gain_db=3, tilt_db=1.5, formants=1.04),
    Emotion.SAD: _Recipe(pitch_st=-2.5, melody=0.4, tempo=0.78, gain_db=-6, tilt_db=-3.5, breath=0.25, ending_st=-1),
    Emotion.SURPRISE: _Recipe(pitch_st=6.0, melody=1.8, tempo=0.96, gain_db=3, tilt_db=0.5, ending_st=7),
    Emotion.FEAR: _Recipe(pitch_st=6.5, melody=0.6, tempo=1.25, gain_db=-1, tilt_db=-1.0, breath=0.3, tremor=0.06),
    Emotion.DISGUST: _Recipe(
        pitch_st=-3.0, melody=0.8, tempo=0.85, gain_db=0, tilt_db=-1.5, jitter=0.05, ending_st=-4, formants=0.94
    ),
    Emotion.ANGER: _Recipe(pitch_st=2.0, melody=1.3, tempo=1.15, gain_db=6, tilt_db=4.5, jitter=0.025, ending_st=-3),
    Emotion.CONTEMPT: _Recipe(pitch_st=-1.5, melody=0.6, tempo=0.88, tilt_db=1.0, ending_st=-2, formants=0.97),
}
"""Directions as the review of Juslin and Laukka (Psychological Bulletin, 2003) finds them in actors; sizes are ours."""

_STRENGTHS: Final = {1: 0.5, 2: 0.75, 3: 1.0}
"""Share of a recipe that each level applies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Delivery:
    """Everything that is changed in one utterance."""

    pitch_st: float
    melody: float
    slope_st: float  # semitones from start to end
    ending_st: float
    tempo: float
    gain_db: float
    tilt_db: float
    breath: float
    tremor: float
    jitter: float
    formants: float


def _deliver(speaker: SpeakerVoice, emotion: Emotion, level: int, rng: np.random.Generator) -> _Delivery:
    recipe, strength = _RECIPES[emotion], _STRENGTHS[level]
    wobble = rng.standard_normal(6)
    return _Delivery(
        pitch_st=12 * float(np.log2(speaker.f0_scale)) + strength * recipe.pitch_st + 0.4 * wobble[0],
        melody=speaker.melody * recipe.melody**strength * float(np.exp(0.06 * wobble[1])),
        slope_st=0.5 * wobble[2],
        ending_st=strength * recipe.ending_st,
        tempo=speaker.tempo * recipe.tempo**strength * float(np.exp(0.03 * wobble[3])),
        gain_db=strength * recipe.gain_db + 0.5 * wobble[4],
        tilt_db=speaker.tilt_db + strength * recipe.tilt_db + 0.2 * wobble[5],
        breath=speaker.breath + strength * recipe.breath,
        tremor=strength * recipe.tremor,
        jitter=strength * recipe.jitter,
        formants=speaker.formant_scale * recipe.formants**strength,
    )


def _synthesise(
    prediction: _Prediction, f0: NDArray[np.float32], delivery: _Delivery, rng: np.random.Generator
) -> NDArray[np.float32]:
    from hibari import dsp

    frequencies = np.arange(dsp.N_FFT // 2 + 1) * dsp.SR / dsp.N_FFT
    tilt = (delivery.tilt_db * np.log2(np.maximum(frequencies, 125.0) / 1000.0) / 8.686)[:, None].astype(np.float32)
    harmonic = _stretch(prediction.harmonic, delivery.formants) + tilt
    phase = _stretch(prediction.phase, delivery.formants)
    free = _stretch(prediction.free, delivery.formants) + tilt
    noise = _stretch(prediction.noise, delivery.formants) + tilt
    is_voiced = f0 > _VOICED_HZ
    # The free-phase branch carries traces of the predicted F0: soften it where the voice now sounds another one.
    free[:, is_voiced] -= 0.9
    if delivery.breath > 0:
        aspiration = harmonic + np.log(delivery.breath) + np.where(frequencies < 1500.0, -1.5, 0.0)[:, None]
        noise = np.where(is_voiced, np.logaddexp(noise, aspiration), noise).astype(np.float32)
    nearest = np.minimum(np.round(np.arange(len(frequencies)) / delivery.formants).astype(int), len(frequencies) - 1)
    return dsp.synth(harmonic, phase, noise, free, prediction.free_phase[nearest], f0, rng)


def _melody(f0: NDArray[np.float32], delivery: _Delivery, rng: np.random.Generator) -> NDArray[np.float32]:
    """The F0 curve (F,) in hertz with the delivery's level, range, slope, ending, tremor and jitter."""
    is_voiced = f0 > _VOICED_HZ
    if not is_voiced.any():
        return f0
    times = np.arange(len(f0)) / F0_RATE
    first, last = times[is_voiced][[0, -1]]
    semitones = 12 * np.log2(np.maximum(f0, _VOICED_HZ))
    middle = float(np.median(semitones[is_voiced]))
    progress = (times - first) / max(last - first, 1e-3)
    glide = np.clip((times - (last - 0.5)) / 0.5, 0.0, 1.0)
    wobble = delivery.tremor * np.sin(2 * np.pi * (7.0 * times + rng.random())) + delivery.jitter * rng.standard_normal(
        len(f0)
    )
    changed = (
        middle
        + delivery.pitch_st
        + delivery.melody * (semitones - middle)
        + delivery.slope_st * (progress - 0.5)
        + delivery.ending_st * glide**2
        + 12 * np.log2(np.maximum(1 + wobble, 0.5))
    )
    return np.where(is_voiced, np.clip(2 ** (changed / 12), 55.0, 650.0), f0).astype(np.float32)


def _stretch(spectrum: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """`spectrum` (bins, F) with every feature at `factor` times its frequency; what has no source fades out."""
    n_bins = len(spectrum)
    source = np.arange(n_bins) / factor
    below = np.minimum(source.astype(int), n_bins - 2)
    share = np.clip(source - below, 0.0, 1.0).astype(np.float32)[:, None]
    stretched = (1 - share) * spectrum[below] + share * spectrum[below + 1]
    faded = stretched - np.maximum(source - (n_bins - 1), 0.0).astype(np.float32)[:, None] * np.float32(0.02)
    return faded.astype(np.float32, copy=False)


# --- when each phone sounds -------------------------------------------------------------------------------------------

_STRESS: Final = frozenset("ˈˌ")  # opens the phone behind it
_LENGTH: Final = frozenset("ːʰʲ\u0303")  # lengthens the phone before it
_PAUSE: Final = frozenset('_;:,.!?—…"()“”')
_SHORTEST_PAUSE: Final = 0.1  # a longer gap between words is a pause, a shorter one part of the word before it


def _time_phones(
    tokens: Sequence[_Token], prediction: _Prediction, samples: NDArray[np.float32]
) -> tuple[list[Word], list[Phone]]:
    """Phones of each word, and all phones with pauses, in seconds of `samples`."""
    ends = np.cumsum(prediction.units) * _STEP - _LAG
    starts = ends - prediction.units * _STEP
    is_sound = np.array(
        [c not in _PAUSE and c not in _STRESS and c not in _LENGTH and c != " " for c in prediction.symbols]
    )
    speech_end = _speech_end(samples)
    phones: list[Phone] = []
    opening: float | None = None
    for symbol, sounds, start, end in zip(prediction.symbols, is_sound, starts, ends, strict=True):
        if sounds:
            begin = start if opening is None else opening
            phones.append(Phone(symbol, float(begin), float(max(min(end, speech_end), begin + 0.02))))
            opening = None
        elif symbol in _STRESS:
            opening = float(start) if opening is None else opening
        elif phones and (symbol in _LENGTH or (symbol == " " and end - start < _SHORTEST_PAUSE)):
            phones[-1] = Phone(phones[-1].symbol, phones[-1].start, float(min(end, speech_end)))
    return _words(tokens, prediction.symbols, phones), phones


def _words(tokens: Sequence[_Token], symbols: str, phones: Sequence[Phone]) -> list[Word]:
    """`phones` shared out among the written words; punctuation has none, and parts written together are one word."""
    known = set(symbols)
    words: list[Word] = []
    position, is_open = 0, False
    for token in tokens:
        count = sum(c in known and c not in _PAUSE | _STRESS | _LENGTH and c != " " for c in token.phonemes)
        if count:
            own = tuple(phones[position : position + count])
            position += count
            if is_open:
                own, before = words[-1].phones + own, words.pop().text
                words.append(Word(before + token.text, own))
            else:
                words.append(Word(token.text, own))
        is_open = bool(count) and not token.gap
    return words


def _speech_end(samples: NDArray[np.float32]) -> float:
    """Seconds at which the sound falls for good below -40 dB of its loudest 10 ms."""
    size = RATE // 100
    power = np.square(samples[: len(samples) // size * size].reshape(-1, size)).mean(axis=1)
    return float((np.flatnonzero(power > power.max() * 1e-4)[-1] + 1) * 0.01)


# --- the finished clip ------------------------------------------------------------------------------------------------

_MARGIN: Final = 0.15  # silence kept at both ends
_TICK: Final = 1e-6  # two moments nearer than this are one
_LOUDNESS: Final = 0.03  # root mean square of neutral speech, full scale 1


def _cut(
    text: str,
    samples: NDArray[np.float32],
    f0: NDArray[np.float32],
    words: list[Word],
    phones: list[Phone],
    gain_db: float,
) -> Utterance:
    """The clip from a little before the first phone to a little after the last, at its loudness, pauses filled in."""
    first = max(int((phones[0].start - _MARGIN) * RATE), 0)
    last = min(int((phones[-1].end + _MARGIN) * RATE), len(samples))
    kept = samples[first:last]
    level = float(np.sqrt(np.square(kept, dtype=np.float64).mean()))
    kept = kept * np.float32(_LOUDNESS / max(level, 1e-6) * 10 ** (gain_db / 20))
    kept /= max(1.0, float(np.abs(kept).max()) / 0.98)
    offset = first / RATE

    def moved(phone: Phone) -> Phone:
        return Phone(phone.symbol, phone.start - offset, phone.end - offset)

    timed_words = [Word(word.text, tuple(map(moved, word.phones))) for word in words]
    timed = _with_pauses([moved(phone) for phone in phones], len(kept) / RATE)
    return Utterance(
        text=text,
        samples=kept,
        rate=RATE,
        phones=timed,
        letters=letter_timings(timed_words),
        f0=_f0_from(f0, offset, len(kept) / RATE),
    )


def _f0_from(f0: NDArray[np.float32], offset: float, duration: float) -> NDArray[np.float32]:
    """`f0` for `duration` seconds from `offset` on, 0 where unvoiced."""
    at = np.round((offset + np.arange(int(duration * F0_RATE)) / F0_RATE) * F0_RATE).astype(int)
    kept = f0[np.minimum(at, len(f0) - 1)]
    return np.where(kept > _VOICED_HZ, kept, 0.0).astype(np.float32)


def _with_pauses(phones: Sequence[Phone], duration: float) -> tuple[Phone, ...]:
    covered: list[Phone] = []
    now = 0.0
    for phone in phones:
        if phone.start > now + _TICK:
            covered.append(Phone(SILENCE, now, phone.start))
        covered.append(Phone(phone.symbol, phone.start if phone.start > now + _TICK else now, phone.end))
        now = phone.end
    return (*covered, Phone(SILENCE, now, duration)) if duration > now + _TICK else tuple(covered)
