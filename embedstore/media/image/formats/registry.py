"""The known formats: those of this package, and those that installed packages add by an entry point."""

from __future__ import annotations

import importlib.metadata
from functools import cache

import PIL

from embedstore.errors import PluginError
from embedstore.media.image.formats.heif import HEIF
from embedstore.media.image.formats.image_format import ImageFormat
from embedstore.media.image.formats.raw import RAW

ENTRY_POINT_GROUP = "embedstore.decoders"

BUILT_IN = (HEIF, RAW)


def find_built_in(data: bytes) -> ImageFormat | None:
    """Return the format of this package that a file has, or None: Pillow is tried."""
    return next((f for f in BUILT_IN if f.matches(data)), None)


def find_plug_in(data: bytes) -> ImageFormat | None:
    """Return the format of a plug-in that a file has, or None.

    Raises:
        PluginError: if a plug-in cannot be loaded.
    """
    return next((f for f in plug_ins() if f.matches(data)), None)


@cache
def plug_ins() -> tuple[ImageFormat, ...]:
    """Return the formats of the installed plug-ins, by the name of their entry point.

    Raises:
        PluginError: if a plug-in cannot be loaded, or is not an ImageFormat.
    """
    points = sorted(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name)
    return tuple(_load(point) for point in points)


@cache
def decoder_version() -> str:
    """Return the versions of Pillow and of every installed package that decodes a format.

    Failures of another version are tried again, so that adding an extra repairs what failed without it.

    Raises:
        PluginError: if a plug-in cannot be loaded.
    """
    packages = {f.package: f.package_version for f in (*BUILT_IN, *plug_ins())}
    return "+".join([f"pillow-{PIL.__version__}", *(f"{name}-{v}" for name, v in sorted(packages.items()) if v)])


def _load(point: importlib.metadata.EntryPoint) -> ImageFormat:
    """Load one plug-in."""
    where = f"the decoder plug-in {point.name!r} ({point.value})"
    try:
        image_format = point.load()
    except Exception as e:  # whatever the code of a plug-in raises
        raise PluginError(f"{where} cannot be loaded: {type(e).__name__}: {e}; repair or uninstall its package") from e
    if not isinstance(image_format, ImageFormat):
        raise PluginError(f"{where} is a {type(image_format).__name__}, not an ImageFormat; repair or uninstall it")
    return image_format
