"""A mouth laid into a face, and turned with its jaw.

Anatomy says where teeth lie behind a closed face, so the fit needs no teeth in the face mesh: only landmarks of lips,
jaw and nose, the ears, and the jaw joint.

- Size: the arch of an average adult in an average face, scaled by how wide this face's mouth and jaw are.
- Height: the upper central incisors end a little below the edge of the resting upper lip.
- Depth: they stand behind the upper lip by the thickness of a lip.
- Slope: the occlusal plane runs parallel to the line from the wing of the nose to the ear (Camper's).
- Then the mouth goes back, and shrinks if that is not enough, until nothing comes near the outer skin. What is left is
  for `measure_penetration` to tell.

The lower jaw turns about the face's own jaw joint, that of its skinning: the midpoint between the condyles, about which
a real jaw turns while it opens by the first 17 mm. A pivot chosen by eye, as the paper has it, would drift against the
lower lip, which follows that joint; and a joint regressed from the neutral face exists for every subject.

Source:
    The ECAvatar paper, section 3.4 ("translate, scale, and rotate", without a rule). Woelfel, Igarashi and Dong, J Adv
    Prosthodont 6(6), 2014: occlusal plane and ala-tragus line are parallel, hinge opening is 17.2 mm. Upper incisors
    show by 2 mm below the resting lip: the widely used guide that Am J Orthod Dentofacial Orthop 161(5), 2022,
    e439-e445 examines; Vig and Brundo, J Prosthet Dent 39(5), 1978, give 1.9 mm for men and 3.4 mm for women (not
    checked against the paper). Soft tissue in front of the teeth at the upper lip's border, 11 to 12 mm: Stephan and
    Simpson, J Forensic Sci 53(6), 2008, not checked against the paper either.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ecavatar.errors import DataError, ShapeError
from ecavatar.face.landmarks import ibug68_points
from ecavatar.face.model import FaceAsset
from ecavatar.face.tags import require_vertex_order
from ecavatar.mouth.model import ARCH_RANGE_M, MouthMesh, Part
from ecavatar.mouth.penetration import is_outside, outer_skin
from ecavatar.mouth.rig import checked_head, head_axes

_ARCH_M = 0.0634
"""Width of an average adult's upper teeth: that of the open mouth, from cheek side to cheek side of its second molars.
Its first molars are as far apart as people's (see `arch`)."""
_MOUTH_M, _JAW_M = 0.048, 0.098
"""Mouth corners and jaw (iBUG 48 to 54, 5 to 11) of an average adult's face: FLAME's template, the mean of 3,800."""
_SHOW_M = 0.002
_LIP_M = 0.0115
_CLEARANCE_M = 0.005  # a lip where it is thinnest: teeth and gums keep this far behind the skin and the lip line
_FARTHEST_BACK_M, _HALVINGS = 0.008, 7  # how far back at most; the way is found to 1/64 of that
_SMALLEST, _STEP = 0.8, 0.98  # of the anatomical size; by how much each attempt shrinks
_OPEN_M = 0.004  # lips farther apart are an open mouth; closed ones of 12 templates: up to 2.2 mm
_STEEPEST = np.radians(35)
_JAW = 2  # row of FaceAsset.joint_regressor
_CORNERS, _JAW_SIDES, _WINGS = (48, 54), (5, 11), (31, 35)
_UPPER_BORDER, _UPPER_EDGE, _MIDLINE = 51, 62, (33, 51, 62, 66)
_UPPER_INNER, _LOWER_INNER = (61, 62, 63), (67, 66, 65)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MouthFit:
    """Where a mouth lies in a subject's face and how it opens; float64, metres, in the face mesh's coordinates.

    A mouth's vertex v comes to lie at scale * rotation @ v + translation.
    """

    scale: float
    rotation: Float[np.ndarray, "3 3"]
    """Orthonormal, determinant +1."""
    translation: Float[np.ndarray, " 3"]
    """Where the point between the edges of the upper central incisors lies."""
    axis: Float[np.ndarray, " 3"]
    """Unit vector to the subject's left; a right-handed turn about it opens the mouth."""
    pivot: Float[np.ndarray, " 3"]
    """Point of the head's yz plane about which the lower jaw turns."""

    def closed(self, mouth: MouthMesh) -> Float[np.ndarray, "M 3"]:
        """The mouth in the subject's neutral face, jaws closed; float64."""
        # no BLAS: its last bits may depend on the number of threads
        return self.scale * np.einsum("mi,ji->mj", mouth.vertices.astype(np.float64), self.rotation) + self.translation


def fit_mouth(mouth: MouthMesh, neutral: Float[np.ndarray, "V 3"], asset: FaceAsset) -> MouthFit:
    """Lay a mouth into a neutral face.

    Args:
        mouth: any size; only the width of its upper teeth and its frame count.
        neutral: the subject's face, mouth closed, head at pose zero, metres, in the asset's topology.
        asset: gives landmarks, ear regions, triangles and the jaw joint.

    Raises:
        ShapeError: the face has another number of vertices.
        TopologyError: the face has another vertex order.
        DataError: the face is not finite, not in metres, tilted, or opens its mouth; the mouth is not in metres; the
            asset's landmarks do not enclose the mouth.
    """
    face = checked_head(neutral, asset)
    require_vertex_order(asset, face, "the neutral face")
    landmarks = ibug68_points(asset, face)
    _require_closed(landmarks)
    origin, axes = head_axes(face, asset)
    size = _face_size(landmarks)
    fit = MouthFit(
        scale=size * _ARCH_M / _arch_width(mouth),
        rotation=_orientation(face, landmarks, axes, asset),
        translation=_incisor_edge(landmarks, axes, size),
        axis=axes[0],
        pivot=_jaw_pivot(face, origin, axes, asset),
    )
    return _kept_inside(fit, mouth, face, outer_skin(asset), forward=axes[2])


def pose_mouth(
    mouth: MouthMesh,
    fit: MouthFit,
    angles: Float[np.ndarray, " T"],
    out: Float[np.ndarray, "T M 3"] | None = None,
) -> Float[np.ndarray, "T M 3"]:
    """The mouth in each frame: upper teeth and gum rest, lower teeth, lower gum and tongue turn by the angle.

    Each frame is written once and nothing else of the clip's size is made. Upper parts are the same to the bit in every
    frame.

    Args:
        mouth: the mouth that was fitted.
        fit: of the subject.
        angles: radians, positive opens, as `ChinRig.angles` gives them.
        out: float32, contiguous; written and returned where it is given.

    Raises:
        ShapeError: angles are no row of numbers, or `out` has another shape, dtype or order.
        DataError: an angle is not finite.
    """
    angles = np.asarray(angles, dtype=np.float64)
    if angles.ndim != 1:
        raise ShapeError(f"angles: expected (T,), got {angles.shape}.")
    if not np.isfinite(angles).all():
        raise DataError(f"angle of frame {int(np.argmin(np.isfinite(angles)))} is not finite; measure it again.")
    shape = (len(angles), len(mouth.vertices), 3)
    out = np.empty(shape, np.float32) if out is None else out
    if out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ShapeError(f"out: expected contiguous float32 {shape}, got {out.dtype} {out.shape}.")
    still, cosine, sine = _circles(mouth, fit)
    part = np.empty_like(still)
    # frame by frame, as a frame stays in the cache; a matrix product is a little quicker, but its last bits may depend
    # on the number of frames and threads
    for frame, cos, sin in zip(out, np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32), strict=True):
        np.multiply(cosine, cos, out=frame)
        frame += still
        frame += np.multiply(sine, sin, out=part)
    return out


class MouthPoser(nn.Module):
    """`pose_mouth` in torch: batched, on the device where the module is, differentiable in the angles.

    Sums and products element by element rather than a matrix product, which a GPU may do in TF32: that would move teeth
    by 0.1 mm.
    """

    still: Tensor
    cosine: Tensor
    sine: Tensor

    def __init__(self, mouth: MouthMesh, fit: MouthFit) -> None:
        super().__init__()
        for name, circle in zip(("still", "cosine", "sine"), _circles(mouth, fit), strict=True):
            self.register_buffer(name, torch.from_numpy(circle), persistent=False)

    def forward(self, angles: Float[Tensor, " T"]) -> Float[Tensor, "T M 3"]:
        """The mouth in each frame, float32 metres.

        Args:
            angles: radians, positive opens; on the module's device.

        Raises:
            ShapeError: not (T,).
        """
        if angles.ndim != 1:
            raise ShapeError(f"angles: expected (T,), got {tuple(angles.shape)}.")
        angles = angles[:, None, None]
        posed = torch.addcmul(self.still, angles.cos().to(self.still), self.cosine)
        return torch.addcmul(posed, angles.sin().to(self.still), self.sine)


def _circles(mouth: MouthMesh, fit: MouthFit) -> Float[np.ndarray, "3 M 3"]:
    """a, b, c of each vertex, float32, for which it lies at a + b cos(angle) + c sin(angle)."""
    closed = fit.closed(mouth)
    arm = np.where(mouth.follows_jaw[:, None], closed - fit.pivot, 0.0)
    across = arm - (arm * fit.axis).sum(axis=1, keepdims=True) * fit.axis
    return np.stack([closed - across, across, np.cross(fit.axis, across)]).astype(np.float32)


# --- where anatomy puts the teeth -------------------------------------------------------------------------------------


def _require_closed(landmarks: Float[np.ndarray, "68 3"]) -> None:
    gap = float((landmarks[list(_UPPER_INNER), 1] - landmarks[list(_LOWER_INNER), 1]).mean())
    if gap > _OPEN_M:
        raise DataError(
            f"the neutral face has its lips {1000 * gap:.1f} mm apart, expected at most {1000 * _OPEN_M:.0f} mm. Teeth "
            "are placed behind a closed mouth: set expression and jaw pose to zero, or give the subject's template."
        )


def _face_size(landmarks: Float[np.ndarray, "68 3"]) -> float:
    """Size of the lower face relative to an average adult's."""
    mouth, jaw = (np.linalg.norm(landmarks[one] - landmarks[other]) for one, other in (_CORNERS, _JAW_SIDES))
    return float(mouth / _MOUTH_M + jaw / _JAW_M) / 2


def _arch_width(mouth: MouthMesh) -> float:
    upper = mouth.vertices[mouth.part == Part.UPPER_TEETH]
    width = float(np.ptp(upper[:, 0])) if len(upper) else 0.0
    if not ARCH_RANGE_M[0] <= width <= ARCH_RANGE_M[1]:
        raise DataError(
            f"the upper teeth of mouth {mouth.name!r} are {width:g} wide, expected {ARCH_RANGE_M[0]} to "
            f"{ARCH_RANGE_M[1]} m. Is it in metres, with upper teeth labelled and +x to the subject's left?"
        )
    return width


def _orientation(
    face: np.ndarray, landmarks: np.ndarray, axes: Float[np.ndarray, "3 3"], asset: FaceAsset
) -> Float[np.ndarray, "3 3"]:
    """Columns: the mouth's x, y, z in the face's coordinates; z along Camper's line, seen from the side."""
    line = landmarks[list(_WINGS)].mean(axis=0) - _tragus(face, axes[2], asset)
    slope = float(np.arctan2(line @ axes[1], line @ axes[2]))
    if abs(slope) > _STEEPEST:
        raise DataError(
            f"the line from ear to nose is tilted by {np.degrees(slope):.0f} degrees, expected at most "
            f"{np.degrees(_STEEPEST):.0f}. Bring the head to pose zero, and check the landmark embedding."
        )
    forward = np.cos(slope) * axes[2] + np.sin(slope) * axes[1]
    return np.stack([axes[0], np.cross(forward, axes[0]), forward], axis=1)


def _tragus(face: np.ndarray, forward: np.ndarray, asset: FaceAsset) -> Float[np.ndarray, " 3"]:
    """Midpoint between the ears' front edges: of each ear region the foremost tenth."""
    fronts = []
    for name in ("left_ear", "right_ear"):
        ear = face[asset.regions[name]]
        foremost = np.argsort(-(ear @ forward), kind="stable")[: max(1, len(ear) // 10)]
        fronts.append(ear[foremost].mean(axis=0))
    return np.mean(fronts, axis=0)


def _incisor_edge(
    landmarks: Float[np.ndarray, "68 3"], axes: Float[np.ndarray, "3 3"], size: float
) -> Float[np.ndarray, " 3"]:
    """Between the edges of the upper central incisors: below the upper lip's edge, behind its border with the skin."""
    sideways = landmarks[list(_MIDLINE)].mean(axis=0) @ axes[0]
    height = landmarks[_UPPER_EDGE] @ axes[1] - size * _SHOW_M
    depth = landmarks[_UPPER_BORDER] @ axes[2] - size * _LIP_M
    return np.array([sideways, height, depth]) @ axes


def _jaw_pivot(face: np.ndarray, origin: np.ndarray, axes: np.ndarray, asset: FaceAsset) -> Float[np.ndarray, " 3"]:
    joint = (asset.joint_regressor[_JAW].astype(np.float64)[:, None] * face).sum(axis=0)
    return joint - ((joint - origin) @ axes[0]) * axes[0]


def _kept_inside(fit: MouthFit, mouth: MouthMesh, face: np.ndarray, skin: np.ndarray, forward: np.ndarray) -> MouthFit:
    """The fit moved back, then shrunk towards the incisors, until the mouth keeps clear of the skin or both are spent.

    The clearance is kept forward, where the lips are: the mouth, moved forward by it, must not stick out.
    """

    def sticking_out(tried: MouthFit) -> Float[np.ndarray, "N 3"]:
        ahead = tried.closed(mouth) + _CLEARANCE_M * forward
        return ahead[is_outside(face, skin, ahead)]

    out = sticking_out(fit)
    back = _way_back(out, face, skin, forward)
    fit, smallest = replace(fit, translation=fit.translation - back * forward), _SMALLEST * fit.scale
    while len(out) and len(out := sticking_out(fit)) and fit.scale * _STEP >= smallest:
        fit = replace(fit, scale=fit.scale * _STEP)
    return fit


def _way_back(points: Float[np.ndarray, "N 3"], face: np.ndarray, skin: np.ndarray, forward: np.ndarray) -> float:
    """How far back points have to go until none is outside the skin, by bisection; at most `_FARTHEST_BACK_M`."""
    if not len(points):
        return 0.0
    enough, too_little = 2 * _FARTHEST_BACK_M, 0.0
    for _ in range(_HALVINGS):  # the first tries the limit itself
        middle = (enough + too_little) / 2
        if is_outside(face, skin, points - middle * forward).any():
            too_little = middle
        else:
            enough = middle
    return min(enough, _FARTHEST_BACK_M)
