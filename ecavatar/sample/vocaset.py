"""A small VOCASET: the original's files, subjects and split, spoken by synthetic voices.

data_verts.npy holds 60 meshes a second in metres and zero head pose; the pickles are of Python 2's kind. The true
jaw angle, which the original does not tell, goes to a table of its own.
"""

import pickle
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from scipy.signal import resample_poly

from ecavatar.config import CorporaSettings
from ecavatar.corpora.vocaset import NATIVE_FPS, vocaset_splits
from ecavatar.emotion import Emotion
from ecavatar.sample.acting import wander
from ecavatar.sample.expressions import sides
from ecavatar.sample.lip_motion import articulate
from ecavatar.sample.voices import SPEAKERS, VOCASET_SENTENCES, Utterance, speak
from ecavatar.sample.world import SampleWorld
from ecavatar.seeding import derived_seed

AUDIO_RATE = 22000
"""VOCASET's own."""
FIRST_VOICE = 4
"""The voices before belong to the actors of the other corpora."""

_STYLE_SPREAD = 0.12
_STYLED = ("mouthPucker", "mouthFunnel", "mouthStretch", "mouthUpperUp", "mouthLowerDown", "mouthSmile")
_TREMBLING = ("browInnerUp", "browDown", "eyeSquint", "mouthSmile")
_TREMOR = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectPlan:
    """One subject and what they say."""

    number: int
    subject: str
    sentences: tuple[tuple[str, str], ...]
    """(sentence name, text)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SubjectRecording:
    """What one subject contributes to the corpus' files; the meshes lie in a file of their own."""

    subject: str
    meshes: Path
    frames: dict[str, int]
    """Number of frames by sentence, in the order of the meshes."""
    audio: dict[str, Int[np.ndarray, " samples"]]
    jaw_angle: dict[str, Float[np.ndarray, " frames"]]
    template: Float[np.ndarray, "vertices 3"]


def plan_subjects(settings: CorporaSettings) -> list[SubjectPlan]:
    """VOCA's twelve subjects; each says the first sentences of the range its split uses, no text twice in a split."""
    plans = []
    for split in vocaset_splits().values():
        for subject in split.subjects:
            names = [f"sentence{split.first_sentence + k:02d}" for k in range(settings.vocaset_sentences)]
            first = len(plans) * settings.vocaset_sentences
            texts = [VOCASET_SENTENCES[(first + k) % len(VOCASET_SENTENCES)] for k in range(len(names))]
            said = tuple(zip(names, texts, strict=True))
            plans.append(SubjectPlan(number=len(plans), subject=subject, sentences=said))
    return plans


def record_subject(world: SampleWorld, plan: SubjectPlan, meshes: Path) -> SubjectRecording:
    """Let a subject say their sentences; their meshes go to file `meshes` as raw float32."""
    shape = world.identity("vocaset", plan.subject)
    frames, audio, angles = {}, {}, {}
    with meshes.open("wb") as file:
        for name, text in plan.sentences:
            utterance = _say(world, plan, name, text)
            motion = world.coefficients(shape, _motion(world, plan.subject, name, utterance))
            for chunk in world.vertices(motion):
                file.write(np.ascontiguousarray(chunk, dtype="<f4").data)
            frames[name] = len(motion.expression)
            audio[name] = _as_int16(utterance)
            angles[name] = np.sign(motion.jaw_pose[:, 0]) * np.linalg.norm(motion.jaw_pose, axis=1)
    return SubjectRecording(
        subject=plan.subject,
        meshes=meshes,
        frames=frames,
        audio=audio,
        jaw_angle=angles,
        template=world.neutral(shape),
    )


def write_vocaset(recordings: Sequence[SubjectRecording], root: Path) -> None:
    """Join the recordings into VOCASET's four files in folder `root`; the recordings' mesh files are removed."""
    count = sum(sum(recording.frames.values()) for recording in recordings)
    n_vertices = len(recordings[0].template)
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, n_vertices, 3)}
    with (root / "data_verts.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for recording in recordings:
            with recording.meshes.open("rb") as part:
                shutil.copyfileobj(part, file, 1 << 22)
            recording.meshes.unlink()
    rows, index = 0, {}
    for recording in recordings:
        index[recording.subject] = {}
        for name, frames in recording.frames.items():
            index[recording.subject][name] = {frame: rows + frame for frame in range(frames)}
            rows += frames
    audio = {
        recording.subject: {
            name: {"audio": samples, "sample_rate": AUDIO_RATE} for name, samples in recording.audio.items()
        }
        for recording in recordings
    }
    templates = {recording.subject: recording.template.astype(np.float64) for recording in recordings}
    for name, value in (("subj_seq_to_idx", index), ("raw_audio_fixed", audio), ("templates", templates)):
        (root / f"{name}.pkl").write_bytes(pickle.dumps(value, protocol=2))


def jaw_truth_table(recordings: Sequence[SubjectRecording]) -> pa.Table:
    """True jaw rotation: one row per frame at 60 frames a second with clip_id, frame and jaw_angle (radians)."""
    clips = {f"{r.subject}_{name}": angle for r in recordings for name, angle in r.jaw_angle.items()}
    lengths = [len(angle) for angle in clips.values()]
    return pa.table(
        {
            "clip_id": pa.array(np.repeat(list(clips), lengths).tolist(), pa.string()),
            "frame": pa.array(np.concatenate([np.arange(length) for length in lengths]).astype(np.int32)),
            "jaw_angle": pa.array(np.concatenate(list(clips.values())).astype(np.float32)),
        }
    )


def _say(world: SampleWorld, plan: SubjectPlan, name: str, text: str) -> Utterance:
    voice = SPEAKERS[(FIRST_VOICE + plan.number) % len(SPEAKERS)]
    seed = derived_seed(world.seed, "sample", "vocaset", plan.subject, name, "voice")
    return speak(text, voice, Emotion.NEUTRAL, 1, seed)


def _motion(world: SampleWorld, subject: str, name: str, utterance: Utterance) -> Float[np.ndarray, "frames 52"]:
    """Speech in the subject's own style, with the faint movement that no face is without."""
    style = world.stream("vocaset", subject, "style")
    openness = float(np.exp(style.normal(0, _STYLE_SPREAD)))
    weights = articulate(utterance.phones, utterance.duration, NATIVE_FPS, openness=openness)
    for unit in _STYLED:
        weights[:, sides(unit)] *= np.exp(style.normal(0, _STYLE_SPREAD))
    random = world.stream("vocaset", subject, name, "tremor")
    for unit in _TREMBLING:
        weights[:, sides(unit)] += np.maximum(wander(len(weights), NATIVE_FPS, random, _TREMOR), 0)[:, None]
    return np.clip(weights, 0, 1).astype(np.float32)


def _as_int16(utterance: Utterance) -> Int[np.ndarray, " samples"]:
    factor = int(np.gcd(AUDIO_RATE, utterance.rate))
    samples = resample_poly(utterance.samples.astype(np.float64), AUDIO_RATE // factor, utterance.rate // factor)
    return np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16)
