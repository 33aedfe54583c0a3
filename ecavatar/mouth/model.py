"""A mouth as a mesh: teeth, gums and tongue with what each vertex is part of.

Frame of a mouth: metres; +x to the subject's left, +y up, +z forward; the origin is the point between the edges of the
two upper central incisors, and the jaws are closed as the teeth rest on each other. A `ecavatar.mouth.fit.MouthFit`
takes it from there into a subject's face.
"""

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.storage.arrays import read_arrays, write_arrays

ARCH_RANGE_M = (0.02, 0.12)
"""How wide upper teeth can be, metres: what lies outside is in another unit."""
_FORMAT = "ecavatar-mouth-1"
_DTYPES = {"vertices": np.float32, "faces": np.int32, "part": np.int8, "tooth": np.int8, "uv": np.float32}


class Part(IntEnum):
    """What a vertex belongs to; lower teeth, lower gum and tongue turn with the jaw."""

    UPPER_TEETH = 0
    LOWER_TEETH = 1
    UPPER_GUM = 2
    LOWER_GUM = 3
    TONGUE = 4

    @property
    def label(self) -> str:
        """Lower-case name, as label files and Parquet files spell it."""
        return self.name.lower()

    @property
    def material(self) -> str:
        """What it is made of: enamel, gum or tongue."""
        return {"teeth": "enamel"}.get(kind := self.label.rpartition("_")[2], kind)

    @property
    def follows_jaw(self) -> bool:
        """Whether it turns with the lower jaw."""
        return self in (Part.LOWER_TEETH, Part.LOWER_GUM, Part.TONGUE)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MouthMesh:
    """Teeth, gums and tongue, jaws closed, in the mouth's own frame (see the module).

    M vertices, K triangles. No triangle joins two parts.
    """

    name: str
    """What it is called, for instance `procedural`."""
    licence: str
    """SPDX identifier or a short text."""
    vertices: Float[np.ndarray, "M 3"]
    """Metres."""
    faces: Int[np.ndarray, "K 3"]
    """Counter-clockwise seen from outside."""
    part: Int[np.ndarray, " M"]
    """`Part` of each vertex."""
    tooth: Int[np.ndarray, " M"]
    """Number of the tooth as dentists count (FDI, ISO 3950: 11..18, 21..28, 31..38, 41..48); 0 where it is no tooth, or
    not told."""
    uv: Float[np.ndarray, "M 2"]
    """Texture coordinates in 0..1, origin bottom left."""

    def __post_init__(self) -> None:
        """Fix dtypes, freeze the arrays, check them against each other.

        Raises:
            DataError: every contradiction found, in one message.
        """
        for name, dtype in _DTYPES.items():
            array = np.array(getattr(self, name), dtype=dtype, order="C", copy=True)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if problems := _problems(self):
            listed = "\n".join(f"  {problem}" for problem in problems)
            raise DataError(f"mouth {self.name!r} contradicts itself:\n{listed}\nBuild or convert it again.")

    def __repr__(self) -> str:
        return f"MouthMesh({self.name!r}, {len(self.vertices)} vertices, {len(self.faces)} faces)"

    @property
    def follows_jaw(self) -> Bool[np.ndarray, " M"]:
        """Which vertices turn with the lower jaw."""
        return np.isin(self.part, [part for part in Part if part.follows_jaw])

    @property
    def normals(self) -> Float[np.ndarray, "M 3"]:
        """Unit normals, each the area-weighted mean of its faces'; zero for a vertex without area."""
        corners = self.vertices[self.faces].astype(np.float64)
        crossed = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = np.zeros(self.vertices.shape)
        np.add.at(normals, self.faces.ravel(), np.repeat(crossed, 3, axis=0))
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        return normals / np.where(lengths > 0, lengths, 1)

    def save(self, path: Path) -> None:
        """Write it as one npz, whole or not at all; the same mouth gives the same bytes every time."""
        facts = {"format": _FORMAT, "name": self.name, "licence": self.licence}
        write_arrays(Path(path), {name: getattr(self, name) for name in _DTYPES}, facts)

    @classmethod
    def load(cls, path: Path) -> "MouthMesh":
        """The mouth written by `save`, checked.

        Raises:
            AssetMissingError: no such file.
            DataError: not a mouth of this format, or its arrays contradict each other.
        """
        path = Path(path)
        if not path.is_file():
            raise AssetMissingError(f"mouth {path} not found. `ecavatar assets add mouth FILE` converts one.")
        arrays, facts = read_arrays(path)
        missing = sorted(set(_DTYPES) - set(arrays))
        if facts.get("format") != _FORMAT or missing:
            raise DataError(
                f"{path}: expected format {_FORMAT}, found {facts.get('format')!r}, missing {missing}. Convert it "
                "again with `ecavatar assets add mouth FILE`."
            )
        texts = {name: str(facts.get(name, "")) for name in ("name", "licence")}
        return cls(**texts, **{name: arrays[name] for name in _DTYPES})


def _problems(mouth: MouthMesh) -> list[str]:
    count = len(mouth.vertices)
    shapes = {"vertices": (count, 3), "faces": (len(mouth.faces), 3), "part": (count,), "tooth": (count,)}
    shapes["uv"] = (count, 2)
    problems = [
        f"{name} has shape {getattr(mouth, name).shape}, expected {shape}"
        for name, shape in shapes.items()
        if getattr(mouth, name).shape != shape
    ]
    if problems or not count or not len(mouth.faces):
        return problems or ["it has no vertices or no faces"]
    if not (np.isfinite(mouth.vertices).all() and np.isfinite(mouth.uv).all()):
        problems.append("vertices or texture coordinates are not finite")
    if not np.isin(mouth.part, list(Part)).all():
        problems.append(f"parts must lie in 0..{max(Part)}")
    if mouth.faces.min() < 0 or mouth.faces.max() >= count:
        return [*problems, f"faces name vertices outside 0..{count - 1}"]
    if (np.ptp(mouth.part[mouth.faces], axis=1) > 0).any():
        problems.append("a face joins two parts")
    return problems
