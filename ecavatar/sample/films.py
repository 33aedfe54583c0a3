"""Films of actors who speak with emotion; what the small RAVDESS and the small MEAD have in common."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from ecavatar.emotion import Emotion
from ecavatar.rendering.camera import Camera, head_rotation
from ecavatar.sample.acting import act, wander
from ecavatar.sample.appearance import draw_appearance, draw_scene, paint, portrait
from ecavatar.sample.voices import SpeakerVoice, Utterance, speak
from ecavatar.sample.world import Coefficients, SampleWorld
from ecavatar.seeding import derived_seed

_HEAD_TURN = 0.03
_FILL = 0.66
_OPENNESS_SPREAD = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """One film to be made."""

    corpus: str
    subject: str
    clip_id: str
    """As the corpus' reader names it."""
    emotion: Emotion
    level: int
    text: str
    voice: SpeakerVoice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shot:
    """A played take: what is heard, what really moved, and the way to its pictures."""

    utterance: Utterance
    motion: Coefficients
    frames: Iterator[UInt8[np.ndarray, "size size 3"]]


def shoot(world: SampleWorld, take: Take, fps: int, size_px: int) -> Shot:
    """Play a take. The actor's face, looks, light and background are the same in all of their takes."""
    shape = world.identity(take.corpus, take.subject)
    voice_seed = derived_seed(world.seed, "sample", take.corpus, take.clip_id, "voice")
    utterance = speak(take.text, take.voice, take.emotion, take.level, voice_seed)
    openness = float(np.exp(world.stream(take.corpus, take.subject, "style").normal(0, _OPENNESS_SPREAD)))
    random = world.stream(take.corpus, take.clip_id, "acting")
    weights = act(utterance.phones, utterance.duration, fps, take.emotion, take.level, random, openness=openness)
    motion = world.coefficients(shape, weights)
    return Shot(utterance=utterance, motion=motion, frames=_pictures(world, take, motion, fps, size_px))


def _pictures(
    world: SampleWorld, take: Take, motion: Coefficients, fps: int, size_px: int
) -> Iterator[UInt8[np.ndarray, "size size 3"]]:
    look = paint(world.canvas, draw_appearance(world.stream(take.corpus, take.subject, "looks")))
    scene = draw_scene(world.stream(take.corpus, take.subject, "scene"), size_px)
    face = world.neutral(motion.shape)[np.unique(world.asset.faces[world.asset.ibug68_faces])]
    turns = _head_turns(len(motion.expression), fps, world.stream(take.corpus, take.clip_id, "head"))
    middle = (face.min(axis=0) + face.max(axis=0)) / 2
    camera = Camera.framing(face - middle, size_px, fill=_FILL)
    frame = 0
    for chunk in world.vertices(motion):
        for vertices in chunk:
            turned = (vertices.astype(np.float64) - middle) @ turns[frame].T
            yield portrait(turned, world.asset.faces, look, camera, scene)
            frame += 1


def _head_turns(frames: int, fps: int, random: np.random.Generator) -> Float[np.ndarray, "frames 3 3"]:
    """The head's small movements while speaking; they are in the pictures only."""
    angles = np.stack([wander(frames, fps, random, _HEAD_TURN) for _ in range(3)], axis=1) * (1.0, 0.7, 0.4)
    return np.stack([head_rotation(*row) for row in angles.tolist()])
