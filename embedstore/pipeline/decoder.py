"""The names of the ways from files to pixels; this module imports none of them."""

from __future__ import annotations

from enum import StrEnum

from embedstore.errors import BadOption


class Decoder(StrEnum):
    """The values of ``--decoder``."""

    AUTO = "auto"  # exact on the CPU; on a GPU device, if its vectors are the same
    PILLOW = "pillow"  # Pillow decodes and resizes: the same bytes as timm and open_clip
    EXACT = "exact"  # simplejpeg decodes ordinary JPEG files, Pillow the others and resizes: the same bytes as pillow
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
