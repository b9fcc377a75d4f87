"""Files that belong to a photo next to them: the RAW file of the same picture, the video of a Live Photo."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from enum import StrEnum

from embedstore.errors import BadOption

# What cameras write, by maker: Canon, Nikon, Sony, Adobe and phones, Fujifilm, Olympus, Panasonic and Leica, Pentax,
# Sigma, Hasselblad, Phase One, Epson, Mamiya, Leaf, Minolta, Kodak, GoPro.
RAW_SUFFIXES = frozenset(
    (
        ".cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .dng .raf .orf .ori .rw2 .raw .rwl .pef .srw .x3f .3fr .fff .iiq "
        ".erf .mef .mos .mrw .kdc .dcr .gpr"
    ).split()
)
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".heic", ".heif", ".hif")  # what a camera writes next to RAW
LIVE_PHOTO_SUFFIX = ".mov"


class RawPairs(StrEnum):
    """What is embedded where a RAW file and a JPEG or HEIC file of the same name are in one folder."""

    PHOTO = "photo"  # the JPEG or HEIC file; the RAW file is skipped and counted
    BOTH = "both"

    @classmethod
    def parse(cls, text: str) -> RawPairs:
        """Return the choice that a user names.

        Raises:
            BadOption: if there is no such choice.
        """
        try:
            return cls(text)
        except ValueError:
            raise BadOption(f"unknown choice for RAW pairs {text!r}; use {' or '.join(cls)}") from None


def find_companions(
    names: Iterable[str], is_embedded: Callable[[str], bool], *, raw_pairs: RawPairs = RawPairs.PHOTO
) -> dict[str, str]:
    """Return the files that are the companions of a photo, each with how it is counted.

    Args:
        names: names or paths of files; two of one folder are compared without suffix and case.
        is_embedded: whether a file of these is a file that is embedded: a photo that is skipped has no companions.
        raw_pairs: whether a RAW file is a companion.

    Returns:
        For example ``{"IMG_1.CR2": ".cr2 paired with .jpg"}``.
    """
    paired = {LIVE_PHOTO_SUFFIX, *(RAW_SUFFIXES if raw_pairs is RawPairs.PHOTO else ())}
    names = list(names)
    candidates = _with_suffix(names, paired)
    if not candidates:
        return {}
    stems = {stem for _, stem, _ in candidates}
    photos = {
        stem: suffix
        for name, stem, suffix in sorted(_with_suffix(names, PHOTO_SUFFIXES))
        if stem in stems and is_embedded(name)
    }
    return {name: f"{suffix} paired with {photos[stem]}" for name, stem, suffix in candidates if stem in photos}


def _with_suffix(names: Iterable[str], suffixes: Collection[str]) -> list[tuple[str, str, str]]:
    """Return the names that have one of the suffixes, each with the name without it and the suffix, in lower case."""
    split = ((name, os.path.splitext(name)) for name in names)  # noqa: PTH122 - Path costs ten times as much per file
    return [(name, stem.lower(), suffix.lower()) for name, (stem, suffix) in split if suffix.lower() in suffixes]
