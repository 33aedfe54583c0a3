"""The open mouth: 28 teeth, two gums and a tongue made from a table and a few curves, with the paper's counts.

10,028 vertices and 19,804 triangles, as the commercial mouth of the paper has, so that a head with it has 15,051 and
29,780: vertices - faces / 2 = 126 = 2 for each of 28 teeth and the tongue, 1 for each of two gums, 33 for each gum's 66
border edges.

Simplifications: stumps instead of roots, the same tooth left and right, no frenula, cheeks or throat; each gum is an
open sheet that teeth go through.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float

from ecavatar.mouth.arch import Arch, lower_arch, upper_arch
from ecavatar.mouth.gums import FLOOR, PALATE, ROWS, SIDE, Lining, gum_faces, gum_layout, gum_vertices
from ecavatar.mouth.model import MouthMesh, Part
from ecavatar.mouth.teeth import LOWER_TEETH, UPPER_TEETH, Tooth, tooth_faces, tooth_layout, tooth_vertices
from ecavatar.mouth.tongue import tongue_faces, tongue_layout, tongue_vertices

PROCEDURAL = "procedural"
"""What the open mouth is called."""
GAP = 0.1
"""Between two neighbours in an arch, millimetres, along the line of the arch."""
_LICENCE = "CC0-1.0"
_TILE = 0.125  # side of a tooth's square in the texture
_Piece = tuple[np.ndarray, np.ndarray, np.ndarray, Part, int]
"""Vertices in millimetres, faces, texture coordinates, part and FDI number."""


@lru_cache(maxsize=1)
def procedural_mouth() -> MouthMesh:
    """The open mouth: the same bytes every time."""
    upper, lower = upper_arch(), lower_arch()
    pieces = [
        *_jaw(UPPER_TEETH, upper, PALATE, (Part.UPPER_TEETH, Part.UPPER_GUM)),
        *_jaw(LOWER_TEETH, lower, FLOOR, (Part.LOWER_TEETH, Part.LOWER_GUM)),
    ]
    pieces.append(_tongue(next(piece[0] for piece in pieces if piece[3] == Part.LOWER_GUM)))
    starts = np.cumsum([0, *(len(piece[0]) for piece in pieces)])
    counts = np.diff(starts)
    return MouthMesh(
        name=PROCEDURAL,
        licence=_LICENCE,
        vertices=np.concatenate([piece[0] for piece in pieces]) / 1000,
        faces=np.concatenate([_outward(piece) + start for piece, start in zip(pieces, starts, strict=False)]),
        part=np.repeat([int(piece[3]) for piece in pieces], counts),
        tooth=np.repeat([piece[4] for piece in pieces], counts),
        uv=np.concatenate([piece[2] for piece in pieces]),
    )


def place_teeth(teeth: tuple[Tooth, ...], arch: Arch) -> list[float]:
    """Arc length at which each tooth of the left side stands, from the midline backwards.

    Two neighbours are `GAP` apart along the arch's direction between them, so an upright plane parts them.
    """
    lengths: list[float] = []
    for index, tooth in enumerate(teeth):
        low, high = (lengths[-1], lengths[-1] + 20) if lengths else (0.0, 20.0)
        for _ in range(50):
            length = (low + high) / 2
            along = _along(arch, (lengths[-1] + length) / 2) if lengths else np.array([1.0, 0.0])
            reached = (_standing(teeth[index - 1], arch, lengths[-1])[:, ::2] @ along).max() if lengths else -GAP / 2
            room = (_standing(tooth, arch, length)[:, ::2] @ along).min() - reached
            low, high = (length, high) if room < GAP else (low, length)
        lengths.append(high)
    return lengths


def _along(arch: Arch, length: float) -> Float[np.ndarray, " 2"]:
    """Direction of the arch, away from the midline on the left."""
    outward = arch.outward(length)
    return np.array([outward[1], -outward[0]])


def _standing(tooth: Tooth, arch: Arch, length: float) -> Float[np.ndarray, "n 3"]:
    """The tooth's vertices at its place on the left side of the arch, (x, y, z) in millimetres."""
    local = tooth_vertices(tooth)
    flat = arch.at(length) + local[:, :1] * _along(arch, length) + local[:, 1:2] * arch.outward(length)
    up = -1.0 if tooth.is_upper else 1.0
    return np.stack([flat[:, 0], tooth.rise + up * local[:, 2], flat[:, 1]], axis=1)


def _jaw(teeth: tuple[Tooth, ...], arch: Arch, lining: Lining, parts: tuple[Part, Part]) -> list[_Piece]:
    lengths = place_teeth(teeth, arch)
    is_upper = teeth[0].is_upper
    pieces: list[_Piece] = []
    for side, quadrant in enumerate((1, 2) if is_upper else (4, 3)):  # FDI: the subject's right first
        for tooth, length in zip(teeth, lengths, strict=True):
            vertices = _standing(tooth, arch, length) * [(-1, 1)[side], 1, 1]
            number = 10 * quadrant + tooth.place
            pieces.append((vertices, tooth_faces(tooth), _tooth_tile(tooth, number), parts[0], number))
    corner = np.array([0.0 if is_upper else 0.5, 0.5])
    gum = gum_vertices(teeth, lengths, arch, lining)
    return [*pieces, (gum, gum_faces(), corner + 0.01 + 0.48 * gum_layout(), parts[1], 0)]


def _tongue(lower_gum: np.ndarray) -> _Piece:
    """The tongue within the lower gum: the row on its lingual side is the one that comes closest."""
    size = 2 * SIDE + 1
    row = lower_gum[SIDE + 1 : SIDE + 1 + (ROWS - 1) * size].reshape(ROWS - 1, size, 3)[7, SIDE:]
    return tongue_vertices(row), tongue_faces(), np.array([0.755, 0.255]) + 0.24 * tongue_layout(), Part.TONGUE, 0


def _tooth_tile(tooth: Tooth, number: int) -> Float[np.ndarray, "n 2"]:
    """The tooth's square: a row for each quadrant of the mouth, seventh teeth in a corner block of their own."""
    quadrant = number // 10 - 1
    column, row = (tooth.place - 1, quadrant) if tooth.place < 7 else (6 + quadrant % 2, quadrant // 2)
    return (np.array([column, row]) + 0.04 + 0.92 * tooth_layout(tooth)) * _TILE


def _outward(piece: _Piece) -> np.ndarray:
    """The piece's faces, turned so that a closed body has positive volume and a gum's outer side looks out."""
    vertices, faces = piece[:2]
    corners = vertices[faces] - vertices.mean(axis=0)
    signed = np.linalg.det(corners)
    if piece[3] in (Part.UPPER_GUM, Part.LOWER_GUM):  # the ridge's front looks forward
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        signed = normals[: 3 * SIDE, 2]
    return faces if signed.sum() > 0 else faces[:, ::-1]
