"""Which annotations are read; a module of its own, because the public signatures need it and nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AnnotationOptions:
    """Which annotations are read, and what becomes an item.

    Attributes:
        paths: files or folders of annotations; none reads no annotations.
        crops: make an item of every box, in place of the photos.
    """

    paths: tuple[str, ...] = ()
    crops: bool = False
