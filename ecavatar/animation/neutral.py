"""The neutral face M_in: who is speaking."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float

from ecavatar.errors import ShapeError
from ecavatar.face.model import FaceAsset, FaceModel

SHAPE_PRIOR = 1e-6
"""Square metres a squared shape coefficient costs when a shape is fitted to vertices: 1 standard deviation ~ 1 mm."""


@dataclass(frozen=True, slots=True, eq=False)
class NeutralFace:
    """M_in: a neutral face and the shape coefficients nearest to it.

    Attributes:
        vertices: (vertices, 3) float32, metres, head pose zero, mouth closed.
        shape: shape coefficients in the face model's basis, for retrieval.
    """

    vertices: Float[np.ndarray, "vertices 3"]
    shape: Float[np.ndarray, " s"]

    @classmethod
    def from_shape(cls, model: FaceModel, shape: Float[np.ndarray, " s"]) -> Self:
        """M_in of shape coefficients: expression, jaw and head pose are zero (section 4 of the paper)."""
        coefficients = torch.from_numpy(np.array(shape, np.float32)[None])
        with torch.inference_mode():
            vertices = model(coefficients, coefficients.new_zeros(1, 0))
        return cls(vertices[0].numpy(), np.asarray(shape, np.float32))

    @classmethod
    def from_template(cls, asset: FaceAsset, template: Float[np.ndarray, "vertices 3"]) -> Self:
        """M_in of a subject's own template mesh, with shape coefficients by regularised least squares.

        Raises:
            ShapeError: the template does not have the asset's vertices.
        """
        if template.shape != asset.template.shape:
            raise ShapeError(f"the template must be {asset.template.shape}, got {template.shape}.")
        basis = asset.shape_basis.reshape(template.size, -1).astype(np.float64)
        offset = (template - asset.template).reshape(-1).astype(np.float64)
        normal = basis.T @ basis + SHAPE_PRIOR * np.eye(basis.shape[1])
        shape = np.linalg.solve(normal, basis.T @ offset)
        return cls(template.astype(np.float32), shape.astype(np.float32))
