"""Whether a VOCATeeth is what it says: everything that can be computed again is, and compared.

One clip is in memory at a time. With a face model the angles, the fits, how far mouths stick out and the topology are
computed again, too.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from ecavatar.config import RigSettings
from ecavatar.emolib.topology import read_topology
from ecavatar.face.model import FaceAsset
from ecavatar.mouth.fit import fit_mouth
from ecavatar.mouth.model import MouthMesh
from ecavatar.mouth.penetration import measure_penetration, outer_skin
from ecavatar.mouth.rig import ChinRig
from ecavatar.storage.checks import DAMAGE, is_finite, problems_of, some
from ecavatar.storage.columns import arrow_schema, schema_difference
from ecavatar.storage.files import is_temporary, read_json
from ecavatar.storage.manifest import verify_manifest
from ecavatar.storage.parquet import mesh_array, read_table
from ecavatar.storage.rejects import read_rejects
from ecavatar.vocateeth.card import card_text, croissant_json
from ecavatar.vocateeth.dataset import FIT_COLUMNS, INFO, MOUTH, REJECTS, TOPOLOGY, TeethClip
from ecavatar.vocateeth.facts import CARD, CONTENTS, CROISSANT, SPLITS, STATS, Facts, Table, read_facts, split_leaks
from ecavatar.vocateeth.stats import (
    ClipFrames,
    ClipSound,
    Totals,
    clip_frames,
    clip_sounds,
    contents_json,
    stats_json,
)

_STATS_TOLERANCE = 1e-7
"""Relative: stats.json has nine digits, and machines add in different orders."""
_ANGLE_TOLERANCE_RAD = 1e-6
"""float32 cannot say angles near pi more finely than 2.4e-7."""
_FIT_TOLERANCE = 1e-6
"""Of scale, rotation and metres, between machines."""
_SECONDS_TOLERANCE = 2e-6
"""info.json has six digits after the point."""

Check = Callable[["_Dataset"], Iterator[str]]


@dataclass(frozen=True, slots=True)
class _Dataset:
    directory: Path
    facts: Facts
    asset: FaceAsset | None

    def subjects(self) -> pa.Table:
        """Rows of `templates` or `fits`."""
        table = self.facts.tables()[-1]
        return read_table(self.directory / table.paths[0], [column.name for column in table.columns])


def verify_vocateeth(directory: Path, asset: FaceAsset | None = None) -> list[str]:
    """Every way in which the dataset is not what it says, one sentence each; empty when all is well.

    Checked: manifest, info.json, the files that it names and no others, their columns, row groups, clips and frames,
    numbers, splits, sound, mouth and topology, statistics, croissant.json and the card. Damage of any kind is a
    sentence, never an error.

    Args:
        directory: the dataset, or its copy without meshes and voices.
        asset: the face model; given, angles, fits, penetration and topology are computed again, too.
    """
    directory = Path(directory)
    problems = verify_manifest(directory)
    try:
        facts = read_facts(directory)
    except DAMAGE as error:
        return [*problems, f"{error}"]
    dataset = _Dataset(directory, facts, asset)
    files = problems_of(_files, dataset)
    problems += files
    checks = _CHECKS if files else (*_CHECKS, *_DATA_CHECKS)  # rows are looked at when their files can be read
    return problems + [problem for check in checks for problem in problems_of(check, dataset)]


def _files(dataset: _Dataset) -> Iterator[str]:
    """Every file is there, and no other; tables have the columns of their kind, and a row group for each clip."""
    directory, facts = dataset.directory, dataset.facts
    for table in facts.tables():
        for part, name in enumerate(table.paths):
            yield from _table(directory / name, name, table, [clip for clip in facts.clips if clip.part == part])
    there = [path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()]
    yield from (
        f"{name}: not a file of a VOCATeeth." for name in facts.unknown(there) if not is_temporary(Path(name).name)
    )


def _table(path: Path, name: str, table: Table, clips: list[TeethClip]) -> Iterator[str]:
    if not path.is_file():
        yield f"{name}: missing."
        return
    try:
        with pq.ParquetFile(path) as file:
            found, meta = file.schema_arrow.remove_metadata(), file.metadata
            groups = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
    except DAMAGE as error:
        yield f"{name}: not readable: {error}"
        return
    plain = pa.schema([(field.name, _nullable(field.type)) for field in found])
    expected = arrow_schema(table.columns)
    if not plain.equals(expected):
        yield f"{name}: its columns are not those of {table.name}: {schema_difference(expected, plain)}."
    wanted = [1 if table.name == "audio" else clip.frames for clip in clips]
    if table.key != ("subject",) and groups != wanted:
        first = next((i for i, pair in enumerate(zip(groups, wanted, strict=False)) if pair[0] != pair[1]), None)
        where = f"; row group {first} has {groups[first]} rows instead of {wanted[first]}" if first is not None else ""
        yield f"{name}: {len(groups)} row groups, {INFO} lists {len(wanted)} clips{where}."


def _nullable(kind: pa.DataType) -> pa.DataType:
    """The type whatever its inner fields are called and whether they may be null, which readers do not see."""
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_nullable(kind.value_type), kind.list_size)
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _nullable(field.type)) for field in kind])
    return kind


def _counts(dataset: _Dataset) -> Iterator[str]:
    """What info.json counts is what it lists."""
    facts = dataset.facts
    rejects = read_rejects(dataset.directory / REJECTS)
    expected = {
        "subjects": facts.parts,
        "clips": len(facts.clips),
        "frames": sum(clip.frames for clip in facts.clips),
        "rejects": len(facts.rejected),
        "missing": len(facts.missing),
    }
    for name, count in expected.items():
        if facts.counts.get(name) != count:
            yield f"{INFO}: counts.{name} is {facts.counts.get(name)}, it lists {count}."
    if rejected := sorted(set(rejects["item_id"]) ^ set(facts.rejected)):
        yield f"{REJECTS}: its clips are not those that {INFO} calls rejected: {some(rejected)}."
    clips = {clip.clip_id for clip in facts.clips}
    if unknown := sorted(set(facts.audio_rounded) - clips):
        yield f"{INFO}: audio_rounded names clips that it does not list: {some(unknown)}."
    if both := sorted(set(facts.rejected) & clips):
        yield f"{INFO}: rejected and there at once: {some(both)}."


def _splits(dataset: _Dataset) -> Iterator[str]:
    """Every clip is its subject's and in its split, and no subject is in two splits."""
    yield from split_leaks(dataset.facts)
    for clip in dataset.facts.clips:
        if clip.clip_id != f"{clip.subject}_{clip.sentence}" or clip.split not in (*SPLITS, ""):
            yield f"{INFO}: {clip.clip_id} does not fit {clip.subject}, {clip.sentence}, split {clip.split!r}."


def _subjects(dataset: _Dataset) -> Iterator[str]:
    """One row for each part, in order, with finite numbers and the split of its clips."""
    rows, facts = dataset.subjects(), dataset.facts
    name = facts.tables()[-1].paths[0]
    subjects, splits = rows["subject"].to_pylist(), rows["split"].to_pylist()
    if len(subjects) != facts.parts or subjects != sorted(set(subjects)):
        yield f"{name}: expected {facts.parts} subjects in order, each once, found {some(subjects)}."
    places = {subject: part for part, subject in enumerate(subjects)}
    known = {clip.subject: clip.split for clip in facts.clips if clip.split}
    for clip in facts.clips:
        if places.get(clip.subject) != clip.part:
            yield f"{name}: {clip.subject} is not the subject of part {clip.part}."
            break
    for subject, split in zip(subjects, splits, strict=True):
        if split != known.get(subject, ""):
            yield f"{name}: {subject} is in split {split!r}, its clips are in {known.get(subject, '')!r}."
    numbers = [column for column in rows.column_names if not pa.types.is_string(rows[column].type)]
    for column in numbers:
        if not is_finite(rows[column]):
            yield f"{name}: column {column} has numbers that are not finite."
    for subject, fit in zip(subjects, _fits(rows), strict=True):
        yield from (f"{name}: {subject}: {problem}." for problem in _fit_problems(fit))


def _fits(rows: pa.Table) -> list[dict[str, np.ndarray]]:
    """The fit of each row, float64."""
    return [
        {name: np.array(row[name], np.float64).reshape(-1) for name in FIT_COLUMNS}
        for row in rows.select(list(FIT_COLUMNS)).to_pylist()
    ]


def _fit_problems(fit: Mapping[str, np.ndarray]) -> Iterator[str]:
    rotation = fit["mouth_rotation"].reshape(3, 3)
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=_FIT_TOLERANCE) or np.linalg.det(rotation) < 0:
        yield "mouth_rotation is no rotation"
    if abs(np.linalg.norm(fit["jaw_axis"]) - 1) > _FIT_TOLERANCE:
        yield "jaw_axis is no unit vector"
    if not fit["mouth_scale"][0] > 0:
        yield "mouth_scale is not positive"


def _data(dataset: _Dataset) -> Iterator[str]:
    """Frames, numbers, angles and sound of every clip, and the hashes and statistics over them; all data are read."""
    facts, totals = dataset.facts, Totals()
    rigs = _rigs(dataset)
    for frames in clip_frames(dataset.directory, facts):
        totals.add_frames(frames)
        yield from _frame_problems(frames, rigs.get(frames.clip.subject))
    for sound in clip_sounds(dataset.directory, facts):
        totals.add_sound(sound)
        yield from _sound_problems(sound, facts)
    yield from _contents(dataset, totals)
    yield from _statistics(dataset, totals)


def _rigs(dataset: _Dataset) -> dict[str, ChinRig]:
    """The rig of every subject; none without meshes or a face model of their topology."""
    facts, asset = dataset.facts, dataset.asset
    if asset is None or not facts.has_meshes or asset.topology != facts.topology:
        return {}
    settings = RigSettings(mouth=facts.mouth_name, fps=facts.fps, patch_mm=facts.patch_mm, max_rejects=0)
    rows = dataset.subjects()
    templates = zip(rows["subject"].to_pylist(), mesh_array(rows["vertices"]), strict=True)
    return {subject: ChinRig.fit(template, asset, settings) for subject, template in templates}


def _frame_problems(found: ClipFrames, rig: ChinRig | None) -> Iterator[str]:
    clip, rows = found.clip, found.rows
    for name in ("clip_id", "subject", "sentence", "split"):
        values = set(rows[name].to_pylist())
        if values != {getattr(clip, name)}:
            yield f"{clip.clip_id}: column {name} has {some(sorted(values, key=str))}."
    if rows["frame"].to_pylist() != list(range(clip.frames)):
        yield f"{clip.clip_id}: its frames are not numbered 0 to {clip.frames - 1}."
    if not np.isfinite(found.angles).all():
        yield f"{clip.clip_id}: frame {int(np.argmin(np.isfinite(found.angles)))}: the angle is not finite."
    elif rig is not None and found.vertices is not None:
        yield from _angle_problems(found, found.vertices, rig)
    if found.vertices is not None:
        is_bad = ~np.isfinite(found.vertices).all(axis=(1, 2))
        if is_bad.any():
            yield f"{clip.clip_id}: frame {int(is_bad.argmax())}: vertices are not finite."


def _angle_problems(found: ClipFrames, vertices: Float[np.ndarray, "T V 3"], rig: ChinRig) -> Iterator[str]:
    if not np.isfinite(vertices).all():
        return  # told for itself
    error = np.abs(found.angles - rig.angles(vertices))
    if error.max() > _ANGLE_TOLERANCE_RAD:
        frame = int(error.argmax())
        yield f"{found.clip.clip_id}: frame {frame}: the angle is {error[frame]:.2g} rad off what the face shows."


def _sound_problems(found: ClipSound, facts: Facts) -> Iterator[str]:
    """Names, rate, and a length that goes with a whole number of the corpus's frames."""
    clip, row = found.clip, found.row
    sound: Any = row["audio"]
    expected = {"clip_id": clip.clip_id, "subject": clip.subject, "split": clip.split, "sample_rate_hz": found.rate}
    for name, value in expected.items():
        if row[name] != value:
            yield f"{clip.clip_id}: sound: {name} is {row[name]!r}, expected {value!r}."
    if sound["path"] != f"{clip.clip_id}.flac" or not sound["bytes"].startswith(b"fLaC"):
        yield f"{clip.clip_id}: sound: expected FLAC under the clip's name, found {sound['path']!r}."
    native = (clip.duration_mismatch_s + found.seconds) * facts.native_fps
    step, tolerance = facts.native_fps // facts.fps, _SECONDS_TOLERANCE * facts.native_fps
    possible = [clip.frames * step - skipped for skipped in range(step)]
    if min(abs(native - frames) for frames in possible) > tolerance:
        measured = clip.frames / facts.fps - found.seconds
        yield f"{clip.clip_id}: meshes outlast the sound by {measured:.3f} s, {INFO} says {clip.duration_mismatch_s} s."


def _contents(dataset: _Dataset, totals: Totals) -> Iterator[str]:
    stored = read_json(dataset.directory / CONTENTS)
    expected = contents_json(dataset.directory, dataset.facts, totals)
    for name in sorted(set(expected) | set(stored)):
        mine, theirs = expected.get(name), stored.get(name)
        if mine == theirs:
            continue
        if isinstance(mine, dict) and isinstance(theirs, dict):
            wrong = sorted(key for key in set(mine) | set(theirs) if mine.get(key) != theirs.get(key))
            yield f"{CONTENTS}: {name} are not those of the data: {some(wrong)}."
        else:
            yield f"{CONTENTS}: {name} is {theirs!r}, computed {mine!r}."


def _statistics(dataset: _Dataset, totals: Totals) -> Iterator[str]:
    stored = read_json(dataset.directory / STATS)
    expected = stats_json(dataset.facts, totals)
    for name in sorted(set(expected) | set(stored)):
        if not _is_close(expected.get(name), stored.get(name)):
            yield f"{STATS}: {name} is not that of the data."


def _is_close(mine: object, theirs: object) -> bool:
    """Equal json values, numbers but for their last digits."""
    if isinstance(mine, dict):
        return (
            isinstance(theirs, dict) and set(mine) == set(theirs) and all(_is_close(mine[k], theirs[k]) for k in mine)
        )
    if isinstance(mine, float) and isinstance(theirs, (int, float)):
        return abs(mine - theirs) <= _STATS_TOLERANCE * max(abs(mine), 1e-3)
    return type(mine) is type(theirs) and mine == theirs


def _fit_again(dataset: _Dataset) -> Iterator[str]:
    """The mouth fitted into each template again lies where it is stored, and sticks out as far."""
    facts, asset = dataset.facts, dataset.asset
    if asset is None or not facts.has_meshes:
        return
    if asset.topology != facts.topology:
        yield f"meshes are of {facts.topology}, the face model is of {asset.topology}."
        return
    mouth, rows, skin = MouthMesh.load(dataset.directory / MOUTH), dataset.subjects(), outer_skin(asset)
    told = (rows[name].to_pylist() for name in ("penetration_deepest_m", "penetration_vertices"))
    for subject, template, stored, deepest, vertices in zip(
        rows["subject"].to_pylist(), mesh_array(rows["vertices"]), _fits(rows), *told, strict=True
    ):
        fit = fit_mouth(mouth, template, asset)
        made = dict(zip(FIT_COLUMNS, (fit.scale, fit.rotation, fit.translation, fit.axis, fit.pivot), strict=True))
        wrong = [name for name, value in made.items()
                 if not np.allclose(np.ravel(value), stored[name], rtol=0, atol=_FIT_TOLERANCE)]  # fmt: skip
        if wrong:
            yield f"{subject}: the mouth fitted again differs in {', '.join(wrong)}; other code or head made it."
            continue
        again = measure_penetration(template, skin, fit.closed(mouth))
        if abs(again.deepest_m - deepest) > _FIT_TOLERANCE or again.vertices != vertices:
            yield (
                f"{subject}: {vertices} vertices stick out of the face by {deepest:.2g} m at most; measured again "
                f"{again.vertices} by {again.deepest_m:.2g} m."
            )


def _mouth(dataset: _Dataset) -> Iterator[str]:
    """mouth.npz is the mouth that info.json names, and topology.npz joins it to the face."""
    facts = dataset.facts
    mouth, arrays = MouthMesh.load(dataset.directory / MOUTH), read_topology(dataset.directory / TOPOLOGY)
    if (mouth.name, mouth.licence, len(mouth.vertices)) != (facts.mouth_name, facts.mouth_licence, facts.n_mouth):
        yield (
            f"{MOUTH}: it is {mouth.name!r}, {mouth.licence!r}, {len(mouth.vertices)} vertices; {INFO} says "
            f"{facts.mouth_name!r}, {facts.mouth_licence!r}, {facts.n_mouth}."
        )
    faces, count = arrays["faces"], len(mouth.faces)
    if (triangles := (len(faces) - count, count)) != (facts.n_face_triangles, facts.n_mouth_triangles):
        yield f"{TOPOLOGY}: {triangles} triangles of face and mouth, {INFO} says otherwise."
    if len(faces) <= count or not np.array_equal(faces[-count:], mouth.faces + facts.n_face):
        yield f"{TOPOLOGY}: its last {count} triangles are not the mouth's."
    elif not 0 <= faces[:-count].min() <= faces[:-count].max() < facts.n_face:
        yield f"{TOPOLOGY}: triangles of the face have indices outside its {facts.n_face} vertices."
    for name, mine in (("mouth_part", mouth.part), ("mouth_tooth", mouth.tooth)):
        if not np.array_equal(arrays[name], mine):
            yield f"{TOPOLOGY}: {name} is not that of {MOUTH}."
    for name, array in arrays.items():
        if name.startswith("region:") and array.size and not 0 <= array.min() <= array.max() < facts.n_face:
            yield f"{TOPOLOGY}: {name} has indices outside the {facts.n_face} vertices of the face."
    yield from _face_again(dataset, arrays)


def _face_again(dataset: _Dataset, arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Triangles and regions are the face model's."""
    facts, asset = dataset.facts, dataset.asset
    if asset is None or asset.topology != facts.topology:
        return
    if not np.array_equal(arrays["faces"][: len(asset.faces)], asset.faces):
        yield f"{TOPOLOGY}: the triangles of the face are not those of the face model."
    for name, indices in asset.regions.items():
        if not np.array_equal(arrays.get(f"region:{name}", ()), indices):
            yield f"{TOPOLOGY}: region {name} is not that of the face model."


def _card(dataset: _Dataset) -> Iterator[str]:
    """README.md and croissant.json are what the data make them."""
    directory, facts = dataset.directory, dataset.facts
    if (directory / CARD).read_text(encoding="utf-8") != card_text(facts, read_json(directory / STATS)):
        yield f"{CARD}: not the card that {INFO} and {STATS} make."


def _croissant(dataset: _Dataset) -> Iterator[str]:
    stored, expected = read_json(dataset.directory / CROISSANT), croissant_json(dataset.directory, dataset.facts)
    dated = {name: value for name, value in stored.items() if name != "datePublished"}  # added by whoever publishes
    if wrong := sorted(name for name in set(dated) | set(expected) if dated.get(name) != expected.get(name)):
        yield f"{CROISSANT}: {some(wrong)} is not what the data make it."


_CHECKS: tuple[Check, ...] = (_counts, _splits, _mouth, _card)
_DATA_CHECKS: tuple[Check, ...] = (_croissant, _subjects, _data, _fit_again)
