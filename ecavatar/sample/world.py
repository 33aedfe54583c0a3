"""The sample world: one head model, painted and moved to be many people.

All randomness comes from streams named after what is drawn, so a person or picture is the same whoever draws it when.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float

from ecavatar.face.model import FaceAsset, FaceModel, arkit_coefficients
from ecavatar.sample.canvas import FaceCanvas, make_canvas
from ecavatar.seeding import stream
from ecavatar.storage.parquet import vector_column

IDENTITY_SPREAD = 0.8
"""Standard deviation of the shape coefficients; 1 is the basis' own, which gives a few extreme heads in hundreds."""

_CHUNK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficients:
    """Frames of one person in the face model's coefficients, float32."""

    shape: Float[np.ndarray, " s"]
    expression: Float[np.ndarray, "frames e"]
    jaw_pose: Float[np.ndarray, "frames 3"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleWorld:
    """What all corpora of the sample world share."""

    asset: FaceAsset
    seed: int

    @cached_property
    def model(self) -> FaceModel:
        """The head as a module, on the CPU."""
        return FaceModel(self.asset)

    @cached_property
    def canvas(self) -> FaceCanvas:
        """The head laid flat for painting."""
        return make_canvas(self.asset)

    def stream(self, *names: object) -> np.random.Generator:
        """The random stream for the use called `names`."""
        return stream(self.seed, "sample", *names)

    def identity(self, *names: object) -> Float[np.ndarray, " s"]:
        """Shape coefficients of the person called `names`."""
        spread = self.stream(*names, "identity").normal(0, IDENTITY_SPREAD, self.asset.n_shape)
        return spread.astype(np.float32)

    def coefficients(self, shape: Float[np.ndarray, " s"], weights: Float[np.ndarray, "frames 52"]) -> Coefficients:
        """One person's frames from ARKit weights."""
        expression, jaw_pose = arkit_coefficients(self.asset, weights)
        return Coefficients(shape=shape, expression=expression, jaw_pose=jaw_pose)

    def vertices(self, frames: Coefficients) -> Iterator[Float[np.ndarray, "chunk vertices 3"]]:
        """Meshes in metres, float32, head pose zero, some frames at a time."""
        shape = torch.from_numpy(frames.shape[None])
        for start in range(0, len(frames.expression), _CHUNK):
            expression, jaw = (np.array(x[start : start + _CHUNK]) for x in (frames.expression, frames.jaw_pose))
            with torch.inference_mode():
                yield self.model(shape, torch.from_numpy(expression), torch.from_numpy(jaw)).numpy()

    def neutral(self, shape: Float[np.ndarray, " s"]) -> Float[np.ndarray, "vertices 3"]:
        """The person at rest, mouth closed, metres, float32."""
        rest = np.zeros((1, self.asset.n_expression), dtype=np.float32)
        return next(self.vertices(Coefficients(shape=shape, expression=rest, jaw_pose=rest[:, :3])))[0]


def truth_table(clips: Mapping[str, Coefficients]) -> pa.Table:
    """True coefficients of films: one row per frame with clip_id, frame, shape, expression, jaw_pose."""
    lengths = [len(clip.expression) for clip in clips.values()]
    return pa.table(
        {
            "clip_id": pa.array(np.repeat(list(clips), lengths).tolist(), pa.string()),
            "frame": pa.array(np.concatenate([np.arange(length) for length in lengths]).astype(np.int32)),
            "shape": vector_column(np.concatenate([np.tile(c.shape, (len(c.expression), 1)) for c in clips.values()])),
            "expression": vector_column(np.concatenate([clip.expression for clip in clips.values()])),
            "jaw_pose": vector_column(np.concatenate([clip.jaw_pose for clip in clips.values()])),
        }
    )
