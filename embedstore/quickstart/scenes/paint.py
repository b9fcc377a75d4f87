"""From a scene to a picture."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from embedstore.quickstart.scenes.compose import COLORS, Camera, Scene, SceneObject
from embedstore.quickstart.scenes.glyphs import glyph_mask as glyph
from embedstore.quickstart.scenes.shapes import outline

SUPERSAMPLING = 2  # painted at twice the size, then reduced: smooth edges
FloatArray = NDArray[np.float32]


def draw(scene: Scene, side: int, rng: np.random.Generator) -> Image.Image:
    """The scene as a square RGB picture.

    Args:
        scene: what is to be seen.
        side: pixels a side.
        rng: decides the shades and grains that have no word.
    """
    n = side * SUPERSAMPLING
    canvas = _ground(scene, n, rng)
    for thing in scene.objects:
        _add(canvas, thing, scene.camera, rng)
    picture = Image.fromarray(canvas.clip(0, 255).astype(np.uint8)).reduce(SUPERSAMPLING)
    return _photographed(picture, scene.camera, rng)


def _shade(colour: str, rng: np.random.Generator, spread: float = 14) -> FloatArray:
    """A colour's usual value, a little off."""
    return (np.array(COLORS[colour]) + rng.uniform(-spread, spread, 3)).clip(0, 255).astype(np.float32)


def _second(shade: FloatArray, strength: float) -> FloatArray:
    """A tone beside the first one: lighter, or darker where it is light already."""
    light = shade.mean() > 150
    return shade * (1 - strength) if light else shade + (255 - shade) * strength


def _ground(scene: Scene, n: int, rng: np.random.Generator) -> FloatArray:
    """The background, float32 ``(n, n, 3)``."""
    shade = _shade(scene.background, rng)
    canvas = np.empty((n, n, 3), np.float32)
    canvas[:] = shade
    if scene.background_pattern == "plain":
        return canvas
    second = _second(shade, float(rng.uniform(0.22, 0.4)))
    v, u = np.mgrid[0:n, 0:n].astype(np.float32) / n
    if scene.background_pattern == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        share = ((u - 0.5) * np.cos(angle) + (v - 0.5) * np.sin(angle) + 0.5).clip(0, 1)
    elif scene.background_pattern == "speckled":
        grain = rng.random((n // 2, n // 2)) < 0.22
        share = grain.repeat(2, 0).repeat(2, 1)[:n, :n].astype(np.float32)
    else:
        share = _pattern(scene.background_pattern, u, v, float(rng.uniform(5, 9)), rng)
    painted: FloatArray = canvas + share[..., None] * (second - shade)
    return painted


def _pattern(name: str, u: FloatArray, v: FloatArray, times: float, rng: np.random.Generator) -> FloatArray:
    """Where the second tone stands, 0 or 1; ``times`` repetitions in one unit."""
    angle = rng.uniform(0, np.pi)
    a = (u * np.cos(angle) + v * np.sin(angle)) * times + rng.random()
    if name == "striped":
        return _where(a % 1 < 0.5)
    b = (v * np.cos(angle) - u * np.sin(angle)) * times + rng.random()
    if name == "checkered":
        return _where((a % 1 < 0.5) ^ (b % 1 < 0.5))
    return _where((a % 1 - 0.5) ** 2 + (b % 1 - 0.5) ** 2 < 0.1)


def _where(true: NDArray[np.bool_]) -> FloatArray:
    """1 where true, 0 elsewhere."""
    out: FloatArray = true.astype(np.float32)
    return out


def _add(canvas: FloatArray, thing: SceneObject, camera: Camera, rng: np.random.Generator) -> None:
    """Paints one thing on the canvas, in place."""
    n = canvas.shape[0]
    own = np.random.default_rng(thing.seed)
    ink = _sign(thing, n) if thing.style else _shape(thing, camera, n)
    box = ink.getbbox()
    if box is None:
        return
    left, top, right, bottom = box
    share = np.asarray(ink.crop(box), np.float32)[..., None] / 255
    shade = _shade(thing.color, own)
    tone: FloatArray = shade
    if thing.pattern in ("striped", "spotted", "checkered"):
        v, u = np.mgrid[top:bottom, left:right].astype(np.float32) / (thing.radius * n)
        where = _pattern(thing.pattern, u, v, float(own.uniform(1.6, 2.4)), own)[..., None]
        second = _second(shade, float(own.uniform(0.7, 0.9)))
        tone = shade + where * (second - shade)
    part = canvas[top:bottom, left:right]
    part += share * (tone - part)


def _shape(thing: SceneObject, camera: Camera, n: int) -> Image.Image:
    """The mask of a shape, tilted, in perspective."""
    angle = np.radians(thing.tilt + 90 * thing.quarter_turns)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = outline(thing.name) @ turn
    points = points / (1 + points @ np.array(camera.keystone))[:, None]
    corners = [(float(x), float(y)) for x, y in (points * thing.radius + [thing.x, thing.y]) * n]
    ink = Image.new("L", (n, n))
    pen = ImageDraw.Draw(ink)
    if thing.pattern == "hollow":
        pen.line(
            [*corners, corners[0], corners[1]], fill=255, width=max(2, round(0.2 * thing.radius * n)), joint="curve"
        )
    else:
        pen.polygon(corners, fill=255)
    return ink


def _sign(thing: SceneObject, n: int) -> Image.Image:
    """The mask of a digit or letter."""
    ink = glyph(thing.name, thing.style, np.random.default_rng(thing.seed))
    side = max(4, round(2 * thing.radius * n))
    if thing.style == "scanned":
        return ink.resize((n, n), Image.Resampling.BILINEAR)
    ink = ink.rotate(-thing.tilt, Image.Resampling.BILINEAR, expand=False).resize(
        (side, side), Image.Resampling.BILINEAR
    )
    out = Image.new("L", (n, n))
    out.paste(ink, (round(thing.x * n - side / 2), round(thing.y * n - side / 2)))
    return out


def _photographed(picture: Image.Image, camera: Camera, rng: np.random.Generator) -> Image.Image:
    """Light, blur, noise and compression."""
    side = picture.width
    if camera.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(camera.blur * side / 64))
    pixels = np.asarray(picture, np.float32) * camera.gain
    if camera.light_gradient:
        v, u = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
        angle = np.radians(camera.light_direction)
        pixels *= (1 + camera.light_gradient * (u * np.cos(angle) + v * np.sin(angle)))[..., None]
    if camera.noise:
        pixels = pixels + rng.standard_normal(pixels.shape, np.float32) * camera.noise
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return _compressed(picture, camera.jpeg_quality) if camera.jpeg_quality else picture


def _compressed(picture: Image.Image, quality: int) -> Image.Image:
    """Through JPEG and back."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")
