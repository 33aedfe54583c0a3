"""VOCASET as FaceFormer's and SelfTalk's scripts prepare it: one array and one sound file for each clip.

    vertices_npy/<subject>_<sentenceNN>.npy    (frames at 60 a second, 3 x vertices) metres
    wav/<subject>_<sentenceNN>.wav             the sound at its own rate
    templates.pkl                              subject -> (vertices, 3), VOCA's own file

Source:
    Fan et al., FaceFormer, CVPR 2022; Peng et al., SelfTalk, ACM MM 2023.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ecavatar.corpora.vocaset_layouts.clip import (
    Listing,
    UnusableClipError,
    VocasetClip,
    check_names,
    check_template,
    clip_of,
    rejected,
)
from ecavatar.corpora.vocaset_layouts.meshes import map_floats, read_templates
from ecavatar.errors import DataError
from ecavatar.storage.files import resolve_inside

MESHES, SOUND, TEMPLATES = "vertices_npy", "wav", "templates.pkl"
_OPEN_LENGTH = 0x7FFFFFFF
"""Of a sound whose length was unknown when its file was begun, or longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFolders:
    """The opened folders; files are opened when asked for."""

    root: Path

    def meshes(self, clip: VocasetClip) -> Float[np.ndarray, "frames vertices 3"]:
        """The clip's own array, mapped from disk."""
        return _map_frames(self.root, clip.clip_id)

    def sound(self, clip: VocasetClip) -> tuple[Float[np.ndarray, " samples"], int]:
        """Mono float32 samples in -1..1 (channels averaged) and their rate.

        Raises:
            DataError: the file cannot be decoded to its end, or holds samples that are not finite.
        """
        return _decode(self._sound_file(clip))

    def sound_seconds(self, clip: VocasetClip) -> float:
        """How long the sound is, by the file's header."""
        return _header(self._sound_file(clip)).seconds

    def sound_files(self) -> list[Path]:
        """The sound file of every clip there is, sorted."""
        return sorted(path for path in (self.root / SOUND).glob("*.wav") if not path.name.startswith("."))

    def _sound_file(self, clip: VocasetClip) -> Path:
        return resolve_inside(self.root, f"{SOUND}/{clip.clip_id}.wav")


def list_folders(root: Path) -> Listing:
    """What the folders in `root` hold; hidden files (which some systems leave beside each file) are passed over.

    Raises:
        AssetMissingError: templates.pkl is not there.
        DataError: it is damaged or hostile, or a folder is a link that leads out of `root`.
    """
    templates = read_templates(resolve_inside(root, TEMPLATES))
    folder, _ = resolve_inside(root, MESHES), resolve_inside(root, SOUND)
    clips, rejects = [], []
    for name in sorted(path.stem for path in folder.glob("*.npy") if not path.name.startswith(".")):
        try:
            clips.append(_clip(root, name, templates))
        except UnusableClipError as problem:
            rejects.append(rejected(name, problem, root))
    clips.sort(key=lambda clip: (clip.subject, clip.sentence))
    return Listing(templates=templates, clips=clips, rejects=rejects, layout=ClipFolders(root=root))


def _clip(root: Path, name: str, templates: dict[str, np.ndarray]) -> VocasetClip:
    subject, _, sentence = name.rpartition("_")
    check_names(subject, sentence)
    try:
        frames = _map_frames(root, name)
    except DataError as error:
        raise UnusableClipError("bad_vertices", str(error)) from None
    if not len(frames):
        raise UnusableClipError("no_frames", f"{name}.npy holds no frame")
    _check_sound(root, name)
    check_template(subject, templates)
    n_vertices = len(templates[subject])
    if frames.shape[1] != n_vertices:
        expected, seen = (3 * count for count in (n_vertices, frames.shape[1]))
        raise UnusableClipError("bad_vertices", f"{name}.npy: expected {expected} numbers a frame, got {seen}")
    return clip_of(subject, sentence, np.arange(len(frames)))


def _map_frames(root: Path, name: str) -> Float[np.ndarray, "frames vertices 3"]:
    path = resolve_inside(root, f"{MESHES}/{name}.npy")
    flat = map_floats(path)
    if flat.ndim != 2 or flat.shape[1] % 3 or not flat.shape[1]:
        raise DataError(f"{path}: expected (frames, 3 x vertices) numbers, got {flat.shape}. Prepare it again.")
    return flat.reshape(len(flat), flat.shape[1] // 3, 3)


def _check_sound(root: Path, name: str) -> None:
    try:
        path = resolve_inside(root, f"{SOUND}/{name}.wav")
        if not path.is_file():
            raise UnusableClipError("no_audio", f"{SOUND}/{name}.wav is not there")
        _check_size(path)
        header = _header(path)
        if not header.seconds:
            raise UnusableClipError("no_audio", f"{SOUND}/{name}.wav has no sample")
        if not header.is_whole:  # only then can a sample be no number
            _decode(path)
    except UnusableClipError:
        raise
    except DataError as error:
        raise UnusableClipError("bad_audio", str(error)) from None


def _check_size(path: Path) -> None:
    """Whether the file is as long as it says, which libsndfile does not mind; some programs leave the length open."""
    with path.open("rb") as file:
        start = file.read(8)
    expected, actual = int.from_bytes(start[4:], "little") + 8, path.stat().st_size
    if start[:4] == b"RIFF" and actual < expected < _OPEN_LENGTH:
        raise DataError(f"{path} is cut short: expected {expected} bytes, got {actual}. Copy it again.")


def _decode(path: Path) -> tuple[Float[np.ndarray, " samples"], int]:
    import soundfile  # loads libsndfile; only when needed

    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read as sound ({error}). Copy it again.") from None
    if not len(samples) or not np.isfinite(samples).all():
        raise DataError(f"{path}: expected finite samples, at least one, got {samples.shape}. Copy it again.")
    return samples.mean(axis=1), rate


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    seconds: float
    is_whole: bool
    """Samples are whole numbers."""


def _header(path: Path) -> _Header:
    import soundfile

    try:
        header = soundfile.info(path)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read as sound ({error}). Copy it again.") from None
    if header.samplerate <= 0:
        raise DataError(f"{path}: expected a sample rate in hertz, got {header.samplerate}. Copy it again.")
    is_whole = str(header.subtype).startswith("PCM_")
    return _Header(seconds=header.frames / header.samplerate, is_whole=is_whole)
