"""The open head's package data: a cut mesh, sparse shape targets and what else does not follow from them.

`sample.import_head` writes the file from the CC0 sources; `sample.head` computes the face asset from it. Offsets are
stored in steps of 10 micrometres, only where they are not zero.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from ecavatar.errors import DataError
from ecavatar.storage.files import atomic_path

STEP_M = 1e-5
"""Quantum of the stored offsets."""
GROUPS: Mapping[str, int] = {
    "left_eye": 1,
    "right_eye": 1,
    "eye_radii": 1,
    "upper_teeth": 68,
    "lower_teeth": 68,
    "tongue": 226,
}
"""Points stored after the cut vertices, in this order: eye centres, (left radius, right radius, 0), mouth parts."""
_FILE = "head.npz"
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class HeadData:
    """Everything the open head is computed from.

    N cut vertices, P points (N plus those of `GROUPS`), V vertices of the final mesh.
    """

    points: Float[np.ndarray, "P 3"]
    """Cut vertices of the base mesh, then `GROUPS`; metres."""
    split_parents: Int[np.ndarray, "M 2"]
    """Vertices N.. of the mesh lie midway between these two of the first N, or between earlier splits."""
    eye_directions: Float[np.ndarray, "D 3"]
    """Unit sphere of the left eyeball, pole towards +z first; the right one is its mirror image."""
    faces: Int[np.ndarray, "F 3"]
    mirror: Int[np.ndarray, " V"]
    """The vertex on the other side."""
    uv: Float[np.ndarray, "T 2"]
    uv_faces: Int[np.ndarray, "F 3"]
    root_weights: Float[np.ndarray, " V"]
    """Share of each vertex that stays with the body when the neck turns."""
    regions: Mapping[str, Int[np.ndarray, " _"]]
    ibug68_faces: Int[np.ndarray, " 68"]
    ibug68_barycentrics: Float[np.ndarray, "68 3"]
    mediapipe_indices: Int[np.ndarray, " K"]
    mediapipe_faces: Int[np.ndarray, " K"]
    mediapipe_barycentrics: Float[np.ndarray, "K 3"]
    targets: Mapping[str, tuple[Int[np.ndarray, " n"], Int[np.ndarray, "n 3"]]]
    """Point indices and offsets in steps of `STEP_M`, by the target's name in the sources."""

    def assemble(self, points: Float[np.ndarray, "P 3"]) -> Float[np.ndarray, "V 3"]:
        """All V vertices of the mesh from its P points; linear, so it serves positions and offsets alike."""
        count = len(self.points) - sum(GROUPS.values())
        head = np.concatenate([points[:count], np.zeros((len(self.split_parents), 3))])
        for index, (a, b) in enumerate(self.split_parents, start=count):
            head[index] = (head[a] + head[b]) / 2
        left, right, radii = points[count : count + 3]
        mirrored = self.eye_directions * (-1, 1, 1)
        return np.concatenate([head, left + radii[0] * self.eye_directions, right + radii[1] * mirrored])

    def group(self, points: Float[np.ndarray, "P 3"], name: str) -> Float[np.ndarray, "n 3"]:
        """The points of one of `GROUPS` among all P points."""
        names = list(GROUPS)
        sizes = list(GROUPS.values())
        start = len(points) - sum(sizes[names.index(name) :])
        return points[start : start + GROUPS[name]]

    def offsets(self, name: str) -> Float[np.ndarray, "P 3"]:
        """Offsets of all points of the target called `name`, metres.

        Raises:
            DataError: no such target.
        """
        if name not in self.targets:
            raise DataError(f"the head's data has no target {name!r}; run ecavatar.sample.import_head again.")
        indices, steps = self.targets[name]
        offsets = np.zeros_like(self.points, dtype=np.float64)
        offsets[indices] = steps * STEP_M
        return offsets

    def target(self, name: str) -> Float[np.ndarray, "V 3"]:
        """Offsets of all vertices of the mesh, metres (see `offsets`)."""
        return self.assemble(self.offsets(name))

    def save(self, path: Path) -> None:
        """Write the data as one compressed npz; the same data gives the same bytes."""
        arrays = {name: getattr(self, name) for name in _DTYPES}
        arrays |= {f"region:{name}": np.asarray(indices, np.uint16) for name, indices in self.regions.items()}
        names = sorted(self.targets)
        arrays["target_sizes"] = np.array([len(self.targets[name][0]) for name in names], np.uint16)
        # differences of sorted indices, and one coordinate after the other, compress to half the size
        steps = [np.diff(self.targets[name][0], prepend=0) for name in names]
        arrays["target_steps"] = np.concatenate(steps).astype(np.uint16)
        arrays["target_offsets"] = np.concatenate([self.targets[name][1] for name in names]).T.astype(np.int16)
        arrays["names"] = np.frombuffer(json.dumps(names).encode(), np.uint8)
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, array in sorted(arrays.items()):
                array = np.ascontiguousarray(array, dtype=_DTYPES.get(name, array.dtype))
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, array, allow_pickle=False)
                info = zipfile.ZipInfo(f"{name}.npy", _ZIP_DATE)
                archive.writestr(info, buffer.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)

    @classmethod
    def load(cls, path: Path | None = None) -> "HeadData":
        """The data that ships with the package, or that of another file written by `save`.

        Raises:
            DataError: the file is not the head's data.
        """
        source = resources.files("ecavatar.sample") / "data" / _FILE if path is None else Path(path)
        try:
            with np.load(io.BytesIO(source.read_bytes()), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            names = json.loads(arrays["names"].tobytes())
            fields = {name: arrays[name].astype(dtype) for name, dtype in _DTYPES.items()}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{source} is not the open head's data ({error}); install ecavatar again.") from None
        bounds = np.cumsum(arrays["target_sizes"].astype(np.int64))[:-1]
        steps = np.split(arrays["target_steps"].astype(np.int32), bounds)
        offsets = np.split(arrays["target_offsets"].T, bounds)
        targets = {n: (np.cumsum(s), o.astype(np.int32)) for n, s, o in zip(names, steps, offsets, strict=True)}
        regions = {n.removeprefix("region:"): a.astype(np.int32) for n, a in arrays.items() if n.startswith("region:")}
        return cls(**fields, regions=regions, targets=targets)


_DTYPES: Mapping[str, type] = {
    "points": np.float32, "split_parents": np.int32, "eye_directions": np.float32, "faces": np.int32,
    "mirror": np.int32, "uv": np.float32, "uv_faces": np.int32, "root_weights": np.float32, "ibug68_faces": np.int32,
    "ibug68_barycentrics": np.float32, "mediapipe_indices": np.int32, "mediapipe_faces": np.int32,
    "mediapipe_barycentrics": np.float32,
}  # fmt: skip
