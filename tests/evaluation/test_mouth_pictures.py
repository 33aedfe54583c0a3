"""Pictures of heads with a mouth: the same bytes every time, and what must be in them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecavatar.config import RigSettings
from ecavatar.evaluation.mouth_pictures import (
    AngleCurve,
    TalkingHead,
    draw_angles,
    draw_rig,
    draw_subjects,
    draw_talking,
    draw_turntable,
    spread,
)
from ecavatar.mouth.fit import fit_mouth, pose_mouth
from ecavatar.mouth.rig import ChinRig
from tests.fabricate_mouth import open_face, small_mouth, turned_jaw

OPEN = np.radians(12)
SIZE = 64


@pytest.fixture(scope="module")
def world():
    """Face model, mouth, rig, fit, and the head closed and open."""
    asset, mouth = open_face(), small_mouth()
    settings = RigSettings(mouth="procedural", fps=30, patch_mm=0.0, max_rejects=0.1)
    rig, fit = ChinRig.fit(asset.template, asset, settings), fit_mouth(mouth, asset.template, asset)
    teeth = pose_mouth(mouth, fit, np.array([0.0, OPEN]))
    faces = asset.template, turned_jaw(asset, asset.template, OPEN).astype(np.float32)
    heads = [TalkingHead(face=face, mouth=own) for face, own in zip(faces, teeth, strict=True)]
    return asset, mouth, rig, fit, heads


def draw_all(out: Path, world) -> dict[str, bytes]:
    asset, mouth, rig, fit, (closed, widest) = world
    draw_rig(out / "rig.png", closed.face, widest.face, asset, mouth, fit, rig, SIZE)
    draw_talking(out / "talking.png", [closed, widest], [0.0, 0.5], asset, mouth, SIZE)
    draw_turntable(out / "turntable.png", closed, widest, asset, mouth, SIZE, (-50, 0, 50))
    draw_subjects(out / "subjects.png", {"one": (closed, widest)}, asset, mouth, SIZE)
    draw_angles(out / "angles.png", [curve(np.zeros(5)), curve(None)])
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def curve(true):
    return AngleCurve(clip_id="clip", fps=30, angle=np.linspace(0, 0.1, 5), true=true, sound=(np.zeros(900), 9000))


def test_pictures_have_the_same_bytes_every_time(world, tmp_path: Path):
    one, other = draw_all(tmp_path / "one", world), draw_all(tmp_path / "other", world)
    assert one == other
    assert list(one) == ["angles.png", "rig.png", "subjects.png", "talking.png", "turntable.png"]


def test_the_talking_strip_shows_teeth_only_where_the_lips_part(world, tmp_path: Path):
    asset, mouth, _, _, heads = world
    swallowed = [TalkingHead(face=head.face, mouth=head.mouth - np.float32([0, 0, 0.03])) for head in heads]
    for name, row in (("here", heads), ("away", swallowed)):
        draw_talking(tmp_path / f"{name}.png", row, [0.0, 0.5], asset, mouth, SIZE)
    here, away = (
        np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int) for name in ("here", "away")
    )
    changed = np.abs(here - away).max(axis=-1) > 8
    closed, opened = changed[-SIZE:, -2 * SIZE : -SIZE], changed[-SIZE:, -SIZE:]
    assert opened.sum() > 50
    assert closed.sum() < opened.sum() / 4


def test_spread_keeps_the_ends():
    assert spread(list(range(10)), 3) == [0, 4, 9]
    assert spread([1, 2], 5) == [1, 2]
    assert spread([], 3) == []
