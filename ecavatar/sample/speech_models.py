"""Stand-ins for the published speech models: HuBERT, wav2vec2 and emotion2vec of the real classes, small, self-trained.

No package carries their weights, so the sample world trains its own on its own voices and writes them in the very
formats the published ones have: the pipeline opens both with the same code.
"""

import logging
from pathlib import Path
from typing import Final

from ecavatar.config import SpeechModelsSettings
from ecavatar.sample.speech_corpus import SpokenClip, speak_clips
from ecavatar.sample.speech_emotions import emotion_figures, train_emotion_recogniser, write_emotion_recogniser
from ecavatar.sample.speech_recognisers import (
    extract_features,
    recogniser_figures,
    train_front_end,
    train_recognisers,
    write_recogniser,
)
from ecavatar.sample.voices import HELD_OUT_SENTENCES, HELD_OUT_SPEAKERS, SPEAKERS, TRAINING_SENTENCES
from ecavatar.speech.track import RECOGNISED
from ecavatar.storage.files import write_json
from ecavatar.training.loop import fixed_threads

logger = logging.getLogger(__name__)

_ACTED_SHARE: Final = 2  # emotions need more training utterances than letters,
_HELD_OUT_SHARE: Final = 6  # and more to judge them by: an utterance has many letters and one emotion


def make_speech_models(
    settings: SpeechModelsSettings, seed: int, hubert: Path, wav2vec2: Path, emotion2vec: Path, figures: Path
) -> None:
    """Train and write the three stand-in speech models and what they score on held-out sentences and speakers.

    Args:
        settings: sizes and numbers of steps; `threads` is part of the result, other thread counts give other last bits.
        seed: of the run.
        hubert: transformers directory to write, a `HubertForCTC`.
        wav2vec2: transformers directory to write, a `Wav2Vec2ForCTC` that starts from HuBERT's weights before CTC.
        emotion2vec: funasr directory to write.
        figures: json to write: character error rates and emotion accuracy.

    Raises:
        MissingDependencyError: hibari-tts, onnxruntime or funasr is not installed.
        TrainingError: a loss is not finite.
    """
    spoken = speak_clips("training", settings.clips, TRAINING_SENTENCES, SPEAKERS, seed, settings.threads)
    held_out = speak_clips(
        "held out", settings.held_out_clips, HELD_OUT_SENTENCES, HELD_OUT_SPEAKERS, seed, settings.threads
    )
    logger.info("spoke %d training and %d held-out utterances", len(spoken), len(held_out))
    with fixed_threads(settings.threads):
        extractor = train_front_end(spoken, settings, seed)
        features = extract_features(extractor, spoken)
        for directory, model in zip(
            (hubert, wav2vec2), train_recognisers(extractor, features, settings, seed), strict=True
        ):
            write_recogniser(directory, model)
        acted = speak_clips(
            "emotions",
            _ACTED_SHARE * settings.clips,
            TRAINING_SENTENCES,
            SPEAKERS,
            seed,
            settings.threads,
            emotions=RECOGNISED,
        )
        write_emotion_recogniser(emotion2vec, train_emotion_recogniser(acted, settings, seed), settings)
        scores = {
            "hubert": recogniser_figures(hubert, held_out),
            "wav2vec2": recogniser_figures(wav2vec2, held_out),
            "emotion2vec": emotion_figures(emotion2vec, speak_held_out_emotions(settings, seed)),
        }
    write_json(figures, scores)
    for name in ("hubert", "wav2vec2"):
        logger.info("%s: character error rate %.2f on held-out speech", name, scores[name]["character_error_rate"])
    logger.info("emotion2vec: unweighted recall %.2f on held-out speech", scores["emotion2vec"]["unweighted_recall"])


def speak_held_out_emotions(settings: SpeechModelsSettings, seed: int) -> list[SpokenClip]:
    """The utterances that score emotions: sentences and speakers that nothing is trained on, the seven emotions."""
    return speak_clips(
        "held-out emotions",
        _HELD_OUT_SHARE * settings.held_out_clips,
        HELD_OUT_SENTENCES,
        HELD_OUT_SPEAKERS,
        seed,
        settings.threads,
        emotions=RECOGNISED,
    )
