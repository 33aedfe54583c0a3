"""The chin-angle rig: how far the lower teeth have turned, read off the face mesh.

The lips deform too freely to tell where the teeth are; the chin follows them. So each frame gets one angle: that of the
line from a point Q below the left ear to a point P on the chin, seen from the side, against the same line of the
subject's template. Lower teeth and tongue then turn by this angle, the upper teeth stay.

Axes, laid into the subject's template: origin at its centre, +x from the right ear to the left, +z out of the face, +y
up.
The angle is the right-handed rotation about +x that turns Q'P' of the template onto Q'P' of the frame, where ' is the
projection on the yz plane: positive opens the mouth, as FLAME's jaw_pose[0] does.

Simplification, the paper's: the angle at Q stands for the jaw's turn about its joint J. As Q lies beside J it is a
share of that turn, for small ones (P - J).(P - Q) / |P - Q|^2 in the side view: 0.85 to 0.88 in the open head's twelve
subjects (Q is 18 mm from J), whose chins move enough beside the jaw to make it 0.92 in speech. Nothing is calibrated.

Source:
    The ECAvatar paper, section 3.4. It does not say which vertices P and Q are; the rules here are ours.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ecavatar.config import RigSettings
from ecavatar.errors import DataError, ShapeError
from ecavatar.face.model import FaceAsset

_UP = np.array([0.0, 1.0, 0.0])
_JAW = 2  # column of FaceAsset.skinning
_STILL = 0.05  # Q may follow the jaw by at most this skinning weight
_MIDLINE = 0.04  # P lies within this share of the ear distance from the middle of the face
_SHORTEST = 0.01  # metres; a shorter line Q'P' makes no angle worth the name
_SIZE_M = (0.1, 1.0)  # of a head's longest side
_BLOCK = 64  # frames whose vertices (60 kB each) stay in the cache between check and measurement


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChinRig:
    """Axes of one subject and the vertices whose means are P and Q."""

    origin: Float[np.ndarray, " 3"]
    """Centre of the subject's face, metres, in the mesh's coordinates."""
    axes: Float[np.ndarray, "3 3"]
    """Rows: unit x, y, z in the mesh's coordinates; orthonormal, determinant +1."""
    chin: Int[np.ndarray, " p"]
    """Vertices whose mean is P: one, or the patch around it."""
    ear: Int[np.ndarray, " q"]
    """Vertices whose mean is Q."""
    rest: Float[np.ndarray, " 2"]
    """Q'P' of the template: its y and z, metres."""
    n_vertices: int

    @classmethod
    def fit(cls, template: Float[np.ndarray, "V 3"], asset: FaceAsset, settings: RigSettings) -> "ChinRig":
        """The rig of a subject.

        P and Q are chosen on the asset's own template, so they are the same vertices for every subject; the axes come
        from the subject's template.

        Args:
            template: the subject's neutral face, mouth closed, metres, in the asset's topology.
            asset: names the regions and which vertices follow the jaw.
            settings: `patch_mm` is the radius around P and Q whose vertices are averaged; 0 takes one vertex each.

        Raises:
            ShapeError: the template has another number of vertices.
            DataError: the template is not finite or not in metres, or no point fits the rule for P or Q.
        """
        template = checked_head(template, asset)
        chin = _patch(asset, chin_vertex(asset), settings.patch_mm)
        ear = _patch(asset, ear_vertex(asset), settings.patch_mm)
        origin, axes = head_axes(template, asset)
        rest = _side_view(template[None], axes, chin, ear)[0]
        if np.linalg.norm(rest) < _SHORTEST:
            raise DataError(
                f"chin and ear points are {np.linalg.norm(rest):.4f} m apart in the side view, expected at least "
                f"{_SHORTEST} m; is the template in metres?"
            )
        return cls(origin=origin, axes=axes, chin=chin, ear=ear, rest=rest, n_vertices=len(template))

    def angles(self, vertices: Float[np.ndarray, "T V 3"]) -> Float[np.ndarray, " T"]:
        """Chin angle of each frame against the template, radians in (-pi, pi], positive open; float64.

        Every vertex of every frame is looked at, once, while it is read: the frames may be a memory map of any length.

        Args:
            vertices: frames of the same subject, metres, same coordinates as the template.

        Raises:
            ShapeError: not (T, V, 3) floats with the template's V.
            DataError: a vertex is not finite; the message names the first frame and vertex.
        """
        vertices = np.asarray(vertices)
        if vertices.ndim != 3 or vertices.shape[1:] != (self.n_vertices, 3) or vertices.dtype.kind != "f":
            raise ShapeError(
                f"frames: expected (T, {self.n_vertices}, 3) floats, got {vertices.dtype} {vertices.shape}."
            )
        angles = np.empty(len(vertices))
        for start in range(0, len(vertices), _BLOCK):
            block = vertices[start : start + _BLOCK]
            _require_finite(vertices, start, block)
            y, z = _side_view(block, self.axes, self.chin, self.ear).T
            cross, dot = self.rest[0] * z - self.rest[1] * y, self.rest[0] * y + self.rest[1] * z
            angles[start : start + _BLOCK] = np.arctan2(cross, dot)
        return angles


def checked_head(vertices: Float[np.ndarray, "V 3"], asset: FaceAsset) -> Float[np.ndarray, "V 3"]:
    """A head of the asset's topology in float64, once its shape, its numbers and its unit are in order.

    Raises:
        ShapeError: it has another number of vertices.
        DataError: it is not finite, or its size is not that of a head in metres.
    """
    head = np.asarray(vertices, dtype=np.float64)
    if head.shape != asset.template.shape:
        raise ShapeError(
            f"head: expected {asset.template.shape} as in topology {asset.topology}, got {head.shape}. Give a mesh of "
            "this topology, or its face model."
        )
    is_finite = np.isfinite(head).all(axis=1)
    if not is_finite.all():
        raise DataError(
            f"head: {int((~is_finite).sum())} vertices are not finite, the first is {int(is_finite.argmin())}. Read it "
            "again from its corpus."
        )
    size = float(np.ptp(head, axis=0).max())
    if not _SIZE_M[0] < size < _SIZE_M[1]:
        raise DataError(f"head: expected {_SIZE_M[0]} to {_SIZE_M[1]} m in size, got {size:g}; is it in metres?")
    return head


def head_axes(
    template: Float[np.ndarray, "V 3"], asset: FaceAsset
) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, "3 3"]]:
    """Origin and axes (rows x, y, z) of a head, as the module's first paragraph defines them.

    x joins the centres of the ear regions; y is the mesh's own up, made perpendicular to x.

    Raises:
        DataError: the ears coincide or lie above each other.
    """
    across = template[asset.regions["left_ear"]].mean(axis=0) - template[asset.regions["right_ear"]].mean(axis=0)
    outward = np.cross(across, _UP)
    if np.linalg.norm(outward) < 1e-6:
        raise DataError("the ear regions give no left-right axis; is this a head with y up?")
    x, z = across / np.linalg.norm(across), outward / np.linalg.norm(outward)
    return template[asset.regions["face"]].mean(axis=0), np.stack([x, np.cross(z, x), z])


def chin_vertex(asset: FaceAsset) -> int:
    """P: of region C's vertices near the middle of the face, the one furthest forward and down (in equal parts)."""
    origin, axes = head_axes(asset.template.astype(np.float64), asset)
    local = (asset.template - origin) @ axes.T
    width = np.ptp(local[np.concatenate([asset.regions["left_ear"], asset.regions["right_ear"]]), 0])
    middle = asset.regions["C"][np.abs(local[asset.regions["C"], 0]) < _MIDLINE * width]
    below = middle[local[middle, 1] < local[asset.regions["lips"], 1].min()]
    if not len(below):
        raise DataError(f"{asset.topology}: region C has no vertex below the lips in the middle of the face.")
    return int(below[np.argmax(local[below, 2] - local[below, 1])])


def ear_vertex(asset: FaceAsset) -> int:
    """Q: the vertex nearest to the lowest point of the left ear that is below it, off the ear and off the jaw."""
    template, ear = asset.template.astype(np.float64), asset.regions["left_ear"]
    lowest = template[ear[np.argmin(template[ear, 1])]]
    is_candidate = (template[:, 1] < lowest[1]) & (template[:, 0] > 0.5 * lowest[0])
    is_candidate &= asset.skinning[:, _JAW] <= _STILL
    is_candidate[ear] = False
    candidates = np.flatnonzero(is_candidate)
    if not len(candidates):
        raise DataError(f"{asset.topology}: no vertex below the left ear stays still when the jaw turns.")
    return int(candidates[np.argmin(np.linalg.norm(template[candidates] - lowest, axis=1))])


def _patch(asset: FaceAsset, vertex: int, radius_mm: float) -> Int[np.ndarray, " n"]:
    distances = np.linalg.norm(asset.template - asset.template[vertex], axis=1)
    return np.flatnonzero(distances <= radius_mm / 1000)


def _require_finite(vertices: np.ndarray, start: int, block: np.ndarray) -> None:
    """Make sure that a block has only finite numbers; a frame's squared length tells, at the speed of reading it."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.array([np.dot(frame, frame) for frame in (one.reshape(-1) for one in block)])
    for frame in np.flatnonzero(~np.isfinite(lengths)):  # finite numbers whose squares overflow come here, too
        is_finite = np.isfinite(block[frame]).all(axis=1)
        if not is_finite.all():
            raise DataError(
                f"frame {start + frame} of {len(vertices)}: {int((~is_finite).sum())} vertices are not finite, the "
                f"first is {int(is_finite.argmin())}. Leave the clip out, or repair it at its source."
            )


def _side_view(
    vertices: Float[np.ndarray, "T V 3"], axes: Float[np.ndarray, "3 3"], chin: np.ndarray, ear: np.ndarray
) -> Float[np.ndarray, "T 2"]:
    """Q'P' of each frame: y and z in the head's axes. The origin cancels.

    Sums are written out, as the last bits of a matrix product may depend on the number of frames.
    """
    p = vertices[:, chin].astype(np.float64).mean(axis=1)
    q = vertices[:, ear].astype(np.float64).mean(axis=1)
    along = (p - q)[:, None] * axes[1:]
    return along[..., 0] + along[..., 1] + along[..., 2]
