"""The known formats: those of this package, and those that installed packages add by an entry point."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache

import PIL

from embedstore.errors import BadOption, PluginError, did_you_mean
from embedstore.media.image.formats.heif import HEIF
from embedstore.media.image.formats.image_format import ImageFormat
from embedstore.media.image.formats.raw import RAW
from embedstore.plug_ins import load_plug_ins

ENTRY_POINT_GROUP = "embedstore.decoders"

BUILT_IN = (HEIF, RAW)


def find_built_in(data: bytes) -> ImageFormat | None:
    """Return the format of this package that a file has, or None: Pillow is tried."""
    return next((f for f in BUILT_IN if f.matches(data)), None)


def find_plug_in(data: bytes) -> ImageFormat | None:
    """Return the format of a plug-in that a file has, or None.

    Raises:
        PluginError: if a plug-in cannot be loaded, or fails to say whether it is the format.
    """
    return next((f for f in plug_ins() if _matches(f, data)), None)


@cache
def plug_ins() -> tuple[ImageFormat, ...]:
    """Return the formats of the installed plug-ins, by the name of their entry point.

    Raises:
        PluginError: if a plug-in cannot be loaded, is not an ImageFormat, or has the name of another format.
    """
    found = load_plug_ins(ENTRY_POINT_GROUP, ImageFormat)
    names = Counter(f.name.lower() for f in (*BUILT_IN, *found))
    doubles = [f.name for f in found if names[f.name.lower()] > 1]
    if doubles:
        raise PluginError(f"two decoders are for the format {doubles[0]}; uninstall the package of one of them")
    return found


def check_decoding(decoding: Mapping[str, str]) -> None:
    """Refuse settings that no decoder has.

    Args:
        decoding: values by ``FORMAT.OPTION``, in lower case.

    Raises:
        BadOption: if there is no such format or option.
        PluginError: if a plug-in cannot be loaded.
    """
    known = [f"{f.name.lower()}.{option}" for f in (*BUILT_IN, *plug_ins()) for option in f.options]
    for name in decoding:
        if name not in known:
            has = f"the installed decoders have {', '.join(known)}" if known else "no installed decoder has options"
            raise BadOption(f"no decoder has the option {name!r}; {has}{did_you_mean(name, known)}")


@cache
def decoder_version() -> str:
    """Return the versions of Pillow and of every installed package that decodes a format.

    Failures of another version are tried again, so that adding an extra repairs what failed without it.

    Raises:
        PluginError: if a plug-in cannot be loaded.
    """
    packages = {f.package: f.package_version for f in (*BUILT_IN, *plug_ins())}
    return "+".join([f"pillow-{PIL.__version__}", *(f"{name}-{v}" for name, v in sorted(packages.items()) if v)])


def _matches(image_format: ImageFormat, data: bytes) -> bool:
    """Return whether a file is of a plug-in's format."""
    try:
        return image_format.matches(data)
    except Exception as e:  # whatever the code of a plug-in raises
        raise PluginError(
            f"the decoder of {image_format.name} fails to recognize files: {type(e).__name__}: {e}; repair or "
            f"uninstall {image_format.package}"
        ) from e
