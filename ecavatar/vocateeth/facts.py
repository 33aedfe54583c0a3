"""What a VOCATeeth says about itself in info.json, and the tables and files that follow from it.

A copy without what its licence forbids to pass on (`ecavatar.vocateeth.licence.write_free`) is of the same kind with
smaller tables: `angles` instead of `faces`, `fits` instead of `templates`, and no `audio`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecavatar.emolib.topology import FREE_TOPOLOGIES
from ecavatar.errors import DataError
from ecavatar.storage.columns import Column, Kind
from ecavatar.storage.croissant import RecordSet
from ecavatar.storage.files import read_json
from ecavatar.storage.manifest import MANIFEST_NAME
from ecavatar.storage.release import RELEASE_FILES
from ecavatar.vocateeth.dataset import FIT_COLUMNS, FORMAT, INFO, MOUTH, REJECTS, TEMPLATES, TOPOLOGY, TeethClip

FREE_FORMAT = "vocateeth-angles-2"
"""Of a copy without meshes and voices."""
CARD, CROISSANT, STATS, CONTENTS = "README.md", "croissant.json", "stats.json", "contents.json"
"""What `ecavatar.vocateeth.card.write_card` writes."""
FITS = "fits.parquet"
SPLITS = ("train", "val", "test")
UNUSED = "unused"
"""Split of a part whose subject VOCA uses in none."""
FREE_LICENCES = ("CC0-1.0", "CC-BY-4.0", "MIT", "Apache-2.0")
"""Licences of a mouth that allow passing it on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of the dataset: a file, or a part for each subject."""

    name: str
    paths: tuple[str, ...]
    """Relative to the dataset, in order."""
    pattern: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def record_set(self) -> RecordSet:
        """As croissant.json describes it."""
        return RecordSet(name=self.name, files=self.pattern, key=self.key, columns=self.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Content of info.json."""

    format: str
    topology: str
    n_face: int
    """Vertices of a face: V."""
    n_mouth: int
    """Vertices of the mouth: M."""
    n_face_triangles: int
    n_mouth_triangles: int
    fps: int
    native_fps: int
    patch_mm: float
    mouth_name: str
    mouth_licence: str
    parts: int
    clips: tuple[TeethClip, ...]
    counts: Mapping[str, int]
    missing: tuple[str, ...]
    rejected: tuple[str, ...]
    audio_rounded: tuple[str, ...]
    """Clips whose sound had more than 16 bits."""

    @property
    def has_meshes(self) -> bool:
        """Whether faces and voices are there, not only angles and fits."""
        return self.format == FORMAT

    @property
    def is_sample(self) -> bool:
        """Whether the meshes are of the open head; VOCASET itself comes in FLAME's vertex order alone."""
        return self.topology in FREE_TOPOLOGIES

    @property
    def is_redistributable(self) -> bool:
        """Whether it may be passed on, as far as its licences go."""
        return (self.is_sample or not self.has_meshes) and self.mouth_licence in FREE_LICENCES

    def part_splits(self) -> tuple[str, ...]:
        """Split of each part's subject: that of its clips that VOCA uses, or `UNUSED`."""
        known = {clip.part: clip.split for clip in self.clips if clip.split}
        return tuple(known.get(part, UNUSED) for part in range(self.parts))

    def tables(self) -> tuple[Table, ...]:
        """Its tables; the first is the default."""
        frames = "faces" if self.has_meshes else "angles"
        subjects = TEMPLATES if self.has_meshes else FITS
        tables = [
            self._parted(frames, ("clip_id", "frame"), frame_columns(self.n_face if self.has_meshes else None)),
            self._parted("audio", ("clip_id",), _AUDIO),
            Table(
                name=Path(subjects).stem,
                paths=(subjects,),
                pattern=subjects,
                key=("subject",),
                columns=subject_columns(self.n_face if self.has_meshes else None),
            ),
        ]
        return tuple(table for table in tables if self.has_meshes or table.name != "audio")

    def table(self, name: str) -> Table:
        """One of `tables`.

        Raises:
            KeyError: it has no such table.
        """
        return {table.name: table for table in self.tables()}[name]

    def files(self) -> tuple[str, ...]:
        """Every file that belongs to it, relative to the dataset, those of a numbered release apart."""
        tables = [path for table in self.tables() for path in table.paths]
        return (*tables, REJECTS, MOUTH, TOPOLOGY, INFO, STATS, CONTENTS, CROISSANT, CARD, MANIFEST_NAME)

    def unknown(self, names: Sequence[str]) -> list[str]:
        """Those of `names` that belong neither to it nor to a numbered release."""
        return sorted(set(names) - set(self.files()) - set(RELEASE_FILES))

    def _parted(self, name: str, key: tuple[str, ...], columns: tuple[Column, ...]) -> Table:
        folder = f"data/{name}"
        paths = tuple(f"{folder}/part-{part:05d}-of-{self.parts:05d}.parquet" for part in range(self.parts))
        return Table(name=name, paths=paths, pattern=f"{folder}/*.parquet", key=key, columns=columns)


def read_facts(directory: Path) -> Facts:
    """What the VOCATeeth in `directory` says about itself.

    Raises:
        AssetMissingError: none there.
        DataError: of another format, or damaged.
    """
    value = read_json(Path(directory) / INFO)
    found = value.get("format") if isinstance(value, dict) else None
    if found not in (FORMAT, FREE_FORMAT):
        raise DataError(
            f"{Path(directory) / INFO}: expected format {FORMAT} or {FREE_FORMAT}, found {found!r}. Run rig_mouths "
            "again, or read it with the version of ecavatar that wrote it."
        )
    try:
        facts = _facts(value)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{Path(directory) / INFO} is damaged ({error!r}). Run rig_mouths again.") from None
    if problems := _contradictions(facts):
        raise DataError(f"{Path(directory) / INFO} is damaged: {'; '.join(problems)}. Run rig_mouths again.")
    return facts


def split_leaks(facts: Facts) -> list[str]:
    """One sentence for each subject whose clips are in two of train, val and test, or in two parts."""
    splits: dict[str, set[str]] = {}
    parts: dict[str, set[int]] = {}
    for clip in facts.clips:
        splits.setdefault(clip.subject, set()).update({clip.split} - {""})
        parts.setdefault(clip.subject, set()).add(clip.part)
    leaks = [f"subject {name} is in {' and '.join(sorted(found))}." for name, found in splits.items() if len(found) > 1]
    return leaks + [f"subject {name} lies in {len(found)} parts." for name, found in parts.items() if len(found) > 1]


def release_leaks(directory: Path) -> list[str]:
    """`split_leaks` of the dataset in `directory`.

    Raises:
        AssetMissingError, DataError: none there, or damaged.
    """
    return split_leaks(read_facts(directory))


def frame_columns(n_vertices: int | None) -> tuple[Column, ...]:
    """Columns of `faces`, one row a frame; None: of `angles`, which lacks the meshes."""
    mesh = _number("vertices", n_vertices or 0, 3, unit="metre", about="face, in the order of `topology`")
    return (
        _text("clip_id", "SUBJECT_SENTENCE"),
        _text("subject", "who speaks, as VOCASET names them"),
        _text("sentence", "sentence01 to sentence40"),
        _SPLIT,
        Column(name="frame", kind="int32", shape=(), unit="", about="number within its clip, from 0"),
        _number("angle", unit="radian", about="of the jaw against the subject's template, positive open"),
        *((mesh,) if n_vertices is not None else ()),
    )


def subject_columns(n_vertices: int | None) -> tuple[Column, ...]:
    """Columns of `templates`, one row a subject; None: of `fits`, which lacks the meshes."""
    mesh = _number("vertices", n_vertices or 0, 3, unit="metre", about="neutral face, mouth closed")
    fits = [_number(name, *(() if count == 1 else (count,)), kind="float64", unit=_FITS[name][0], about=_FITS[name][1])
            for name, count in FIT_COLUMNS.items()]  # fmt: skip
    deepest = "how far a vertex of the closed mouth sticks out of the face at most"
    return (
        _text("subject", "who speaks, as VOCASET names them"),
        _SPLIT,
        *((mesh,) if n_vertices is not None else ()),
        *fits,
        _number("penetration_deepest_m", kind="float64", unit="metre", about=deepest),
        Column(
            name="penetration_vertices", kind="int32", shape=(), unit="", about="vertices of the mouth that stick out"
        ),
    )


def _facts(value: Mapping[str, Any]) -> Facts:  # Any: json of a file
    return Facts(
        format=str(value["format"]),
        topology=str(value["topology"]),
        n_face=int(value["vertices"]["face"]),
        n_mouth=int(value["vertices"]["mouth"]),
        n_face_triangles=int(value["triangles"]["face"]),
        n_mouth_triangles=int(value["triangles"]["mouth"]),
        fps=int(value["fps"]),
        native_fps=int(value["native_fps"]),
        patch_mm=float(value["patch_mm"]),
        mouth_name=str(value["mouth"]["name"]),
        mouth_licence=str(value["mouth"]["licence"]),
        parts=int(value["parts"]),
        clips=tuple(TeethClip(**clip) for clip in value["clips"]),
        counts={str(name): int(count) for name, count in value["counts"].items()},
        missing=_ids(value["missing"]),
        rejected=_ids(value["rejected"]),
        audio_rounded=_ids(value["audio_rounded"]),
    )


def _ids(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"{value!r} is no list of clip ids")
    return tuple(value)


def _contradictions(facts: Facts) -> list[str]:
    """Wrong kinds of what the rest of the code counts on, and clips out of place."""
    texts, wholes = ("clip_id", "subject", "sentence", "split"), ("part", "row_group", "frames")
    if any(not isinstance(getattr(clip, name), str) for clip in facts.clips for name in texts):
        return ["a clip's names are no texts"]
    if any(type(getattr(clip, name)) is not int for clip in facts.clips for name in wholes):
        return ["a clip's place or frames are no whole numbers"]
    if any(type(clip.duration_mismatch_s) not in (int, float) for clip in facts.clips):
        return ["a clip's duration_mismatch_s is no number"]
    problems = []
    if facts.n_face < 1 or facts.n_mouth < 1 or facts.fps < 1 or facts.native_fps % facts.fps:
        problems.append("vertices and frames per second must be positive, and fps divide native_fps")
    places = [(clip.part, clip.row_group) for clip in facts.clips]
    sizes = {part: sum(clip.part == part for clip in facts.clips) for part in range(facts.parts)}
    if places != [(part, group) for part, size in sizes.items() for group in range(size)]:
        problems.append("clips are not listed part by part and row group by row group")
    if any(clip.frames < 1 for clip in facts.clips):
        problems.append("a clip has no frames")
    if len({clip.clip_id for clip in facts.clips}) < len(facts.clips):
        problems.append("a clip is listed twice")
    return problems


def _text(name: str, about: str) -> Column:
    return Column(name=name, kind="string", shape=(), unit="", about=about)


def _number(name: str, *shape: int, kind: Kind = "float32", unit: str = "", about: str) -> Column:
    return Column(name=name, kind=kind, shape=shape, unit=unit, about=about)


_SPLIT = _text("split", "train, val or test as VOCA has them; empty: in none")
_FITS = {
    "mouth_scale": ("", "of the mouth in mouth.npz"),
    "mouth_rotation": ("", "of the mouth, after scaling, row-major 3 x 3"),
    "mouth_translation": ("metre", "of the mouth, after rotation"),
    "jaw_axis": ("", "unit vector about which lower teeth, lower gum and tongue turn by `angle`"),
    "jaw_pivot": ("metre", "a point of that axis"),
}
_AUDIO = (
    _text("clip_id", "as in faces"),
    _text("subject", "who speaks, as VOCASET names them"),
    _SPLIT,
    Column(name="sample_rate_hz", kind="int32", shape=(), unit="hertz", about="of the sound"),
    Column(name="audio", kind="audio", shape=(), unit="", about="FLAC, mono, 16 bit"),
)
