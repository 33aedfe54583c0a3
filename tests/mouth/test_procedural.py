"""Laws of the open mouth: counts, closed teeth, sizes, and that nothing goes through anything; checked with open3d."""

from itertools import pairwise

import numpy as np
import open3d
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from ecavatar.mouth.model import Part
from ecavatar.mouth.procedural import procedural_mouth
from ecavatar.mouth.teeth import LOWER_TEETH, STUMP, UPPER_TEETH

MOUTH = procedural_mouth()
NUMBERS = [10 * quadrant + place for quadrant in (1, 2, 3, 4) for place in range(1, 8)]
PIVOTS = ((0.018, -0.080), (0.045, -0.090), (0.010, -0.060))  # y and z of the jaw joint in heads of several builds
BARYCENTRICS = np.concatenate([np.eye(3), (1 - np.eye(3)) / 2, np.full((1, 3), 1 / 3), 0.17 + 0.49 * np.eye(3)])


def faces_of(is_part):
    return MOUTH.faces[is_part[MOUTH.faces[:, 0]]]


def tooth(number):
    return faces_of(MOUTH.tooth == number)


def part(*parts):
    return faces_of(np.isin(MOUTH.part, parts))


def millimetres(angle=0.0, pivot=PIVOTS[0]):
    """The vertices, the lower jaw turned by `angle` degrees."""
    vertices, joint = MOUTH.vertices.astype(float), np.array([0, *pivot])
    turn = Rotation.from_rotvec([np.radians(angle), 0, 0])
    vertices[MOUTH.follows_jaw] = turn.apply(vertices[MOUTH.follows_jaw] - joint) + joint
    return 1000 * vertices


def scene(vertices, faces):
    made = open3d.t.geometry.RaycastingScene()
    made.add_triangles(
        open3d.core.Tensor(vertices.astype(np.float32)), open3d.core.Tensor(faces.astype(np.uint32, order="C"))
    )
    return made


def clearance(vertices, one, other):
    """Smallest signed distance, mm, of points on either closed body to the other; negative where they overlap."""

    def reach(points_on, body):
        points = (BARYCENTRICS @ vertices[points_on]).reshape(-1, 3).astype(np.float32)
        return scene(vertices, body).compute_signed_distance(open3d.core.Tensor(points)).numpy().min()

    return min(reach(one, other), reach(other, one))


def crossings(vertices, one, other):
    """How many edges of either surface go through the other."""

    def count(edges_of, surface):
        ends = vertices[edges_of[:, [0, 1, 1, 2, 2, 0]]].reshape(-1, 2, 3)
        rays = np.concatenate([ends[:, 0], ends[:, 1] - ends[:, 0]], axis=1).astype(np.float32)
        return int((scene(vertices, surface).cast_rays(open3d.core.Tensor(rays))["t_hit"].numpy() <= 1).sum())

    return count(one, other) + count(other, one)


def test_the_checks_see_an_overlap():
    vertices = millimetres()
    vertices[MOUTH.tooth == 12] += [0.5, 0, 0]
    assert clearance(vertices, tooth(11), tooth(12)) < -0.2
    assert crossings(vertices, tooth(11), tooth(12)) > 0


def test_it_has_the_papers_counts():
    assert (len(MOUTH.vertices), len(MOUTH.faces)) == (10_028, 19_804)
    assert np.array_equal(np.unique(MOUTH.faces), np.arange(10_028))
    assert set(MOUTH.part) == set(Part)
    assert sorted(set(MOUTH.tooth) - {0}) == sorted(NUMBERS)


@pytest.mark.parametrize("number", [*NUMBERS, 0])
def test_every_tooth_and_the_tongue_is_a_closed_body_that_looks_outward(number):
    body = trimesh.Trimesh(MOUTH.vertices, tooth(number) if number else part(Part.TONGUE), process=False)
    body.remove_unreferenced_vertices()
    assert body.is_watertight
    assert body.is_winding_consistent
    assert body.euler_number == 2
    assert body.body_count == 1
    assert body.volume > 1e-7


@pytest.mark.parametrize("which", [Part.UPPER_GUM, Part.LOWER_GUM])
def test_a_gum_is_a_disc_with_66_border_edges_whose_ridge_looks_forward(which):
    sheet = trimesh.Trimesh(MOUTH.vertices, part(which), process=False)
    front = MOUTH.normals[(MOUTH.part == which) & (np.abs(MOUTH.vertices[:, 0]) < 0.004)]
    sheet.remove_unreferenced_vertices()
    assert sheet.is_winding_consistent
    assert sheet.euler_number == 1
    assert len(trimesh.grouping.group_rows(sheet.edges_sorted, require_count=1)) == 66
    assert (front[:, 2] > 0.7).sum() > 5


def test_left_and_right_mirror_each_other():
    for number in (11, 14, 46):
        other = number + (10 if number < 20 else -10)
        right, left = MOUTH.vertices[MOUTH.tooth == number], MOUTH.vertices[MOUTH.tooth == other]
        np.testing.assert_allclose(right * [-1, 1, 1], left, atol=1e-7)
        assert (right[:, 0] < 0).all()


def test_the_origin_lies_between_the_edges_of_the_upper_central_incisors():
    central = MOUTH.vertices[np.isin(MOUTH.tooth, (11, 21))]
    edge = central[central[:, 1] < central[:, 1].min() + 0.0005]
    assert abs(central[:, 1].min()) < 1e-4
    assert abs(edge[:, 0].mean()) < 1e-6
    assert abs(edge[:, 2].mean()) < 1e-3


@pytest.mark.parametrize("kind", [*UPPER_TEETH, *LOWER_TEETH])
def test_a_tooth_has_the_books_size(kind):
    vertices = 1000 * MOUTH.vertices[MOUTH.tooth == kind.place + (20 if kind.is_upper else 30)].astype(float)
    hull = vertices[:, ::2]
    turns = np.radians(np.arange(0, 180, 0.5))
    extents = np.ptp(hull @ np.stack([np.cos(turns), np.sin(turns)]), axis=0)
    assert extents.min() < min(kind.width, kind.depth) + 0.1  # it leans a little
    assert extents.max() > max(kind.width, kind.depth) - 0.1
    lean = np.cos(np.radians(kind.inclination))
    assert abs(np.ptp(vertices[:, 1]) - (kind.crown + STUMP) * lean) < 0.6


def test_the_arches_have_a_normal_width_overbite_and_overjet():
    vertices = 1000 * MOUTH.vertices

    def facial_width(left, right):
        return vertices[MOUTH.tooth == left, 0].max() - vertices[MOUTH.tooth == right, 0].min()

    assert abs(facial_width(26, 16) - 57.9) < 4.8  # Mina et al. 2017: mean, one SD
    assert abs(facial_width(36, 46) - 54.2) < 5.3
    upper, lower = vertices[MOUTH.tooth == 11], vertices[MOUTH.tooth == 41]
    overbite = lower[:, 1].max() - upper[:, 1].min()
    upper_edge, lower_edge = (
        side[np.abs(side[:, 1] - level) < 0.4][:, 2].max() for side, level in ((upper, 0.0), (lower, 2.0))
    )
    assert 1 <= overbite <= 3
    assert 2 <= upper_edge - lower_edge <= 4


def test_texture_coordinates_have_no_empty_face_and_parts_have_their_own_islands():
    uv = MOUTH.uv[MOUTH.faces].astype(float)
    area = np.abs(np.linalg.det(uv[:, 1:] - uv[:, :1])) / 2
    assert MOUTH.uv.min() >= 0
    assert MOUTH.uv.max() <= 1
    assert area.min() > 1e-9
    islands = 100 * MOUTH.part.astype(int) + MOUTH.tooth
    boxes = [(MOUTH.uv[islands == k].min(axis=0), MOUTH.uv[islands == k].max(axis=0)) for k in np.unique(islands)]
    assert len(boxes) == 31
    for index, (low, high) in enumerate(boxes):
        for low2, high2 in boxes[:index]:
            assert (low >= high2).any() or (low2 >= high).any()


def test_neighbours_are_close_and_do_not_touch():
    vertices = millimetres()
    rows = [[*range(17, 10, -1), *range(21, 28)], [*range(47, 40, -1), *range(31, 38)]]
    for row in rows:
        gaps = [clearance(vertices, tooth(a), tooth(b)) for a, b in pairwise(row)]
        assert min(gaps) > 0.05
        assert max(gaps) < 0.8


def test_every_lower_back_tooth_rests_near_the_upper_teeth():
    vertices, upper = millimetres(), part(Part.UPPER_TEETH)
    gaps = [clearance(vertices, tooth(30 + place), upper) for place in range(1, 8)]
    assert min(gaps) > 0.05
    assert max(gaps[3:]) < 0.25
    assert max(gaps) < 1.0


@pytest.mark.parametrize(
    ("angle", "pivot"),
    [(angle, PIVOTS[0]) for angle in (0, 0.5, 1.5, 4, 9, 16, 25)]
    + [(angle, pivot) for angle in (0.5, 9, 25) for pivot in PIVOTS[1:]],
)
def test_nothing_goes_through_anything_while_the_jaw_opens(angle, pivot):
    vertices = millimetres(angle, pivot)
    upper, lower, tongue = part(Part.UPPER_TEETH), part(Part.LOWER_TEETH), part(Part.TONGUE)
    palate, floor = part(Part.UPPER_GUM), part(Part.LOWER_GUM)
    assert clearance(vertices, upper, lower) > 0.05
    assert clearance(vertices, upper, tongue) > 1
    assert clearance(vertices, lower, tongue) > 1
    for one, other in ((palate, tongue), (palate, lower), (palate, floor), (floor, upper), (floor, tongue)):
        assert crossings(vertices, one, other) == 0


@pytest.mark.parametrize("number", NUMBERS)
def test_a_gum_surrounds_each_tooth_and_hides_its_stump(number):
    gum = part(Part.UPPER_GUM if number < 30 else Part.LOWER_GUM)
    vertices, own = millimetres(), MOUTH.tooth == number
    assert crossings(vertices, tooth(number), gum) > 20
    up = -1.0 if number < 30 else 1.0
    stump = vertices[own][up * vertices[own, 1] < (up * vertices[own, 1]).min() + 2.5]
    rays = np.concatenate([stump, np.tile([0, up, 0], (len(stump), 1))], axis=1).astype(np.float32)
    hits = scene(vertices, gum).cast_rays(open3d.core.Tensor(rays))["t_hit"].numpy()
    assert np.isfinite(hits).mean() > 0.8  # the sheet lies between the stump and the other jaw


def test_it_is_the_same_every_time(tmp_path):
    MOUTH.save(tmp_path / "a.npz")
    procedural_mouth.cache_clear()
    again = procedural_mouth()
    assert again is not MOUTH
    again.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
