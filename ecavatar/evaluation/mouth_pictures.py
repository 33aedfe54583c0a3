"""The pictures of VOCATeeth: where the rig's points lie, angles over sound, heads that talk, turn and differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecavatar.evaluation.figures import BLUE, GREEN, ORANGE, STYLE, save_figure, write_sheet
from ecavatar.face.model import FaceAsset
from ecavatar.mouth.fit import MouthFit, pose_mouth
from ecavatar.mouth.model import MouthMesh
from ecavatar.mouth.rig import ChinRig
from ecavatar.rendering.camera import Camera, head_rotation
from ecavatar.rendering.film import plain_colours
from ecavatar.rendering.mouth_picture import head_picture, mouth_colours
from ecavatar.rendering.shading import STUDIO, render_face

Item = TypeVar("Item")

YAWS_DEG = (-75, -50, -25, 0, 25, 50, 75)
"""Turns of the turntable's pictures."""
_GLASS = 0.55  # how much of the mouth shows through the skin
_PAPER = (1.0, 1.0, 1.0)
_FILL = 0.92


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AngleCurve:
    """One clip's jaw angle and its sound."""

    clip_id: str
    fps: float
    angle: Float[np.ndarray, " T"]
    """Radians, as measured."""
    true: Float[np.ndarray, " T"] | None
    """Radians; None where it is not known."""
    sound: tuple[Float[np.ndarray, " samples"], int]
    """Samples and their rate."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TalkingHead:
    """One frame of a head with its mouth."""

    face: Float[np.ndarray, "V 3"]
    mouth: Float[np.ndarray, "M 3"]


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spread, the first and the last among them."""
    chosen = np.unique(np.linspace(0, len(items) - 1, count).round().astype(int)) if items else []
    return [items[index] for index in chosen]


def draw_rig(
    path: Path,
    template: Float[np.ndarray, "V 3"],
    widest: Float[np.ndarray, "V 3"],
    asset: FaceAsset,
    mouth: MouthMesh,
    fit: MouthFit,
    rig: ChinRig,
    size_px: int,
) -> None:
    """Where the rig's points lie: from the left at rest and at the widest frame, and from the front.

    The skin is of glass, so that the mouth shows. Drawn are P, Q and the line between their projections on the yz
    plane at rest and at the widest frame, the pivot, and the head's axes at its origin.

    Args:
        path: PNG to write.
        template: the subject's neutral face, metres.
        widest: the frame with the largest angle.
        asset: faces and regions.
        mouth: the mouth that was fitted.
        fit: where it lies.
        rig: of the subject.
        size_px: edge of one picture.
    """
    angle = float(rig.angles(widest[None])[0])
    views = [
        ("from the left, at rest", -np.pi / 2, template, 0.0),
        (f"from the left, jaw open by {np.degrees(angle):.1f}°", -np.pi / 2, widest, angle),
        ("from the front, at rest", 0.0, template, 0.0),
    ]
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(4.1 * len(views), 4.9), layout="constrained")
        panels = figure.subplots(1, len(views))
        for axes, (title, yaw, face, turn) in zip(panels, views, strict=True):
            camera = _upright_camera(template, asset, rig, size_px, yaw)
            axes.imshow(
                _glass_picture(face, asset, mouth, pose_mouth(mouth, fit, np.array([turn]))[0], camera, size_px)
            )
            _draw_points(axes, camera, rig, fit, template, face)
            axes.set_title(title, fontsize=10)
            axes.set(xlim=(0, size_px), ylim=(size_px, 0))
            axes.set_axis_off()
        handles, names = panels[1].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=9)
        save_figure(figure, path)


def _upright_camera(template: np.ndarray, asset: FaceAsset, rig: ChinRig, size_px: int, yaw: float) -> Camera:
    """An orthographic camera along the head's own axes, on the head without its neck."""
    turn = head_rotation(yaw, 0.0, 0.0) @ rig.axes
    seen = np.delete(template, asset.regions["neck"], axis=0).astype(np.float64) @ turn.T
    low, high = seen.min(axis=0), seen.max(axis=0)
    scale = _FILL * size_px / float(max(high[0] - low[0], high[1] - low[1]))
    middle = (low + high) / 2
    centre = (size_px / 2 - scale * float(middle[0]), size_px / 2 + scale * float(middle[1]))
    return Camera.orthographic(pixels_per_metre=scale, centre_px=centre, rotation=turn)


def _glass_picture(
    face: np.ndarray, asset: FaceAsset, mouth: MouthMesh, teeth: np.ndarray, camera: Camera, size_px: int
) -> UInt8[np.ndarray, "size size 3"]:
    skin = render_face(face, asset.faces, plain_colours(asset), camera, STUDIO, size_px, _PAPER)
    inside = render_face(teeth, mouth.faces, mouth_colours(mouth), camera, STUDIO, size_px, skin)
    return np.rint(_GLASS * inside + (1 - _GLASS) * skin).astype(np.uint8)


def _draw_points(
    axes: Axes, camera: Camera, rig: ChinRig, fit: MouthFit, template: np.ndarray, shown: np.ndarray
) -> None:
    """Points of the shown mesh, the line at rest and, in an open frame, the line there."""
    lines = [(template, "at rest", BLUE, "-")]
    lines += [(shown, "jaw open", ORANGE, "--")] if shown is not template else []
    for mesh, name, colour, style in lines:
        ends = camera.project(np.stack([_on_yz(point, rig) for point in _points(mesh, rig)]))
        axes.plot(ends[:, 0], ends[:, 1], style, color=colour, lw=1.8, label=f"Q'P' {name}")
    for point, name, shift in zip(_points(shown, rig), "QP", ((7, -9), (6, -11)), strict=True):
        _mark(axes, camera, point, name, lines[-1][2], shift)
    _mark(axes, camera, fit.pivot, "pivot", GREEN, (-4, 8))
    _draw_axes(axes, camera, rig)


def _points(mesh: np.ndarray, rig: ChinRig) -> tuple[np.ndarray, np.ndarray]:
    """Q and P, metres."""
    vertices = mesh.astype(np.float64)
    return vertices[rig.ear].mean(axis=0), vertices[rig.chin].mean(axis=0)


def _on_yz(point: np.ndarray, rig: ChinRig) -> np.ndarray:
    """The point's projection on the head's yz plane."""
    return point - ((point - rig.origin) @ rig.axes[0]) * rig.axes[0]


def _mark(axes: Axes, camera: Camera, point: np.ndarray, name: str, colour: str, shift: tuple[float, float]) -> None:
    x, y, _ = camera.project(point)
    axes.plot(x, y, "o", color=colour, ms=6, mec="white", mew=1)
    axes.annotate(name, (x, y), shift, textcoords="offset points", color="#1d2129", fontsize=10)


def _draw_axes(axes: Axes, camera: Camera, rig: ChinRig, length_m: float = 0.03) -> None:
    start = camera.project(rig.origin)
    for name, direction in zip("xyz", rig.axes, strict=True):
        end = camera.project(rig.origin + length_m * direction)
        if np.linalg.norm(end[:2] - start[:2]) > 1:  # one of them points at the viewer
            arrow = {"arrowstyle": "->", "color": "#333333", "lw": 1.2}
            axes.annotate("", end[:2], start[:2], arrowprops=arrow)
            axes.text(*(1.18 * end[:2] - 0.18 * start[:2]), name, color="#333333", ha="center", va="center", fontsize=9)


def draw_angles(path: Path, curves: Sequence[AngleCurve]) -> None:
    """Jaw angle over the waveform for a few clips, one below the other; dashed: the true jaw rotation.

    Args:
        path: PNG to write.
        curves: at least one.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 2.3 * len(curves)), layout="constrained")
        panels = figure.subplots(len(curves), 1, squeeze=False)[:, 0]
        for axes, curve in zip(panels, curves, strict=True):
            _draw_curve(axes, curve)
        panels[-1].set_xlabel("seconds")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper right", ncols=len(names), fontsize=8)
        save_figure(figure, path)


def _draw_curve(axes: Axes, curve: AngleCurve) -> None:
    samples, rate = curve.sound
    sound = axes.twinx()
    sound.plot(np.arange(len(samples)) / rate, samples, color="#b9bec7", lw=0.4)
    loudest = float(np.abs(samples).max(initial=0)) or 1.0
    sound.set(ylim=(-loudest, 4.6 * loudest), yticks=[])
    sound.spines["left"].set_visible(False)
    axes.set_zorder(sound.get_zorder() + 1)
    axes.patch.set_visible(False)
    time = np.arange(len(curve.angle)) / curve.fps
    axes.plot(time, np.degrees(curve.angle), color=BLUE, lw=1.6, label="chin rule")
    top = max(1.0, float(np.degrees(curve.angle).max()))
    if curve.true is not None:
        axes.plot(time, np.degrees(curve.true), color=ORANGE, lw=1.2, ls="--", label="true jaw")
        top = max(top, float(np.degrees(curve.true).max()))
    axes.set(ylabel="degrees", ylim=(-0.62 * top, 1.1 * top), xlim=(0, max(time[-1], len(samples) / rate)))
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 1.1 * top])
    axes.set_title(curve.clip_id, fontsize=9, loc="left")


def draw_talking(
    path: Path, heads: Sequence[TalkingHead], seconds: Sequence[float], asset: FaceAsset, mouth: MouthMesh, size_px: int
) -> None:
    """Moments of one clip: the head and, below it, its mouth.

    Args:
        path: PNG to write.
        heads: the frames, at least one.
        seconds: when they are.
        asset: faces and regions.
        mouth: what the mouth's vertices are.
        size_px: edge of one picture.
    """
    pictures = [
        [head_picture(head.face, asset, mouth, head.mouth, size_px, close_up=near) for head in heads]
        for near in (False, True)
    ]
    write_sheet(path, pictures, rows=["head", "mouth"], columns=[f"{second:.2f} s" for second in seconds])


def draw_turntable(
    path: Path,
    closed: TalkingHead,
    widest: TalkingHead,
    asset: FaceAsset,
    mouth: MouthMesh,
    size_px: int,
    yaws_deg: Sequence[float] = YAWS_DEG,
) -> None:
    """A head from all around: at rest, at its widest, and its mouth then.

    Args:
        path: PNG to write.
        closed: the head at rest.
        widest: the frame with the largest angle.
        asset: faces and regions.
        mouth: what the mouth's vertices are.
        size_px: edge of one picture.
        yaws_deg: turns to the head's left, degrees.
    """
    rows = {"at rest": (closed, False), "widest": (widest, False), "mouth": (widest, True)}
    pictures = [
        [
            head_picture(head.face, asset, mouth, head.mouth, size_px, yaw=float(np.radians(yaw)), close_up=near)
            for yaw in yaws_deg
        ]
        for head, near in rows.values()
    ]
    write_sheet(path, pictures, rows=list(rows), columns=[f"{yaw:+g}°" if yaw else "0°" for yaw in yaws_deg])


def draw_subjects(
    path: Path,
    heads: Mapping[str, tuple[TalkingHead, TalkingHead]],
    asset: FaceAsset,
    mouth: MouthMesh,
    size_px: int,
) -> None:
    """Every subject at rest and at the widest, with a close-up of both: how the mouth fits different heads.

    Args:
        path: PNG to write.
        heads: name of the column -> head at rest and in the subject's widest frame.
        asset: faces and regions.
        mouth: what the mouth's vertices are.
        size_px: edge of one picture.
    """
    rows = {"at rest": (0, False), "its mouth": (0, True), "widest": (1, False), "its mouth ": (1, True)}
    pictures = [
        [head_picture(pair[k].face, asset, mouth, pair[k].mouth, size_px, close_up=near) for pair in heads.values()]
        for k, near in rows.values()
    ]
    write_sheet(path, pictures, rows=[name.strip() for name in rows], columns=list(heads))
