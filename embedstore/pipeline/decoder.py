"""The names of the ways from files to pixels; this module imports none of them."""

from __future__ import annotations

from enum import StrEnum

from embedstore.errors import BadOption


class Decoder(StrEnum):
    """The values of ``--decoder``."""

    AUTO = "auto"  # the fastest with the same vectors
    PILLOW = "pillow"  # Pillow decodes and resizes: the same bytes as timm and open_clip
    FAST = "quick"  # simplejpeg or Pillow decodes, torch resizes
    GPU_RESIZE = "device"  # as quick, but torch resizes on the GPU
    GPU_JPEG = "hardware"  # as device, and the GPU's JPEG decoder helps


def parse_decoder(name: str) -> Decoder:
    """Return the decoder of that name.

    Raises:
        BadOption: if there is no such decoder.
    """
    try:
        return Decoder(name)
    except ValueError:
        raise BadOption(f"unknown decoder {name!r}; use one of {', '.join(Decoder)}") from None
