"""Small gray thumbnails of images, to compare their pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore.media.image import decode

SIDE = 32  # pixels of both sides: the whole image, whatever its shape


def gray_thumbnail(image: bytes | Image.Image) -> NDArray[np.uint8]:
    """Return an image in 32 by 32 levels of gray, uint8 ``(32, 32)``.

    Args:
        image: the bytes of a file, or an image opened by Pillow.

    Raises:
        ImageError: if the image cannot be decoded.
    """
    upright = decode.to_rgb_image(image)
    small = upright.reduce(max(1, min(upright.size) // (4 * SIDE)))  # a sixteenth of the pixels to resize, or less
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BOX).convert("L"), np.uint8)
