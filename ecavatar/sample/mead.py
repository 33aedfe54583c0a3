"""A small MEAD: the original's folders, emotions and levels, front view, sound as m4a beside the films."""

from pathlib import Path

from ecavatar.config import CorporaSettings
from ecavatar.emotion import LEVELS, MEAD_EMOTIONS, Emotion
from ecavatar.rendering.video import write_sound, write_video
from ecavatar.sample.films import Take, shoot
from ecavatar.sample.voices import MEAD_SENTENCES, SPEAKERS
from ecavatar.sample.world import Coefficients, SampleWorld

FPS = 25
SUBJECTS = ("M003", "W009", "M005", "W011", "M007", "W014", "M009", "W015")
"""Names of the original; actors are taken in this order."""
FIRST_VOICE = 3
"""Voice of M003; men and women alternate, as voices do."""
SHORT_SENTENCES = tuple(sorted(MEAD_SENTENCES, key=len)[:6])


def plan_takes(settings: CorporaSettings) -> list[Take]:
    """The 22 emotions and levels of MEAD, dealt out among the actors in turn; everybody is neutral once.

    The original has every actor in all of them; here they share, so that two actors need a few hundred frames each.
    """
    takes = []
    subjects = SUBJECTS[: settings.mead_actors]
    for row, (folder, emotion) in enumerate(MEAD_EMOTIONS.items()):
        for level in LEVELS if emotion is not Emotion.NEUTRAL else LEVELS[:1]:
            turn = (row + level) % len(subjects)
            cast = subjects if emotion is Emotion.NEUTRAL else subjects[turn : turn + 1]
            takes += [_take(subject, folder, emotion, level, row) for subject in cast]
    return sorted(takes, key=lambda take: take.clip_id)


def _take(subject: str, folder: str, emotion: Emotion, level: int, row: int) -> Take:
    number = SUBJECTS.index(subject)
    return Take(
        corpus="mead",
        subject=subject,
        clip_id=f"{subject}_{folder}_level_{level}_001",
        emotion=emotion,
        level=level,
        text=SHORT_SENTENCES[(row + level + number) % len(SHORT_SENTENCES)],
        voice=SPEAKERS[(FIRST_VOICE + number) % len(SPEAKERS)],
    )


def make_take(world: SampleWorld, take: Take, settings: CorporaSettings, root: Path) -> Coefficients:
    """Write a take's film and its sound below `root`; what really moved."""
    folder = next(name for name, emotion in MEAD_EMOTIONS.items() if emotion is take.emotion)
    film = root / take.subject / "video" / "front" / folder / f"level_{take.level}" / "001.mp4"
    sound = root / take.subject / "audio" / folder / f"level_{take.level}" / "001.m4a"
    film.parent.mkdir(parents=True, exist_ok=True)
    sound.parent.mkdir(parents=True, exist_ok=True)
    shot = shoot(world, take, FPS, settings.film_px)
    write_video(film, shot.frames, FPS, (shot.utterance.samples, shot.utterance.rate))
    write_sound(sound, shot.utterance.samples, shot.utterance.rate)
    return shot.motion
