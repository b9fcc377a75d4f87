"""Which parts of PDF files and videos are embedded; a module of its own, because the public signatures need it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from embedstore.errors import BadOption
from embedstore.media.extraction.kinds import PDF, VIDEO

DEFAULT_SECONDS = 5.0  # between two frames of a video that the user names as the source
MIN_SECONDS = 0.001


@dataclass(frozen=True)
class PartOptions:
    """Which parts of PDF files and videos are embedded.

    Attributes:
        pages: the pages of PDF files in folders and archives. A PDF file that is the source is always read.
        every: seconds between two frames of each video, or None.
        key_frames: the frames of each video that are stored whole.

    Raises:
        BadOption: if ``every`` is not a time.
    """

    pages: bool = False
    every: float | None = None
    key_frames: bool = False

    def __post_init__(self) -> None:
        if self.every is not None and not (math.isfinite(self.every) and self.every >= MIN_SECONDS):
            raise BadOption(f"frames cannot be {self.every} seconds apart; use a number of seconds from {MIN_SECONDS}")

    @property
    def frames(self) -> bool:
        """Whether frames of videos in folders and archives are embedded."""
        return self.every is not None or self.key_frames

    @property
    def suffixes(self) -> frozenset[str]:
        """The suffixes of the files in folders and archives that are opened."""
        return frozenset([*(PDF.suffixes if self.pages else ()), *(VIDEO.suffixes if self.frames else ())])
