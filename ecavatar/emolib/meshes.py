"""The mesh of a release's row: expressive, at zero pose."""

import contextlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float

from ecavatar.face.model import FaceModel
from ecavatar.storage.parquet import vector_array


def expressive_vertices(model: FaceModel, faces: pa.Table) -> Float[np.ndarray, "faces V 3"]:
    """Vertices of shape, expression and jaw with every other rotation zero, float32 metres.

    Args:
        model: of the basis that the coefficients belong to.
        faces: with columns shape, expression and jaw_pose.

    Raises:
        ShapeError: more coefficients than the model has, or a row without them.
    """
    arrays = (vector_array(faces[name]) for name in ("shape", "expression", "jaw_pose"))
    shape, expression, jaw = (torch.from_numpy(np.array(array, np.float32)) for array in arrays)
    with torch.no_grad(), _one_thread():
        return model(shape, expression, jaw).numpy()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the last bits of sums must not depend on the machine's number of cores
    try:
        yield
    finally:
        torch.set_num_threads(before)
