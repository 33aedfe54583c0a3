"""Plain pictures and films of a face: one skin tone, tinted lips, eyes with iris and pupil.

A simplification: no texture and no light below the skin; the paper's skin renderer is not built yet.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from ecavatar.animation.motion import Motion
from ecavatar.face.model import FaceAsset
from ecavatar.rendering.camera import Camera, head_rotation
from ecavatar.rendering.shading import STUDIO, render_face
from ecavatar.rendering.video import write_video

SKIN = (0.62, 0.40, 0.31)  # linear albedo of fair skin, red to blue; measured range in Jensen et al., SIGGRAPH 2001
LIPS = (0.50, 0.19, 0.17)
MOUTH = (0.12, 0.03, 0.03)
BROW = (0.20, 0.12, 0.08)
SCLERA = (0.80, 0.78, 0.75)
IRIS = (0.16, 0.10, 0.06)
PUPIL = (0.01, 0.01, 0.01)
IRIS_ANGLE = 0.48  # radians from the gaze axis to the rim of the iris (12 mm iris on a 24 mm eyeball: asin 0.5)
PUPIL_ANGLE = 0.18
BACKDROP = (0.86, 0.87, 0.89)


def plain_colours(asset: FaceAsset) -> Float[np.ndarray, "vertices 3"]:
    """Linear albedo of every vertex: skin, lips, and eyeballs with iris and pupil around the gaze axis (+z).

    Brows and the inside of the mouth are tinted where the asset names their regions.
    """
    colours = np.tile(np.array(SKIN, np.float32), (len(asset.template), 1))
    tints = {"lips": LIPS, "inner_mouth": MOUTH, "left_brow": BROW, "right_brow": BROW}
    for name, tint in tints.items():
        colours[asset.regions.get(name, [])] = tint
    for name in ("left_eyeball", "right_eyeball"):
        ids = asset.regions[name]
        ball = asset.template[ids] - asset.template[ids].mean(axis=0)
        angle = np.arccos(np.clip(ball[:, 2] / np.linalg.norm(ball, axis=1), -1, 1))
        colours[ids] = SCLERA
        colours[ids[angle < IRIS_ANGLE]] = IRIS
        colours[ids[angle < PUPIL_ANGLE]] = PUPIL
    return colours


def face_picture(
    vertices: Float[np.ndarray, "vertices 3"],
    asset: FaceAsset,
    size_px: int,
    *,
    yaw: float = 0.0,
    framing: Camera | None = None,
) -> UInt8[np.ndarray, "size size 3"]:
    """A picture of one face, turned by `yaw` radians; `framing` keeps several pictures at one scale."""
    camera = framing or portrait_camera(asset, size_px, yaw=yaw)
    return render_face(vertices, asset.faces, plain_colours(asset), camera, STUDIO, size_px, BACKDROP)


def portrait_camera(asset: FaceAsset, size_px: int, *, yaw: float = 0.0) -> Camera:
    """The camera all plain pictures of a topology share: the template's head, without its neck, fills the picture."""
    head = np.delete(asset.template, asset.regions["neck"], axis=0)
    return Camera.framing(head, size_px, fill=0.92, rotation=head_rotation(yaw, 0.0, 0.0))


def film_frames(motion: Motion, asset: FaceAsset, size_px: int) -> Iterator[UInt8[np.ndarray, "size size 3"]]:
    """The pictures of a motion, one by one."""
    motion.require_topology(asset.topology)
    camera = portrait_camera(asset, size_px)
    for vertices in motion.vertices:
        yield face_picture(vertices, asset, size_px, framing=camera)


def write_film(
    path: Path,
    motion: Motion,
    asset: FaceAsset,
    *,
    size_px: int,
    sound: tuple[Float[np.ndarray, " samples"], int] | None,
) -> None:
    """Write a film of `motion` with its sound; the file appears whole or not at all.

    Args:
        path: an mp4 file.
        motion: vertices of the asset's topology.
        asset: faces and regions.
        size_px: edge of the square picture, an even number.
        sound: mono samples and their rate in hertz, or None for a silent film.
    """
    write_video(path, film_frames(motion, asset, size_px), motion.fps, sound)
