"""The open head: a face asset with FLAME's counts and schema, computed from CC0 shape targets.

The sources are an artist's targets, not scans. Identities are modelled as a Gaussian around the mean adult: random
ancestry, gender, age, weight and muscle mix the macro targets, and every local modifier varies on its own. Expressions
are the ARKit-named units and further muscle units. Both covariances are computed in closed form, made symmetric under
reflection, and cut to FLAME's component counts; a coefficient of 1 is one standard deviation.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits

from ecavatar.face.alignment import register_points
from ecavatar.face.model import ARKIT_INDEX, ARKIT_NAMES, PARENTS, FaceAsset
from ecavatar.sample.head_data import HeadData
from ecavatar.seeding import stream

TOPOLOGY = "open-head"
BASIS = "open-head"
N_SHAPE = 300
N_EXPRESSION = 100
JAW_UNITS = ("jawOpen", "jawLeft", "jawRight")
"""Units that turn the jaw joint instead of using expression coefficients."""

_EYE_LEVEL = np.array([0.0, 0.0214, 0.0255])  # where FLAME's template has the point between its eyes, metres
_ARKIT = "faceunits01/targets/faceunits/{}.target"
_MACRO = "mpfb2/targets/macrodetails/"
_ANCESTRIES = ("african", "asian", "caucasian")
_GENDERS = ("female", "male")
_AGES = ("young", "old")
_THIRDS = ("min", "average", "max")
_IDENTITIES = 4000  # draws behind the covariance of the macro targets' weights
_ASYMMETRY = 0.3  # standard deviation of a face's left-right difference, relative to that of its symmetric part
_LOPSIDED = 0.7  # the same of expressions
_UNIT_RMS = 0.3  # root mean square weight of an ARKit unit: used in a quarter of all faces, then anything up to 1
_MUSCLE_RMS = 0.15  # of the further muscle units, which only refine
_RARE_RMS = {"mouthClose": 0.05, "jawForward": 0.15, "cheekPuff": 0.15}  # mouthClose only undoes an open jaw
_MOUTH_CLEARANCE = 0.007  # between the mouth's inside and the skin outside the lips
_STILL_M = 2e-5  # what moves less than this in jawOpen does not belong to the jaw
_ROOT_JOINT = np.array([0.0, 0.596, 0.005])  # bones neck01 and neck03 of the sources' default rig, metres
_NECK_JOINT = np.array([0.0, 0.664, 0.027])
_JOINT_REACH = 0.035
_LOCAL_SD = {  # standard deviation of a modifier that runs from -1 (…-decr) to 1 (…-incr)
    "asym": 0.2, "cheek": 0.25, "chin": 0.22, "ears": 0.2, "eyebrows": 0.22, "eyes": 0.2, "forehead": 0.17,
    "head": 0.08, "mouth": 0.15, "neck": 0.1, "nose": 0.17,
}  # fmt: skip
_OPPOSITES = (
    ("decr", "incr"), ("down", "up"), ("in", "out"), ("backward", "forward"), ("concave", "convex"),
    ("compress", "uncompress"),
)  # fmt: skip


def build_open_head() -> FaceAsset:
    """The open head as a face asset: 5,023 vertices, 9,976 triangles, 300 shape and 100 expression components.

    Deterministic; takes a few seconds. Up is y, the face looks along +z, x runs to the subject's left ear, and the
    point between the eyes lies where FLAME has it.
    """
    with threadpool_limits(1):  # sums of several threads differ in their last bits; the file must not
        return head_from(HeadData.load())


def head_from(data: HeadData) -> FaceAsset:
    """The open head computed from `data` (see `build_open_head`)."""
    shape_factors, mean = _identity_factors(data)
    points = data.points + mean
    template = _tucked(data, _symmetric(data, data.assemble(points)))
    shift = _EYE_LEVEL - _eye_centres(data, template).mean(axis=0)
    units = _units(data)
    jaw = _fit_jaw(data, template, units, data.group(points, "lower_teeth"))
    expression_basis = _expression_basis(data, units)
    shape_basis = _principal(data, _without_rigid(data, template, shape_factors), N_SHAPE, _ASYMMETRY)
    return FaceAsset(
        topology=TOPOLOGY,
        basis=BASIS,
        template=template + shift,
        faces=data.faces,
        shape_basis=shape_basis,
        expression_basis=expression_basis,
        pose_basis=jaw.pose_basis,
        joint_regressor=_joint_regressor(data, template, jaw.pivot),
        skinning=_skinning(data, jaw.weights),
        parents=np.array(PARENTS),
        regions=data.regions,
        ibug68_faces=data.ibug68_faces,
        ibug68_barycentrics=data.ibug68_barycentrics,
        mediapipe_indices=data.mediapipe_indices,
        mediapipe_faces=data.mediapipe_faces,
        mediapipe_barycentrics=data.mediapipe_barycentrics,
        uv=data.uv,
        uv_faces=data.uv_faces,
        arkit_names=ARKIT_NAMES,
        arkit_expression=_unit_coefficients(expression_basis, units),
        arkit_jaw=jaw.rotations,
    )


def write_open_head(path: Path) -> None:
    """Write the open head to `path` for `FaceAsset.load`; the same bytes every time."""
    build_open_head().save(path)


# --- identities -------------------------------------------------------------------------------------------------------


def _identity_factors(data: HeadData) -> tuple[Float[np.ndarray, "n V 3"], Float[np.ndarray, "P 3"]]:
    """Vectors whose outer products sum to the covariance of identities, and the mean identity's offsets."""
    names, weights = _macro_weights()
    mean_weights = weights.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(weights.T))
    macro = np.stack([data.offsets(name) for name in names])
    mean = np.tensordot(mean_weights, macro, axes=1)
    keep = values > 1e-9 * values[-1]
    mixed = np.tensordot((vectors[:, keep] * np.sqrt(values[keep])).T, macro, axes=1)
    factors = [data.assemble(offsets) for offsets in mixed]
    return np.stack([*factors, *_local_factors(data)]), mean


def _macro_weights() -> tuple[list[str], Float[np.ndarray, "people targets"]]:
    """Names of the macro targets and their weights in many random adults, drawn once and for all.

    A target named by several traits is weighted by the product of their shares.
    """
    draw = stream(0, "open head", "identities")
    ancestry = draw.dirichlet([0.6, 0.6, 0.6], _IDENTITIES)
    male = np.where(draw.random(_IDENTITIES) < 0.5, 0.12, 0.88) + draw.normal(0, 0.1, _IDENTITIES)
    gender = np.stack([1 - male, male], axis=1)
    old = draw.beta(1.0, 2.0, _IDENTITIES)
    age = np.stack([1 - old, old], axis=1)
    muscle, weight = (_third_shares(np.clip(draw.normal(0.5, 0.2, _IDENTITIES), 0, 1)) for _ in range(2))
    columns: dict[str, np.ndarray] = {}
    for g, gender_name in enumerate(_GENDERS):
        for a, age_name in enumerate(_AGES):
            both = gender[:, g] * age[:, a]
            for r, ancestry_name in enumerate(_ANCESTRIES):
                columns[f"{_MACRO}{ancestry_name}-{gender_name}-{age_name}.target.gz"] = both * ancestry[:, r]
            for m, muscle_name in enumerate(_THIRDS):
                for w, weight_name in enumerate(_THIRDS):
                    name = f"universal-{gender_name}-{age_name}-{muscle_name}muscle-{weight_name}weight.target.gz"
                    columns[_MACRO + name] = both * muscle[:, m] * weight[:, w]
    return list(columns), np.stack(list(columns.values()), axis=1)


def _third_shares(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 3"]:
    """Shares of minimum, average and maximum for values 0..1: linear between 0, 0.5 and 1."""
    high, low = np.clip(2 * values - 1, 0, 1), np.clip(1 - 2 * values, 0, 1)
    return np.stack([low, 1 - low - high, high], axis=1)


def _local_factors(data: HeadData) -> list[Float[np.ndarray, "V 3"]]:
    """Factors of the local modifiers, each an independent normal variable t of its own standard deviation.

    A modifier with two targets adds t times the one for t > 0 and |t| times the other for t < 0: half their difference
    follows t (variance 1), half their sum follows |t| (variance 1 - 2/pi).
    """
    local = [name for name in sorted(data.targets) if name.startswith("mpfb2/") and _room(name) in _LOCAL_SD]
    factors = []
    for name in local:
        opposite, is_second = _opposite(name)
        if is_second and opposite in data.targets:
            continue
        deviation = _LOCAL_SD[_room(name)]
        one = data.target(name)
        other = data.target(opposite) if opposite in data.targets else np.zeros_like(one)
        factors.append(deviation * (other - one) / 2)
        factors.append(deviation * np.sqrt(1 - 2 / np.pi) * (other + one) / 2)
    return factors


def _room(name: str) -> str:
    return name.split("/")[2]


def _opposite(name: str) -> tuple[str, bool]:
    """The target at the modifier's other end, and whether `name` is the second of the two; ("", False) if alone."""
    stem = name.removesuffix(".target.gz")
    for first, second in _OPPOSITES:
        for end, replacement in ((first, second), (second, first)):
            if stem.endswith(f"-{end}"):
                return f"{stem.removesuffix(end)}{replacement}.target.gz", end == second
    return "", False


def _tucked(data: HeadData, template: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "V 3"]:
    """The mean head with the inside of its mouth kept clear of the skin, so that few identities push it through."""
    inner = data.regions["inner_mouth"]
    skin = np.concatenate([data.regions["C"], data.regions["F"], data.regions["nose"]])
    distance, nearest = cKDTree(template[skin]).query(template[inner])
    away = (template[inner] - template[skin[nearest]]) / distance[:, None]
    result = template.copy()
    result[inner] += np.maximum(_MOUTH_CLEARANCE - distance, 0)[:, None] * away
    return _symmetric(data, result)


def _without_rigid(data: HeadData, template: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Factors without the motion of the whole head, as if every identity had been aligned to the mean face."""
    skin = np.setdiff1d(np.flatnonzero(data.root_weights < 0.1), data.regions["inner_mouth"])
    arms = template - template[skin].mean(axis=0)
    modes = np.concatenate([np.tile(np.eye(3)[:, None], (1, len(template), 1)), np.cross(np.eye(3)[:, None], arms)])
    rows = modes[:, skin].reshape(6, -1)
    amounts = np.linalg.lstsq(rows.T, factors[:, skin].reshape(len(factors), -1).T, rcond=None)[0]
    return factors - np.tensordot(amounts.T, modes, axes=1)


# --- principal components ---------------------------------------------------------------------------------------------


def _mirrored(data: HeadData, fields: Float[np.ndarray, "*n V 3"]) -> Float[np.ndarray, "*n V 3"]:
    return fields[..., data.mirror, :] * (-1, 1, 1)


def _symmetric(data: HeadData, field: Float[np.ndarray, "*n V 3"]) -> Float[np.ndarray, "*n V 3"]:
    return (field + _mirrored(data, field)) / 2


def _principal(data: HeadData, factors: np.ndarray, count: int, asymmetry: float) -> Float[np.ndarray, "V 3 count"]:
    """The `count` strongest components, one standard deviation each.

    The covariance is averaged with its mirror image, which splits it into a symmetric and an antisymmetric part; every
    component belongs to one of them. `asymmetry` scales the second.
    """
    even = _symmetric(data, factors)
    parts = [_components(part) for part in (even, asymmetry * (factors - even))]
    components = np.concatenate(parts)
    order = np.argsort(-np.square(components).sum(axis=(1, 2)), kind="stable")[:count]
    return np.moveaxis(components[order], 0, -1)


def _components(factors: Float[np.ndarray, "n V 3"]) -> Float[np.ndarray, "n V 3"]:
    """Principal axes times standard deviations of the covariance sum_i f_i f_i^T."""
    flat = factors.reshape(len(factors), -1)
    _, vectors = np.linalg.eigh(flat @ flat.T)
    rows = vectors.T[::-1] @ flat
    # an eigenvector's sign is arbitrary: make the largest entry positive
    signs = np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)])
    return (rows * signs[:, None]).reshape(factors.shape)


# --- expressions ------------------------------------------------------------------------------------------------------


def _units(data: HeadData) -> Float[np.ndarray, "V 3 52"]:
    """Offsets of the ARKit units, left and right exact mirror images; eyeballs stay, they turn with their joints."""
    raw = np.stack([data.target(_ARKIT.format(name)) for name in ARKIT_NAMES])
    raw[:, _eyeballs(data)] = 0
    swapped = [ARKIT_INDEX[_other_side(name)] for name in ARKIT_NAMES]
    return np.moveaxis((raw + _mirrored(data, raw[swapped])) / 2, 0, -1)


def _other_side(name: str) -> str:
    if name.endswith("Left"):
        return name.removesuffix("Left") + "Right"
    return name.removesuffix("Right") + "Left" if name.endswith("Right") else name


def _eyeballs(data: HeadData) -> Int[np.ndarray, " n"]:
    return np.concatenate([data.regions["left_eyeball"], data.regions["right_eyeball"]])


def _expression_basis(data: HeadData, units: Float[np.ndarray, "V 3 52"]) -> Float[np.ndarray, "V 3 E"]:
    """Principal components of expressions whose span holds every unit that is not a turn of the jaw.

    The further muscle units fill the rest: their strongest directions outside the ARKit units' span.
    """
    free = [name for name in ARKIT_NAMES if name not in (*JAW_UNITS, "tongueOut")]  # the mesh has no tongue
    rms = np.array([_RARE_RMS.get(name, _UNIT_RMS) for name in free])
    main = np.moveaxis(units[..., [ARKIT_INDEX[name] for name in free]] * rms, -1, 0)
    muscles = [
        data.target(name) for name in sorted(data.targets) if "/expression/" in name and "mouth-open" not in name
    ]
    extra = _MUSCLE_RMS * np.stack(muscles)
    extra[:, _eyeballs(data)] = 0
    span = _orthonormal(np.concatenate([main, _mirrored(data, main)]))
    flat = extra.reshape(len(extra), -1)
    outside = (flat - flat @ span.T @ span).reshape(extra.shape)
    refined = _principal(data, outside, N_EXPRESSION - len(span), _LOPSIDED)
    return _principal(data, np.concatenate([main, np.moveaxis(refined, -1, 0)]), N_EXPRESSION, _LOPSIDED)


def _orthonormal(fields: Float[np.ndarray, "n V 3"]) -> Float[np.ndarray, "rank V*3"]:
    flat = fields.reshape(len(fields), -1)
    _, scale, right = np.linalg.svd(flat, full_matrices=False)
    return right[scale > 1e-3 * scale[0]]


def _unit_coefficients(basis: Float[np.ndarray, "V 3 E"], units: Float[np.ndarray, "V 3 52"]) -> np.ndarray:
    """Least-squares coefficients (52, E) of the units; zero for those that turn the jaw."""
    flat = basis.reshape(-1, basis.shape[-1])
    coefficients = np.linalg.lstsq(flat, units.reshape(len(flat), -1), rcond=None)[0].T
    coefficients[[ARKIT_INDEX[name] for name in JAW_UNITS]] = 0
    return coefficients


# --- joints and skinning ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Jaw:
    pivot: Float[np.ndarray, " 3"]
    weights: Float[np.ndarray, " V"]
    pose_basis: Float[np.ndarray, "V 3 36"]
    rotations: Float[np.ndarray, "52 3"]


def _fit_jaw(data: HeadData, template: np.ndarray, units: np.ndarray, teeth: Float[np.ndarray, "n 3"]) -> _Jaw:
    """The jaw joint whose rotations reproduce the artist's jaw units.

    The lower teeth move rigidly in `jawOpen`: their motion gives angle and pivot. Each vertex gets the skinning weight
    that explains most of its own motion; a corrective linear in the sine of the angle supplies the rest, so that
    `jawOpen` at weight 1 is met exactly. Of the sideways units the corrective meets what differs between left and
    right; the shift forward that both share (up to 4.7 mm) is left out.
    """
    opening, sideways = (data.group(data.offsets(_ARKIT.format(n)), "lower_teeth") for n in ("jawOpen", "jawLeft"))
    motion = register_points(teeth, teeth + opening).transform
    angle = Rotation.from_matrix(motion[:3, :3]).as_rotvec()[0]
    pivot = np.zeros(3)
    pivot[1:] = np.linalg.solve((np.eye(3) - motion[:3, :3])[1:, 1:], motion[1:3, 3])
    turn = np.arctan(sideways[:, 0].mean() / (teeth - pivot)[:, 2].mean())  # the artist shifted: same way to the side
    rotations = np.zeros((len(ARKIT_NAMES), 3))
    rotations[[ARKIT_INDEX[name] for name in JAW_UNITS]] = [(angle, 0, 0), (0, turn, 0), (0, -turn, 0)]

    arms = template - pivot
    swing = arms @ (Rotation.from_rotvec([angle, 0, 0]).as_matrix() - np.eye(3)).T
    wanted = units[..., ARKIT_INDEX["jawOpen"]]
    weights = np.clip((swing * wanted).sum(1) / np.maximum((swing**2).sum(1), 1e-12), 0, 1)
    weights[np.abs(wanted).max(axis=1) < _STILL_M] = 0
    open_rest, left_rest, right_rest = (
        _unposed(arms, weights, rotations[ARKIT_INDEX[name]], units[..., ARKIT_INDEX[name]]) for name in JAW_UNITS
    )
    pose_basis = np.zeros((*template.shape, 36))
    # entries of R - I for the jaw (second block of nine): R21 = sin x = -R12, R02 = sin y = -R20
    pose_basis[..., 9 + 7], pose_basis[..., 9 + 5] = (sign * open_rest / (2 * np.sin(angle)) for sign in (1, -1))
    odd = (left_rest - right_rest) / 2
    pose_basis[..., 9 + 2], pose_basis[..., 9 + 6] = (sign * odd / (2 * np.sin(turn)) for sign in (1, -1))
    return _Jaw(pivot=pivot, weights=weights, pose_basis=pose_basis, rotations=rotations)


def _unposed(arms: np.ndarray, weights: np.ndarray, rotation: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """What to add to each vertex before skinning so that it ends where `wanted` puts it."""
    blended = np.eye(3) + weights[:, None, None] * (Rotation.from_rotvec(rotation).as_matrix() - np.eye(3))
    return np.linalg.solve(blended, (arms + wanted)[..., None])[..., 0] - arms


def _skinning(data: HeadData, jaw: Float[np.ndarray, " V"]) -> Float[np.ndarray, "V 5"]:
    weights = np.zeros((len(jaw), 5))
    weights[:, 2] = jaw
    weights[:, 0] = data.root_weights * (1 - jaw)
    weights[:, 1] = 1 - weights[:, 0] - jaw
    for joint, name in ((3, "left_eyeball"), (4, "right_eyeball")):
        weights[data.regions[name]] = np.eye(5)[joint]
    return weights


def _joint_regressor(data: HeadData, template: np.ndarray, pivot: np.ndarray) -> Float[np.ndarray, "5 V"]:
    """Affine weights that put each joint in place and let it move with the vertices around it."""
    skin = np.setdiff1d(np.arange(len(template)), np.concatenate([data.regions["inner_mouth"], _eyeballs(data)]))
    rows = np.zeros((5, len(template)))
    for joint, place in enumerate((_ROOT_JOINT, _NECK_JOINT, pivot)):
        near = skin[np.linalg.norm((template[skin] - place)[:, 1:], axis=1) < _JOINT_REACH]
        system = np.concatenate([np.ones((1, len(near))), template[near].T - place[:, None]])
        rows[joint, near] = np.linalg.lstsq(system, np.array([1.0, 0, 0, 0]), rcond=None)[0]
    for joint, poles in ((3, _poles(data, "left_eyeball")), (4, _poles(data, "right_eyeball"))):
        rows[joint, poles] = 0.5
    return rows


def _poles(data: HeadData, name: str) -> Int[np.ndarray, " 2"]:
    """Front and back pole of an eyeball: its first and its last vertex."""
    return data.regions[name][[0, -1]]


def _eye_centres(data: HeadData, vertices: np.ndarray) -> Float[np.ndarray, "2 3"]:
    return np.stack([vertices[_poles(data, name)].mean(axis=0) for name in ("left_eyeball", "right_eyeball")])
