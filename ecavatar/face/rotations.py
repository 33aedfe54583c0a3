"""Rotation matrices and axis-angle vectors in torch, batched and differentiable, zero rotation included."""

import torch
from jaxtyping import Float
from torch import Tensor

_SMALL = 1e-4  # squared angle below which the series is exact to float64's last digits


def matrix_from_axis_angle(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of axis-angle vectors in radians (Rodrigues' formula); gradients are finite at zero."""
    squared = (axis_angle * axis_angle).sum(-1)
    is_small = squared < _SMALL
    angle = torch.where(is_small, torch.ones_like(squared), squared).sqrt()
    by_sine = torch.where(is_small, 1 - squared / 6 * (1 - squared / 20), angle.sin() / angle)
    by_cosine = torch.where(is_small, 0.5 - squared / 24 * (1 - squared / 30), (1 - angle.cos()) / angle**2)
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + by_sine[..., None, None] * cross + by_cosine[..., None, None] * (cross @ cross)


def axis_angle_from_matrix(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Axis-angle vectors, angle in 0..pi, of rotation matrices.

    Goes through the unit quaternion computed from its largest component, so half turns are exact too.
    """
    m = matrix
    trace = m.diagonal(dim1=-2, dim2=-1).sum(-1)
    x, y, z = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    yz, zx, xy = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    sxy, szx, syz = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    # row k is 4 q_k q, (w, x, y, z); the row of the largest component is the best conditioned
    rows = torch.stack(
        [
            torch.stack([1 + trace, yz, zx, xy], -1),
            torch.stack([yz, 1 + x - y - z, sxy, szx], -1),
            torch.stack([zx, sxy, 1 - x + y - z, syz], -1),
            torch.stack([xy, szx, syz, 1 - x - y + z], -1),
        ],
        dim=-2,
    )
    best = rows.diagonal(dim1=-2, dim2=-1).argmax(-1)
    chosen = torch.take_along_dim(rows, best[..., None, None].expand(*best.shape, 1, 4), dim=-2)[..., 0, :]
    quaternion = chosen / chosen.norm(dim=-1, keepdim=True)
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    vector = quaternion[..., 1:]
    squared = (vector * vector).sum(-1, keepdim=True)
    is_small = squared < 1e-12
    sine = torch.where(is_small, torch.ones_like(squared), squared).sqrt()
    half = torch.atan2(sine, quaternion[..., :1])
    return vector * torch.where(is_small, 2 / quaternion[..., :1].clamp(min=0.5), 2 * half / sine)
