"""The ways from files to pixels, by name; nothing is imported for them here."""

from __future__ import annotations

from enum import StrEnum

from embedstore.errors import BadBackbone


class Decoder(StrEnum):
    """The values of ``--decoder``."""

    AUTO = "auto"  # the fastest with the same vectors
    PILLOW = "pillow"  # Pillow decodes and resizes: the libraries' own bytes
    QUICK = "quick"  # simplejpeg or Pillow decodes, torch resizes
    DEVICE = "device"  # ... torch resizes on the GPU
    HARDWARE = "hardware"  # ... and the GPU's JPEG decoder helps


def parse_decoder(name: str) -> Decoder:
    """The decoder of that name.

    Raises:
        BadBackbone: there is none.
    """
    try:
        return Decoder(name)
    except ValueError:
        raise BadBackbone(f"unknown decoder {name!r}; use one of {', '.join(Decoder)}") from None
