"""The version of what decodes a modality: failures of another version are tried again."""

from __future__ import annotations

from embedstore.media.image.formats import registry
from embedstore.modality import Modality
from embedstore.versions import package_version

_TEXT_VERSION = "text-1"
_SOUND_PACKAGES = ("soundfile", "soxr")


def decoder_version(modality: Modality) -> str:
    """Return the versions of the packages that decode a modality.

    Raises:
        PluginError: if a plug-in for a format of images cannot be loaded.
    """
    match modality:
        case Modality.IMAGE:
            return registry.decoder_version()
        case Modality.TEXT:
            return _TEXT_VERSION
        case Modality.AUDIO:
            return "+".join(["sound-2", *(f"{name}-{v}" for name in _SOUND_PACKAGES if (v := package_version(name)))])
