"""Faults of one image that show in its pixels: text, dark, bright, blurred, empty, gray, of an odd shape."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore.media.image import decode
from embedstore.media.image.text_lines import TEXT_SHARE, text_share

_SIDE = 256  # pixels of the longer side at which an image is measured; nothing is enlarged

_SHARPNESS = (
    50  # of 300 photos at 32 to 500 pixels the least sharp has 86; blurred by 5 pixels of 500, all are below 30
)


class Fault(StrEnum):
    """What can be wrong with an image."""

    TEXT = "scans of text"
    DARK = "dark"
    BRIGHT = "bright"
    BLURRED = "blurred"
    EMPTY = "little in it"
    GRAY = "without color"
    ODD_SHAPE = "much longer than wide, or wider than long"


@dataclass(frozen=True)
class PictureFacts:
    """Measures of one image.

    Attributes:
        brightest: level of gray that 1% of the pixels are above, 0 to 255.
        darkest: level of gray that 5% of the pixels are below.
        sharpness: variance of the Laplacian of the levels of gray (LAPV in Pertuz et al. 2013).
        entropy: the entropy of the histogram of the levels of gray, in bits, 0 to 8 (Shannon 1948).
        color: mean difference of the highest and the lowest of red, green and blue, 0 to 255.
        shape: shorter side by longer side.
        text: share of the image that holds lines of text, see :mod:`embedstore.media.image.text_lines`.
    """

    brightest: float
    darkest: float
    sharpness: float
    entropy: float
    color: float
    shape: float
    text: float = 0.0

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults by fixed limits; of text, dark, bright, empty, blurred and gray, the first that holds."""
        limits = (
            (Fault.TEXT, self.text >= TEXT_SHARE),
            (Fault.DARK, self.brightest < 80),
            (Fault.BRIGHT, self.darkest > 242),
            (Fault.EMPTY, self.entropy < 3),
            (Fault.BLURRED, self.sharpness < _SHARPNESS),
            (Fault.GRAY, self.color < 2),
        )
        first = [fault for fault, is_so in limits if is_so][:1]
        return (*first, Fault.ODD_SHAPE) if self.shape < 0.35 else tuple(first)


def picture_facts(image: bytes | Image.Image) -> PictureFacts:
    """Measure one image.

    Raises:
        ImageError: if the image cannot be decoded.
    """
    upright = decode.to_rgb_image(image)
    shape, text = min(upright.size) / max(upright.size), text_share(upright)
    upright.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    pixels = np.asarray(upright, np.float32)
    gray = np.asarray(upright.convert("L"), np.float32)
    share = np.bincount(gray.astype(np.uint8).ravel(), minlength=256) / gray.size
    used = share[share > 0]
    return PictureFacts(
        brightest=float(np.quantile(gray, 0.99)),
        darkest=float(np.quantile(gray, 0.05)),
        sharpness=_laplacian_variance(gray),
        entropy=float(-(used * np.log2(used)).sum()),
        color=float((pixels.max(axis=2) - pixels.min(axis=2)).mean()),
        shape=shape,
        text=text,
    )


def _laplacian_variance(gray: NDArray[np.float32]) -> float:
    """Return the variance of the discrete Laplacian of the inner pixels; infinity if there are none."""
    if min(gray.shape) < 3:
        return float("inf")
    center = gray[1:-1, 1:-1]
    return float((gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * center).var())
