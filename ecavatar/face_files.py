"""One photograph -> a folder with its face: coefficients, meshes and a picture that shows how well they fit.

Stands beside `cli.py`, after all rooms: it uses reconstruction and rendering.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from ecavatar.errors import BasisError, DataError
from ecavatar.face.mesh_file import write_mesh
from ecavatar.face.model import FaceAsset
from ecavatar.reconstruction.fitter import Reconstruction
from ecavatar.reconstruction.images import Rgb, read_image
from ecavatar.reconstruction.landmarks import FaceLandmarker
from ecavatar.reconstruction.neutral import expressive_vertices, neutral_vertices
from ecavatar.reconstruction.table import Fitted, Reconstructor
from ecavatar.rendering.overlay import overlay, shown_faces
from ecavatar.storage.files import atomic_path, read_json, write_json

FORMAT = "ecavatar-face-coefficients-1"
COEFFICIENTS, NEUTRAL, EXPRESSIVE, OVERLAY = "coefficients.json", "neutral.ply", "expressive.ply", "overlay.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceCoefficients:
    """What a face folder says of its face."""

    topology: str
    basis: str
    backend: str
    shape: Float[np.ndarray, " shape_components"]
    expression: Float[np.ndarray, " expression_components"]
    jaw_pose: Float[np.ndarray, "3"]
    """Axis-angle, radians."""

    def require_basis(self, basis: str) -> None:
        """Refuse to be mixed with coefficients of another meaning.

        Raises:
            BasisError: `basis` is another one.
        """
        if basis != self.basis:
            raise BasisError(
                f"the face's coefficients have basis {self.basis!r}, the others {basis!r}; they cannot be compared. "
                "Reconstruct the photo again with the other face model."
            )


def write_face(photo: Path, out: Path, reconstructor: Reconstructor, landmarker: FaceLandmarker) -> Fitted:
    """Reconstruct the face in `photo` and write the folder `out`, whole or not at all.

    The folder holds coefficients.json (coefficients, camera, tags, residuals; see `read_face`), neutral.ply (no
    expression, mouth closed), expressive.ply (both at pose zero, metres) and overlay.png (photograph; mesh over it).

    Args:
        photo: a picture with one clearly visible face.
        out: replaced if it is such a folder, or empty.
        reconstructor: backend and face model.
        landmarker: finds the landmarks.

    Raises:
        DataError: no face, an unreadable photo, or `out` exists and is something else.
    """
    _check_target(out)
    image = read_image(photo)
    fitted = reconstructor.face(image, landmarker, str(photo))
    found, asset = fitted.reconstruction, reconstructor.asset
    expressive = expressive_vertices(reconstructor.model, found)
    with atomic_path(out) as temporary:
        temporary.mkdir()
        write_json(temporary / COEFFICIENTS, _to_json(fitted, reconstructor.tags, photo))
        write_mesh(temporary / NEUTRAL, neutral_vertices(reconstructor.model, found), asset.faces)
        write_mesh(temporary / EXPRESSIVE, expressive, asset.faces)
        Image.fromarray(overlay_picture(image, expressive, found, asset)).save(temporary / OVERLAY, optimize=False)
    return fitted


def read_face(path: Path) -> FaceCoefficients:
    """The coefficients in a folder of `write_face`, or in its coefficients.json.

    Raises:
        AssetMissingError: there is none.
        DataError: the file says something else.
    """
    file = path / COEFFICIENTS if path.is_dir() else path
    value = read_json(file)
    try:
        if value["format"] != FORMAT:
            raise DataError(f"{file}: expected format {FORMAT}, found {value['format']!r}. Use `ecavatar face PHOTO`.")
        arrays = {name: np.array(value[name], np.float64) for name in ("shape", "expression", "jaw_pose")}
        tags = {name: str(value[name]) for name in ("topology", "basis", "backend")}
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} is no face of `ecavatar face` ({error!r}). Write it again.") from None
    if (
        any(array.ndim != 1 or not np.isfinite(array).all() for array in arrays.values())
        or len(arrays["jaw_pose"]) != 3
    ):
        raise DataError(f"{file}: coefficients must be lists of finite numbers, three for the jaw. Write it again.")
    return FaceCoefficients(**tags, **arrays)


def overlay_picture(image: Rgb, vertices: Float[np.ndarray, "V 3"], found: Reconstruction, asset: FaceAsset) -> Rgb:
    """The photograph, and beside it the same with the face's mesh over it (neck and scalp are left out).

    Args:
        image: the photograph.
        vertices: the face at pose zero, metres.
        found: its camera.
        asset: triangles and regions.
    """
    return np.concatenate([image, overlay(image, found.project(vertices), shown_faces(asset))], axis=1)


def _to_json(fitted: Fitted, tags: dict[str, str], photo: Path) -> dict[str, object]:
    found = fitted.reconstruction
    return {
        "format": FORMAT,
        **tags,
        "photo": photo.name,
        "image_height_px": fitted.height_px,
        "image_width_px": fitted.width_px,
        "shape": found.shape.tolist(),
        "expression": found.expression.tolist(),
        "jaw_pose": found.jaw_pose.tolist(),
        "camera": {
            "kind": "weak_perspective",
            "rotation": found.rotation.tolist(),
            "scale_px_per_m": found.scale_px_per_m,
            "translation_px": found.translation_px.tolist(),
        },
        "light": None if fitted.light is None else fitted.light.tolist(),
        "residual_px": _number(found.residual_px),
        "residual_mm": _number(found.residual_mm),
        "is_converged": found.is_converged,
        "units": {"jaw_pose": "radian, axis-angle", "rotation": "head to camera: x right, y up, z towards the viewer"},
    }


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def _check_target(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out} is a file; give a folder to write.")
    names = {path.name for path in out.iterdir()}
    if names - {COEFFICIENTS, NEUTRAL, EXPRESSIVE, OVERLAY}:
        raise DataError(f"{out} holds other files than a face's; give a new or empty folder, so that none are lost.")
