"""Render a scene as an image."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from embedstore.quickstart.scenes.compose import COLORS, Camera, Scene, SceneObject
from embedstore.quickstart.scenes.glyphs import glyph_mask
from embedstore.quickstart.scenes.shapes import outline

SUPERSAMPLING = 2  # rendered at twice the size and reduced, for smooth edges
FloatArray = NDArray[np.float32]


def draw(scene: Scene, side: int, rng: np.random.Generator) -> Image.Image:
    """Return the scene as a square RGB image.

    Args:
        scene: content of the image.
        side: pixels per side.
        rng: random generator of the shades and textures that captions do not describe.
    """
    n = side * SUPERSAMPLING
    canvas = _background(scene, n, rng)
    for obj in scene.objects:
        _paint_object(canvas, obj, scene.camera, rng)
    image = Image.fromarray(canvas.clip(0, 255).astype(np.uint8)).reduce(SUPERSAMPLING)
    return _apply_camera(image, scene.camera, rng)


def _random_shade(color: str, rng: np.random.Generator, spread: float = 14) -> FloatArray:
    """Return a random shade of a color."""
    return (np.array(COLORS[color]) + rng.uniform(-spread, spread, 3)).clip(0, 255).astype(np.float32)


def _second_tone(shade: FloatArray, strength: float) -> FloatArray:
    """Return a second tone: darker than a light one, else lighter."""
    light = shade.mean() > 150
    return shade * (1 - strength) if light else shade + (255 - shade) * strength


def _background(scene: Scene, n: int, rng: np.random.Generator) -> FloatArray:
    """Return the background, float32 ``(n, n, 3)``."""
    shade = _random_shade(scene.background, rng)
    canvas = np.empty((n, n, 3), np.float32)
    canvas[:] = shade
    if scene.background_pattern == "plain":
        return canvas
    second = _second_tone(shade, float(rng.uniform(0.22, 0.4)))
    v, u = np.mgrid[0:n, 0:n].astype(np.float32) / n
    if scene.background_pattern == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        opacity = ((u - 0.5) * np.cos(angle) + (v - 0.5) * np.sin(angle) + 0.5).clip(0, 1)
    elif scene.background_pattern == "speckled":
        grain = rng.random((n // 2, n // 2)) < 0.22
        opacity = grain.repeat(2, 0).repeat(2, 1)[:n, :n].astype(np.float32)
    else:
        opacity = _pattern(scene.background_pattern, u, v, float(rng.uniform(5, 9)), rng)
    painted: FloatArray = canvas + opacity[..., None] * (second - shade)
    return painted


def _pattern(name: str, u: FloatArray, v: FloatArray, times: float, rng: np.random.Generator) -> FloatArray:
    """Return where the second tone is, 0 or 1, with ``times`` repetitions per unit."""
    angle = rng.uniform(0, np.pi)
    a = (u * np.cos(angle) + v * np.sin(angle)) * times + rng.random()
    if name == "striped":
        return _to_float(a % 1 < 0.5)
    b = (v * np.cos(angle) - u * np.sin(angle)) * times + rng.random()
    if name == "checkered":
        return _to_float((a % 1 < 0.5) ^ (b % 1 < 0.5))
    return _to_float((a % 1 - 0.5) ** 2 + (b % 1 - 0.5) ** 2 < 0.1)


def _to_float(true: NDArray[np.bool_]) -> FloatArray:
    """Return 1 where true and 0 elsewhere, as float32."""
    out: FloatArray = true.astype(np.float32)
    return out


def _paint_object(canvas: FloatArray, obj: SceneObject, camera: Camera, rng: np.random.Generator) -> None:
    """Paint one object on the canvas, in place."""
    n = canvas.shape[0]
    own = np.random.default_rng(obj.seed)
    ink = _glyph(obj, n) if obj.style else _shape(obj, camera, n)
    box = ink.getbbox()
    if box is None:
        return
    left, top, right, bottom = box
    opacity = np.asarray(ink.crop(box), np.float32)[..., None] / 255
    shade = _random_shade(obj.color, own)
    tone: FloatArray = shade
    if obj.pattern in ("striped", "spotted", "checkered"):
        v, u = np.mgrid[top:bottom, left:right].astype(np.float32) / (obj.radius * n)
        where = _pattern(obj.pattern, u, v, float(own.uniform(1.6, 2.4)), own)[..., None]
        second = _second_tone(shade, float(own.uniform(0.7, 0.9)))
        tone = shade + where * (second - shade)
    part = canvas[top:bottom, left:right]
    part += opacity * (tone - part)


def _shape(obj: SceneObject, camera: Camera, n: int) -> Image.Image:
    """Return the mask of a shape, tilted and in perspective."""
    angle = np.radians(obj.tilt + 90 * obj.quarter_turns)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = outline(obj.name) @ turn
    points = points / (1 + points @ np.array(camera.keystone))[:, None]
    corners = [(float(x), float(y)) for x, y in (points * obj.radius + [obj.x, obj.y]) * n]
    ink = Image.new("L", (n, n))
    pen = ImageDraw.Draw(ink)
    if obj.pattern == "hollow":
        pen.line([*corners, corners[0], corners[1]], fill=255, width=max(2, round(0.2 * obj.radius * n)), joint="curve")
    else:
        pen.polygon(corners, fill=255)
    return ink


def _glyph(obj: SceneObject, n: int) -> Image.Image:
    """Return the mask of a digit or letter."""
    ink = glyph_mask(obj.name, obj.style, np.random.default_rng(obj.seed))
    side = max(4, round(2 * obj.radius * n))
    if obj.style == "scanned":
        return ink.resize((n, n), Image.Resampling.BILINEAR)
    ink = ink.rotate(-obj.tilt, Image.Resampling.BILINEAR, expand=False).resize((side, side), Image.Resampling.BILINEAR)
    out = Image.new("L", (n, n))
    out.paste(ink, (round(obj.x * n - side / 2), round(obj.y * n - side / 2)))
    return out


def _apply_camera(image: Image.Image, camera: Camera, rng: np.random.Generator) -> Image.Image:
    """Apply light, blur, noise and compression."""
    side = image.width
    if camera.blur:
        image = image.filter(ImageFilter.GaussianBlur(camera.blur * side / 64))
    pixels = np.asarray(image, np.float32) * camera.gain
    if camera.light_gradient:
        v, u = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
        angle = np.radians(camera.light_direction)
        pixels *= (1 + camera.light_gradient * (u * np.cos(angle) + v * np.sin(angle)))[..., None]
    if camera.noise:
        pixels = pixels + rng.standard_normal(pixels.shape, np.float32) * camera.noise
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return _recompress(image, camera.jpeg_quality) if camera.jpeg_quality else image


def _recompress(image: Image.Image, quality: int) -> Image.Image:
    """Compress an image as JPEG and decode it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")
