"""How the people of the sample world look: skin, brows, eyes, lips, hair, light and background, drawn at random.

Everything is painted from the properties a `FaceCanvas` holds. Brows, lash lines, lips and irises have crisp borders,
since landmark detectors live on them; skin has colour variation at three scales.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import zoom

from ecavatar.rendering.camera import Camera
from ecavatar.rendering.shading import Light, Lighting, Texture, linear_from_srgb, render_face, srgb_from_linear
from ecavatar.sample.canvas import IRIS_RADIUS_MM, FaceCanvas

Colour = tuple[float, float, float]
"""Linear RGB, 0..1."""

SKIN_TONES = ((243, 212, 193), (228, 186, 158), (205, 155, 122), (168, 117, 85), (124, 82, 58), (88, 58, 43))
"""sRGB bytes from light to dark, our choice along the range of the Monk skin tone scale."""
HAIR_TONES = ((28, 22, 20), (52, 36, 28), (88, 60, 40), (134, 98, 62), (108, 58, 36), (150, 145, 140))
IRIS_TONES = ((62, 40, 24), (92, 62, 36), (98, 94, 58), (84, 110, 92), (92, 120, 148))

_STRETCH = {"order": 1, "grid_mode": True, "mode": "nearest"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Appearance:
    """One person's looks; `draw_appearance` draws them."""

    skin: Colour
    hair: Colour
    lips: Colour
    iris: Colour
    brow_half_width_mm: float
    brow_strength: float
    """0..1: how much of the skin the brow's hair covers."""
    lash_strength: float
    stubble: float
    """0 none .. 1 dense."""
    blush: float
    gloss: float
    texture_seed: int
    """Draws the skin's grain."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """A painted appearance, ready to be put on a mesh."""

    texture: Texture
    tint: Float[np.ndarray, " vertices"]
    gloss: Float[np.ndarray, " vertices"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """Light and what is behind the head."""

    lighting: Lighting
    background: UInt8[np.ndarray, "height width 3"]


def draw_appearance(random: np.random.Generator) -> Appearance:
    """A person drawn at random: skin from light to dark, with brows, eyes, lips and hair that may go with it."""
    darkness = random.uniform(0, 1)
    skin = _tone(SKIN_TONES, darkness, random, spread=0.05)
    hair_range = 1.0 if darkness < 0.55 else 0.3  # fair hair and dark skin are seldom seen together
    hair = _tone(HAIR_TONES, random.uniform(0, hair_range), random, spread=0.15)
    iris = _tone(IRIS_TONES, random.uniform(0, 1.0 if darkness < 0.5 else 0.2), random, spread=0.1)
    redness = random.uniform(0.25, 0.7)
    lips = tuple(np.array(skin) * (1 - redness) + np.array(skin) * (0.95, 0.38, 0.42) * redness)
    return Appearance(
        skin=skin,
        hair=hair,
        lips=lips,
        iris=iris,
        brow_half_width_mm=random.uniform(2.2, 4.0),
        brow_strength=random.uniform(0.75, 0.97),
        lash_strength=random.uniform(0.6, 1.0),
        stubble=max(0.0, random.uniform(-0.8, 0.7)),
        blush=random.uniform(0.05, 0.35),
        gloss=random.uniform(0.02, 0.07),
        texture_seed=int(random.integers(2**31)),
    )


def _tone(tones: tuple[tuple[int, int, int], ...], at: float, random: np.random.Generator, spread: float) -> Colour:
    """A linear colour between the tones (0 the first, 1 the last), varied by `spread`."""
    steps = np.linspace(0, 1, len(tones))
    srgb = [np.interp(at, steps, [tone[channel] / 255 for tone in tones]) for channel in range(3)]
    variation = random.normal(0, spread) + random.normal(0, spread / 3, 3)
    red, green, blue = linear_from_srgb(np.array(srgb)) * np.exp(variation)
    return float(red), float(green), float(blue)


def paint(canvas: FaceCanvas, appearance: Appearance) -> Look:
    """The appearance as a texture and per-vertex light properties."""
    layers = canvas.layers
    shape = layers["x"].shape
    grain = np.random.default_rng(appearance.texture_seed)
    coarse, fine = _noise(shape, 24, grain), _noise(shape, 160, grain)
    image = np.empty((*shape, 3), dtype=np.float32)
    image[:] = appearance.skin
    image *= (1 + 0.04 * coarse + 0.045 * fine)[..., None]
    _paint_skin(image, layers, appearance)
    _paint_hair(image, layers, appearance, coarse, fine)
    _paint_eyes(image, layers, appearance, fine)
    texture = Texture(np.clip(image, 0, 1), canvas.uv, canvas.uv_faces)
    # an eighth of the light reaches even the deepest fold, from skin to skin
    tint = 0.12 + 0.88 * np.clip(canvas.openness * 1.25, 0, 1) ** 0.8
    return Look(texture=texture, tint=tint, gloss=np.full(len(tint), appearance.gloss))


def _mix(image: np.ndarray, colour: Colour | np.ndarray, share: np.ndarray, where: np.ndarray | None = None) -> None:
    """Cover `image`, in place, by `colour` (one, or one per share) as far as `share` says.

    Args:
        image: (rows, columns, 3), contiguous.
        colour: linear RGB, (3,) or (n, 3).
        share: 0..1, (n,) at the flat texel numbers `where`; or the whole picture's without `where`.
        where: flat texel numbers.
    """
    texels = image.reshape(-1, 3)
    if where is None:
        where = np.flatnonzero(share > 1e-3)
        share = share.reshape(-1)[where]
    part = share.astype(np.float32)[:, None]
    texels[where] += part * (np.asarray(colour, dtype=np.float32) - texels[where])


def _paint_skin(image: np.ndarray, layers: Mapping[str, np.ndarray], looks: Appearance) -> None:
    skin = np.array(looks.skin)
    _mix(image, skin * (1.0, 0.6, 0.6), looks.blush * (0.6 * layers["cheek"] + 0.8 * layers["nose"]))
    if looks.stubble > 0:
        _mix(image, np.array(looks.hair) * 0.5 + skin * 0.25, 0.45 * looks.stubble * layers["beard"])
    to_lid = np.minimum(layers["upper_lash_mm"], layers["lower_lash_mm"]).reshape(-1)
    near = np.flatnonzero(to_lid < 15)
    _mix(image, skin * (0.55, 0.42, 0.42), 0.35 * np.exp(-((to_lid[near] / 6) ** 2)), near)
    _mix(image, looks.lips, 0.95 * layers["lips"])


def _paint_hair(
    image: np.ndarray, layers: Mapping[str, np.ndarray], looks: Appearance, coarse: np.ndarray, fine: np.ndarray
) -> None:
    hair = np.array(looks.hair)
    near = np.flatnonzero(layers["scalp"] > 0)
    scalp, noise, streaks = (layer.reshape(-1)[near] for layer in (layers["scalp"], coarse, fine))
    # the hair line is ragged; inside the region, and outside of it, noise changes nothing
    edge = _smooth_step((scalp + 1.2 * (noise + streaks) * scalp * (1 - scalp) - 0.25) / 0.5)
    _mix(image, hair * (1 + 0.35 * streaks[:, None]), edge, near)
    _paint_brows(image, layers, looks, fine)
    for name, reach_mm, strength in (("upper_lash_mm", 1.1, 0.92), ("lower_lash_mm", 0.8, 0.42)):
        near = np.flatnonzero(layers[name] < 3 * reach_mm)
        lashes = np.exp(-((layers[name].reshape(-1)[near] / reach_mm) ** 2))
        _mix(image, hair * 0.25, looks.lash_strength * strength * lashes, near)


def _paint_brows(image: np.ndarray, layers: Mapping[str, np.ndarray], looks: Appearance, fine: np.ndarray) -> None:
    near = np.flatnonzero(np.abs(layers["brow_across_mm"]) < 4 * looks.brow_half_width_mm)
    along, across, streaks = (x.reshape(-1)[near] for x in (layers["brow_along"], layers["brow_across_mm"], fine))
    half = looks.brow_half_width_mm * (1.05 - 0.6 * along**1.5)
    # the detectors' brow line runs along the upper edge of the hair
    inside = np.exp(-((np.abs(across + 0.6 * half) / half) ** 4)) * _smooth_step(along / 0.15)
    density = looks.brow_strength * inside * (1 - 0.12 * np.clip(streaks, -1, 1))
    _mix(image, np.array(looks.hair) * 0.55, density, near)


def _paint_eyes(image: np.ndarray, layers: Mapping[str, np.ndarray], looks: Appearance, fine: np.ndarray) -> None:
    whole = np.flatnonzero(layers["eye"] > 0)
    redness = 0.5 * _smooth_step((layers["gaze_mm"].reshape(-1)[whole] - 8.5) / 6)[:, None]
    _mix(image, (1 - redness) * (0.62, 0.58, 0.55) + redness * (0.50, 0.28, 0.25), np.ones(len(whole)), whole)
    near = np.flatnonzero(layers["gaze_mm"] < IRIS_RADIUS_MM + 1)
    gaze, streaks = layers["gaze_mm"].reshape(-1)[near], fine.reshape(-1)[near]
    iris = _smooth_step((IRIS_RADIUS_MM - gaze) / 0.5 + 0.5)
    rim = iris * _smooth_step((gaze - IRIS_RADIUS_MM + 1.3) / 1.0)
    _mix(image, np.array(looks.iris) * (1 + 0.25 * streaks[:, None]), iris, near)
    _mix(image, np.array(looks.iris) * 0.2, rim, near)
    _mix(image, (0.008, 0.007, 0.007), _smooth_step((2.2 - gaze) / 0.4 + 0.5), near)


def _smooth_step(values: np.ndarray) -> np.ndarray:
    ramp = np.clip(values, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _noise(shape: tuple[int, ...], cells: int, random: np.random.Generator) -> np.ndarray:
    """Smooth noise of unit deviation with about `cells` bumps across."""
    rows = max(2, round(cells * shape[0] / shape[1]))
    grid = random.standard_normal((rows + 1, cells + 1)).astype(np.float32)
    return np.asarray(zoom(grid, (shape[0] / (rows + 1), shape[1] / (cells + 1)), **_STRETCH))


def draw_scene(random: np.random.Generator, size_px: int) -> Scene:
    """Light from a random side, of random colour and softness, and a blurred background."""
    side, height = random.uniform(-1.1, 1.1), random.uniform(0.1, 0.9)
    warmth = np.exp(random.normal(0, 0.07) * np.array([1, 0, -1]))
    key = random.uniform(0.6, 0.95) * warmth
    fill = random.uniform(0.15, 0.4) / warmth
    ambient = random.uniform(0.25, 0.42) * np.sqrt(warmth)
    lights = (
        Light((side, height, 1.0), _triple(key)),
        Light((-np.sign(side) * random.uniform(0.5, 1.2), random.uniform(-0.1, 0.5), 0.9), _triple(fill)),
        Light((random.uniform(-0.5, 0.5), 0.9, -0.5), (0.12, 0.12, 0.12)),
    )
    return Scene(lighting=Lighting(lights, _triple(ambient)), background=_background(random, size_px))


def _triple(values: np.ndarray) -> Colour:
    red, green, blue = map(float, values)
    return red, green, blue


def _background(random: np.random.Generator, size_px: int) -> np.ndarray:
    """Soft patches of two or three colours, sRGB bytes."""
    cells = int(random.integers(2, 6))
    grey = random.uniform(0.15, 0.85) + random.normal(0, 0.12, (cells, cells, 1))
    grid = grey + random.normal(0, 0.06, 3) + random.normal(0, 0.03, (cells, cells, 3))
    large = np.asarray(zoom(grid, (size_px / cells, size_px / cells, 1), **_STRETCH))
    return np.rint(np.clip(large, 0, 1) * 255).astype(np.uint8)


def portrait(
    vertices: Float[np.ndarray, "vertices 3"], faces: np.ndarray, look: Look, camera: Camera, scene: Scene
) -> UInt8[np.ndarray, "size size 3"]:
    """A picture of the painted head in its scene, sRGB bytes, the size of the scene's background."""
    size = scene.background.shape[:2]
    return render_face(
        vertices,
        faces,
        look.texture,
        camera,
        scene.lighting,
        (size[0], size[1]),
        scene.background,
        tint=look.tint,
        gloss=look.gloss,
    )


def camera_noise(
    picture: UInt8[np.ndarray, "height width 3"], random: np.random.Generator, spread: float = 0.008
) -> UInt8[np.ndarray, "height width 3"]:
    """The picture as a sensor sees it: Gaussian noise in linear light."""
    linear = linear_from_srgb(np.arange(256) / 255)[picture]
    noisy = np.clip(linear + random.normal(0, spread, picture.shape), 0, 1)
    return np.rint(srgb_from_linear(noisy) * 255).astype(np.uint8)
