"""What a scan of a source yields, as lists."""

from __future__ import annotations

from embedstore.sources.source import Source
from embedstore.types import Failure, ImageRef


def scan(source: Source) -> tuple[list[ImageRef], list[Failure]]:
    """Return the references and the failures of one scan."""
    entries = list(source.scan())
    return [e for e in entries if isinstance(e, ImageRef)], [e for e in entries if isinstance(e, Failure)]
