"""The face mesh as a model: one file schema (`FaceAsset`) and its forward pass in torch (`FaceModel`).

The schema is FLAME's: a template, linear shape and expression bases, pose correctives linear in the entries of
R - I, five joints regressed from the shaped vertices, and linear blend skinning. Any head that is written in this
schema (FLAME's own files once converted, or the open head) runs through the same code. Two tags travel with it:
`topology` (what a vertex index means) and `basis` (what a coefficient means).

Source:
    Li et al., Learning a model of facial shape and expression from 4D scans, SIGGRAPH Asia 2017 (the FLAME model).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ecavatar.errors import AssetMissingError, DataError, ShapeError
from ecavatar.face.rotations import matrix_from_axis_angle
from ecavatar.storage.arrays import read_arrays, write_arrays

JOINT_NAMES = ("root", "neck", "jaw", "left_eye", "right_eye")
"""Order of the joints; a rotation of joint k turns what its skinning column names."""
PARENTS = (-1, 0, 1, 1, 1)
"""Parent of each joint, FLAME's kinematic tree."""
ARKIT_NAMES = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
"""The 52 expression units of Apple's ARKit, in alphabetical order: the order of every (…, 52) weight array here."""
ARKIT_INDEX: Mapping[str, int] = {name: index for index, name in enumerate(ARKIT_NAMES)}
"""Column of each unit in a weight array."""
REGION_NAMES = (
    "lips", "nose", "forehead", "eye_region", "left_ear", "right_ear", "neck", "scalp", "left_eyeball",
    "right_eyeball", "face", "upper_face", "L", "C", "F", "O",
)  # fmt: skip
"""Regions that every asset names; L, C, F, O partition the vertices."""
_LOOK = {"Up": 0.18, "Down": 0.27, "In": 0.38, "Out": 0.37}
"""Angles of the eyeLook units at weight 1, radians, as the CC0 Face Units turn the sources' eyes."""
_FORMAT = "ecavatar-face-1"
_OPTIONAL = {
    "mediapipe": "no embedding of MediaPipe's landmarks. Add one with `ecavatar assets add flame-mediapipe FILE`",
    "uv": "no texture coordinates. Add them with `ecavatar assets add flame-uv FILE`",
    "arkit": "no ARKit units, which no published FLAME file has. Use the open head, or expression coefficients",
}
_ROW_SUMS = {  # how far from 1 the sum of a row may be; published joint regressors are rounded
    "skinning": 1e-3, "ibug68_barycentrics": 1e-3, "mediapipe_barycentrics": 1e-3, "joint_regressor": 1e-2,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class FaceAsset:
    """A face model as arrays, metres and radians; x to the subject's left, y up, z forward.

    V vertices, F triangles, S shape and E expression components, K MediaPipe landmarks, T texture coordinates.
    Shape and expression components are scaled so that coefficient 1 is one standard deviation. FLAME comes without
    MediaPipe landmarks, texture coordinates and ARKit units: K and T may be 0, U (52 or 0) ARKit units likewise, and
    `require` says what to add where such a part is needed.
    """

    topology: str
    """Tag of the vertex order, for instance `open-head`."""
    basis: str
    """Tag of the coefficients' meaning."""
    template: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    shape_basis: Float[np.ndarray, "V 3 S"]
    expression_basis: Float[np.ndarray, "V 3 E"]
    pose_basis: Float[np.ndarray, "V 3 36"]
    """Correctives, linear in the row-major entries of R_k - I for joints 1..4."""
    joint_regressor: Float[np.ndarray, "5 V"]
    skinning: Float[np.ndarray, "V 5"]
    """Non-negative, rows sum to 1."""
    parents: Int[np.ndarray, " 5"]
    regions: Mapping[str, Int[np.ndarray, " _"]]
    """Sorted vertex indices by region name, at least `REGION_NAMES`."""
    ibug68_faces: Int[np.ndarray, " 68"]
    ibug68_barycentrics: Float[np.ndarray, "68 3"]
    mediapipe_indices: Int[np.ndarray, " K"]
    """Which of MediaPipe's 478 landmarks the next two arrays place on the mesh."""
    mediapipe_faces: Int[np.ndarray, " K"]
    mediapipe_barycentrics: Float[np.ndarray, "K 3"]
    uv: Float[np.ndarray, "T 2"]
    """Texture coordinates, origin bottom left."""
    uv_faces: Int[np.ndarray, "_ 3"]
    """One row for each triangle; none where T is 0."""
    arkit_names: tuple[str, ...]
    """`ARKIT_NAMES`, or empty."""
    arkit_expression: Float[np.ndarray, "U E"]
    """Expression coefficients of each unit at weight 1."""
    arkit_jaw: Float[np.ndarray, "U 3"]
    """Jaw rotation of each unit at weight 1, axis-angle."""

    def __post_init__(self) -> None:
        """Fix dtypes, freeze the arrays, check the asset against itself.

        Raises:
            DataError: every contradiction found, in one message.
        """
        for name, dtype in _DTYPES.items():
            object.__setattr__(self, name, _frozen(getattr(self, name), dtype))
        regions = {name: _frozen(indices, np.int32) for name, indices in sorted(self.regions.items())}
        object.__setattr__(self, "regions", regions)
        object.__setattr__(self, "arkit_names", tuple(map(str, self.arkit_names)))
        problems = _problems(self)
        if problems:
            listed = "\n".join(f"  {problem}" for problem in problems)
            raise DataError(f"face asset {self.topology!r} contradicts itself:\n{listed}\nBuild or convert it again.")

    def __repr__(self) -> str:
        counts = f"{self.n_vertices} vertices, {self.n_shape} shapes, {self.n_expression} expressions"
        return f"FaceAsset({self.topology!r}, {self.basis!r}, {counts})"

    @property
    def n_vertices(self) -> int:
        """Number of vertices V."""
        return len(self.template)

    @property
    def n_shape(self) -> int:
        """Number of shape components S."""
        return self.shape_basis.shape[2]

    @property
    def n_expression(self) -> int:
        """Number of expression components E."""
        return self.expression_basis.shape[2]

    def save(self, path: Path) -> None:
        """Write the asset as one npz, whole or not at all; the same asset gives the same bytes every time."""
        arrays = {name: getattr(self, name) for name in _DTYPES}
        arrays |= {f"region:{name}": indices for name, indices in self.regions.items()}
        facts = {"format": _FORMAT, "topology": self.topology, "basis": self.basis, "arkit_names": self.arkit_names}
        write_arrays(Path(path), arrays, facts)

    def require(self, part: Literal["mediapipe", "uv", "arkit"]) -> None:
        """Make sure that the model has an optional part before it is used.

        Raises:
            AssetMissingError: it has not; the message says what to add.
        """
        rows = {"mediapipe": self.mediapipe_indices, "uv": self.uv, "arkit": self.arkit_names}[part]
        if len(rows) == 0:
            raise AssetMissingError(f"face model {self.topology!r} ({self.basis}) has {_OPTIONAL[part]}.")

    @classmethod
    def load(cls, path: Path) -> "FaceAsset":
        """The asset written by `save`, checked.

        Raises:
            AssetMissingError: no such file.
            DataError: not a face asset of this format, or its arrays contradict each other.
        """
        path = Path(path)
        if not path.is_file():
            raise AssetMissingError(f"face model {path} not found. `dvc repro` makes the open head; FLAME is added by "
                                    "`ecavatar assets add flame FILE`.")  # fmt: skip
        try:
            arrays, facts = read_arrays(path)
        except DataError as error:
            raise DataError(f"{path} is not a face model file: {error}") from None
        missing = sorted(set(_DTYPES) - set(arrays))
        if facts.get("format") != _FORMAT or missing:
            raise DataError(f"{path}: expected format {_FORMAT}, found {facts.get('format')!r}, missing {missing}. "
                            "Build or convert it again.")  # fmt: skip
        regions = {name.removeprefix("region:"): arrays[name] for name in arrays if name.startswith("region:")}
        try:
            tags = {name: facts[name] for name in ("topology", "basis", "arkit_names")}
            return cls(**tags, **{name: arrays[name] for name in _DTYPES}, regions=regions)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        except (KeyError, TypeError, ValueError) as error:  # a tag is missing, an array holds texts or nothing
            raise DataError(f"{path} is damaged ({error!r}). Build or convert it again.") from None


_DTYPES = {
    field.name: np.int32
    if field.name in ("faces", "parents", "ibug68_faces", "mediapipe_indices", "mediapipe_faces", "uv_faces")
    else np.float32
    for field in fields(FaceAsset)
    if field.name not in ("topology", "basis", "regions", "arkit_names")
}


def _frozen(array: np.ndarray, dtype: type) -> np.ndarray:
    result = np.array(array, dtype=dtype, order="C", copy=True)
    result.setflags(write=False)
    return result


def _problems(asset: FaceAsset) -> list[str]:
    """Everything in which the asset's arrays contradict each other."""
    v, f = len(asset.template), len(asset.faces)
    s, e = asset.shape_basis.shape[-1], asset.expression_basis.shape[-1]
    k, t, u = len(asset.mediapipe_indices), len(asset.uv), len(asset.arkit_names)
    expected = {
        "template": (v, 3), "faces": (f, 3), "shape_basis": (v, 3, s), "expression_basis": (v, 3, e),
        "pose_basis": (v, 3, 36), "joint_regressor": (5, v), "skinning": (v, 5), "parents": (5,),
        "ibug68_faces": (68,), "ibug68_barycentrics": (68, 3), "mediapipe_indices": (k,), "mediapipe_faces": (k,),
        "mediapipe_barycentrics": (k, 3), "uv": (t, 2), "uv_faces": (f if t else 0, 3), "arkit_expression": (u, e),
        "arkit_jaw": (u, 3),
    }  # fmt: skip
    shapes = [
        f"{name}: expected shape {shape}, got {getattr(asset, name).shape}"
        for name, shape in expected.items()
        if getattr(asset, name).shape != shape
    ]
    return shapes or [*_value_problems(asset), *_region_problems(asset)]


def _value_problems(asset: FaceAsset) -> list[str]:
    v, f = len(asset.template), len(asset.faces)
    ranges = {"faces": v, "uv_faces": len(asset.uv), "ibug68_faces": f, "mediapipe_faces": f, "mediapipe_indices": 478}
    problems = [
        f"{name}: indices must lie in 0..{stop - 1}"
        for name, stop in ranges.items()
        if getattr(asset, name).size and not 0 <= getattr(asset, name).min() <= getattr(asset, name).max() < stop
    ]
    floats = [name for name, dtype in _DTYPES.items() if dtype is np.float32]
    problems += [f"{name}: not finite" for name in floats if not np.isfinite(getattr(asset, name)).all()]
    for name, tolerance in _ROW_SUMS.items():
        if np.abs(getattr(asset, name).sum(axis=1) - 1).max(initial=0) > tolerance:
            problems.append(f"{name}: rows must sum to 1")
    if asset.skinning.min() < 0:
        problems.append("skinning: weights must not be negative")
    if tuple(asset.parents.tolist()) != PARENTS:
        problems.append(f"parents: expected {PARENTS}, got {tuple(asset.parents.tolist())}")
    if asset.arkit_names not in (ARKIT_NAMES, ()):
        problems.append("arkit_names: expected the 52 names of ARKIT_NAMES in that order, or none")
    return problems


def _region_problems(asset: FaceAsset) -> list[str]:
    v = len(asset.template)
    problems = [f"regions: {name!r} is missing" for name in REGION_NAMES if name not in asset.regions]
    for name, indices in asset.regions.items():
        if indices.ndim != 1 or (indices.size and (indices[0] < 0 or indices[-1] >= v or (np.diff(indices) < 1).any())):
            problems.append(f"regions: {name!r} must be sorted, unique vertex indices below {v}")
    if not problems:
        together = np.concatenate([asset.regions[name] for name in ("L", "C", "F", "O")])
        if len(together) != v or len(np.unique(together)) != v:
            problems.append(f"regions: L, C, F, O must partition the {v} vertices, they hold {len(together)} entries")
    return problems


class FaceModel(nn.Module):
    """Vertices from coefficients and poses: FLAME's forward pass, batched and differentiable.

    Buffers are float32 and move with the module; a call computes in the device and dtype of `shape`.
    """

    def __init__(self, asset: FaceAsset) -> None:
        super().__init__()
        self.asset = asset
        v, s, e = asset.n_vertices, asset.n_shape, asset.n_expression
        regressor = asset.joint_regressor.astype(np.float64)
        buffers = {
            "template": asset.template.reshape(-1),
            "shape_rows": asset.shape_basis.reshape(v * 3, s).T,
            "expression_rows": asset.expression_basis.reshape(v * 3, e).T,
            "pose_rows": asset.pose_basis.reshape(v * 3, 36).T,
            "skinning": asset.skinning,
            # joints are linear in the coefficients: no need to regress them from the vertices of every call
            "joints": regressor @ asset.template,
            "joints_by_shape": np.einsum("jv,vcs->sjc", regressor, asset.shape_basis),
            "joints_by_expression": np.einsum("jv,vce->ejc", regressor, asset.expression_basis),
        }
        for name, array in buffers.items():
            tensor = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
            self.register_buffer(name, tensor, persistent=False)

    def forward(
        self,
        shape: Float[Tensor, "B S"],
        expression: Float[Tensor, "B E"],
        jaw_pose: Float[Tensor, "B 3"] | None = None,
        global_pose: Float[Tensor, "B 3"] | None = None,
        neck_pose: Float[Tensor, "B 3"] | None = None,
        eye_pose: Float[Tensor, "B 6"] | None = None,
        translation: Float[Tensor, "B 3"] | None = None,
    ) -> Float[Tensor, "B V 3"]:
        """Vertices in metres; a batch of 1 is repeated to the size of the others.

        Args:
            shape: leading shape coefficients, at most S.
            expression: leading expression coefficients, at most E.
            jaw_pose: axis-angle of the jaw, x > 0 opens; None (here and below) means zero.
            global_pose: axis-angle about the root joint.
            neck_pose: axis-angle about the neck joint.
            eye_pose: axis-angle of the left, then of the right eye.
            translation: added last, metres.

        Raises:
            ShapeError: too many coefficients, or batch sizes that do not fit.
        """
        poses = {"global_pose": global_pose, "neck_pose": neck_pose, "jaw_pose": jaw_pose, "eye_pose": eye_pose}
        batch = self._checked_batch(shape, expression, poses | {"translation": translation})
        flat = self._to(shape, "template") + shape @ self._to(shape, "shape_rows")[: shape.shape[1]]
        flat = flat + expression.to(shape) @ self._to(shape, "expression_rows")[: expression.shape[1]]
        if all(pose is None for pose in poses.values()):
            vertices = flat.expand(batch, -1).reshape(batch, -1, 3)
        else:
            rotations = self._rotations(shape, batch, *poses.values())
            vertices = self._skinned(flat, self.joints_of(shape, expression), rotations)
        return vertices if translation is None else vertices + translation.to(shape)[:, None]

    def joints_of(self, shape: Float[Tensor, "B S"], expression: Float[Tensor, "B E"]) -> Float[Tensor, "B 5 3"]:
        """Rest positions of the five joints for these coefficients, metres."""
        by_shape = torch.einsum("bs,sjc->bjc", shape, self._to(shape, "joints_by_shape")[: shape.shape[1]])
        rows = self._to(shape, "joints_by_expression")[: expression.shape[1]]
        return self._to(shape, "joints") + by_shape + torch.einsum("be,ejc->bjc", expression.to(shape), rows)

    def _to(self, like: Tensor, name: str) -> Tensor:
        return self.get_buffer(name).to(like)

    def _checked_batch(self, shape: Tensor, expression: Tensor, others: Mapping[str, Tensor | None]) -> int:
        given = {"shape": shape, "expression": expression} | {k: v for k, v in others.items() if v is not None}
        widths = {"shape": self.asset.n_shape, "expression": self.asset.n_expression, "eye_pose": 6}
        sizes = set()
        for name, tensor in given.items():
            width, is_exact = widths.get(name, 3), name not in ("shape", "expression")
            if tensor.ndim != 2 or tensor.shape[1] > width or (is_exact and tensor.shape[1] != width):
                raise ShapeError(f"{name}: expected (batch, {'' if is_exact else 'at most '}{width}), "
                                 f"got {tuple(tensor.shape)}.")  # fmt: skip
            sizes.add(tensor.shape[0])
        sizes -= {1} if len(sizes) > 1 else set()
        if len(sizes) != 1:
            raise ShapeError(f"batch sizes must be equal or 1, got { ({k: len(v) for k, v in given.items()}) }.")
        return sizes.pop()

    @staticmethod
    def _rotations(like: Tensor, batch: int, root: Tensor | None, neck: Tensor | None, jaw: Tensor | None,
                   eyes: Tensor | None) -> Float[Tensor, "B 5 3 3"]:  # fmt: skip
        zero = like.new_zeros(batch, 3)
        left, right = (None, None) if eyes is None else eyes.split(3, dim=1)
        poses = [zero if pose is None else pose.to(like).expand(batch, 3) for pose in (root, neck, jaw, left, right)]
        return matrix_from_axis_angle(torch.stack(poses, dim=1))

    def _skinned(self, flat: Tensor, joints: Tensor, rotations: Tensor) -> Tensor:
        """B batch, V vertices: correctives, forward kinematics over the tree, blended transforms."""
        batch = len(rotations)
        features = (rotations[:, 1:] - torch.eye(3, dtype=flat.dtype, device=flat.device)).reshape(batch, 36)
        posed = (flat + features @ self._to(flat, "pose_rows")).reshape(batch, -1, 3)
        joints = joints.expand(batch, 5, 3)
        turned, moved = [rotations[:, 0]], [joints[:, 0]]
        for k in range(1, 5):
            parent = PARENTS[k]
            offset = (joints[:, k] - joints[:, parent])[..., None]
            moved.append(moved[parent] + (turned[parent] @ offset)[..., 0])
            turned.append(turned[parent] @ rotations[:, k])
        world = torch.stack(turned, dim=1)
        shifts = torch.stack(moved, dim=1) - (world @ joints[..., None])[..., 0]
        weights = self._to(flat, "skinning")
        blended = torch.einsum("vj,bjn->bvn", weights, torch.cat([world.flatten(2), shifts], dim=2))
        matrices = blended[..., :9].unflatten(2, (3, 3))
        return (matrices @ posed[..., None])[..., 0] + blended[..., 9:]


def arkit_coefficients(
    asset: FaceAsset, weights: Float[np.ndarray, "N 52"]
) -> tuple[Float[np.ndarray, "N E"], Float[np.ndarray, "N 3"]]:
    """Expression coefficients and jaw pose of ARKit unit weights.

    Args:
        asset: the model whose basis the coefficients belong to.
        weights: unit weights, usually 0..1, in the order of `ARKIT_NAMES`.

    Raises:
        ShapeError: not (N, 52).
        AssetMissingError: the model has no ARKit units.
    """
    asset.require("arkit")
    weights = np.asarray(weights, dtype=np.float32)
    if weights.ndim != 2 or weights.shape[1] != len(ARKIT_NAMES):
        raise ShapeError(f"ARKit weights: expected (N, {len(ARKIT_NAMES)}), got {weights.shape}.")
    return weights @ asset.arkit_expression, weights @ asset.arkit_jaw


def arkit_eye_pose(weights: Float[np.ndarray, "N 52"]) -> Float[np.ndarray, "N 6"]:
    """Eye rotations (left, then right; axis-angle) of the eight eyeLook units; `FaceModel` takes them as `eye_pose`.

    Raises:
        ShapeError: not (N, 52).
    """
    weights = np.asarray(weights, dtype=np.float32)
    if weights.ndim != 2 or weights.shape[1] != len(ARKIT_NAMES):
        raise ShapeError(f"ARKit weights: expected (N, {len(ARKIT_NAMES)}), got {weights.shape}.")
    pose = np.zeros((len(weights), 6), dtype=np.float32)
    for first, side, outward in ((0, "Left", 1), (3, "Right", -1)):
        look = {way: weights[:, ARKIT_INDEX[f"eyeLook{way}{side}"]] for way in ("Up", "Down", "In", "Out")}
        pose[:, first] = look["Down"] * _LOOK["Down"] - look["Up"] * _LOOK["Up"]
        pose[:, first + 1] = outward * (look["Out"] * _LOOK["Out"] - look["In"] * _LOOK["In"])
    return pose
