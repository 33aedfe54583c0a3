"""The face asset put together from FLAME's files, each of which is converted once.

A user brings the files one by one and in any order, so each is kept as an npz without objects (`PART_FILES`), and the
asset is made of them as soon as model, masks and all 68 landmarks are there.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from pathlib import Path

import numpy as np
from jaxtyping import Int

from ecavatar.errors import AssetMissingError
from ecavatar.face.flame.embeddings import N_IBUG, Embedding, read_ibug_embedding, read_mediapipe_embedding
from ecavatar.face.flame.masks import Masks, flame_regions, read_flame_masks
from ecavatar.face.flame.model_file import TOPOLOGY, FlameModel, read_flame_model
from ecavatar.face.flame.texture_coordinates import TextureCoordinates, read_texture_coordinates
from ecavatar.face.landmarks import surface_points
from ecavatar.face.model import PARENTS, FaceAsset
from ecavatar.storage.arrays import read_arrays, write_arrays
from ecavatar.storage.files import atomic_path

PART_FILES: Mapping[str, str] = {
    "flame": "flame.npz",
    "flame-masks": "flame_masks.npz",
    "flame-landmarks": "flame_landmarks.npz",
    "flame-mediapipe": "flame_mediapipe.npz",
    "flame-uv": "flame_uv.npz",
}
"""Kind of each file that a user may bring -> the name of what it is converted to."""
REQUIRED_PARTS = ("flame", "flame-masks", "flame-landmarks")
"""Without these there is no face asset."""

_NO_EMBEDDING = Embedding(indices=np.zeros(0, np.int32), faces=np.zeros(0, np.int32), barycentrics=np.zeros((0, 3)))


def convert_flame(
    model: Path,
    *,
    masks: Path,
    landmarks: Iterable[Path],
    mediapipe: Path | None = None,
    uv: Path | None = None,
    basis: str | None = None,
) -> FaceAsset:
    """The face asset of FLAME's files as they were downloaded.

    Args:
        model: the model, pickle or npz.
        masks: FLAME_masks.pkl.
        landmarks: embeddings that together place iBUG's 68 landmarks; the first that places one counts.
        mediapipe: mediapipe_landmark_embedding.npz, which the landmark fitter needs.
        uv: head_template.obj or FLAME_texture.npz.
        basis: what the coefficients mean (`BASES`), where the model file does not tell.

    Raises:
        AssetMissingError: a file is missing, or the landmarks are fewer than 68.
        ConfigError: the basis is not known.
        BasisError: `basis` contradicts the model file.
        DataError: a file is damaged, hostile, or not what it should be.
    """
    embedding = reduce(Embedding.over, map(read_ibug_embedding, landmarks), _NO_EMBEDDING)
    return flame_asset(
        read_flame_model(model, basis),
        read_flame_masks(masks),
        embedding,
        mediapipe=None if mediapipe is None else read_mediapipe_embedding(mediapipe),
        uv=None if uv is None else read_texture_coordinates(uv),
    )


def flame_asset(
    model: FlameModel,
    masks: Masks,
    landmarks: Embedding,
    *,
    mediapipe: Embedding | None = None,
    uv: TextureCoordinates | None = None,
) -> FaceAsset:
    """The face asset of FLAME's parts; without `mediapipe` or `uv` it lacks these, and ARKit units always.

    Raises:
        AssetMissingError: `landmarks` places fewer than 68.
        DataError: the parts contradict each other.
    """
    if len(landmarks.indices) != N_IBUG:
        raise AssetMissingError(missing_landmarks(landmarks.indices))
    mediapipe = mediapipe or _NO_EMBEDDING
    ibug68 = surface_points(model.template, model.faces, landmarks.faces, landmarks.barycentrics)
    return FaceAsset(
        topology=TOPOLOGY,
        basis=model.basis,
        template=model.template,
        faces=model.faces,
        shape_basis=model.shape_basis,
        expression_basis=model.expression_basis,
        pose_basis=model.pose_basis,
        joint_regressor=model.joint_regressor,
        skinning=model.skinning,
        parents=np.array(PARENTS),
        regions=flame_regions(masks, model, ibug68),
        ibug68_faces=landmarks.faces,
        ibug68_barycentrics=landmarks.barycentrics,
        mediapipe_indices=mediapipe.indices,
        mediapipe_faces=mediapipe.faces,
        mediapipe_barycentrics=mediapipe.barycentrics,
        uv=np.zeros((0, 2)) if uv is None else uv.uv,
        uv_faces=np.zeros((0, 3)) if uv is None else uv.of_faces(model.faces),
        arkit_names=(),
        arkit_expression=np.zeros((0, model.expression_basis.shape[2])),
        arkit_jaw=np.zeros((0, 3)),
    )


def missing_landmarks(indices: Int[np.ndarray, " K"]) -> str:
    """One sentence that says which of the 68 landmarks are missing, and which file has them."""
    lacking = np.setdiff1d(np.arange(N_IBUG), indices)
    return (
        f"{len(lacking)} of the {N_IBUG} face landmarks are missing (iBUG {lacking[0]} to {lacking[-1]}). Add "
        "flame_static_embedding_68.pkl or DECA's landmark_embedding.npy, or both flame_static_embedding.pkl and "
        "flame_dynamic_embedding.npy, with `ecavatar assets add flame-landmarks FILE`."
    )


def write_flame_part(kind: str, source: Path, folder: Path, basis: str | None = None) -> dict[str, object]:
    """Convert one of FLAME's files into `folder`, and write face_model.npz there once all it needs is there.

    Nothing is written if the file is not what it should be or contradicts the other parts.

    Args:
        kind: one of `PART_FILES`; landmarks are added to those that are there.
        source: the file as it was downloaded.
        folder: data/<profile>/assets.
        basis: for kind flame, what its coefficients mean, where the file does not tell.

    Returns:
        What is known of the file now, for its record.

    Raises:
        AssetMissingError, ConfigError, BasisError, DataError: as the readers of the files.
    """
    target = folder / PART_FILES[kind]
    save, facts = _converted(kind, source, target, basis)
    with atomic_path(target) as temporary:
        save(temporary)
        asset = read_parts(folder, {kind: temporary})
    if asset is not None:
        asset.save(folder / "face_model.npz")
    return facts


def read_parts(folder: Path, instead: Mapping[str, Path] | None = None) -> FaceAsset | None:
    """The face asset of the converted parts in `folder`, or None while one of `REQUIRED_PARTS` is not complete.

    Args:
        folder: data/<profile>/assets.
        instead: parts that are read from elsewhere.

    Raises:
        DataError: a part is damaged, or the parts contradict each other.
    """
    paths = {kind: folder / name for kind, name in PART_FILES.items()} | dict(instead or {})
    if missing_parts(folder, instead):
        return None
    is_there = {kind: path.is_file() for kind, path in paths.items()}
    return flame_asset(
        FlameModel.load(paths["flame"]),
        read_arrays(paths["flame-masks"])[0],
        Embedding.load(paths["flame-landmarks"]),
        mediapipe=Embedding.load(paths["flame-mediapipe"]) if is_there["flame-mediapipe"] else None,
        uv=TextureCoordinates.load(paths["flame-uv"]) if is_there["flame-uv"] else None,
    )


def missing_parts(folder: Path, instead: Mapping[str, Path] | None = None) -> dict[str, str]:
    """Each of `REQUIRED_PARTS` that is not complete in `folder`, and the sentence that says what to do.

    Raises:
        DataError: the landmarks that are there are damaged.
    """
    paths = {kind: folder / PART_FILES[kind] for kind in REQUIRED_PARTS} | dict(instead or {})
    missing = {
        kind: f"Add it with `ecavatar assets add {kind} FILE`." for kind in REQUIRED_PARTS if not paths[kind].is_file()
    }
    if "flame-landmarks" not in missing:
        indices = Embedding.load(paths["flame-landmarks"]).indices
        if len(indices) != N_IBUG:
            missing["flame-landmarks"] = missing_landmarks(indices)
    return missing


def _converted(
    kind: str, source: Path, earlier: Path, basis: str | None
) -> tuple[Callable[[Path], None], dict[str, object]]:
    """What writes the converted part, and its facts; `earlier` is where an earlier one may lie."""
    if kind == "flame":
        model = read_flame_model(source, basis)
        return model.save, {"topology": TOPOLOGY, "basis": model.basis, "basis_known_by": model.known_by}
    if kind == "flame-masks":
        masks = read_flame_masks(source)
        return partial(write_arrays, arrays=masks, facts={"what": "vertex masks"}), {"regions": len(masks)}
    if kind == "flame-uv":
        coordinates = read_texture_coordinates(source)
        return coordinates.save, {"texture_coordinates": len(coordinates.uv)}
    embedding = read_ibug_embedding(source) if kind == "flame-landmarks" else read_mediapipe_embedding(source)
    if kind == "flame-landmarks" and earlier.is_file():
        embedding = embedding.over(Embedding.load(earlier))
    return embedding.save, {"landmarks": len(embedding.indices)}
