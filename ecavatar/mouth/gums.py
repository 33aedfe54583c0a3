"""Gums: one open sheet for each jaw, from behind the lip over the ridge to the palate or the floor of the mouth.

A sheet is a grid: columns stand along the arch, six to a tooth, and rows run across it. The left and the right half
share their last row, which lies on the midline, so that a sheet has the topology of a disc; its first row has half the
columns. Teeth go through the sheet: it makes a collar round each neck and a papilla between two teeth, and its middle
rows lie inside the teeth on purpose.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ecavatar.mouth.arch import Arch
from ecavatar.mouth.teeth import Tooth, tooth_vertices

SIDE = 42
"""Cells along one side of the arch."""
ROWS = 12
"""Cells from the outer border to the midline."""
_PER_TOOTH = 6
_BEHIND = 2.6  # the sheet ends this far behind the last tooth, millimetres


@dataclass(frozen=True, slots=True, kw_only=True)
class Lining:
    """What the sheet does inside the arch."""

    front: float
    """Depth of the inner sheet below the teeth's necks at the front, millimetres."""
    middle: float
    """The same at the molars."""


PALATE = Lining(front=1.5, middle=10.0)
FLOOR = Lining(front=2.5, middle=6.0)


def gum_vertices(
    teeth: tuple[Tooth, ...], lengths: list[float], arch: Arch, lining: Lining
) -> Float[np.ndarray, "n 3"]:
    """Vertices (x, y, z) of a jaw's gum, millimetres.

    Args:
        teeth: of the left side, from the midline backwards.
        lengths: where each stands on the arch.
        arch: the jaw's.
        lining: palate or floor.
    """
    left = _left_half(teeth, lengths, arch)
    columns = np.concatenate([left[:0:-1] * [-1, 1, 1], left])
    up = 1.0 if teeth[0].is_upper else -1.0
    inner = _inner_rows(columns, lining, up)
    rows = np.concatenate([columns, inner[:, :-1]], axis=1)
    middle = inner[SIDE:, -1] * [0, 1, 1]
    return np.concatenate([rows[::2, 0], rows[:, 1:].transpose(1, 0, 2).reshape(-1, 3), middle])


def gum_faces() -> Int[np.ndarray, "k 3"]:
    """Triangles of `gum_vertices`, all turned the same way."""
    border, size = np.arange(SIDE + 1), 2 * SIDE + 1
    rows = SIDE + 1 + np.arange((ROWS - 1) * size).reshape(ROWS - 1, size)
    middle = rows[-1, -1] + 1 + np.abs(np.arange(size) - SIDE)
    first, even, odd, then = border[:-1], rows[0, :-1:2], rows[0, 1::2], rows[0, 2::2]
    fans = [(first, even, odd), (first, odd, border[1:]), (border[1:], odd, then)]
    grid = np.concatenate([rows, middle[None]])
    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
    right, left = slice(None, SIDE), slice(SIDE, None)  # cut as each other's mirror image
    pieces = [(right, (a, b, c)), (right, (a, c, d)), (left, (a, b, d)), (left, (b, c, d))]
    quads = [np.stack([x[:, side].ravel() for x in corners], axis=1) for side, corners in pieces]
    return np.concatenate([*(np.stack(fan, axis=1) for fan in fans), *quads]).astype(np.int32)


def gum_layout() -> Float[np.ndarray, "n 2"]:
    """Texture coordinates in 0..1 of `gum_vertices`: the midline upright in the middle, the border a wide arch."""
    turn = np.linspace(-1, 1, 2 * SIDE + 1) * 0.62 * np.pi
    outer = np.stack([0.5 + 0.49 * np.sin(turn), 0.5 + 0.49 * np.cos(turn)], axis=1)
    line = np.stack([np.full(2 * SIDE + 1, 0.5), 0.75 - 0.6 * np.abs(np.linspace(-1, 1, 2 * SIDE + 1))], axis=1)
    share = np.linspace(0, 1, ROWS + 1)[None, :, None]
    rows = outer[:, None] * (1 - share) + line[:, None] * share
    return np.concatenate([rows[::2, 0], rows[:, 1:-1].transpose(1, 0, 2).reshape(-1, 2), line[SIDE:]])


def _left_half(teeth: tuple[Tooth, ...], lengths: list[float], arch: Arch) -> np.ndarray:
    """(SIDE + 1, 9, 3): the rows around the teeth, from the midline backwards."""
    along, nearness = _columns(teeth, lengths)
    necks = np.array([_neck(tooth) for tooth in teeth])
    outer, inner, level = (np.interp(along, lengths, column) for column in necks.T)
    papilla = np.interp(along, lengths, [(0.36 if t.cusps == 0 else 0.28) * t.crown for t in teeth])
    papilla[-_PER_TOOTH // 2 :] = 0.4  # behind the last tooth there is no papilla
    offset, height = _profile(outer, inner, papilla, nearness)
    outward = arch.outward(along)
    flat = arch.at(along)[:, None] + offset[..., None] * outward[:, None]
    up = -1.0 if teeth[0].is_upper else 1.0
    flat[0, :, 0] = 0.0
    return np.stack([flat[..., 0], level[:, None] + up * height, flat[..., 1]], axis=2)


def _columns(teeth: tuple[Tooth, ...], lengths: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Arc length of each column, and its nearness to a gap: 0 at a tooth's middle, 1 between two teeth."""
    ends = [0.0]
    for tooth, after, here, there in zip(teeth, teeth[1:], lengths, lengths[1:], strict=False):
        ends.append(here + (there - here) * tooth.width / (tooth.width + after.width))
    ends.append(lengths[-1] + teeth[-1].width / 2 + _BEHIND)
    half = np.arange(_PER_TOOTH // 2) / (_PER_TOOTH // 2)
    along = [
        np.concatenate([start + (mid - start) * half, mid + (end - mid) * half])
        for start, mid, end in zip(ends, lengths, ends[1:], strict=False)
    ]
    nearness = np.tile(np.concatenate([1 - half, half]), len(teeth))
    return np.append(np.concatenate(along), ends[-1]), np.append(nearness, 1.0) ** 2.5


def _neck(tooth: Tooth) -> tuple[float, float, float]:
    """Outer and lingual offset of a tooth's neck from the arch, and its height y."""
    vertices = tooth_vertices(tooth)
    level = -tooth.crown * np.cos(np.radians(tooth.inclination))
    around = vertices[np.abs(vertices[:, 2] - level) < 1.2]
    up = -1.0 if tooth.is_upper else 1.0
    return float(around[:, 1].max()), float(around[:, 1].min()), tooth.rise + up * level


def _profile(
    outer: np.ndarray, inner: np.ndarray, papilla: np.ndarray, nearness: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Offset from the arch and height above the neck of nine rows at each column."""
    zero, middle = np.zeros_like(outer), (outer + inner) / 2
    at_tooth = [
        (outer - 0.3, zero - 10), (outer + 1.1, zero - 5), (outer + 1.2, zero - 2.2), (outer + 0.75, zero - 0.2),
        (outer - 0.6, zero + 0.8), (middle, zero - 0.5), (inner + 0.6, zero + 0.8), (inner - 0.75, zero - 0.2),
        (inner - 1.4, zero - 2.4),
    ]  # fmt: skip
    between = [
        (outer - 0.6, zero - 10), (outer + 0.7, zero - 5), (outer + 0.7, zero - 2.2), (outer + 0.1, 0.3 * papilla),
        (0.55 * outer + 0.45 * middle, 0.8 * papilla), (0.15 * outer + 0.85 * middle, papilla),
        (0.55 * inner + 0.45 * middle, 0.8 * papilla), (inner - 0.1, 0.3 * papilla), (inner - 1.1, zero - 2.4),
    ]  # fmt: skip
    near = nearness[:, None]
    offset, height = (
        np.stack([a[k] for a in at_tooth], axis=1) * (1 - near) + np.stack([b[k] for b in between], axis=1) * near
        for k in (0, 1)
    )
    return offset, height


def _inner_rows(columns: np.ndarray, lining: Lining, up: float) -> np.ndarray:
    """(2 SIDE + 1, 4, 3): from the last row around the teeth to the midline, arched."""
    start, place = columns[:, -1], np.abs(np.arange(-SIDE, SIDE + 1)) / SIDE
    front, back = start[SIDE, 2], start[-1, 2]
    middle = front - 3.0 + place * (back - front + 3.0)
    ease = np.clip(place / 0.7, 0, 1)
    depth = lining.front + (lining.middle - lining.front) * ease**2 * (3 - 2 * ease)
    share = np.linspace(0, 1, ROWS - 7)[1:]
    calm = start[:, None] + np.minimum(3 * share, 1)[:, None] * (_smooth(start) - start)[:, None]
    height = calm[..., 1] + up * depth[:, None] * (1 - (1 - share) ** 2)
    z = calm[..., 2] * (1 - share) + middle[:, None] * share
    return np.stack([calm[..., 0] * (1 - share), height, z], axis=2)


def _smooth(line: np.ndarray) -> np.ndarray:
    """A line without the scallops of single teeth: the mean over two teeth, the ends going straight on."""
    reach = _PER_TOOTH
    steps = np.arange(1, reach + 1)[:, None]
    before, after = line[0] + steps[::-1] * (line[0] - line[1]), line[-1] + steps * (line[-1] - line[-2])
    padded = np.concatenate([before, line, after])
    kernel = np.ones(2 * reach + 1) / (2 * reach + 1)
    return np.stack([np.convolve(column, kernel, mode="valid") for column in padded.T], axis=1)
