"""A small AffectNet: rendered faces in the original's folders and lists, with the original's blemishes.

Lists as in the 2017 release: training.csv with a header, validation.csv without one, codes 0..10, valence and arousal
in -1..1 or -2, landmarks as 68 pairs or NULL, image suffixes in many spellings. Some images are cut off, some are
missing, some appear twice under different names. Unlike the original, all eight categories are equally frequent.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float, UInt8
from PIL import Image

from ecavatar.config import CorporaSettings
from ecavatar.corpora.affectnet import COLUMNS, IMAGE_FOLDERS, LIST_FOLDERS, LISTS
from ecavatar.emotion import Emotion
from ecavatar.face.landmarks import ibug68_points
from ecavatar.rendering.camera import Camera, head_rotation
from ecavatar.sample.appearance import camera_noise, draw_appearance, draw_scene, paint, portrait
from ecavatar.sample.expressions import emotion_weights
from ecavatar.sample.world import Coefficients, SampleWorld
from ecavatar.storage.parquet import vector_column

Kind = Literal["face", "none", "uncertain", "non_face", "corrupt", "duplicate", "missing"]

SUFFIXES = (".jpg", ".jpg", ".JPG", ".png", ".jpeg", ".bmp", ".jpg", ".JPEG")
"""Taken in turn."""
FACE_SHARE = 0.9
BLEMISHES: tuple[Kind, ...] = (
    "non_face",
    "corrupt",
    "none",
    "duplicate",
    "uncertain",
    "missing",
    "non_face",
    "none",
    "uncertain",
    "corrupt",
)
"""What the images beyond the good faces are, taken in turn."""
CODES: Mapping[Kind, int] = {"none": 8, "uncertain": 9, "non_face": 10}
VALENCE: Mapping[Emotion, tuple[float, float]] = {
    Emotion.NEUTRAL: (0.0, 0.0),
    Emotion.HAPPY: (0.3, 0.9),
    Emotion.SAD: (-0.3, -0.8),
    Emotion.SURPRISE: (0.05, 0.3),
    Emotion.FEAR: (-0.2, -0.6),
    Emotion.DISGUST: (-0.4, -0.8),
    Emotion.ANGER: (-0.4, -0.75),
    Emotion.CONTEMPT: (-0.4, -0.6),
}
"""Valence at no and at full amplitude; about where AffectNet's categories lie in its circumplex."""
AROUSAL: Mapping[Emotion, tuple[float, float]] = {
    Emotion.NEUTRAL: (-0.15, 0.15),
    Emotion.HAPPY: (-0.05, 0.75),
    Emotion.SAD: (-0.6, 0.3),
    Emotion.SURPRISE: (0.15, 0.95),
    Emotion.FEAR: (0.15, 0.95),
    Emotion.DISGUST: (0.0, 0.8),
    Emotion.ANGER: (0.05, 0.95),
    Emotion.CONTEMPT: (-0.05, 0.7),
}
"""Arousal at no and at full amplitude, so that thirds of arousal are thirds of intensity."""

_NOISE = 0.03
_YAW, _PITCH, _ROLL = np.deg2rad([20, 12, 8])
_SMALLEST_AMPLITUDE = 0.1
_NULL_LANDMARKS_EVERY = 23
_VALIDATION_EVERY = 9  # shares no factor with the eight emotions, so all of them occur
_PER_FOLDER = 100
_JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceItem:
    """One line of the lists."""

    index: int
    kind: Kind
    emotion: Emotion
    """What the face shows; for a non-face, without meaning."""
    source_id: str
    """Path below the image folder."""
    split: str
    copy_of: int = -1
    """Index of the item that a duplicate repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceTruth:
    """What a face really was."""

    source_id: str
    frames: Coefficients
    weights: Float[np.ndarray, " 52"]


def plan_faces(settings: CorporaSettings, world: SampleWorld) -> list[FaceItem]:
    """All lines of the lists, in order."""
    count = settings.affectnet_images
    per_emotion = max(1, int(count * FACE_SHARE) // len(Emotion))
    faces = min(count, per_emotion * len(Emotion))
    items = []
    for index in range(count):
        kind = "face" if index < faces else BLEMISHES[(index - faces) % len(BLEMISHES)]
        name = hashlib.sha224(f"{world.seed}/affectnet/{index}".encode()).hexdigest()
        copied = (index * 7) % faces if kind == "duplicate" else -1
        suffix = SUFFIXES[(copied if copied >= 0 else index) % len(SUFFIXES)]
        items.append(
            FaceItem(
                index=index,
                kind=kind,
                emotion=Emotion((copied if copied >= 0 else index) % len(Emotion)),
                source_id=f"{1 + index // _PER_FOLDER}/{name}{suffix}",
                split="val" if index % _VALIDATION_EVERY == 4 else "train",
                copy_of=copied,
            )
        )
    # the lists are not sorted by kind: blemishes lie between the good rows
    order = world.stream("affectnet", "order").permutation(count)
    return [items[row] for row in order]


def make_faces(
    world: SampleWorld, items: Sequence[FaceItem], settings: CorporaSettings, root: Path
) -> tuple[dict[int, str], list[FaceTruth]]:
    """Write the images of some items below `root`; their lines by index, and what the faces really were."""
    lines, truths = {}, []
    for item in items:
        origin = item if item.copy_of < 0 else replace(item, index=item.copy_of, kind="face", source_id=item.source_id)
        line, picture, truth = _make_face(world, origin, settings)
        lines[item.index] = line
        if item.kind != "missing":
            path = root / IMAGE_FOLDERS[0] / item.source_id
            path.parent.mkdir(parents=True, exist_ok=True)
            data = _encoded(picture, path.suffix)
            path.write_bytes(data[: len(data) // 3] if item.kind == "corrupt" else data)
        if item.kind != "non_face":
            truths.append(truth)
    return lines, truths


def write_lists(items: Sequence[FaceItem], lines: Mapping[int, str], root: Path) -> None:
    """Write training.csv (with a header) and validation.csv (without one), rows in the order of `items`."""
    folder = root / LIST_FOLDERS[0]
    folder.mkdir(parents=True)
    for split, name in LISTS.items():
        rows = [",".join(COLUMNS)] if split == "train" else []
        rows += [lines[item.index] for item in items if item.split == split]
        (folder / name).write_text("".join(f"{row}\n" for row in rows))


def face_truth_table(truths: Sequence[FaceTruth]) -> pa.Table:
    """True coefficients of the faces: one row each with source_id, shape, expression, jaw_pose and weights."""
    return pa.table(
        {
            "source_id": pa.array([truth.source_id for truth in truths], pa.string()),
            "shape": vector_column(np.stack([truth.frames.shape for truth in truths])),
            "expression": vector_column(np.concatenate([truth.frames.expression for truth in truths])),
            "jaw_pose": vector_column(np.concatenate([truth.frames.jaw_pose for truth in truths])),
            "weights": vector_column(np.stack([truth.weights for truth in truths])),
        }
    )


def _make_face(
    world: SampleWorld, item: FaceItem, settings: CorporaSettings
) -> tuple[str, UInt8[np.ndarray, "size size 3"], FaceTruth]:
    random = world.stream("affectnet", item.index)
    size = settings.affectnet_px
    amplitude = float(random.uniform(_SMALLEST_AMPLITUDE, 1))
    weights = emotion_weights(item.emotion, amplitude, random)
    frames = world.coefficients(world.identity("affectnet", item.index), weights[None])
    vertices = next(world.vertices(frames))[0]
    camera = _camera(vertices[np.unique(world.asset.faces[world.asset.ibug68_faces])], size, random)
    scene = draw_scene(random, size)
    if item.kind == "non_face":
        picture = scene.background
    else:
        look = paint(world.canvas, draw_appearance(random))
        picture = portrait(vertices, world.asset.faces, look, camera, scene)
    picture = camera_noise(picture, random)
    landmarks = camera.project(ibug68_points(world.asset, vertices))[:, :2]
    line = _line(item, landmarks, amplitude, random)
    return line, picture, FaceTruth(source_id=item.source_id, frames=frames, weights=weights)


def _camera(face: np.ndarray, size: int, random: np.random.Generator) -> Camera:
    """A camera that sees the landmarks at a random place and size, and the head at a random turn."""
    yaw, pitch, roll = random.uniform(-1, 1, 3) * (_YAW, _PITCH, _ROLL)
    rotation = head_rotation(float(yaw), float(pitch), float(roll))
    distance = float(random.uniform(0.7, 1.6))
    camera = Camera.framing(face, size, fill=float(random.uniform(0.52, 0.7)), distance=distance, rotation=rotation)
    x, y = random.uniform(-0.05, 0.05, 2) * size
    return replace(camera, centre_px=(camera.centre_px[0] + float(x), camera.centre_px[1] + float(y)))


def _line(item: FaceItem, landmarks: np.ndarray, amplitude: float, random: np.random.Generator) -> str:
    """The item as a row of a list."""
    code = CODES.get(item.kind, int(item.emotion))
    valence, arousal = (
        float(np.clip(np.interp(amplitude, (0, 1), range_[item.emotion]) + random.normal(0, _NOISE), -1, 1))
        for range_ in (VALENCE, AROUSAL)
    )
    is_rated = code < 8
    has_landmarks = item.kind != "non_face" and item.index % _NULL_LANDMARKS_EVERY != 5
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    margin = 0.08 * (high - low)
    box = [*np.floor(low - margin), *np.ceil(high - low + 2 * margin)] if has_landmarks else [-1, -1, -2, -2]
    points = ";".join(f"{value:.2f}" for value in landmarks.reshape(-1)) if has_landmarks else "NULL"
    rating = [f"{valence:.6f}", f"{arousal:.6f}"] if is_rated else ["-2", "-2"]
    return ",".join([item.source_id, *(str(int(value)) for value in box), points, str(code), *rating])


def _encoded(picture: np.ndarray, suffix: str) -> bytes:
    """The picture in the format of its file name."""
    buffer = io.BytesIO()
    image = Image.fromarray(picture)
    if suffix.lower() in {".jpg", ".jpeg"}:
        image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    else:
        image.save(buffer, suffix[1:].upper())
    return buffer.getvalue()
