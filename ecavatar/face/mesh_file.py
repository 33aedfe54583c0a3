"""Triangle meshes as .ply and .obj files, vertex order kept.

Reading goes through trimesh with its merging and reordering switched off. PLY is written by trimesh; OBJ by a few lines
of our own, because a texture coordinate per corner (not per vertex) must not split vertices.
"""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from ecavatar.errors import AssetMissingError, DataError, ShapeError
from ecavatar.storage.files import atomic_path


def write_mesh(
    path: Path,
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    *,
    uv: Float[np.ndarray, "T 2"] | None = None,
    uv_faces: Int[np.ndarray, "F 3"] | None = None,
) -> None:
    """Write a mesh, whole or not at all; the suffix says the format (.ply binary, .obj text with float32 digits).

    Args:
        path: where to.
        vertices: positions, metres.
        faces: vertex indices of each triangle.
        uv: texture coordinates; only .obj carries them.
        uv_faces: index into `uv` of each triangle corner.

    Raises:
        DataError: unknown suffix, or texture coordinates for a .ply.
        ShapeError: arrays that do not fit each other.
    """
    path, vertices, faces = Path(path), np.asarray(vertices, dtype=np.float32), np.asarray(faces)
    _check(vertices, faces, uv, uv_faces)
    if path.suffix not in (".ply", ".obj") or (path.suffix == ".ply" and uv is not None):
        raise DataError(f"{path.name}: expected .ply (without texture coordinates) or .obj.")
    if path.suffix == ".obj":
        content = _obj_text(vertices, faces, uv, uv_faces).encode()
    else:
        import trimesh  # slow to import
        from trimesh.exchange.ply import export_ply

        content = export_ply(trimesh.Trimesh(vertices, faces, process=False))
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def read_mesh(path: Path) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"]]:
    """Vertices (float32) and triangles (int32) of a .ply or .obj file, in the file's vertex order.

    Quads are cut into triangles; texture, colour and normals are ignored.

    Raises:
        AssetMissingError: no such file.
        DataError: the file cannot be read as one triangle mesh.
    """
    import trimesh

    path = Path(path)
    if not path.is_file():
        raise AssetMissingError(f"mesh {path} not found; give the path of a .ply or .obj file.")
    if path.suffix.lower() not in (".ply", ".obj"):
        raise DataError(f"{path.name}: expected a .ply or .obj mesh; convert it first.")
    kind = path.suffix.lower().removeprefix(".")
    content = _geometry_only(path.read_bytes()) if kind == "obj" else path.read_bytes()
    try:
        mesh = trimesh.load_mesh(io.BytesIO(content), file_type=kind, process=False, maintain_order=True)
        vertices, faces = np.array(mesh.vertices, np.float32), np.array(mesh.faces, np.int32)
    except Exception as error:  # trimesh raises whatever its parsers raise
        raise DataError(f"{path} cannot be read as a mesh ({error!r}); export it again as .ply or .obj.") from error
    if vertices.ndim != 2 or faces.ndim != 2 or not len(faces) or not np.isfinite(vertices).all():
        raise DataError(f"{path}: expected finite vertices and at least one triangle; export the mesh again.")
    return vertices, faces


def _geometry_only(obj: bytes) -> bytes:
    """An .obj without texture and normals, for whose sake readers split and drop vertices."""
    lines = []
    for line in obj.decode("latin1").splitlines():
        words = line.split()
        if words[:1] == ["v"]:
            lines.append(" ".join(words[:4]))
        elif words[:1] == ["f"]:
            lines.append(" ".join(word.split("/")[0] for word in words))
    return "\n".join(lines).encode()


def _check(vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray | None, uv_faces: np.ndarray | None) -> None:
    for name, array in (("vertices", vertices), ("faces", faces)):
        if array.ndim != 2 or array.shape[1] != 3:
            raise ShapeError(f"{name}: expected (n, 3), got {array.shape}.")
    if faces.size and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise ShapeError(f"faces: indices must lie in 0..{len(vertices) - 1}.")
    if (uv is None) != (uv_faces is None) or (uv_faces is not None and np.shape(uv_faces) != faces.shape):
        raise ShapeError("uv and uv_faces come together, uv_faces with one index per triangle corner.")


def _obj_text(vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray | None, uv_faces: np.ndarray | None) -> str:
    lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in vertices.tolist()]
    if uv is None or uv_faces is None:
        lines += [f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist()]
    else:
        lines += [f"vt {u:.9g} {v:.9g}" for u, v in np.asarray(uv).tolist()]
        corners = np.stack([faces, np.asarray(uv_faces)], axis=-1) + 1
        lines += ["f " + " ".join(f"{v}/{t}" for v, t in triangle) for triangle in corners.tolist()]
    return "\n".join(lines) + "\n"
