"""Laws of pictures of a mouth, alone and in a face."""

from dataclasses import replace

import numpy as np
import pytest

from ecavatar.errors import ShapeError
from ecavatar.mouth.model import Part
from ecavatar.mouth.procedural import procedural_mouth
from ecavatar.rendering import mouth_picture as pictures
from ecavatar.rendering.film import face_picture

MOUTH = procedural_mouth()
INSIDE = MOUTH.vertices.astype(np.float64) * 0.7 + [0, -0.055, 0.055]  # within the small face, behind its front


@pytest.fixture(scope="module")
def holed_face(small_face):
    """The small face with a hole where its front would hide the mouth."""
    x, y, z = small_face.template.T
    hole = np.flatnonzero((np.abs(x) < 0.045) & (np.abs(y + 0.055) < 0.035) & (z > 0.03))
    return replace(small_face, regions={**small_face.regions, "inner_mouth": hole})


def pixels_of(picture, material):
    """How many pixels have a material's hue: enamel is nearly grey, gums and tongue are red."""
    red, green, blue = picture.astype(float).reshape(-1, 3).T
    if material == "enamel":
        return int(((red >= green) & (green > blue) & (green > 0.85 * red) & (red > 90)).sum())
    return int(((green < 0.75 * red) & (red > 60)).sum())


def test_a_closed_face_hides_its_mouth(small_face):
    here, there = (
        pictures.head_picture(small_face.template, small_face, MOUTH, vertices, 96)
        for vertices in (INSIDE, 0.1 * INSIDE)
    )
    np.testing.assert_array_equal(here, there)
    alone = face_picture(small_face.template, small_face, 96).astype(int)
    assert (np.abs(here - alone).max(axis=2) > 2).mean() < 0.05  # normals differ a little along the outline


def test_teeth_are_seen_through_an_opening_and_from_the_side_they_move(holed_face):
    front, side = (
        pictures.head_picture(holed_face.template, holed_face, MOUTH, INSIDE, 160, yaw=yaw) for yaw in (0.0, 0.4)
    )
    closed = face_picture(holed_face.template, holed_face, 160)
    assert pixels_of(front, "enamel") > pixels_of(closed, "enamel") + 100
    assert not np.array_equal(front, side)
    assert np.array_equal(front, pictures.head_picture(holed_face.template, holed_face, MOUTH, INSIDE, 160))


def test_a_close_up_shows_more_of_the_mouth(holed_face):
    arguments = (holed_face.template, holed_face, MOUTH, INSIDE, 160)
    near, far = (pixels_of(pictures.head_picture(*arguments, close_up=c), "enamel") for c in (True, False))
    assert near > 2 * far


def test_what_lies_deep_is_darker_and_a_closed_face_lets_no_light_in(small_face, holed_face):
    faces = holed_face.faces[~np.isin(holed_face.faces, holed_face.regions["inner_mouth"]).all(axis=1)]
    light = pictures._openness(holed_face.template, faces, MOUTH, INSIDE)
    incisors, molars = (light[np.isin(MOUTH.tooth, teeth)].mean() for teeth in ((11, 21), (17, 27)))
    assert light.min() >= 0
    assert light.max() <= 1
    assert incisors > 2 * molars
    assert pictures._openness(small_face.template, small_face.faces, MOUTH, INSIDE).max() < 0.1


def test_colours_and_gloss_follow_the_material():
    for part in Part:
        own = MOUTH.part == part
        assert (pictures.mouth_colours(MOUTH)[own] == pictures.MATERIALS[part.material]).all()
        assert (pictures.mouth_gloss(MOUTH)[own] == pictures.GLOSS[part.material]).all()


def test_the_mouth_alone_shows_the_parts_asked_for():
    teeth = pictures.mouth_picture(MOUTH, MOUTH.vertices, 120, parts=(Part.UPPER_TEETH, Part.LOWER_TEETH))
    tongue = pictures.mouth_picture(MOUTH, MOUTH.vertices, 120, parts=(Part.TONGUE,))
    assert pixels_of(teeth, "enamel") > 2000
    assert pixels_of(teeth, "gum") == 0
    assert pixels_of(tongue, "enamel") == 0
    assert pixels_of(tongue, "tongue") > 2000


def test_a_sheet_has_six_different_views():
    sheet = pictures.mouth_sheet(MOUTH, 80)
    assert sheet.shape == (160, 240, 3)
    views = [sheet[r : r + 80, c : c + 80] for r in (0, 80) for c in (0, 80, 160)]
    assert all(not np.array_equal(a, b) for i, a in enumerate(views) for b in views[:i])
    assert all(pixels_of(view, "enamel") > 100 for view in views)


def test_vertices_of_another_mesh_are_refused(small_face):
    with pytest.raises(ShapeError, match="mouth vertices"):
        pictures.head_picture(small_face.template, small_face, MOUTH, INSIDE[:-1], 64)
    with pytest.raises(ShapeError, match="face vertices"):
        pictures.head_picture(small_face.template[:-1], small_face, MOUTH, INSIDE, 64)
