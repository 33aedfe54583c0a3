"""Whether VOCASET's meshes are what everything after it relies on, checked against a face model of their topology.

Neutral meshes must be in metres, y up and z forward, in the model's vertex order, unturned and with a closed mouth;
frames must be the same but for the mouth, and come 60 a second. Each limit says how far the sample's 12 subjects and
60 random people of the open head (all shape coefficients drawn) come towards it.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from ecavatar.corpora.vocaset import NATIVE_FPS, Vocaset, VocasetClip
from ecavatar.errors import DataError, TopologyError
from ecavatar.face.alignment import register_points
from ecavatar.face.landmarks import ibug68_points
from ecavatar.face.model import FaceAsset

SAME_SIZE = (0.6, 1.6)
"""Size of a head over the model's; people give 0.94 to 1.06, and units are factors of 10 apart."""
UNITS = {"millimetres": 1000.0, "centimetres": 100.0, "decimetres": 10.0}
TORN_M = 0.01
"""An edge is torn that is longer than twice the model's and this: no identity goes 1 mm beyond twice."""
TORN_SHARE = 0.01
"""Of all edges; an open mouth tears some between the lips, a wrong order most."""
DISPLACED_M = 0.05
"""Laid on the model, a vertex lies within 29 mm of its place, one of the other eye 6 cm off."""
HEAD_POSE_DEGREES = 5.0
"""How far a head may be turned; identities alone seem turned by up to 1.7 degrees."""
FRAME_DEGREES = 30.0
"""From here on axes are meant to lie elsewhere, if the turn is nearer than that to one between axes."""
MOVED_M = 0.05
"""How far the head may lie from the model's place."""
OPEN_MOUTH_M = 0.005
"""By how much the inner lips may be farther apart than the model's closed ones; lips of other form give up to 0.7 mm,
three degrees of the jaw 4 mm."""
STEADY_M = 0.003
"""A first frame whose steady part lies farther than this (root mean square) from its neutral mesh's is looked at
closely; all frames of the sample lie within 0.7 mm, a head turned by 5 degrees 4.3 mm off or more."""
SAME_RATE = (0.75, 4 / 3)
"""Seconds of mesh over seconds of sound, median over clips; meshes at 30 frames a second give 0.5."""

_MOST_LINES = 24
_STEADY = ("upper_face", "nose", "scalp")
"""What neither jaw nor expression moves: on these, identities seem turned least."""
_INNER_LIPS = ((61, 67), (62, 66), (63, 65))
"""Upper and lower iBUG landmarks that meet in a closed mouth."""
_AXES = ("x", "y", "z")
_TURNS = ("nodded (about x)", "turned (about y)", "tilted (about z)")


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateProblem:
    """One thing that is wrong with a neutral mesh."""

    kind: Literal["order", "unit", "frame", "pose", "place", "mouth"]
    text: str
    """What was expected, what was seen, what to do next."""


def check_templates(vocaset: Vocaset, asset: FaceAsset) -> None:
    """Make sure that every subject's neutral mesh fits the face model; all problems of all subjects are collected.

    Raises:
        TopologyError: a mesh is in another vertex order.
        DataError: a mesh is in another unit or frame, turned, moved, or its mouth is open.
    """
    found = [
        (subject, problem) for subject, mesh in vocaset.templates.items() for problem in template_problems(mesh, asset)
    ]
    _refuse(found, f"{vocaset.root / 'templates.pkl'}", f"{len(vocaset.templates)} neutral meshes", asset)


def check_frames(vocaset: Vocaset, asset: FaceAsset) -> None:
    """Make sure that every clip's meshes are as its subject's neutral one, its mouth apart; checked templates needed.

    Told by the first frame of each clip, so that nothing else is read; a clip whose first frame is not finite is left
    to whoever reads it all.

    Raises:
        TopologyError: a clip's meshes are in another vertex order.
        DataError: they are in another unit or frame, turned or moved; or there is no clip at all.
    """
    if not vocaset.clips:
        first = next((f"; the first, {one.item_id}: {one.detail}" for one in vocaset.rejects), "")
        raise DataError(
            f"{vocaset.root}: expected clips, found none that can be used ({len(vocaset.rejects)} rejects{first}). "
            "Unpack VOCASET again."
        )
    found = [
        (f"{clip.clip_id}, frame 0", problem)
        for clip in vocaset.clips
        for problem in _frame_problems(vocaset, clip, asset)
    ]
    _refuse(found, str(vocaset.root), f"{len(vocaset.clips)} clips", asset)


def template_problems(mesh: Float[np.ndarray, "vertices 3"], asset: FaceAsset) -> list[TemplateProblem]:
    """Everything in which a neutral mesh departs from what a face model's neutral meshes are; empty if nothing.

    The unit is told first and undone, then the vertex order; a mesh in another order is not looked at further.
    """
    if mesh.shape != asset.template.shape:
        text = f"expected {asset.n_vertices} vertices, got {len(mesh)}. Use the face model it was made with."
        return [TemplateProblem(kind="order", text=text)]
    model = asset.template.astype(np.float64)
    metres, problems = _in_metres(mesh.astype(np.float64), model)
    order = _torn(metres, asset)
    turn, is_mirrored = _turn(metres, model, asset)
    if not order and not is_mirrored:
        order = _displaced(metres, asset)
    if order:
        return [*problems, TemplateProblem(kind="order", text=order)]
    if is_mirrored:
        text = "expected x to the subject's left, got a mirror image. Negate one axis of templates and meshes alike."
        return [*problems, TemplateProblem(kind="frame", text=text)]
    turned = _frame_and_pose(turn)
    return [*problems, *(turned or _place(metres, model, asset)), *_mouth(metres @ turn.T, asset)]


def check_frame_rate(vocaset: Vocaset) -> None:
    """Make sure that the meshes come 60 a second, told by the sound's length.

    Raises:
        DataError: meshes and sound of the clips differ so much that the rate must be another.
    """
    durations = vocaset.durations()
    sounding = durations[durations["sound_s"] > 0]
    if not len(sounding):
        return
    ratio = float((sounding["mesh_s"] / sounding["sound_s"]).median())
    if not SAME_RATE[0] <= ratio <= SAME_RATE[1]:
        raise DataError(
            f"{vocaset.root}: expected meshes at 60 frames a second; against their sound they come about "
            f"{60 * ratio:.0f} a second. Give VOCASET as it was published, not thinned out."
        )


def _refuse(found: list[tuple[str, TemplateProblem]], place: str, of_what: str, asset: FaceAsset) -> None:
    """Raise all that was found as one error; nothing where nothing was."""
    if not found:
        return
    lines = "\n".join(f"  {name}: {problem.text}" for name, problem in found[:_MOST_LINES])
    lines += f"\n  and {len(found) - _MOST_LINES} more" if len(found) > _MOST_LINES else ""
    bad = len({name for name, _ in found})
    kind = TopologyError if any(problem.kind == "order" for _, problem in found) else DataError
    raise kind(
        f"{place}: {bad} of {of_what} do not fit the face model {asset.topology!r} (metres, y up, z forward, unturned, "
        f"neutral mouths closed):\n{lines}"
    )


def _frame_problems(vocaset: Vocaset, clip: VocasetClip, asset: FaceAsset) -> list[TemplateProblem]:
    """What is wrong with a clip's first frame, where it lies so far from the neutral mesh that something may be."""
    frame = next(vocaset.chunks(clip, NATIVE_FPS, 1))[0].astype(np.float64)
    if not np.isfinite(frame).all():
        return []
    distance = np.linalg.norm(frame - vocaset.templates[clip.subject], axis=1)
    if distance.max() <= DISPLACED_M and np.sqrt(np.square(distance[_steady(asset)]).mean()) <= STEADY_M:
        return []
    return [problem for problem in template_problems(frame, asset) if problem.kind != "mouth"]


def _in_metres(
    mesh: Float[np.ndarray, "vertices 3"], model: Float[np.ndarray, "vertices 3"]
) -> tuple[Float[np.ndarray, "vertices 3"], list[TemplateProblem]]:
    """The mesh in metres, and what is wrong with its unit; sizes do not depend on order, place or turn."""
    ratio = _size(mesh) / _size(model)
    if SAME_SIZE[0] <= ratio <= SAME_SIZE[1]:
        return mesh, []
    names = [name for name, factor in UNITS.items() if SAME_SIZE[0] <= ratio / factor <= SAME_SIZE[1]]
    seen = f"{names[0]}, it seems" if names else "an unknown unit"
    factor = UNITS[names[0]] if names else max(ratio, np.finfo(float).tiny)
    todo = f"Divide templates and meshes by {factor:g}" if names else "Scale templates and meshes alike"
    text = f"expected metres, got {seen}: the head is {ratio:.3g} times as large as the face model's. {todo}."
    return mesh / factor, [TemplateProblem(kind="unit", text=text)]


def _size(vertices: Float[np.ndarray, "vertices 3"]) -> float:
    """Root mean square distance from the centre."""
    return float(np.sqrt(np.square(vertices - vertices.mean(axis=0)).sum(axis=1).mean()))


def _torn(mesh: Float[np.ndarray, "vertices 3"], asset: FaceAsset) -> str:
    """What a wrong vertex order does to the edges; empty where the order is right.

    A vertex whose edges are all torn is in another's place, even if it is the only one.
    """
    edges = np.unique(np.sort(asset.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    excess = _lengths(mesh, edges) - 2 * _lengths(asset.template.astype(np.float64), edges)
    smallest = np.full(len(mesh), np.inf)
    np.minimum.at(smallest, edges.ravel(), np.repeat(excess, 2))
    lost = np.flatnonzero((smallest > TORN_M) & np.isfinite(smallest))
    torn = int((excess > TORN_M).sum())
    if not len(lost) and torn <= TORN_SHARE * len(edges):
        return ""
    lone = f", {len(lost)} vertices far from all their neighbours, the first is {lost[0]}" if len(lost) else ""
    return (
        f"expected the vertex order of {asset.topology}, got another: {torn} of {len(edges)} edges are torn{lone}. Use "
        "the face model it was made with (VOCASET: FLAME), or export it again with the vertex order kept."
    )


def _lengths(vertices: Float[np.ndarray, "vertices 3"], edges: np.ndarray) -> Float[np.ndarray, " edges"]:
    return np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)


def _turn(
    mesh: Float[np.ndarray, "vertices 3"], model: Float[np.ndarray, "vertices 3"], asset: FaceAsset
) -> tuple[Float[np.ndarray, "3 3"], bool]:
    """The rotation that lays the steady part on the model's, and whether its mirror image would fit better."""
    steady = _steady(asset)
    straight = register_points(mesh[steady], model[steady])
    mirrored = register_points(mesh[steady] * (-1, 1, 1), model[steady])
    return straight.transform[:3, :3], mirrored.rmse < straight.rmse / 2


def _displaced(mesh: Float[np.ndarray, "vertices 3"], asset: FaceAsset) -> str:
    """Parts that are whole and yet in another's place, such as eyes exchanged; empty where there are none."""
    steady, model = _steady(asset), asset.template.astype(np.float64)
    motion = register_points(mesh[steady], model[steady]).transform
    distance = np.linalg.norm(mesh @ motion[:3, :3].T + motion[:3, 3] - model, axis=1)
    is_still = asset.skinning[:, 2] < 0.1  # an open mouth moves the jaw
    off = np.flatnonzero(is_still & (distance > DISPLACED_M))
    if not len(off):
        return ""
    return (
        f"expected the vertex order of {asset.topology}, got another: {len(off)} vertices are more than "
        f"{1000 * DISPLACED_M:.0f} mm off their place, the first is {off[0]}. Use the face model it was made with "
        "(VOCASET: FLAME), or export it again with the vertex order kept."
    )


def _frame_and_pose(turn: Float[np.ndarray, "3 3"]) -> list[TemplateProblem]:
    """What is wrong with the axes, and with the head's pose beside them."""
    axes = _nearest_axes(turn)
    rest = Rotation.from_matrix(turn @ axes.T)
    problems = []
    if not np.array_equal(axes, np.eye(3)) and np.degrees(rest.magnitude()) < FRAME_DEGREES:
        up, forward = (_axis_name(axes.T[:, k]) for k in (1, 2))
        text = f"expected y up and z forward, got {up} up and {forward} forward. Turn templates and meshes alike."
        problems.append(TemplateProblem(kind="frame", text=text))
    else:
        rest = Rotation.from_matrix(turn)
    degrees = float(np.degrees(rest.magnitude()))
    if degrees > HEAD_POSE_DEGREES:
        way = _TURNS[int(np.abs(rest.as_rotvec()).argmax())]
        text = (
            f"expected a head without pose (within {HEAD_POSE_DEGREES:g} degrees), got one {way} by {degrees:.1f} "
            "degrees in all. Take the head's rotation out of templates and meshes alike."
        )
        problems.append(TemplateProblem(kind="pose", text=text))
    return problems


def _nearest_axes(turn: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """Of the 24 rotations that carry axes into axes the one nearest to `turn`."""
    group = Rotation.create_group("O").as_matrix().round()
    return group[np.einsum("nij,ij->n", group, turn).argmax()]


def _axis_name(direction: Float[np.ndarray, " 3"]) -> str:
    axis = int(np.abs(direction).argmax())
    return f"{'-' if direction[axis] < 0 else ''}{_AXES[axis]}"


def _place(
    mesh: Float[np.ndarray, "vertices 3"], model: Float[np.ndarray, "vertices 3"], asset: FaceAsset
) -> list[TemplateProblem]:
    steady = _steady(asset)
    offset = mesh[steady].mean(axis=0) - model[steady].mean(axis=0)
    if np.linalg.norm(offset) <= MOVED_M:
        return []
    seen = ", ".join(f"{100 * value:.0f}" for value in offset)
    text = (
        f"expected the head where the face model's is (within {100 * MOVED_M:g} cm), got it moved by ({seen}) cm. "
        "Subtract that from templates and meshes alike."
    )
    return [TemplateProblem(kind="place", text=text)]


def _mouth(mesh: Float[np.ndarray, "vertices 3"], asset: FaceAsset) -> list[TemplateProblem]:
    """Whether the mouth of an upright mesh is open."""
    gap = _lip_gap(mesh, asset) - _lip_gap(asset.template.astype(np.float64), asset)
    if gap <= OPEN_MOUTH_M:
        return []
    text = (
        f"expected a closed mouth, got the inner lips {1000 * gap:.1f} mm farther apart than the face model's. Take a "
        "frame with closed lips as the neutral mesh."
    )
    return [TemplateProblem(kind="mouth", text=text)]


def _lip_gap(mesh: Float[np.ndarray, "vertices 3"], asset: FaceAsset) -> float:
    """How far the upper inner lip is above the lower, mean; negative in FLAME, whose closed lips overlap."""
    height = ibug68_points(asset, mesh)[:, 1]
    return float(np.mean([height[upper] - height[lower] for upper, lower in _INNER_LIPS]))


def _steady(asset: FaceAsset) -> np.ndarray:
    return np.unique(np.concatenate([asset.regions[name] for name in _STEADY]))
