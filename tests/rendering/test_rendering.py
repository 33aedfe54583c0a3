"""The rasteriser, the camera, the shading and the films."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecavatar.errors import AssetMissingError, DataError, ShapeError
from ecavatar.rendering.camera import Camera, head_rotation
from ecavatar.rendering.rasteriser import rasterise
from ecavatar.rendering.shading import (
    STUDIO,
    Light,
    Lighting,
    Texture,
    linear_from_srgb,
    render_face,
    srgb_from_linear,
    vertex_normals,
)
from ecavatar.rendering.video import read_frames, video_facts, write_video

TRIANGLE = np.array([[0, 1, 2]], dtype=np.int32)


def _sphere(rings: int = 24, columns: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """A unit sphere without shared poles, faces turned outwards."""
    polar, around = np.meshgrid(np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, columns), indexing="ij")
    vertices = np.stack([np.sin(polar) * np.sin(around), np.cos(polar), np.sin(polar) * np.cos(around)], axis=-1)
    index = np.arange(rings * columns).reshape(rings, columns)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    return vertices.reshape(-1, 3), faces.astype(np.int32)


def test_a_pixel_centre_inside_the_triangle_is_drawn_with_its_barycentrics() -> None:
    corners = np.array([[0.0, 0, 1], [8, 0, 1], [0, 8, 3]])
    seen = rasterise(corners, TRIANGLE, 8, 8)
    rows, columns = np.nonzero(seen.face_ids == 0)
    assert set(zip(rows, columns, strict=True)) == {(r, c) for r in range(8) for c in range(8) if r + c + 1 <= 8}
    weights = seen.barycentrics[rows, columns].astype(float)
    centres = np.stack([columns + 0.5, rows + 0.5], axis=1)
    assert np.allclose(weights @ corners[:, :2], centres, atol=1e-6)
    assert np.allclose(seen.depth[rows, columns], weights @ corners[:, 2], atol=1e-6)
    assert np.isinf(seen.depth[7, 7])


def test_the_nearest_face_wins_whatever_the_order() -> None:
    far = np.array([[0.0, 0, 5], [9, 0, 5], [0, 9, 5]])
    near = far - np.array([0, 0, 2])
    vertices = np.concatenate([far, near])
    faces = np.array([[0, 1, 2], [3, 4, 5]], dtype=np.int32)
    first, second = rasterise(vertices, faces, 6, 6), rasterise(vertices, faces[::-1], 6, 6)
    assert set(first.face_ids[first.face_ids >= 0]) == {1}
    assert set(second.face_ids[second.face_ids >= 0]) == {0}


def test_perspective_weights_land_on_the_true_point_of_the_surface() -> None:
    points = np.array([[-0.1, -0.1, 0.0], [0.2, -0.1, -0.5], [0.0, 0.2, 0.3]])
    camera = Camera.perspective(focal_px=100, distance=1.0, centre_px=(32, 32))
    seen = rasterise(camera.project(points), TRIANGLE, 64, 64, is_perspective=True)
    rows, columns = np.nonzero(seen.face_ids == 0)
    assert len(rows) > 50
    back = camera.project(seen.barycentrics[rows, columns].astype(float) @ points)
    assert np.allclose(back[:, :2], np.stack([columns + 0.5, rows + 0.5], axis=1), atol=1e-4)
    assert np.allclose(back[:, 2], seen.depth[rows, columns], atol=1e-5)


def test_broken_and_hidden_geometry_is_left_out() -> None:
    vertices = np.array([[0.0, 0, 1], [9, 0, 1], [0, 9, np.nan], [0, 0, -1], [9, 0, 1], [0, 9, 1]])
    seen = rasterise(vertices, np.array([[0, 1, 2], [3, 4, 5], [0, 0, 1]]), 4, 4, is_perspective=True)
    assert (seen.face_ids == -1).all()
    with pytest.raises(ShapeError, match="faces name"):
        rasterise(vertices, np.array([[0, 1, 6]]), 4, 4)
    with pytest.raises(ShapeError, match="at least one row"):
        rasterise(vertices, TRIANGLE, 0, 4)


def test_face_ids_agree_with_ray_casting() -> None:
    open3d = pytest.importorskip("open3d")
    vertices, faces = _sphere()
    vertices = vertices * [0.08, 0.11, 0.09]
    camera = Camera.framing(vertices, 96, rotation=head_rotation(0.3, -0.2, 0.1))
    seen = rasterise(camera.project(vertices), faces, 96, 96, is_perspective=True)
    columns, rows = np.meshgrid(np.arange(96) + 0.5, np.arange(96) + 0.5)
    x, y = (columns - camera.centre_px[0]) / camera.scale_px, -(rows - camera.centre_px[1]) / camera.scale_px
    directions = np.stack([x, y, -np.ones_like(x)], axis=-1)
    origins = np.broadcast_to([0, 0, camera.distance], directions.shape)
    scene = open3d.t.geometry.RaycastingScene()
    view = camera.view(vertices)
    scene.add_triangles(open3d.core.Tensor(view.astype(np.float32)), open3d.core.Tensor(faces.astype(np.uint32)))
    rays = np.concatenate([origins, directions], axis=-1).astype(np.float32)
    hit = scene.cast_rays(open3d.core.Tensor(rays))
    ids = hit["primitive_ids"].numpy().astype(np.int64)
    ids[ids == 2**32 - 1] = -1
    inside = seen.barycentrics.min(axis=-1) > 1e-3
    silhouette = (seen.face_ids < 0) != (ids < 0)
    assert inside.mean() > 0.3
    assert (seen.face_ids[inside] == ids[inside]).all()
    assert silhouette.mean() < 1e-3
    assert np.allclose(seen.depth[inside], hit["t_hit"].numpy()[inside], atol=1e-5)


def test_the_heads_left_is_at_the_right_of_the_picture_and_up_is_up() -> None:
    for camera in (
        Camera.perspective(focal_px=100, distance=1, centre_px=(50, 50)),
        Camera.orthographic(pixels_per_metre=100, centre_px=(50, 50)),
    ):
        left, up, nose = camera.project(np.array([[0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]]))
        assert left[0] > 50
        assert up[1] < 50
        assert nose[2] < left[2]


def test_head_rotation_turns_the_nose_left_down_and_the_crown_to_the_right_shoulder() -> None:
    assert head_rotation(0.2, 0, 0)[0, 2] > 0
    assert head_rotation(0, 0.2, 0)[1, 2] < 0
    assert head_rotation(0, 0, 0.2)[0, 1] < 0


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1))
def test_framing_shows_everything(yaw: float, pitch: float, roll: float) -> None:
    vertices, _ = _sphere(6, 8)
    camera = Camera.framing(vertices * 0.1, (60, 80), rotation=head_rotation(yaw, pitch, roll))
    pixels = camera.project(vertices * 0.1)
    assert (pixels[:, :2] > 0).all()
    assert (pixels[:, :2] < [80, 60]).all()
    assert (pixels[:, 2] > 0).all()


def test_a_camera_refuses_what_is_not_a_rotation() -> None:
    with pytest.raises(ShapeError, match="rotation"):
        Camera.orthographic(pixels_per_metre=1, centre_px=(0, 0), rotation=2 * np.eye(3))


def test_normals_of_a_sphere_point_outwards() -> None:
    vertices, faces = _sphere()
    inner = (np.abs(vertices[:, 1]) < 0.95) & (np.abs(vertices[:, 0]) > 0.05)
    normals = vertex_normals(vertices, faces)[inner]
    assert np.allclose((normals * vertices[inner]).sum(axis=1), 1, atol=5e-3)


def test_srgb_and_linear_undo_each_other() -> None:
    values = np.linspace(0, 1, 101)
    assert np.allclose(srgb_from_linear(linear_from_srgb(values)), values, atol=1e-6)


def test_ambient_light_alone_gives_the_albedo_back() -> None:
    vertices = np.array([[-1.0, -1, 0], [1, -1, 0], [0, 1, 0]])
    lights = Lighting(lights=(), ambient=(1 / 0.83,) * 3)
    albedo = np.tile([0.2, 0.5, 0.8], (3, 1))
    camera = Camera.framing(vertices, 32)
    picture = render_face(vertices, TRIANGLE, albedo, camera, lights, 32, background=(0, 0, 0))
    assert np.allclose(picture[16, 16], np.rint(srgb_from_linear(albedo[0]) * 255), atol=1)
    assert (picture[0, 0] == 0).all()


def test_the_side_towards_the_light_is_brighter_and_the_background_shows_through() -> None:
    vertices, faces = _sphere()
    vertices = vertices * 0.1
    background = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    lights = Lighting((Light((1, 0, 0.2), (0.8, 0.8, 0.8)),), (0.05, 0.05, 0.05))
    white = np.full((len(vertices), 3), 0.8)
    picture = render_face(vertices, faces, white, Camera.framing(vertices, 48), lights, 48, background)
    assert picture[24, 36].mean() > picture[24, 12].mean() + 50
    assert np.array_equal(picture[:3, :3], background[:3, :3])


def test_a_texture_is_laid_the_right_way_up() -> None:
    vertices = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    image = np.zeros((2, 2, 3), dtype=np.float32)
    image[0, 0, 0], image[1, 1, 1] = 1, 1
    texture = Texture(image, np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]), faces)
    lights = Lighting(lights=(), ambient=(1 / 0.83,) * 3)
    picture = render_face(vertices, faces, texture, Camera.framing(vertices, 64, fill=1), lights, 64)
    assert picture[4, 4].argmax() == 0
    assert picture[60, 60].argmax() == 1
    assert picture[4, 4].min() == 0


def test_colours_that_do_not_fit_the_mesh_are_refused() -> None:
    vertices, faces = _sphere(4, 5)
    camera = Camera.framing(vertices, 16)
    with pytest.raises(ShapeError, match="colours"):
        render_face(vertices, faces, np.zeros((3, 3)), camera, STUDIO, 16)
    with pytest.raises(ShapeError, match="background"):
        render_face(vertices, faces, np.zeros((20, 3)), camera, STUDIO, 16, np.zeros((8, 8, 3), dtype=np.uint8))


def _frames(count: int = 5, size: int = 48) -> list[np.ndarray]:
    ramp = np.linspace(0, 200, size).astype(np.uint8)
    base = np.stack(
        [np.tile(ramp, (size, 1)), np.tile(ramp[:, None], (1, size)), np.full((size, size), 90, np.uint8)], -1
    )
    return [base + np.uint8(8 * k) for k in range(count)]


def test_a_film_comes_back_and_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    sound = (np.sin(np.arange(4000) / 10).astype(np.float32) * 0.5, 16000)
    for name in ("a.mp4", "b.mp4"):
        assert write_video(tmp_path / name, iter(_frames()), 25, sound) == 5
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    back = list(read_frames(tmp_path / "a.mp4"))
    assert len(back) == 5
    assert np.abs(np.stack(back).astype(int) - np.stack(_frames()).astype(int)).mean() < 3
    facts = video_facts(tmp_path / "a.mp4")
    assert (facts.height, facts.width, facts.fps, facts.has_audio) == (48, 48, 25.0, True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_a_film_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with pytest.raises(ShapeError, match="at least one"):
        write_video(path, [], 25)
    with pytest.raises(ShapeError, match="even"):
        write_video(path, _frames(size=47), 25)
    with pytest.raises(ShapeError, match="one size"):
        write_video(path, [*_frames(), *_frames(size=46)], 25)
    assert not list(tmp_path.iterdir())


def test_an_unreadable_film_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    for read in (video_facts, lambda path: list(read_frames(path))):
        with pytest.raises(DataError, match="not a film"):
            read(tmp_path / "bad.mp4")
        with pytest.raises(AssetMissingError):
            read(tmp_path / "none.mp4")
