"""A user's own mouth: an .obj or .ply mesh and what each of its vertices is, turned into a `MouthMesh`.

The mesh must be in metres, y up, +z forward, with its jaws closed; it is only moved, never turned or scaled.

Labels come from the file given, or one beside the mesh (`NAME.labels.csv`, `.json` or `.npy`), or the groups, objects
and materials of an .obj:

- csv: columns `vertex,part` (0-based) or `group,part`, each with an optional `tooth` (FDI number).
- json: `{"GROUP": "upper_teeth", ...}` or `{"upper_teeth": [0, 1, ...], ...}`.
- npy: one integer for each vertex, as `Part` counts.
- Without a file, an .obj's names are read: `UpperTeeth`, `lower gum`, `tongue`, `tooth_11` and the like.
"""

import csv
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.face.mesh_file import read_mesh
from ecavatar.mouth.model import ARCH_RANGE_M, MouthMesh, Part
from ecavatar.storage.files import atomic_path, read_json, sha256_file

LARGEST_BYTES = 256 * 2**20
"""A mesh or label file beyond this is refused unread."""
LARGEST_VERTICES = 1_000_000
"""A mesh with more vertices is refused."""
_PARTS = {part.label: part for part in Part}
_TEETH = {1: Part.UPPER_TEETH, 2: Part.UPPER_TEETH, 3: Part.LOWER_TEETH, 4: Part.LOWER_TEETH}
_NONE = -1
_UNITS = {1000: "millimetres", 100: "centimetres", 10: "decimetres"}
_GAP_M = 0.004  # jaws farther apart than this are open
_CENTRAL = 0.07  # share of the arch's width, either side of its middle, in which the edges of the central incisors lie
_EDGE = 0.015  # vertices within this share of the arch's width above the lowest are the incisors' edge
_FORMS = (".csv", ".json", ".npy")
_LICENCE = "the user's own; not to be passed on unless its licence allows"


@dataclass(frozen=True, slots=True)
class _Labels:
    part: Int[np.ndarray, " M"]
    tooth: Int[np.ndarray, " M"]


@dataclass(frozen=True, slots=True)
class _Groups:
    """Vertices of each name that an .obj gives its faces, and a texture coordinate of each vertex that has one."""

    vertices: dict[str, set[int]] = field(default_factory=dict)
    uv: dict[int, tuple[float, float]] = field(default_factory=dict)


def read_mouth(path: Path, labels: Path | None = None) -> MouthMesh:
    """The mouth in a user's mesh file, moved so that the origin lies at the upper central incisors' edges.

    Args:
        path: an .obj or .ply in metres, y up, z forward, jaws closed; any number of vertices.
        labels: what the vertices are (see the module); None looks beside the mesh, then into the .obj.

    Raises:
        AssetMissingError: no such file, or no labels anywhere.
        DataError: the mesh or the labels cannot be used; the message says why and what to do.
    """
    path = Path(path)
    _require_size(path)
    vertices, faces = read_mesh(path)
    if len(vertices) > LARGEST_VERTICES:
        raise DataError(f"{path}: expected at most {LARGEST_VERTICES} vertices, found {len(vertices)}; simplify it.")
    groups = _groups_of(path) if path.suffix.lower() == ".obj" else _Groups()
    found = labels or _labels_beside(path)
    told = _from_file(Path(found), groups, len(vertices)) if found else _from_names(path, groups, len(vertices))
    used = np.unique(faces)
    _require_parts(path, told, used)
    vertices, faces = vertices[used].astype(np.float64), np.searchsorted(used, faces)
    part, tooth = told.part[used], told.tooth[used]
    uv = np.array([groups.uv.get(int(vertex), (0.0, 0.0)) for vertex in used])
    return MouthMesh(
        name=path.stem,
        licence=_LICENCE,
        vertices=vertices - _origin(path, vertices, part),
        faces=faces,
        part=part,
        tooth=tooth,
        uv=uv - np.floor(uv) * ((uv < 0) | (uv > 1)),
    )


def convert_mouth(path: Path, labels: Path | None, out_folder: Path) -> Path:
    """Write a user's mouth as `mouth-<first 12 digits of its content's SHA-256>.npz` and return where it lies.

    Args:
        path: see `read_mouth`.
        labels: see `read_mouth`.
        out_folder: made where it is missing; a file of the same content is written again.

    Raises:
        AssetMissingError: see `read_mouth`.
        DataError: see `read_mouth`.
    """
    mouth = read_mouth(path, labels)
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch) / "mouth.npz"
        mouth.save(written)
        target = Path(out_folder) / content_name(written)
        with atomic_path(target) as temporary:
            temporary.write_bytes(written.read_bytes())
    return target


def content_name(path: Path) -> str:
    """The name that a mouth file of this content must have.

    Raises:
        AssetMissingError: the file is not there.
    """
    return f"mouth-{sha256_file(path)[:12]}.npz"


def _require_size(path: Path) -> None:
    if path.is_file() and path.stat().st_size > LARGEST_BYTES:
        raise DataError(f"{path}: expected at most {LARGEST_BYTES} bytes, found {path.stat().st_size}; simplify it.")


def _labels_beside(path: Path) -> Path | None:
    places = [path.with_name(f"{path.stem}.labels{form}") for form in _FORMS]
    return next((place for place in places if place.is_file()), None)


def _groups_of(path: Path) -> _Groups:
    """Names and texture coordinates in an .obj; negative indices count from the end, as the format says."""
    groups, names, coordinates, count = _Groups(), {}, [], 0
    for line in path.read_bytes().decode("latin1").splitlines():
        key, _, rest = line.strip().partition(" ")
        if key == "v":
            count += 1
        elif key == "vt":
            coordinates.append(tuple(map(_number, rest.split()[:2])))
        elif key in ("g", "o", "usemtl"):
            names[key] = rest.strip()
        elif key == "f":
            _add_face(groups, names.values(), rest.split(), count, coordinates)
    return groups


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise DataError(f"expected a number in the .obj, found {text!r}; export it again.")
    return number


def _add_face(groups: _Groups, names: Iterable[str], corners: list[str], count: int, coordinates: list) -> None:
    names = [name for name in names if name]
    for corner in corners:
        indices = [int(word) if word.lstrip("-").isdigit() else 0 for word in corner.split("/")]
        vertex = indices[0] - 1 if indices[0] > 0 else count + indices[0]
        for name in names:
            groups.vertices.setdefault(name, set()).add(vertex)
        place = indices[1] if len(indices) > 1 else 0
        place = place - 1 if place > 0 else len(coordinates) + place
        if place < len(coordinates) and len(coordinates[place]) == 2:
            groups.uv.setdefault(vertex, coordinates[place])


def _from_names(path: Path, groups: _Groups, count: int) -> _Labels:
    """Labels by the names in an .obj itself."""
    meanings = {name: meaning for name in groups.vertices if (meaning := _meaning(name)) is not None}
    if not meanings:
        names = ", ".join(sorted(groups.vertices)[:8]) or "none"
        raise AssetMissingError(
            f"{path} does not say what its vertices are: expected groups or materials called {', '.join(_PARTS)}; "
            f"found {names}. Put `{path.stem}.labels.csv` beside it (columns vertex,part or group,part)."
        )
    return _labelled(path, ((groups.vertices[name], *meaning) for name, meaning in meanings.items()), count)


def _meaning(name: str) -> tuple[Part, int] | None:
    """Part and tooth that a name speaks of, or None."""
    words = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    if number := re.search(r"(?:tooth|teeth|fdi)_?([1-4][1-8])(?![0-9])", words):
        return _TEETH[int(number[1][0])], int(number[1])
    if "tongue" in words:
        return Part.TONGUE, 0
    jaw = (
        "upper" if re.search("upper|maxill|top", words) else "lower" if re.search("lower|mandib|bottom", words) else ""
    )
    kind = "teeth" if re.search("teeth|tooth|dent", words) else "gum" if re.search("gum|gingiv", words) else ""
    part = _PARTS.get(f"{jaw}_{kind}")
    return None if part is None else (part, 0)


def _from_file(path: Path, groups: _Groups, count: int) -> _Labels:
    if not path.is_file():
        raise AssetMissingError(f"labels {path} not found; give a .csv, .json or .npy.")
    _require_size(path)
    if path.suffix == ".npy":
        return _from_npy(path, count)
    if path.suffix == ".json":
        return _labelled(path, _json_rows(path, groups), count)
    if path.suffix == ".csv":
        return _labelled(path, _csv_rows(path, groups), count)
    raise DataError(f"{path}: expected labels as .csv, .json or .npy.")


def _from_npy(path: Path, count: int) -> _Labels:
    try:
        part = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} is not an array of numbers ({error}); write it with numpy.save.") from None
    if not isinstance(part, np.ndarray) or part.shape != (count,) or part.dtype.kind not in "iu":
        seen = f"{part.dtype} {part.shape}" if isinstance(part, np.ndarray) else type(part).__name__
        raise DataError(f"{path}: expected {count} integers, one for each vertex, found {seen}.")
    if not np.isin(part, list(Part)).all():
        raise DataError(
            f"{path}: expected parts 0..{max(Part)} ({', '.join(_PARTS)}), found {part.min()}..{part.max()}."
        )
    return _Labels(part.astype(np.int8), np.zeros(count, np.int8))


def _json_rows(path: Path, groups: _Groups) -> list[tuple[Iterable[int], Part, int]]:
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise DataError(f'{path}: expected {{"GROUP": "PART"}} or {{"PART": [vertices]}}.')
    if all(isinstance(value, list) for value in content.values()):
        return [(value, _part(path, name), 0) for name, value in content.items()]
    return [(_group(path, groups, name), _part(path, value), 0) for name, value in content.items()]


def _csv_rows(path: Path, groups: _Groups) -> list[tuple[Iterable[int], Part, int]]:
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a csv in UTF-8 ({error}).") from None
    if not rows or "part" not in rows[0] or not {"vertex", "group"} & set(rows[0]):
        raise DataError(
            f"{path}: expected columns vertex,part or group,part, found {list(rows[0]) if rows else 'none'}."
        )
    return [(_csv_vertices(path, row, groups), _part(path, row["part"]), _tooth(path, row)) for row in rows]


def _csv_vertices(path: Path, row: Mapping[str, str], groups: _Groups) -> Iterable[int]:
    if "group" in row:
        return _group(path, groups, row["group"])
    if not (row["vertex"] or "").strip().isdigit():
        raise DataError(f"{path}: expected the number of a vertex, found {row['vertex']!r}.")
    return [int(row["vertex"])]


def _group(path: Path, groups: _Groups, name: str) -> set[int]:
    if name not in groups.vertices:
        known = ", ".join(sorted(groups.vertices)[:8]) or "none"
        raise DataError(f"{path}: the mesh has no group, object or material {name!r}; it has {known}.")
    return groups.vertices[name]


def _part(path: Path, name: object) -> Part:
    if str(name) not in _PARTS:
        raise DataError(f"{path}: expected one of {', '.join(_PARTS)}, found {name!r}.")
    return _PARTS[str(name)]


def _tooth(path: Path, row: Mapping[str, str]) -> int:
    text = (row.get("tooth") or "0").strip()
    if text != "0" and not re.fullmatch("[1-4][1-8]", text):
        raise DataError(f"{path}: expected a tooth's FDI number (11..48) or 0, found {text!r}.")
    return int(text)


def _labelled(path: Path, rows: Iterable[tuple[Iterable[int], Part, int]], count: int) -> _Labels:
    """Labels of all vertices; a vertex may be told twice but not two things."""
    part, tooth, clashes = np.full(count, _NONE, np.int8), np.zeros(count, np.int8), 0
    for vertices, what, number in rows:
        ids = list(vertices)
        if any(not isinstance(vertex, int) or not 0 <= vertex < count for vertex in ids):
            raise DataError(f"{path}: {what.label} names vertices outside 0..{count - 1}; labels of another mesh?")
        clashes += int(((part[ids] != _NONE) & (part[ids] != what)).sum())
        part[ids] = what
        if number:
            tooth[ids] = number
    if clashes:
        raise DataError(f"{path}: {clashes} vertices belong to two parts; split the mesh where its parts meet.")
    return _Labels(part, tooth)


def _require_parts(path: Path, labels: _Labels, used: np.ndarray) -> None:
    if missing := int((labels.part[used] == _NONE).sum()):
        raise DataError(f"{path}: {missing} of {len(used)} vertices have no part; label them or take them out.")
    for part in (Part.UPPER_TEETH, Part.LOWER_TEETH):
        if not (labels.part[used] == part).any():
            raise DataError(f"{path}: no vertex is labelled {part.label}; a mouth needs upper and lower teeth.")


def _origin(path: Path, vertices: Float[np.ndarray, "M 3"], part: Int[np.ndarray, " M"]) -> Float[np.ndarray, " 3"]:
    """The point between the edges of the upper central incisors: the lowest of the upper teeth near the midline."""
    upper, lower = vertices[part == Part.UPPER_TEETH], vertices[part == Part.LOWER_TEETH]
    width = float(np.ptp(upper[:, 0]))
    _require_metres(path, width)
    middle = (upper[:, 0].min() + upper[:, 0].max()) / 2
    central = upper[np.abs(upper[:, 0] - middle) < _CENTRAL * width]
    _require_upright(path, upper, lower)
    sides = upper[np.abs(upper[:, 0] - middle) > 0.4 * width]
    if not len(central) or central[:, 2].mean() < sides[:, 2].mean():
        raise DataError(f"{path}: the front teeth do not lie in front of the back ones (+z); turn the mesh to face +z.")
    edge = central[central[:, 1] < central[:, 1].min() + _EDGE * width]
    return np.array([middle, edge[:, 1].min(), edge[:, 2].mean()])


def _require_metres(path: Path, width: float) -> None:
    low, high = ARCH_RANGE_M
    if low <= width <= high:
        return
    unit = next((name for factor, name in _UNITS.items() if low <= width / factor <= high), None)
    guess = f"it looks like {unit}; scale it to metres" if unit else "scale it to metres, with x from right to left"
    raise DataError(f"{path}: the upper teeth are {width:.4g} wide, expected {low} to {high} metres: {guess}.")


def _require_upright(path: Path, upper: np.ndarray, lower: np.ndarray) -> None:
    if upper[:, 1].mean() <= lower[:, 1].mean():
        raise DataError(
            f"{path}: the upper teeth lie below the lower ones; is it upside down, or are the jaws' labels swapped? "
            "y must point up."
        )
    gap = upper[:, 1].min() - lower[:, 1].max()
    if gap > _GAP_M:
        raise DataError(f"{path}: the jaws are {1000 * gap:.1f} mm apart; close them, so that the teeth rest together.")
