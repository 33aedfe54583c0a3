"""Twenty-eight teeth: sizes from the book, shapes from a few curves, each a closed surface.

Third molars are left out: cheeks hide them, many adults lack them, and without them the teeth that are seen get more
vertices. A tooth ends in a short stump inside the gum, not in roots.

A tooth's own axes, millimetres: x distal, y outward (to lip or cheek), h towards the opposite jaw. The origin is the
middle of the incisal edge or the tip of the buccal cusps, with h measured from the cervix (the crown's end at the gum).

Source:
    Crown sizes: Nelson and Ash, Wheeler's Dental Anatomy, Physiology, and Occlusion, table 1-1, written down without
    the book at hand. Teaching pages that quote the table confirm both upper incisors (the lateral's depth at the
    cervix apart), the upper second premolar (likewise), the upper first molar and the lower central incisor; the other
    rows are not checked. The shapes follow the book's drawings in words: incisors are wedges with a cingulum, canines
    pointed, premolars have two cusps, molars four. Inclination: Andrews, The six keys to normal occlusion, American
    Journal of Orthodontics 62, 1972 (crown torque; the values here are rounded and given to front teeth only).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.interpolate import PchipInterpolator

STUMP = 4.0
"""How far a tooth goes on inside the gum, below the cervix."""
GROOVE = 1.5
"""Depth of the groove between buccal and lingual cusps."""
_UPPER_CUSPS = 2.8  # half the distance between buccal and lingual cusp tips, the same on all upper teeth


@dataclass(frozen=True, slots=True, kw_only=True)
class Tooth:
    """One kind of tooth; millimetres and degrees."""

    place: int
    """1 (central incisor) to 7 (second molar), the second digit of its FDI number."""
    kind: Literal["incisor", "canine", "premolar", "molar"]
    is_upper: bool
    crown: float
    """Height of the crown, cervix to edge or cusp tip."""
    width: float
    """Mesiodistal diameter."""
    neck_width: float
    """Mesiodistal diameter at the cervix."""
    depth: float
    """Labio- or buccolingual diameter."""
    neck_depth: float
    """Labio- or buccolingual diameter at the cervix."""
    inclination: float
    """How far the edge leans towards the lips."""
    rise: float
    """Height of edge or cusp tip above the upper occlusal plane: 0 for upper teeth; overbite and curve of Spee."""

    @property
    def cusps(self) -> float:
        """Half the distance between buccal and lingual cusp tips (0 for front teeth)."""
        if self.kind in ("incisor", "canine"):
            return 0.0
        return _UPPER_CUSPS if self.is_upper else min(_UPPER_CUSPS, 0.27 * self.depth)

    @property
    def cells(self) -> tuple[int, int, int]:
        """Cells of the top along x and y, and rings below it."""
        return _CELLS[self.kind]


_CELLS = {"incisor": (10, 3, 8), "canine": (8, 4, 8), "premolar": (6, 8, 7), "molar": (8, 8, 7)}


def _row(
    place: int, crown: float, width: float, neck: float, depth: float, neck_depth: float, lean: float, rise: float = 0.0
) -> Tooth:
    kinds = ("incisor", "incisor", "canine", "premolar", "premolar", "molar", "molar")
    return Tooth(
        place=place,
        kind=kinds[place - 1],
        is_upper=rise == 0,
        crown=crown,
        width=width,
        neck_width=neck,
        depth=depth,
        neck_depth=neck_depth,
        inclination=lean,
        rise=rise,
    )


UPPER_TEETH = (
    _row(1, 10.5, 8.5, 7.0, 7.0, 6.0, 10),
    _row(2, 9.0, 6.5, 5.0, 6.0, 5.0, 8),
    _row(3, 10.0, 7.5, 5.5, 8.0, 7.0, 2),
    _row(4, 8.5, 7.0, 5.0, 9.0, 8.0, 0),
    _row(5, 8.5, 7.0, 5.0, 9.0, 8.0, 0),
    _row(6, 7.5, 10.0, 8.0, 11.0, 10.0, 0),
    _row(7, 7.0, 9.0, 7.0, 11.0, 10.0, 0),
)
LOWER_TEETH = (
    _row(1, 9.0, 5.0, 3.5, 6.0, 5.3, 6, 2.0),
    _row(2, 9.5, 5.5, 4.0, 6.5, 5.8, 5, 2.0),
    _row(3, 11.0, 7.0, 5.5, 7.5, 7.0, 2, 2.0),
    _row(4, 8.5, 7.0, 5.0, 7.5, 6.5, 0, 1.4),
    _row(5, 8.0, 7.0, 5.0, 8.0, 7.0, 0, 0.7),
    _row(6, 7.5, 11.0, 9.0, 10.5, 9.0, 0, 1.3),
    _row(7, 7.0, 10.5, 8.0, 10.0, 9.0, 0, 1.2),
)
"""Lower incisors overlap the upper ones by 2 mm (overbite; normal is 1 to 3 mm, see `arch.OVERJET`)."""


@lru_cache(maxsize=32)
def tooth_vertices(tooth: Tooth) -> Float[np.ndarray, "n 3"]:
    """Vertices (x, y, h) of a tooth: its top in rows, then rings down to the stump, then the stump's end."""
    across, deep, rings = tooth.cells
    p, q = np.meshgrid(np.linspace(-1, 1, across + 1), np.linspace(-1, 1, deep + 1), indexing="ij")
    p, q = p.ravel(), q.ravel()
    around = _perimeter(across, deep)
    crown = _crown(tooth)
    top = crown.top(p, q)
    shares = np.linspace(1, 0, rings + 1)[1:, None] ** 1.15
    heights = -STUMP + (top[around, 2] + STUMP) * shares
    sides = crown.side(p[around], q[around], heights, top[around])
    end = [[0.0, sides[-1, :, 1].mean(), -STUMP]]
    vertices = np.concatenate([top, sides.reshape(-1, 3), end])
    vertices[:, :2] *= np.array([tooth.width, tooth.depth]) / np.ptp(vertices[:, :2], axis=0)
    vertices = _leaning(tooth, vertices)
    vertices.setflags(write=False)  # kept: placing asks again and again
    return vertices


def tooth_faces(tooth: Tooth) -> Int[np.ndarray, "k 3"]:
    """Triangles of `tooth_vertices`, counter-clockwise from outside in (x, y, h) taken as a right-handed frame."""
    across, deep, rings = tooth.cells
    around, first = _perimeter(across, deep), (across + 1) * (deep + 1)
    size = len(around)
    a = (np.arange(across)[:, None] * (deep + 1) + np.arange(deep)).ravel()
    faces = [_quads(a, a + deep + 1, a + deep + 2, a + 1)]
    loops = np.concatenate([around, first + np.arange(rings * size)]).reshape(rings + 1, size)
    after = np.roll(loops, -1, axis=1)
    faces.append(_quads(loops[:-1].ravel(), loops[1:].ravel(), after[1:].ravel(), after[:-1].ravel()))
    end = np.full(size, first + rings * size)
    return np.concatenate([*faces, np.stack([loops[-1], end, after[-1]], axis=1)]).astype(np.int32)


def tooth_layout(tooth: Tooth) -> Float[np.ndarray, "n 2"]:
    """Texture coordinates in 0..1 of `tooth_vertices`: the top in the middle, rings around it.

    The stump's end lies in the middle again, so its triangles cover others there; the gum hides them.
    """
    across, deep, rings = tooth.cells
    p, q = np.meshgrid(np.linspace(-1, 1, across + 1), np.linspace(-1, 1, deep + 1), indexing="ij")
    top = _round(p.ravel(), q.ravel(), 0.9) * 0.35
    rim = top[_perimeter(across, deep)]
    rim /= np.linalg.norm(rim, axis=1, keepdims=True)
    sides = rim * np.linspace(0.4, 1, rings)[:, None, None]
    return 0.5 + 0.49 * np.concatenate([top, sides.reshape(-1, 2), [[0.01, 0.02]]])


@dataclass(frozen=True, slots=True)
class _Crown:
    """Outline of a crown by height: half its width, its outer and its lingual face, and how square it is."""

    tooth: Tooth
    half_width: PchipInterpolator
    outer: PchipInterpolator
    lingual: PchipInterpolator
    squareness: float

    def top(self, p: np.ndarray, q: np.ndarray) -> np.ndarray:
        """The biting surface at p (mesial -1, distal 1) and q (lingual -1, outer 1)."""
        rim = self.tooth.crown * 0.98
        flat = _round(p, q, self.squareness)
        middle = (self.outer(rim) + self.lingual(rim)) / 2
        half = (self.outer(rim) - self.lingual(rim)) / 2
        x, y = flat[:, 0] * self.half_width(rim), middle + flat[:, 1] * half
        return np.stack([x, y, self.tooth.crown - _drop(self.tooth, flat, x, y)], axis=1)

    def side(self, p: np.ndarray, q: np.ndarray, heights: np.ndarray, rim: np.ndarray) -> np.ndarray:
        """Rings at these heights (rings, n) around the crown; `rim` closes them above."""
        flat = _round(p, q, self.squareness)
        middle, half = (
            (self.outer(heights) + self.lingual(heights)) / 2,
            (self.outer(heights) - self.lingual(heights)) / 2,
        )
        return np.stack([flat[:, 0] * self.half_width(heights), middle + flat[:, 1] * half, heights], axis=2)


def _crown(tooth: Tooth) -> _Crown:
    at = np.array([-STUMP, 0.0, 0.25, 0.5, 0.75, 0.92, 1.05])
    at[1:] *= tooth.crown
    neck, wide = tooth.neck_width / 2, tooth.width / 2
    if tooth.cusps:
        widths = [0.7 * neck, neck, 0.4 * neck + 0.6 * wide, 0.93 * wide, wide, 0.93 * wide, 0.84 * wide]
        outer, lingual = _back_profile(tooth)
    else:
        widths = [0.7 * neck, neck, 0.55 * neck + 0.45 * wide, 0.2 * neck + 0.8 * wide, wide, 0.985 * wide, 0.93 * wide]
        outer, lingual = _front_profile(tooth)
    return _Crown(tooth, *(PchipInterpolator(at, values) for values in (widths, outer, lingual)), _SQUARE[tooth.kind])


_SQUARE = {"incisor": 0.62, "canine": 0.85, "premolar": 0.8, "molar": 0.6}


def _front_profile(tooth: Tooth) -> tuple[list[float], list[float]]:
    """Labial and lingual faces of incisor or canine at the heights of `_crown`: a wedge, thickest at the cingulum."""
    edge = 0.5 if tooth.kind == "incisor" else 0.75
    front, back = 0.36 * tooth.depth, -0.64 * tooth.depth
    neck_front, neck_back = 0.39 * tooth.neck_depth, -0.61 * tooth.neck_depth
    labial = [0.55 * neck_front, neck_front, front, 0.86 * front, 0.55 * front, edge + 0.3, edge]
    lingual = [0.7 * neck_back, neck_back, 0.97 * back, 0.62 * back, 0.31 * back, -edge - 0.35, -edge]
    return labial, lingual


def _back_profile(tooth: Tooth) -> tuple[list[float], list[float]]:
    """Buccal and lingual faces of premolar or molar; y = 0 is the line of buccal cusps."""
    middle, half, neck = -tooth.cusps, tooth.depth / 2, tooth.neck_depth / 2
    buccal = [0.7 * neck, neck, half, 0.96 * half, 0.88 * half, 0.76 * half, 0.7 * half]
    lingual = [0.7 * neck, neck, 0.97 * half, half, 0.94 * half, 0.82 * half, 0.74 * half]
    return [middle + b for b in buccal], [middle - b for b in lingual]


def _drop(tooth: Tooth, flat: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How far the biting surface lies below edge or cusp tip."""
    share = x / (0.47 * tooth.width)
    if tooth.kind == "incisor":
        corner = 0.9 if tooth.is_upper and tooth.place == 2 else 0.55
        mesial = np.where(share > 0, corner, 0.6 * corner)
        return 0.2 * flat[:, 1] ** 2 + mesial * np.abs(share) ** 6
    if tooth.kind == "canine":
        slope = np.where(share > 0, 2.4, 1.8)
        return 0.35 * flat[:, 1] ** 2 + slope * (np.sqrt(share**2 + 0.02) - 0.02**0.5)
    return _cusped_drop(tooth, x, y)


def _cusped_drop(tooth: Tooth, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Two ridges along the arch with a groove between; across them, valleys that make one or two cusps of a ridge."""
    side = (y + tooth.cusps) / tooth.cusps
    between = np.minimum(np.abs(side), 1)
    outside = np.maximum(np.abs(side) - 1, 0) * tooth.cusps
    wave = np.cos((4 if tooth.kind == "molar" else 2) * np.pi * np.clip(x / tooth.width, -0.5, 0.5))
    valley = (1 + wave) / 2 if tooth.kind == "molar" else (1 - wave) / 2
    small = 0.0 if tooth.is_upper or tooth.place != 4 else 1.0  # the lower first premolar's lingual cusp is small
    lingual = np.where(side < 0, small * np.abs(side), 0.0)
    groove = GROOVE * (1 + np.cos(np.pi * between)) / 2
    return groove + (0.25 + 0.75 * between) * valley * 0.9 + 0.45 * outside**2 + lingual


def _round(p: np.ndarray, q: np.ndarray, squareness: float) -> np.ndarray:
    """The square -1..1 bent towards a disc: 0 leaves it, 1 makes it round."""
    return np.stack([p * np.sqrt(1 - squareness * q**2 / 2), q * np.sqrt(1 - squareness * p**2 / 2)], axis=1)


def _perimeter(across: int, deep: int) -> np.ndarray:
    """Indices of the top's rim, counter-clockwise in (x, y)."""
    ids = np.arange((across + 1) * (deep + 1)).reshape(across + 1, deep + 1)
    return np.concatenate([ids[:-1, 0], ids[-1, :-1], ids[:0:-1, -1], ids[0, :0:-1]])


def _quads(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    return np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])


def _leaning(tooth: Tooth, vertices: np.ndarray) -> np.ndarray:
    """Turned about the edge so that it leans to the lips; h then counts from edge or cusp tip, downward negative."""
    angle = np.radians(tooth.inclination)
    x, y, h = vertices[:, 0], vertices[:, 1], vertices[:, 2] - tooth.crown
    return np.stack([x, y * np.cos(angle) + h * np.sin(angle), h * np.cos(angle) - y * np.sin(angle)], axis=1)
