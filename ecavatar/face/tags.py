"""Whether data of another source may meet a face model: `topology` for vertices, `basis` for coefficients.

Vertices of one topology mix freely, whatever basis made them; coefficients of two bases never do.
"""

import numpy as np
from jaxtyping import Float

from ecavatar.errors import BasisError, TopologyError
from ecavatar.face.alignment import apply_transform, register_points
from ecavatar.face.model import FaceAsset

SAME_ORDER_M = 0.02
"""Heads of one topology differ by less than this on average after alignment, any two vertex orders by several times."""


def require_basis(asset: FaceAsset, basis: str | None, where: object) -> None:
    """Make sure that coefficients belong to the face model.

    Args:
        asset: the face model.
        basis: tag of the coefficients, None where they carry none.
        where: the file or folder they come from, for the message.

    Raises:
        BasisError: they belong to another, or do not say.
    """
    if basis != asset.basis:
        said = "do not say what they mean" if basis is None else f"mean {basis}"
        raise BasisError(
            f"the coefficients in {where} {said}, the face model's mean {asset.basis}. Make them again with this face "
            "model, or add the one they were made with (`ecavatar assets add flame FILE`)."
        )


def require_topology(asset: FaceAsset, topology: str | None, where: object) -> None:
    """Make sure that vertices are in the order of the face model.

    Args:
        asset: the face model.
        topology: tag of the vertices, None where they carry none.
        where: the file or folder they come from, for the message.

    Raises:
        TopologyError: they are in another order, or do not say.
    """
    if topology != asset.topology:
        said = "no named order" if topology is None else f"the order of {topology}"
        raise TopologyError(
            f"the vertices in {where} have {said}, the face model has that of {asset.topology}. Make them again with "
            "this face model, or use the one they were made with."
        )


def require_vertex_order(asset: FaceAsset, vertices: Float[np.ndarray, "V 3"], where: object) -> None:
    """Make sure that a head without tags, for instance a template of VOCASET, is in the order of the face model.

    The open head has as many vertices as FLAME, so their number tells nothing; their places do: the head is laid on
    the face model's template, and vertices of the same order come to lie near each other.

    Args:
        asset: the face model.
        vertices: metres, any position and rotation.
        where: the file or folder they come from, for the message.

    Raises:
        TopologyError: they are in another order.
    """
    if vertices.shape != asset.template.shape:
        raise TopologyError(f"the heads in {where} have {len(vertices)} vertices, the face model {asset.n_vertices}.")
    moved = apply_transform(register_points(vertices, asset.template).transform, vertices.astype(np.float64))
    distance = float(np.linalg.norm(moved - asset.template, axis=1).mean())
    if distance > SAME_ORDER_M:
        raise TopologyError(
            f"the heads in {where} are not in the vertex order of {asset.topology}: laid on its template they are "
            f"{1000 * distance:.0f} mm off on average. Use the face model they were made with (VOCASET: FLAME)."
        )
