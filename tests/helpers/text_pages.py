"""Generated pages of text as a scanner makes them, and images with regular lines that are no text."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_WORDS = (
    "the of and store vector item label class image kernel Weighted 1998 linear, probes. (see Figure) between; was "
    "for each 3.14 result tables Numbers index of search query"
).split()


def text_page(seed: int) -> Image.Image:
    """Return a page: any size of letters and color of paper, some a little askew, with noise, saved as JPEG."""
    rng = np.random.default_rng(seed)
    width = int(rng.integers(500, 1600))
    height, size = int(width * rng.uniform(0.7, 1.5)), int(rng.integers(max(11, width // 90), max(13, width // 28)))
    paper, ink = int(rng.integers(200, 256)), int(rng.integers(0, 90))
    paper, ink = (ink, paper) if rng.random() < 0.1 else (paper, ink)
    page = Image.new("L", (width, height), paper)
    _write(ImageDraw.Draw(page), rng, page.size, size, ink)
    if rng.random() < 0.5:
        page = page.rotate(rng.uniform(-2, 2), Image.Resampling.BICUBIC, fillcolor=paper)
    noisy = np.asarray(page, np.float32) + rng.normal(0, rng.uniform(0, 8), (height, width))
    data = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(data, "JPEG", quality=int(rng.integers(40, 95)))
    return Image.open(data).convert("RGB")


def _write(draw: ImageDraw.ImageDraw, rng: np.random.Generator, page: tuple[int, int], size: int, ink: int) -> None:
    """Write paragraphs of random words."""
    font, margin, spacing = ImageFont.load_default(size), page[0] * rng.uniform(0.05, 0.12), rng.uniform(1.25, 1.8)
    y = margin
    while y < page[1] - margin - size:
        x = margin
        while rng.random() > 0.02:
            word = f"{rng.choice(_WORDS)} "
            if x + draw.textlength(word, font=font) > page[0] - margin:
                break
            draw.text((x, y), word, fill=ink, font=font)
            x += draw.textlength(word, font=font)
        y += size * spacing * (1.6 if rng.random() < 0.08 else 1)


def striped(period: int) -> Image.Image:
    """Return level stripes, half as high as their period."""
    rows = np.where(np.arange(600) % period < period / 2, 20, 240).astype(np.uint8)
    return Image.fromarray(np.repeat(rows[:, None], 600, 1)).convert("RGB")


def checked(period: int) -> Image.Image:
    """Return a chessboard."""
    dark = (np.arange(600) % period < period / 2).astype(int)
    return Image.fromarray((20 + 220 * (dark[:, None] ^ dark[None])).astype(np.uint8)).convert("RGB")


def ruled(period: int) -> Image.Image:
    """Return paper with a grid of thin lines."""
    thin = np.arange(600) % period < 3
    return Image.fromarray(np.where(thin[:, None] | thin[None], 20, 240).astype(np.uint8)).convert("RGB")


def charted(seed: int) -> Image.Image:
    """Return a chart of bars on white paper, with an axis."""
    rng = np.random.default_rng(seed)
    chart = Image.new("RGB", (800, 500), "white")
    draw = ImageDraw.Draw(chart)
    draw.line([(60, 20), (60, 460), (780, 460)], fill="black", width=3)
    for n, height in enumerate(rng.integers(40, 400, 12).tolist()):
        draw.rectangle([80 + 55 * n, 460 - height, 115 + 55 * n, 458], fill=(40, 60, 160))
    return chart
