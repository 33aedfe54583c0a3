"""Speech in, lips out: a recording of any length and a neutral face become a moving head, with its mouth if asked for.

What `ecavatar lips AUDIO --template MESH --out motion.npz` does. Neither the lip-reading interpreter nor the speech
recogniser of SelfTalk's training is loaded. Files are read and written in pieces: memory does not grow with the
recording.
"""

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from jaxtyping import Float

from ecavatar.animation.lip_picture import SoundEnvelope, write_lip_picture
from ecavatar.animation.lip_stream import LIVE, LONG, ChunkPlan, LipStream
from ecavatar.animation.motion import Motion
from ecavatar.corpora.vocaset_checks import template_problems
from ecavatar.errors import ConfigError, DataError, TopologyError
from ecavatar.face.landmarks import ibug68_points
from ecavatar.face.mesh_file import read_mesh
from ecavatar.face.model import FaceAsset
from ecavatar.face.tags import require_topology
from ecavatar.models.selftalk import LipMotion, SelfTalk
from ecavatar.mouth.fit import MouthFit, MouthPoser, fit_mouth
from ecavatar.mouth.model import MouthMesh
from ecavatar.speech.audio import SPEECH_RATE, audio_blocks
from ecavatar.speech.precision import multiplies_bfloat16
from ecavatar.speech.sound_facts import Level, SoundFacts, measure_sound
from ecavatar.storage.files import atomic_path
from ecavatar.training.weights import load_weights

MOUTH_SUFFIX: Final = "+mouth"
"""Behind a face's topology: face vertices first, then those of the mouth."""
BFLOAT16_LIMIT_MM: Final = 0.05
"""bfloat16 is offered where no vertex moves farther by it than this."""
FACE_FOLDER_MESH: Final = "neutral.ply"
"""The neutral face in a folder that `ecavatar face` wrote."""

_BLOCK_S = 10.0
_UPPER_LIP, _LOWER_LIP = 62, 66  # iBUG, counted from 0: the middle of the inner lips


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpokenFrames:
    """Frames of a speaking head."""

    vertices: Float[np.ndarray, "frames vertices 3"]
    """float32 metres; the face, and the mouth behind it where it was asked for."""
    angles: Float[np.ndarray, " frames"] | None
    """Jaw angle, radians, positive open; None where the network regresses the mouth."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LipCurves:
    """How a mouth moves along a recording."""

    fps: float
    opening_m: Float[np.ndarray, " frames"]
    """Distance between the middles of the inner lips."""
    angles: Float[np.ndarray, " frames"] | None
    """Jaw angle, radians."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spoken:
    """What became of a recording and a neutral face."""

    motion: Motion
    angles: Float[np.ndarray, " frames"] | None
    sound: SoundFacts


class SpeakingHead:
    """One person's neutral head, ready to speak: offsets become vertices, and the angle opens the mouth."""

    def __init__(
        self, network: SelfTalk, asset: FaceAsset, face: Float[np.ndarray, "V 3"], mouth: MouthMesh | None
    ) -> None:
        """Fits the mouth, if there is one, to the face.

        Raises:
            DataError: from `fit_mouth`; or the network regresses another number of mouth vertices.
        """
        self.topology = asset.topology if mouth is None else asset.topology + MOUTH_SUFFIX
        self.fit: MouthFit | None = None
        self._poser: MouthPoser | None = None
        parts = [face]
        if mouth is not None:
            self.fit = fit_mouth(mouth, face, asset)
            parts.append(self.fit.closed(mouth))
            if network.mouth == "rigged":
                self._poser = MouthPoser(mouth, self.fit)
            elif network.n_mouth != len(mouth.vertices):
                raise DataError(
                    f"the network regresses a mouth of {network.n_mouth} vertices, mouth {mouth.name!r} has "
                    f"{len(mouth.vertices)}. Give the mouth it was trained with (see model.json), or leave it out."
                )
        self.face_only = mouth is None or network.mouth == "rigged"
        self.template: Float[np.ndarray, "N 3"] = np.concatenate(parts).astype(np.float32)
        self._n_face = len(face)

    def frames(self, motion: LipMotion) -> SpokenFrames:
        """Vertices of this head for offsets of the network."""
        offsets = motion.vertices.cpu().numpy()
        vertices = np.empty((len(offsets), *self.template.shape), np.float32)
        moved = offsets.shape[1]
        np.add(self.template[:moved], offsets, out=vertices[:, :moved])
        angles = None if motion.angles is None else motion.angles.cpu()
        if self._poser is not None and angles is not None:
            with torch.no_grad():
                vertices[:, self._n_face :] = self._poser(angles).numpy()
        return SpokenFrames(vertices=vertices, angles=None if angles is None else angles.numpy())


class LiveLips:
    """A head that speaks while it listens.

    Example:
        live = speaker.live(face)
        for block in microphone:  # any sizes, 16 kHz mono
            for frames in live.push(block):
                show(frames.vertices)
    """

    def __init__(self, head: SpeakingHead, stream: LipStream) -> None:
        """Joins both; see `LipSpeaker.live`."""
        self.head, self._stream = head, stream

    @property
    def latency_s(self) -> float:
        """From a moment's sound to its frame, at most, without computing time."""
        return self._stream.latency_s

    def push(self, samples: Float[np.ndarray, " samples"]) -> list[SpokenFrames]:
        """Hear the next samples; see `LipStream.push`."""
        return [self.head.frames(motion) for motion in self._stream.push(samples)]

    def finish(self) -> list[SpokenFrames]:
        """The rest, once the speaker has ended; see `LipStream.finish`."""
        return [self.head.frames(motion) for motion in self._stream.finish()]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LipSpeaker:
    """A trained SelfTalk and the face model of its topology."""

    network: SelfTalk
    asset: FaceAsset
    fps: float
    mouth_name: str | None
    """Mouth that a regressing network was trained with; None if its weights do not say."""

    @classmethod
    def load(cls, *, selftalk: Path, face_model: Path, device: torch.device | None = None) -> Self:
        """Both from the files that the pipeline writes.

        Args:
            selftalk: folder with model.json and model.safetensors.
            face_model: npz of the face model.
            device: where to compute; None: the CPU.

        Raises:
            AssetMissingError: a file is missing.
            DataError: a file is damaged, or the weights are of another width than they say or than the face model.
            TopologyError: they belong to different meshes.
        """
        asset = FaceAsset.load(face_model)
        network, facts = load_weights(selftalk, SelfTalk)
        require_topology(asset, facts.get("topology"), selftalk)
        fps = facts.get("fps")
        if network.n_vertices != asset.n_vertices or not isinstance(fps, int | float) or not fps > 0:
            raise DataError(
                f"{selftalk}: expected weights for {asset.n_vertices} face vertices and their frame rate, found "
                f"{network.n_vertices} and {fps!r}. Train SelfTalk again, or give the face model it was trained with."
            )
        mouth = facts.get("mouth") or {}
        network = network if device is None else network.to(device)
        return cls(network=network, asset=asset, fps=float(fps), mouth_name=mouth.get("name"))

    def head(self, face: Float[np.ndarray, "V 3"], mouth: MouthMesh | None = None) -> SpeakingHead:
        """A neutral face ready to speak, with `mouth` behind its lips or without any.

        Args:
            face: see `read_template`.
            mouth: any for a network with a rigged mouth, else the one that it was trained with.

        Raises:
            DataError: the mouth does not fit the face or the network.
            TopologyError, ShapeError: the face is of another topology.
        """
        is_other = mouth is not None and self.network.mouth == "regressed" and self.mouth_name not in (None, mouth.name)
        if is_other:
            raise DataError(
                f"the network regresses mouth {self.mouth_name!r}, got {mouth.name if mouth else None!r}; its vertices "
                "would fly apart. Give the mouth it was trained with."
            )
        return SpeakingHead(self.network, self.asset, face, mouth)

    def live(
        self,
        face: Float[np.ndarray, "V 3"],
        mouth: MouthMesh | None = None,
        *,
        plan: ChunkPlan = LIVE,
        level: Level | None = None,
    ) -> LiveLips:
        """A head that takes sound as it comes; arguments as `head` and `LipStream`."""
        head = self.head(face, mouth)
        return LiveLips(head, LipStream(self.network, self.fps, plan, level=level, face_only=head.face_only))

    def to_bfloat16(self, probe: Float[np.ndarray, " samples"]) -> float:
        """Computes in bfloat16 from now on, if that moves no vertex noticeably. One way.

        Args:
            probe: speech on which both precisions are compared, 16 kHz mono; a few seconds of the recording will do.

        Returns:
            The largest distance between vertices of both precisions, millimetres.

        Raises:
            ConfigError: the device has no bfloat16 instructions (it would be slower), or a vertex of the probe moves by
                `BFLOAT16_LIMIT_MM` or more; the speaker then has to be loaded again.
        """
        device = self.network.vertex_map.weight.device
        if not multiplies_bfloat16(device):
            raise ConfigError(
                f"this {device.type} does not multiply bfloat16, so it would only be slower. Use float32, or another "
                "machine."
            )
        change = bfloat16_change_mm(self.network, probe, self.fps)
        if change >= BFLOAT16_LIMIT_MM:
            raise ConfigError(
                f"in bfloat16 a vertex moves by {change:.3f} mm, expected less than {BFLOAT16_LIMIT_MM} mm. Use "
                "float32 with these weights."
            )
        return change


def bfloat16_change_mm(network: SelfTalk, probe: Float[np.ndarray, " samples"], fps: float) -> float:
    """Puts a network into bfloat16 and tells how far that moves its vertices on `probe`, at most, millimetres."""
    frames = max(1, round(len(probe) / SPEECH_RATE * fps))
    exact = network.offsets(torch.from_numpy(probe), frames).vertices
    rough = network.to_bfloat16().offsets(torch.from_numpy(probe), frames).vertices
    return 1000 * float((rough - exact).double().norm(dim=-1).max())


def read_template(path: Path, asset: FaceAsset) -> Float[np.ndarray, "V 3"]:
    """The neutral face in a mesh file, or in a folder that `ecavatar face` wrote; float32 metres.

    Raises:
        AssetMissingError: there is none.
        TopologyError: its vertices are not those of the face model, or in another order.
        DataError: unreadable, in another unit or frame, turned, moved, or with an open mouth; all problems are told.
    """
    file = path / FACE_FOLDER_MESH if path.is_dir() else path
    vertices, _ = read_mesh(file)
    problems = template_problems(vertices, asset)
    if problems:
        listed = "\n".join(f"  {problem.text}" for problem in problems)
        kind = TopologyError if any(problem.kind == "order" for problem in problems) else DataError
        raise kind(f"{file} is no neutral face of topology {asset.topology!r}:\n{listed}")
    return vertices


def speak(
    recording: Path, template: Path, speaker: LipSpeaker, *, mouth: MouthMesh | None = None, plan: ChunkPlan = LONG
) -> Spoken:
    """A recording and a neutral face -> the speaking head, in memory (a minute with mouth: 325 MB).

    Args:
        recording: sound or video file of any length.
        template: see `read_template`.
        speaker: the trained network.
        mouth: teeth, gums and tongue to put behind the lips; None: the face alone.
        plan: how the recording is cut; see `LONG` for what that changes.

    Raises:
        EcavatarError: a file is missing, unreadable, or does not fit.
    """
    head = speaker.head(read_template(template, speaker.asset), mouth)
    sound = measure_sound(audio_blocks(recording, _BLOCK_S), SPEECH_RATE)
    parts = list(_spoken(recording, sound, speaker, head, plan))
    angles = [part.angles for part in parts if part.angles is not None]
    motion = Motion(
        vertices=np.concatenate([part.vertices for part in parts]),
        fps=speaker.fps,
        topology=head.topology,
        template=head.template,
    )
    return Spoken(motion=motion, angles=np.concatenate(angles) if angles else None, sound=sound)


def write_lips(
    recording: Path,
    template: Path,
    out: Path,
    speaker: LipSpeaker,
    *,
    mouth: MouthMesh | None = None,
    picture: Path | None = None,
    plan: ChunkPlan = LONG,
) -> tuple[LipCurves, SoundFacts]:
    """As `speak`, written to a motion file piece by piece: memory does not grow with the recording.

    Args:
        recording: sound or video file of any length.
        template: see `read_template`.
        out: npz to write, whole or not at all; `read_motion` reads it. It has the jaw angles, too. Not compressed:
            coordinates shrink by a tenth only.
        speaker: the trained network.
        mouth: teeth, gums and tongue to put behind the lips; None: the face alone.
        picture: png to write: lip opening and jaw angle over the waveform.
        plan: how the recording is cut.

    Returns:
        The curves of the picture, and what is to be known of the sound (`SoundFacts.warnings`).

    Raises:
        EcavatarError: a file is missing, unreadable, or does not fit.
    """
    head = speaker.head(read_template(template, speaker.asset), mouth)
    sound = measure_sound(audio_blocks(recording, _BLOCK_S), SPEECH_RATE)
    count = frame_count(sound, speaker.fps)
    envelope = SoundEnvelope(sound.seconds)
    openings: list[np.ndarray] = []
    angles: list[np.ndarray] = []

    def vertices() -> Iterator[Float[np.ndarray, "frames N 3"]]:
        for part in _spoken(recording, sound, speaker, head, plan, envelope):
            openings.append(lip_opening(speaker.asset, part.vertices[:, : speaker.asset.n_vertices]))
            if part.angles is not None:
                angles.append(part.angles)
            yield part.vertices

    with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        _write_blocks(archive, "vertices", (count, *head.template.shape), vertices())
        facts = {"fps": np.float64(speaker.fps), "topology": np.str_(head.topology), "template": head.template}
        if angles:
            facts["angles"] = np.concatenate(angles)
        for name, value in facts.items():
            _write_array(archive, name, np.asarray(value))
    curves = LipCurves(
        fps=speaker.fps, opening_m=np.concatenate(openings), angles=np.concatenate(angles) if angles else None
    )
    if picture is not None:
        write_lip_picture(picture, envelope, curves.opening_m, curves.angles, curves.fps)
    return curves, sound


def frame_count(sound: SoundFacts, fps: float) -> int:
    """Frames of a recording: its length to the nearest frame, at least one."""
    return max(1, round(sound.seconds * fps))


def lip_opening(asset: FaceAsset, faces: Float[np.ndarray, "T V 3"]) -> Float[np.ndarray, " T"]:
    """Distance between the middles of the inner lips, metres."""
    points = ibug68_points(asset, faces)
    return np.linalg.norm(points[:, _UPPER_LIP] - points[:, _LOWER_LIP], axis=-1)


def _spoken(
    recording: Path,
    sound: SoundFacts,
    speaker: LipSpeaker,
    head: SpeakingHead,
    plan: ChunkPlan,
    envelope: SoundEnvelope | None = None,
) -> Iterator[SpokenFrames]:
    """The head's frames, window by window."""
    stream = LipStream(speaker.network, speaker.fps, plan, level=sound.level, face_only=head.face_only)
    for block in audio_blocks(recording, _BLOCK_S):
        if envelope is not None:
            envelope.add(block)
        yield from (head.frames(motion) for motion in stream.push(block))
    yield from (head.frames(motion) for motion in stream.finish())


def _write_blocks(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], blocks: Iterable[Float[np.ndarray, "frames N 3"]]
) -> None:
    """One float32 array of a known shape, written as it is made."""
    written = 0
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, "<f4").data)
            written += len(block)
    if written != shape[0]:
        raise DataError(
            f"the recording gave {written} frames, expected {shape[0]}: it changed while it was read. Try again."
        )


def _write_array(archive: zipfile.ZipFile, name: str, value: np.ndarray) -> None:
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as file:
        np.lib.format.write_array(file, value, allow_pickle=False)
