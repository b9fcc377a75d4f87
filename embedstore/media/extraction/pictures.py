"""The bytes of a picture that was made from a page or a frame."""

from __future__ import annotations

import io

from PIL import Image

MAX_SIDE = 1024  # pixels; backbones take 224 to 518
MAX_BYTES = MAX_SIDE * MAX_SIDE * 3 + 54  # of such a picture


def encode_picture(image: Image.Image) -> bytes:
    """Return a picture of at most :data:`MAX_SIDE` pixels a side as BMP, whose bytes follow from its pixels alone."""
    if max(image.size) > MAX_SIDE:
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.convert("RGB").save(out, "BMP")
    return out.getvalue()
