"""FLAME's texture coordinates, which its model files lack: from head_template.obj or FLAME_texture.npz."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.face.flame.model_file import N_FACES, N_VERTICES
from ecavatar.storage.arrays import read_arrays, write_arrays
from ecavatar.storage.unpickle import load_npz

_LARGEST = 100_000_000  # bytes of an obj file; FLAME's has about one million


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TextureCoordinates:
    """Where the corners of FLAME's triangles lie in its texture."""

    uv: Float[np.ndarray, "T 2"]
    """Origin bottom left."""
    uv_faces: Int[np.ndarray, "9976 3"]
    faces: Int[np.ndarray, "_ 3"]
    """Vertices of the same triangles; none where the file does not name them, and then they are in FLAME's order."""

    def save(self, path: Path) -> None:
        """Write the coordinates as an npz without objects; the same coordinates give the same bytes."""
        arrays = {"uv": self.uv, "uv_faces": self.uv_faces, "faces": self.faces}
        write_arrays(path, arrays, {"what": "texture coordinates"})

    @classmethod
    def load(cls, path: Path) -> "TextureCoordinates":
        """The coordinates that `save` wrote.

        Raises:
            DataError: the file is damaged or holds no such coordinates.
        """
        arrays, _ = read_arrays(path)
        if set(arrays) != {"uv", "uv_faces", "faces"}:
            raise DataError(f"{path} holds no converted texture coordinates. Add the downloaded file again.")
        return cls(**arrays)

    def of_faces(self, faces: Int[np.ndarray, "9976 3"]) -> Int[np.ndarray, "9976 3"]:
        """`uv_faces` in the order of `faces`, whatever the order of triangles and of their corners in the file.

        Raises:
            DataError: the file is of other triangles.
        """
        if len(self.faces) == 0 or np.array_equal(self.faces, faces):
            return self.uv_faces
        (mine, my_corners), (wanted, their_corners) = (_sorted_triangles(part) for part in (self.faces, faces))
        rows, targets = np.lexsort(mine.T), np.lexsort(wanted.T)
        if not np.array_equal(mine[rows], wanted[targets]):
            raise DataError("the texture coordinates are of other triangles than the model. Give FLAME's own "
                            "head_template.obj or FLAME_texture.npz.")  # fmt: skip
        result = np.empty_like(self.uv_faces)
        values = np.take_along_axis(self.uv_faces[rows], my_corners[rows], axis=1)
        ordered = np.empty_like(values)
        np.put_along_axis(ordered, their_corners[targets], values, axis=1)
        result[targets] = ordered
        return result


def read_texture_coordinates(path: Path) -> TextureCoordinates:
    """The texture coordinates of an obj file or of an npz with `vt` and `ft`; its pictures are not read.

    Raises:
        AssetMissingError: no such file.
        DataError: the file is damaged, or not of FLAME's triangles.
    """
    if path.suffix == ".obj":
        found = _from_obj(path)
    else:
        content = load_npz(path, {"vt", "ft"})
        if missing := [name for name in ("vt", "ft") if name not in content]:
            raise DataError(f"{path} holds no texture coordinates: it lacks {' and '.join(missing)}.")
        uv, uv_faces = content["vt"], content["ft"]
        found = TextureCoordinates(uv=uv, uv_faces=uv_faces, faces=np.zeros((0, 3), np.int32))
    uv, uv_faces = found.uv, found.uv_faces
    if uv.ndim != 2 or uv.shape[1] != 2 or uv.dtype.kind != "f" or not np.isfinite(uv).all():
        raise DataError(f"{path}: expected texture coordinates (T, 2), got {uv.dtype} {uv.shape}.")
    if uv_faces.shape != (N_FACES, 3) or uv_faces.dtype.kind not in "iu":
        raise DataError(f"{path}: expected {N_FACES} textured triangles, got {uv_faces.dtype} {uv_faces.shape}.")
    if uv_faces.min() < 0 or uv_faces.max() >= len(uv):
        raise DataError(f"{path}: triangles name texture coordinates outside 0..{len(uv) - 1}.")
    return TextureCoordinates(
        uv=uv.astype(np.float32), uv_faces=uv_faces.astype(np.int32), faces=found.faces.astype(np.int32)
    )


def _from_obj(path: Path) -> TextureCoordinates:
    if not path.is_file():
        raise AssetMissingError(f"{path} not found. Give FLAME's head_template.obj or FLAME_texture.npz.")
    if path.stat().st_size > _LARGEST:
        raise DataError(f"{path} is larger than any FLAME template. Give FLAME's head_template.obj.")
    uv, corners = [], []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            match line.split():
                case ["vt", u, v, *_]:
                    uv.append((float(u), float(v)))
                case ["f", a, b, c]:
                    corners.append([corner.split("/")[:2] for corner in (a, b, c)])
        index = np.array(corners, dtype=np.int64) - 1
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path} has no triangles with texture coordinates ({error}). Give FLAME's "
                        "head_template.obj.") from None  # fmt: skip
    if index.shape != (N_FACES, 3, 2) or index[..., 0].min() < 0 or index[..., 0].max() >= N_VERTICES:
        raise DataError(f"{path}: expected {N_FACES} triangles with texture coordinates, got {index.shape[:1]}.")
    return TextureCoordinates(uv=np.array(uv).reshape(-1, 2), uv_faces=index[..., 1], faces=index[..., 0])


def _sorted_triangles(faces: Int[np.ndarray, "F 3"]) -> tuple[np.ndarray, np.ndarray]:
    """Triangles with their corners in rising order, and where each corner was."""
    order = np.argsort(faces, axis=1)
    return np.take_along_axis(faces, order, axis=1), order
