"""A prefix of a bucket as an image folder, and single files on a server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from embedstore.errors import ImageError, SourceError
from embedstore.sources.companions import find_companions
from embedstore.sources.folder_labels import NAMED_ROLES, SplitFolderCheck, from_names, label_and_split
from embedstore.sources.given_names import with_names_above
from embedstore.sources.remote.filesystem import RemoteEntry, list_folder, stat_remote
from embedstore.sources.skip_rules import SkipRules
from embedstore.sources.source import LocationSource, Scan, ScanSummary
from embedstore.types import Failure, FailureReason, ImageRef


class RemoteFolder(LocationSource):
    """Every file below a prefix, folder by folder, in the order of the names.

    Args:
        url: the address of the prefix.
        labels: take the label from the folders.
        splits: take the split from them.
        rules: which names are skipped.
        above: the names down to the prefix that count, if one of them names a split; by default its own.

    Raises:
        SourceNotFound: if there is nothing below it.
        SourceError: if the server refuses or does not answer.
    """

    def __init__(
        self,
        url: str,
        *,
        labels: bool = True,
        splits: bool = True,
        rules: SkipRules = SkipRules(),
        above: tuple[str, ...] = (),
    ) -> None:
        self._rules = rules
        self._url = url.rstrip("/")
        self._above = above or (self._url.rsplit("/", 1)[-1],)
        self.description = self._url
        self.roots: tuple[str, ...] = (self._url,)
        self._labels, self._splits = labels, splits
        self._top = list_folder(self._url)

    def scan(self) -> Scan:
        """Start a pass over every file; a folder that cannot be listed is a failure."""
        summary = ScanSummary()
        entries = self._entries(summary)
        check = SplitFolderCheck(self._url, self._above)
        return Scan(check.watch(entries) if self._splits else entries, summary)

    def _entries(self, summary: ScanSummary) -> Iterator[ImageRef | Failure]:
        """Yield the files of a folder, then those of its folders likewise."""
        pending: list[tuple[RemoteEntry, tuple[str, ...]]] = []
        yield from self._files(self._kept(self._top, (), summary), (), pending)
        while pending:
            folder, below = pending.pop()
            try:
                entries = list_folder(folder.url)
            except SourceError as e:
                yield Failure(folder.url, folder.url, 0, 0, FailureReason.UNREACHABLE, str(e))
                continue
            yield from self._files(self._kept(entries, below, summary), below, pending)

    def _kept(self, entries: Sequence[RemoteEntry], below: tuple[str, ...], summary: ScanSummary) -> list[RemoteEntry]:
        """Return the entries of one folder that are not skipped, and count the others."""
        kinds = [self._skipped_kind(entry, below) for entry in entries]
        files = {e.name for e, kind in zip(entries, kinds, strict=True) if kind is None and not e.is_folder}
        companions = find_companions(sorted(files), lambda _: True, raw_pairs=self._rules.raw_pairs)
        kept = []
        for entry, kind in zip(entries, kinds, strict=True):
            reason = kind or (None if entry.is_folder else companions.get(entry.name))
            if reason:
                summary.skipped[reason] += 1
            else:
                kept.append(entry)
        return kept

    def _skipped_kind(self, entry: RemoteEntry, below: tuple[str, ...]) -> str | None:
        """Return how an entry is counted that is skipped for its name, None for one that is not."""
        kind_of = self._rules.kind_of_folder if entry.is_folder else self._rules.kind_of_file
        return kind_of(entry.name, "/".join((*below, entry.name)))

    def _files(
        self, entries: Sequence[RemoteEntry], below: tuple[str, ...], pending: list[tuple[RemoteEntry, tuple[str, ...]]]
    ) -> Iterator[ImageRef | Failure]:
        """Yield the files of one folder, and add its folders to ``pending``."""
        label, split = with_names_above(self._above, below, splits=self._splits)
        for entry in entries:
            if not entry.is_folder:
                yield reference(entry, label if self._labels else None, split)
        pending += [(e, (*below, e.name)) for e in reversed(entries) if e.is_folder]


class RemoteFiles(LocationSource):
    """Files on servers named one by one.

    Args:
        urls: the addresses of the files.
        labels: take the label from the folders in the url.
        splits: take the split from them.
        skipped: how many files of each kind a pattern matched that are skipped.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        labels: bool = True,
        splits: bool = True,
        skipped: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._urls = tuple(dict.fromkeys(urls))
        self._labels, self._splits = labels, splits
        self._skipped = skipped
        first = next(iter(urls), "nothing")
        self.description = first if len(urls) == 1 else f"{len(urls)} files, first {first}"

    def scan(self) -> Scan:
        """Start a pass over the files in the order given."""
        return Scan(self._entries(), ScanSummary(Counter(self._skipped)))

    def _entries(self) -> Iterator[ImageRef | Failure]:
        """Yield the reference of every file, and check at the end which folders name a split."""
        check = SplitFolderCheck("")
        for url in self._urls:
            scheme, _, server, *folders, name = url.split("/")
            label, split = label_and_split(folders, splits=self._splits)
            check.add((f"{scheme}//{server}", *folders), name)
            try:
                found = stat_remote(url)
            except ImageError as e:
                yield Failure(url, url, 0, 0, e.reason, e.detail)
                continue
            yield from_names(ImageRef(url, url, found.size, found.version_ns, label if self._labels else None, split))
        if self._splits:
            check.check()


def reference(entry: RemoteEntry, label: str | None, split: str | None) -> ImageRef:
    """Return the reference of a listed file."""
    return ImageRef(entry.url, entry.url, entry.stat.size, entry.stat.version_ns, label, split, named_roles=NAMED_ROLES)
