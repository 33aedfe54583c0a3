"""VOCATeeth: every VOCASET frame as its face vertices and one jaw angle, with a mouth fitted to every subject.

Teeth, gums and tongue are rigid, so a frame's mouth follows from the subject's fit and the angle; its vertices are made
on read. On disk:

* `data/faces/part-*.parquet`, one per subject, one row group per clip: clip_id, subject, sentence, split, frame, angle,
  vertices [V][3].
* `data/audio/part-*.parquet`, one per subject, one row and row group per clip: clip_id, subject, split, sample_rate_hz,
  audio {bytes: FLAC of 16 bits, path}.
* `mouth.npz`: the mouth in its own frame, M vertices. `topology.npz`: triangles of face and mouth joined, regions.
* `templates.parquet`: subject, split, neutral face, how the mouth is fitted to it and how far it sticks out of it.
* `rejects.parquet`: clips that cannot be used, with the reason.
* `info.json`: topology, frames per second, clips with their place, counts, clips that the corpus lacks.
* `README.md`, `MANIFEST.json`: card and checksums.

A joined head has the V face vertices first, so indices into the face stay valid, then the M of the mouth.
`ecavatar.vocateeth.build` writes it.

Source:
    The ECAvatar paper, section 3.4.
"""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from ecavatar.emolib.topology import read_topology
from ecavatar.errors import AssetMissingError, DataError, TopologyError
from ecavatar.mouth.fit import MouthFit, pose_mouth
from ecavatar.mouth.model import MouthMesh
from ecavatar.storage.files import read_json, sha256_file
from ecavatar.storage.manifest import MANIFEST_NAME
from ecavatar.storage.parquet import mesh_array, read_table
from ecavatar.storage.shards import list_shards

FORMAT = "vocateeth-2"
FACES, AUDIO = Path("data") / "faces", Path("data") / "audio"
INFO, TEMPLATES, REJECTS, MOUTH, TOPOLOGY = (
    "info.json", "templates.parquet", "rejects.parquet", "mouth.npz", "topology.npz",
)  # fmt: skip
FIT_COLUMNS = {"mouth_scale": 1, "mouth_rotation": 9, "mouth_translation": 3, "jaw_axis": 3, "jaw_pivot": 3}
"""Columns of templates.parquet that hold a `MouthFit`, with how many float64 each has."""
FULL_SCALE = 32768.0
"""What 16-bit samples are divided by to lie in -1..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeethClip:
    """One sentence of one subject and where it lies."""

    clip_id: str
    subject: str
    sentence: str
    split: str
    """train, val, test, or empty for a clip that VOCA uses in none."""
    part: int
    """Index of its part files."""
    row_group: int
    """Its row group in both."""
    frames: int
    duration_mismatch_s: float
    """Length of the meshes minus that of the sound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VocaTeeth:
    """An opened VOCATeeth; frames and sound stay on disk until asked for. It can be pickled."""

    directory: Path
    topology: str
    """Vertex order of the faces; joined heads are of `<topology>+mouth`."""
    n_vertices: int
    """Of a face: V."""
    fps: int
    clips: tuple[TeethClip, ...]
    """Sorted by part and row group."""
    parts: tuple[Path, ...] = field(repr=False)
    sounds: tuple[Path, ...] = field(repr=False)
    mouth: MouthMesh
    fits: dict[str, MouthFit] = field(repr=False)
    """By subject."""

    @classmethod
    def open(cls, directory: Path) -> "VocaTeeth":
        """The dataset in `directory`.

        Raises:
            AssetMissingError: it is not there, or lacks a file.
            DataError: it is of another format, damaged, or parts are missing.
        """
        directory = Path(directory)
        info = read_json(directory / INFO)
        found = info.get("format") if isinstance(info, dict) else None
        if found != FORMAT:
            raise DataError(f"{directory}: expected format {FORMAT}, found {found!r}. Run rig_mouths again.")
        parts, sounds = list_shards(directory / FACES), list_shards(directory / AUDIO)
        try:
            clips = tuple(TeethClip(**clip) for clip in info["clips"])
            topology, fps, count = str(info["topology"]), int(info["fps"]), int(info["parts"])
            n_vertices = int(info["vertices"]["face"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{directory / INFO} is damaged ({error!r}). Run rig_mouths again.") from None
        if not len(parts) == len(sounds) == count:
            raise DataError(
                f"{directory} has {len(parts)} parts of faces and {len(sounds)} of sound, info.json says {count}. Run "
                "rig_mouths again."
            )
        mouth, fits = MouthMesh.load(directory / MOUTH), _read_fits(directory / TEMPLATES)
        if unknown := sorted({clip.subject for clip in clips} - set(fits)):
            raise DataError(f"{directory / TEMPLATES} lacks {', '.join(unknown)}. Run rig_mouths again.")
        return cls(
            directory=directory, topology=topology, n_vertices=n_vertices, fps=fps, clips=clips, parts=tuple(parts),
            sounds=tuple(sounds), mouth=mouth, fits=fits,
        )  # fmt: skip

    def require_topology(self, topology: str) -> None:
        """Check that the face vertices have this order.

        Raises:
            TopologyError: they have another.
        """
        if topology != self.topology:
            raise TopologyError(f"{self.directory} holds {self.topology} meshes, the face model is {topology}.")

    def of_split(self, split: str) -> tuple[TeethClip, ...]:
        """The clips of train, val or test, in stored order.

        Raises:
            DataError: the split has none.
        """
        clips = tuple(clip for clip in self.clips if clip.split == split)
        if not clips:
            counts = dict(Counter(clip.split or "unused" for clip in self.clips))
            raise DataError(f"{self.directory} has no clip in split {split!r}; clips by split: {counts}.")
        return clips

    def vertices(self, clip: TeethClip, start: int = 0, stop: int | None = None) -> Float[np.ndarray, "T V 3"]:
        """Face vertices of frames start..stop (by default all) of a clip, float32 metres.

        Raises:
            DataError: no such frames, or the part is damaged.
        """
        return mesh_array(self._rows(clip, ["vertices"], start, stop)["vertices"])

    def angles(self, clip: TeethClip, start: int = 0, stop: int | None = None) -> Float[np.ndarray, " T"]:
        """Jaw angle of frames start..stop (by default all), float32 radians, positive open.

        Raises:
            DataError: no such frames, or the part is damaged.
        """
        return self._rows(clip, ["angle"], start, stop)["angle"].to_numpy()

    def heads(self, clip: TeethClip, start: int = 0, stop: int | None = None) -> Float[np.ndarray, "T V+M 3"]:
        """Face and mouth of frames start..stop (by default all) of a clip, float32 metres, the face first.

        Rows before `start` of the same clip are decoded and dropped: Parquet's pages cannot be skipped from Python.

        Raises:
            DataError: no such frames, or the part is damaged.
        """
        return self.joined(clip.subject, *self.frames(clip, start, stop))

    def frames(
        self, clip: TeethClip, start: int = 0, stop: int | None = None
    ) -> tuple[Float[np.ndarray, "T V 3"], Float[np.ndarray, " T"]]:
        """`vertices` and `angles` in one reading.

        Raises:
            DataError: no such frames, or the part is damaged.
        """
        rows = self._rows(clip, ["angle", "vertices"], start, stop)
        return mesh_array(rows["vertices"]), rows["angle"].to_numpy()

    def joined(
        self, subject: str, faces: Float[np.ndarray, "T V 3"], angles: Float[np.ndarray, " T"]
    ) -> Float[np.ndarray, "T V+M 3"]:
        """Faces of a subject with its mouth opened by `angles` (radians), float32 metres."""
        count = faces.shape[1]
        heads = np.empty((len(faces), count + len(self.mouth.vertices), 3), dtype=np.float32)
        heads[:, :count] = faces
        heads[:, count:] = pose_mouth(self.mouth, self.fit(subject), angles)
        return heads

    def fit(self, subject: str) -> MouthFit:
        """How the mouth lies in a subject's neutral face.

        Raises:
            DataError: no such subject.
        """
        if subject not in self.fits:
            raise DataError(f"{self.directory} has no subject {subject!r}; it has {', '.join(sorted(self.fits))}.")
        return self.fits[subject]

    def samples(self, clip: TeethClip) -> tuple[Int[np.ndarray, " S"], int]:
        """Sound of a clip, mono int16, and its rate in hertz.

        Raises:
            DataError: the part is damaged.
        """
        import soundfile  # loads libsndfile; only when needed

        path = self.sounds[clip.part]
        row = _of_clip(clip, path, ["audio"], 0, 1)
        try:
            return soundfile.read(io.BytesIO(row["audio"][0].as_py()["bytes"]), dtype="int16")
        except (soundfile.LibsndfileError, RuntimeError, KeyError, TypeError) as error:
            raise _damaged(path, error) from None

    def audio(self, clip: TeethClip) -> tuple[Float[np.ndarray, " S"], int]:
        """Sound of a clip, mono float32 in -1..1, and its rate in hertz.

        Raises:
            DataError: the part is damaged.
        """
        samples, rate = self.samples(clip)
        return samples.astype(np.float32) / np.float32(FULL_SCALE), rate

    def templates(self) -> dict[str, Float[np.ndarray, "V 3"]]:
        """Neutral closed-mouth face of each subject, float32 metres."""
        table = read_table(self.directory / TEMPLATES, ["subject", "vertices"])
        return dict(zip(table["subject"].to_pylist(), mesh_array(table["vertices"]), strict=True))

    def faces(self) -> Int[np.ndarray, "F 3"]:
        """Triangles of face and mouth joined, those of the face first.

        Raises:
            AssetMissingError, DataError: topology.npz is missing or damaged.
        """
        arrays = read_topology(self.directory / TOPOLOGY)
        if "faces" not in arrays:
            raise _damaged(self.directory / TOPOLOGY, "it has no faces")
        return arrays["faces"]

    def fingerprint(self) -> str:
        """Hash of the whole dataset: of the manifest, which holds every file's checksum."""
        return sha256_file(self.directory / MANIFEST_NAME)

    def _rows(self, clip: TeethClip, columns: Sequence[str], start: int, stop: int | None) -> pa.Table:
        last = clip.frames if stop is None else stop
        if not 0 <= start < last <= clip.frames:
            raise DataError(f"{clip.clip_id} has frames 0..{clip.frames - 1}; {start}..{last - 1} are not among them.")
        return _of_clip(clip, self.parts[clip.part], columns, start, last)


def read_rows(path: Path, group: int, columns: Sequence[str], start: int, stop: int) -> pa.Table:
    """Rows start..stop of one row group, decoded no further than `stop`, by this thread alone (safe after a fork).

    Raises:
        AssetMissingError: no such file.
        DataError: it is damaged, or has no such rows.
    """
    if not path.is_file():
        raise AssetMissingError(f"{path} not found. Run rig_mouths again, or copy the dataset again.")
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            batches = file.iter_batches(stop, row_groups=[group], columns=list(columns), use_threads=False)
            table = pa.Table.from_batches([next(batches)])
    except (pa.ArrowException, OSError, IndexError, StopIteration) as error:
        raise _damaged(path, error or "it lacks rows") from None
    if table.num_rows != stop or table.column_names != list(columns):
        raise _damaged(path, f"row group {group} has {table.num_rows} rows of {table.column_names}")
    return table.slice(start)


def _of_clip(clip: TeethClip, path: Path, columns: Sequence[str], start: int, stop: int) -> pa.Table:
    rows = read_rows(path, clip.row_group, ["clip_id", *columns], start, stop)
    if (found := rows["clip_id"][0].as_py()) != clip.clip_id:
        raise _damaged(path, f"row group {clip.row_group} is of {found}, not of {clip.clip_id}")
    return rows


def _read_fits(path: Path) -> dict[str, MouthFit]:
    table = read_table(path, ["subject", *FIT_COLUMNS])
    values = {name: np.array(table[name].to_pylist(), dtype=np.float64) for name in FIT_COLUMNS}
    wrong = {name: array.shape for name, array in values.items() if array.size != FIT_COLUMNS[name] * table.num_rows}
    if wrong or not all(np.isfinite(array).all() for array in values.values()):
        raise _damaged(path, f"fits of shapes {wrong}, or not finite")
    return {
        subject: MouthFit(
            scale=float(values["mouth_scale"][row]),
            rotation=values["mouth_rotation"][row].reshape(3, 3),
            translation=values["mouth_translation"][row],
            axis=values["jaw_axis"][row],
            pivot=values["jaw_pivot"][row],
        )
        for row, subject in enumerate(table["subject"].to_pylist())
    }


def _damaged(path: Path, why: object) -> DataError:
    return DataError(f"{path} is damaged: {why}. Run rig_mouths again, or copy the dataset again.")
