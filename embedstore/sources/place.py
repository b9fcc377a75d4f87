"""Open the archives and the servers that a user names."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path

from embedstore.errors import SourceNotFound
from embedstore.sources.archives.member_uri import SEPARATOR, archive_kind
from embedstore.sources.archives.source import ArchiveSource
from embedstore.sources.companions import find_companions
from embedstore.sources.files import is_glob
from embedstore.sources.given_names import names_below_common
from embedstore.sources.remote.filesystem import glob_remote, is_remote, is_remote_file
from embedstore.sources.remote.folder import RemoteFiles, RemoteFolder
from embedstore.sources.skip_rules import SkipRules
from embedstore.sources.source import Source

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_WILDCARD = re.compile(r"[*?\[]")


def expand_braces(name: str) -> list[str]:
    """Return the names that ``shard-{000..012}.tar`` means, as in a shell and in WebDataset.

    A file whose name has braces is that file.
    """
    match = _BRACES.search(name)
    if match is None or os.path.lexists(name):
        return [name]
    first, last = match[1], match[2]
    width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
    numbers = range(int(first), int(last) + 1)
    return [
        expanded
        for n in numbers
        for expanded in expand_braces(f"{name[: match.start()]}{n:0{width}d}{name[match.end() :]}")
    ]


def is_archive_name(name: str) -> bool:
    """Return whether the name is a path or url of an archive, or a glob of archives."""
    return archive_kind(name) is not None and not os.path.isdir(name)  # noqa: PTH112


def open_archives(
    names: Sequence[str], *, labels: bool, splits: bool, listings: Path | None, rules: SkipRules = SkipRules()
) -> ArchiveSource:
    """Return the archives that the names mean, as one source.

    Raises:
        SourceNotFound: if a path does not exist, a glob matches nothing, or a path has a part that uris reserve.
        SourceError: if a server refuses or does not answer.
    """
    paths = dict.fromkeys(path for name in names for path in _archive_paths(name))
    for path in paths:
        if SEPARATOR in path:
            raise SourceNotFound(
                f"{path}: a path with {SEPARATOR!r} cannot be part of a uri; rename it or a folder above"
            )
    return ArchiveSource(
        [(archive_kind(p) or "tar", p) for p in paths], labels=labels, splits=splits, listings=listings, rules=rules
    )


def open_remote(names: Sequence[str], *, labels: bool, splits: bool, rules: SkipRules = SkipRules()) -> list[Source]:
    """Return the prefixes, globs and files on servers that the names mean.

    Raises:
        SourceNotFound: if a prefix has no files or a glob matches nothing.
        SourceError: if a server refuses or does not answer.
    """
    files: list[str] = []
    prefixes: list[str] = []
    skipped: Counter[str] = Counter()
    for name in names:
        if _WILDCARD.search(name):
            files += _glob_files(name, rules, skipped)
        else:
            (files if is_remote_file(name) else prefixes).append(name)
    parts: list[Source] = [
        RemoteFolder(prefix, labels=labels, splits=splits, rules=rules, above=above)
        for prefix, above in zip(prefixes, names_below_common(prefixes), strict=True)
    ]
    return [RemoteFiles(files, labels=labels, splits=splits, skipped=skipped), *parts] if files or skipped else parts


def _glob_files(pattern: str, rules: SkipRules, skipped: Counter[str]) -> list[str]:
    """Return the files that a pattern matches, and count those that are skipped.

    As in folders, a file is skipped for its kind unless the pattern writes its suffix.
    """
    urls = _require_matches(pattern, [entry.url for entry in glob_remote(pattern)])
    suffix = pattern.rsplit("/", 1)[-1].rpartition(".")[2]
    if "." in pattern.rsplit("/", 1)[-1] and not _WILDCARD.search(suffix):
        return urls
    kinds = {url: kind for url in urls if (kind := rules.kind_of_path(url.rsplit("/", 1)[-1]))}
    kept = [url for url in urls if url not in kinds]
    kinds |= find_companions(kept, lambda _: True, raw_pairs=rules.raw_pairs)
    skipped.update(kinds.values())
    return [url for url in kept if url not in kinds]


def _archive_paths(name: str) -> Iterator[str]:
    """Yield the paths and urls of the archives that a name means."""
    if is_remote(name):
        yield from [e.url for e in glob_remote(name)] if _WILDCARD.search(name) else [name]
    elif is_glob(name):
        yield from _require_matches(name, [os.path.abspath(p) for p in sorted(glob(name, recursive=True))])  # noqa: PTH100, PTH207
    elif os.path.lexists(name):
        yield os.path.abspath(name)  # noqa: PTH100
    else:
        raise SourceNotFound(f"{name} does not exist (looked in {Path.cwd()})")


def _require_matches(pattern: str, found: list[str]) -> list[str]:
    """Return what a glob matches; raise SourceNotFound if it is nothing."""
    if not found:
        raise SourceNotFound(f"no file matches {pattern}")
    return found
