"""Where images come from: a folder, files and globs, or a manifest."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from embedstore.errors import BadManifest, SourceError, SourceNotFound
from embedstore.sources.combined import CombinedSource, LocalSource
from embedstore.sources.files import Files, Glob, is_glob
from embedstore.sources.folder import Folder
from embedstore.sources.manifest import Manifest, is_manifest
from embedstore.sources.uris import REMOTE_CURE, local_path, remote_scheme, replace_parent, scheme_of
from embedstore.types import Failure, ImageRef

__all__ = ["Source", "open_source"]

LABEL_RULES = ("folder",)


class Source(Protocol):
    """What an embedding run needs of a source.

    Attributes:
        description: one line for the run's record.
        roots: absolute folders that it covers completely: an item below one that the scan does not find is gone.
        columns: the user's own columns, name to DuckDB type.
        declares: it says what label, split and group an item has, over what was known before.
        skipped: operating-system litter that the last scan passed over.
    """

    @property
    def description(self) -> str: ...  # noqa: D102
    @property
    def roots(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def columns(self) -> dict[str, str]: ...  # noqa: D102
    @property
    def overrides_metadata(self) -> bool: ...  # noqa: D102
    @property
    def skipped(self) -> int: ...  # noqa: D102

    def scan(self) -> Iterator[ImageRef | Failure]:
        """Every image, in an order that is the same every time, in bounded memory."""

    def write_columns(self, path: Path) -> None:
        """Write ``uri`` and the user's own columns, typed; only where there are such columns."""


def open_source(
    source: str | Path | Sequence[str | Path], *, label_rule: str | None = "folder", exclude: Collection[str] = ()
) -> Source:
    """The source that a person named.

    Args:
        what: a folder; a manifest (``.csv``, ``.tsv``, ``.parquet``, ``.jsonl``); an image, a glob (also ``**``), or
            several folders, images and globs.
        label: ``"folder"`` takes the class from the folders' names, None takes none (splits stay).
        exclude: absolute folders never entered; stores are never entered anyway.

    Raises:
        SourceNotFound: a folder, file or glob that is not there.
        BadManifest: see :class:`~embedstore.sources.manifest.Manifest`.
        SourceError: an unknown ``label``.
    """
    if label_rule is not None and label_rule not in LABEL_RULES:
        raise SourceError(f"labels come from {label_rule!r}? known is 'folder', or None for no labels")
    names = [os.fspath(source)] if isinstance(source, str | os.PathLike) else [os.fspath(w) for w in source]
    names = [_there(name) for name in names]
    if not names:
        raise SourceNotFound("no source was named; name a folder, images or a manifest")
    if len(names) == 1 and is_manifest(names[0]):
        return Manifest(names[0])
    for name in names:
        if is_manifest(name):
            raise BadManifest(f"{name} is given among others; give a manifest alone")
    return _together(names, labels=label_rule is not None, exclude=exclude)


def _there(name: str) -> str:
    """The name as it can be opened, or an error that says what is not there."""
    scheme = remote_scheme(name)
    if scheme:
        raise SourceNotFound(f"{name}: {scheme}:// {REMOTE_CURE}")
    name = local_path(name, folder="") if scheme_of(name) else os.path.expanduser(name)  # noqa: PTH111 - Path drops the trailing components that matter to a glob
    if not os.path.lexists(name) and not is_glob(name):
        raise SourceNotFound(f"{name or repr(name)} is not there (looked in {Path.cwd()})")
    return name


def _together(names: Sequence[str], *, labels: bool, exclude: Collection[str]) -> Source:
    """Folders, globs and files; the files are one part, in their order."""
    parts: list[LocalSource] = []
    files: list[str] = []
    for name in names:
        if is_glob(name):
            parts.append(_matching(Glob(name, labels=labels, exclude=exclude)))
        elif os.path.isdir(name):  # noqa: PTH112
            parts.append(Folder(name, labels=labels, exclude=exclude))
        else:
            files.append(name)
    if files:
        parts.insert(0, Files(files, labels=labels))
    parts = _without_nested(parts)
    return parts[0] if len(parts) == 1 else CombinedSource(parts)


def _matching(glob: Glob) -> Glob:
    """The glob, if it matches anything."""
    if next(glob.scan(), None) is None:
        raise SourceNotFound(f"no file matches {glob.description} (a folder is entered with /**)")
    return glob


def _without_nested(parts: Sequence[LocalSource]) -> list[LocalSource]:
    """Leave out a folder that lies in another one that is given too, unless only a link leads there."""
    real = {p.root: os.path.realpath(p.root) for p in parts if isinstance(p, Folder)}
    out: list[LocalSource] = []
    for part in parts:
        if isinstance(part, Folder):
            above = [r for r in real if r != part.root and real[part.root] == replace_parent(part.root, r, real[r])]
            same = [p for p in out if isinstance(p, Folder) and p.root == part.root]
            if above or same:
                continue
        out.append(part)
    return out
