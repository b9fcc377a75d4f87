"""JPEG compression damage that reaches a network: low-quality files that are not downscaled before it."""

from __future__ import annotations

import io

from PIL import Image

from embedstore.space import Preprocess

QUALITY_50_TABLE_SUM = 3688  # sum of the luminance table of ITU-T T.81, annex K.1, which libjpeg uses at quality 50
LOW_QUALITY = 85  # quality below which artifacts show at full size; cameras and photo sites write 85 to 95


def jpeg_quality(data: bytes) -> float | None:
    """Return the libjpeg quality (1 to 100) of a JPEG's luminance table, None for other files.

    Args:
        data: bytes of a file that has been decoded before.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    with Image.open(io.BytesIO(data), formats=("JPEG", "MPO")) as image:
        table: list[int] = getattr(image, "quantization", {}).get(0, [])
    if not sum(table):
        return None
    scale = 100 * sum(table) / QUALITY_50_TABLE_SUM
    return (200 - scale) / 2 if scale <= 100 else 5000 / scale


def has_visible_artifacts(data: bytes, size: tuple[int, int], preprocess: Preprocess) -> bool:
    """Return whether a low-quality JPEG reaches the network at its own size or enlarged.

    Args:
        data: bytes of the file.
        size: ``(width, height)`` of its image in pixels.
        preprocess: the preprocessing of the space.
    """
    if min(size) > max(preprocess.resize):
        return False
    quality = jpeg_quality(data)
    return quality is not None and quality < LOW_QUALITY
