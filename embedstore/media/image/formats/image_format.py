"""What the decoder needs to know about a format that Pillow does not decode; plug-ins give objects of this class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL import Image

from embedstore.versions import package_version


@dataclass(frozen=True)
class ImageFormat:
    """A format, how it is recognized, and the library that decodes it.

    Attributes:
        name: the format as items show it, e.g. ``"HEIF"``.
        matches: whether a file is of this format, from its bytes. It is called for many files: it looks at a few bytes
            and does not raise.
        open: open the bytes as an image of Pillow. Its EXIF orientation, if it has one, is applied afterwards. Any
            exception becomes a failure of the file. The options that the space records are keyword arguments.
        package: the package on PyPI that decodes. Its version belongs to the version of the decoder: files that failed
            are tried again when it changes.
        install: what ``pip install`` needs to add the package.
        max_pixels: the largest image that is decoded, in pixels.
        options: names of what a user can set for a space with ``--preprocess FORMAT.OPTION=VALUE``; values are text.
    """

    name: str
    matches: Callable[[bytes], bool]
    open: Callable[..., Image.Image]
    package: str
    install: str
    max_pixels: int
    options: tuple[str, ...] = ()

    def settings(self, decoding: Mapping[str, str]) -> dict[str, str]:
        """Return the values of the options, of those of all formats by ``FORMAT.OPTION``."""
        prefix = f"{self.name.lower()}."
        return {name.removeprefix(prefix): value for name, value in decoding.items() if name.startswith(prefix)}

    @property
    def package_version(self) -> str | None:
        """The version of the package, or None if it is not installed."""
        return package_version(self.package) or None
