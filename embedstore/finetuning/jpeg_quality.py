"""Whether compression damage reaches a network: poor JPEGs that are not made smaller before it sees them."""

from __future__ import annotations

import io

from PIL import Image

from embedstore.space import Preprocess

QUALITY_50_TABLE_SUM = (
    3688  # sum of the luminance table of ITU-T T.81, annex K.1, which libjpeg's quality scales; quality 50 has it
)
LOW_QUALITY = 85  # quality below which artefacts show at full size; cameras and photo sites write 85 to 95


def jpeg_quality(data: bytes) -> float | None:
    """The quality, 1 to 100, that libjpeg would have been given for a JPEG's luminance table; None for other files.

    Args:
        data: a file that has been decoded before.
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
    """A JPEG below :data:`POOR` that is shown to the network at its own size or enlarged, so that nothing is averaged.

    Args:
        data: of the file. size: of its image, ``(width, height)`` in pixels. p: what the network sees of it.
    """
    if min(size) > max(preprocess.resize):
        return False
    found = jpeg_quality(data)
    return found is not None and found < LOW_QUALITY
