"""A small RAVDESS: the original's folders, file names, statements, emotions and intensities."""

from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from ecavatar.config import CorporaSettings
from ecavatar.corpora.ravdess import STATEMENTS
from ecavatar.emotion import RAVDESS_EMOTIONS, RAVDESS_LEVELS
from ecavatar.rendering.video import write_video
from ecavatar.sample.films import Take, shoot
from ecavatar.sample.voices import SPEAKERS
from ecavatar.sample.world import Coefficients, SampleWorld

FPS = 30
"""The original has 29.97."""
AUDIO_RATE = 48000
FIRST_VOICE = 1
"""Voice of Actor_01; odd actors are men and odd voices sound male, so the actor's number plus this less one fits."""

_CALM = "02"  # the reader maps calm to neutral; a second neutral would tell nothing new


def plan_takes(settings: CorporaSettings) -> list[Take]:
    """Every actor in every emotion but calm and every intensity that RAVDESS has, statements taken in turn."""
    takes = []
    for actor in range(1, settings.ravdess_actors + 1):
        codes = [
            (emotion, level)
            for emotion in RAVDESS_EMOTIONS
            for level in RAVDESS_LEVELS
            if emotion != _CALM and not (emotion == "01" and level == "02")
        ]
        for row, (emotion, level) in enumerate(codes):
            statement = f"{1 + (row + actor) % len(STATEMENTS):02d}"
            takes.append(
                Take(
                    corpus="ravdess",
                    subject=f"Actor_{actor:02d}",
                    clip_id=f"01-{emotion}-{level}-{statement}-01-{actor:02d}",
                    emotion=RAVDESS_EMOTIONS[emotion],
                    level=RAVDESS_LEVELS[level],
                    text=f"{STATEMENTS[statement]}.",
                    voice=SPEAKERS[(FIRST_VOICE + actor - 1) % len(SPEAKERS)],
                )
            )
    return takes


def make_take(world: SampleWorld, take: Take, settings: CorporaSettings, root: Path) -> Coefficients:
    """Write a take's film (01-...) and its sound file (03-...) below `root`; what really moved."""
    folder = root / take.subject
    folder.mkdir(parents=True, exist_ok=True)
    shot = shoot(world, take, FPS, settings.film_px)
    sound = shot.utterance
    factor = int(np.gcd(AUDIO_RATE, sound.rate))
    samples = resample_poly(sound.samples.astype(np.float64), AUDIO_RATE // factor, sound.rate // factor)
    write_video(folder / f"01-{take.clip_id}.mp4", shot.frames, FPS, (samples, AUDIO_RATE))
    soundfile.write(folder / f"03-{take.clip_id}.wav", np.clip(samples, -1, 1), AUDIO_RATE, subtype="PCM_16")
    return shot.motion
