"""A talking face: vertices over time, with everything needed to use them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ecavatar.errors import DataError, ShapeError, TopologyError
from ecavatar.storage.files import atomic_path


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Motion:
    """Vertices of one clip.

    Attributes:
        vertices: (frames, vertices, 3) float32, metres, head pose zero.
        fps: frames per second.
        topology: tag of the vertex order.
        template: (vertices, 3) float32, the same person's neutral face, metres.
    """

    vertices: Float[np.ndarray, "frames vertices 3"]
    fps: float
    topology: str
    template: Float[np.ndarray, "vertices 3"]

    def __post_init__(self) -> None:
        if self.vertices.ndim != 3 or self.vertices.shape[1:] != self.template.shape or self.template.shape[-1] != 3:
            raise ShapeError(
                "a motion needs vertices (T, V, 3) and a template (V, 3); "
                f"got {self.vertices.shape} and {self.template.shape}."
            )
        if not self.fps > 0:
            raise ShapeError(f"fps must be positive, got {self.fps}.")

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.vertices) / self.fps

    def require_topology(self, topology: str) -> None:
        """Raise unless this motion's vertices are in the order of `topology`.

        Raises:
            TopologyError: they are not.
        """
        if self.topology != topology:
            raise TopologyError(f"expected a motion of topology {topology!r}, got {self.topology!r}.")


def resampled(motion: Motion, fps: float, frames: int) -> Motion:
    """The same motion with `frames` frames at `fps`, by linear interpolation in time.

    Frame j of the result shows time j/fps; times past the end repeat the last frame.
    """
    if frames < 1:
        raise ShapeError(f"a motion needs at least one frame, got {frames}.")
    position = np.minimum(np.arange(frames) / fps * motion.fps, len(motion.vertices) - 1)
    before = np.floor(position).astype(np.int64)
    after = np.minimum(before + 1, len(motion.vertices) - 1)
    weight = (position - before).astype(np.float32)[:, None, None]
    vertices = motion.vertices[before] * (1 - weight) + motion.vertices[after] * weight
    return Motion(vertices=vertices, fps=fps, topology=motion.topology, template=motion.template)


def write_motion(path: Path, motion: Motion) -> None:
    """Write `motion` as an npz without objects; the file appears whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            vertices=motion.vertices.astype(np.float32),
            fps=np.float64(motion.fps),
            topology=np.str_(motion.topology),
            template=motion.template.astype(np.float32),
        )


def read_motion(path: Path) -> Motion:
    """The motion written by `write_motion`.

    Raises:
        DataError: the file is not a motion.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            return Motion(
                vertices=data["vertices"],
                fps=float(data["fps"]),
                topology=str(data["topology"]),
                template=data["template"],
            )
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"{path} is not a motion file (npz with vertices, fps, topology, template): {error}") from None
