"""The kinds of files that pictures are taken from, and the packages that read them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from embedstore.errors import ImageError
from embedstore.types import FailureReason


@dataclass(frozen=True)
class ExtractionKind:
    """A kind of files, and the package that reads it.

    Attributes:
        name: in requests.
        suffixes: the suffixes of its files, in lower case.
        module: the module that is imported.
        package: the package that has it, in messages.
        extra: the extra that installs it.
    """

    name: str
    suffixes: tuple[str, ...]
    module: str
    package: str
    extra: str

    def require(self) -> None:
        """Raise ImageError if the package is not installed."""
        if importlib.util.find_spec(self.module) is None:
            cure = f"run `pip install 'embedstore[{self.extra}]'` and embed again"
            raise ImageError(FailureReason.MISSING_EXTRA, f"the file needs the package {self.package}; {cure}")


PDF = ExtractionKind("pdf", (".pdf",), "pypdfium2", "pypdfium2", "pdf")
VIDEO = ExtractionKind(
    "video",
    tuple(".mp4 .mov .m4v .avi .mkv .wmv .mpg .mpeg .3gp .mts .m2ts .webm .flv".split()),
    "av",
    "av",
    "video",
)
