"""An archive as a source: every file in it, with labels from its folders or from sidecar files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from embedstore.errors import ImageError, SourceError
from embedstore.sources.archives.archive import Archive, open_archive
from embedstore.sources.archives.listing import (
    ListedFile,
    Listing,
    ListingKey,
    list_archive,
    load_listing,
    save_listing,
)
from embedstore.sources.archives.member_uri import MemberUri, compression_of, member_names
from embedstore.sources.archives.opened import remember_archive
from embedstore.sources.columns import CollectedColumns
from embedstore.sources.companions import find_companions
from embedstore.sources.folder_labels import NAMED_ROLES, NO_SPLIT, SplitFolderCheck, label_and_split, sidecar_split
from embedstore.sources.given_names import is_unassigned, splits_of_archives
from embedstore.sources.skip_rules import SkipRules
from embedstore.sources.source import LocationSource, Scan, ScanSummary
from embedstore.text_form import clean_name
from embedstore.types import Failure, FailureReason, ImageRef, display_uri
from embedstore.wording import counted


class ArchiveSource(LocationSource):
    """The files of tar and zip archives, in the order of the archives.

    Args:
        archives: ``(kind, path or url)`` of each; paths absolute.
        labels: take the label from the folders inside an archive, where no sidecar gives one.
        splits: take the split from them, likewise, or else from the names of the archives and of the folders above.
        listings: the folder that keeps listings; None keeps none.
        rules: which names are skipped.
    """

    def __init__(
        self,
        archives: Sequence[tuple[str, str]],
        *,
        labels: bool = True,
        splits: bool = True,
        listings: Path | None = None,
        rules: SkipRules = SkipRules(),
    ) -> None:
        self._archives = tuple(archives)
        self._labels, self._splits = labels, splits
        self._check = SplitFolderCheck("")
        self._split_of = splits_of_archives(path for _, path in archives) if splits else {}
        self._listings = listings
        self._rules = rules
        self._without_split = ""  # the first archive with a file that is in no split
        self._own_columns = self._collected = CollectedColumns()
        first = archives[0][1]
        self.description = first if len(archives) == 1 else f"{len(archives)} archives, first {first}"
        self.archives: tuple[str, ...] = tuple(path for _, path in archives)

    @property
    def notices(self) -> Sequence[str]:
        """What a person should know about the reading."""
        compressed = [path for _, path in self._archives if compression_of(path)]
        if not compressed:
            return ()
        named = f"{counted(len(compressed), 'archive is', 'archives are')} compressed, first {compressed[0]}"
        return [f"{named}: to read an image of one again, it is decompressed from its begin to the image"]

    def scan(self) -> Scan:
        """Start a pass over the archives; one that cannot be read is a failure."""
        summary = ScanSummary()
        return Scan(self._entries(summary), summary)

    def _entries(self, summary: ScanSummary) -> Iterator[ImageRef | Failure]:
        """Yield the files of every archive, and why an archive cannot be read completely."""
        self._without_split = ""
        for kind, path in self._archives:
            try:
                archive = open_archive(kind, path)
            except ImageError as e:
                yield Failure(display_uri(path), path, 0, 0, e.reason, e.detail)
                continue
            listing = self._list(path, archive)
            opened = remember_archive(kind, path, archive)
            opened.add(file.member for file in listing.files)
            kinds = self._skipped_kinds(kind, listing)
            for file in listing.files:
                if kind_of_file := kinds.get(file.member.name):
                    summary.skipped[kind_of_file] += 1
                    continue
                yield from self._entry(MemberUri(kind, file.member.name, path), file, archive.version_ns)
            if listing.failure is not None:
                reason, detail = listing.failure
                yield Failure(display_uri(path), path, archive.size, archive.version_ns, reason, detail)
        if self._splits:
            self._check.check()
            self._require_splits_of_all()

    def _require_splits_of_all(self) -> None:
        """Raise SourceError if the names of some archives state a split, and files of others are in none."""
        named = [path for path, split in self._split_of.items() if split]
        if named and self._without_split:
            raise SourceError(f"{self._without_split} is given with {named[0]}, which names a split: {NO_SPLIT}")

    def _skipped_kinds(self, archive_kind: str, listing: Listing) -> dict[str, str]:
        """Return how each file is counted that is skipped."""
        names = dict.fromkeys(file.member.name for file in listing.files)
        paths = {name: "/".join(member_names(archive_kind, name)) for name in names}
        kinds = {name: kind for name, path in paths.items() if (kind := self._rules.kind_of_path(path))}
        kept = [name for name in names if name not in kinds]
        return kinds | find_companions(kept, lambda _: True, raw_pairs=self._rules.raw_pairs)

    def _list(self, path: str, archive: Archive) -> Listing:
        """Return the files of one archive, from its kept listing if the archive did not change since."""
        key = ListingKey(path, archive.size, archive.version_ns)
        kept = load_listing(self._listings, key) if self._listings else None
        if kept is not None:
            return Listing(kept)
        listing = list_archive(archive)
        if self._listings and listing.failure is None:
            save_listing(self._listings, key, listing.files)
        return listing

    def _entry(self, uri: MemberUri, file: ListedFile, version_ns: int) -> Iterator[ImageRef | Failure]:
        """Yield the reference of one file, or why it is not used; before it, what is wrong with its sidecars."""
        path, member = str(uri), file.member
        if file.problem:
            name = f"{path}#sidecar"
            yield Failure(display_uri(name), name, member.size, version_ns, FailureReason.CORRUPT, file.problem)
        if file.superseded:
            name = f"{path}#{member.offset}"
            detail = "a later file of the archive has the same name"
            yield Failure(display_uri(name), name, member.size, version_ns, FailureReason.SUPERSEDED, detail)
            return
        *folders, name = uri.names
        label, split = label_and_split(folders, splits=self._splits)
        if file.split is None:
            self._check.add(folders, name)
        self._collected.add(display_uri(path), file.columns)
        stated = {"label": clean_name(file.label), "split": sidecar_split(path, file.split)}
        split = stated["split"] or split or self._split_of.get(uri.archive)
        if split is None and not is_unassigned(uri.archive):
            self._without_split = self._without_split or uri.archive
        yield ImageRef(
            display_uri(path),
            path,
            member.size,
            version_ns,
            stated["label"] or (label if self._labels else None),
            split,
            clean_name(file.group),
            tuple(role for role in NAMED_ROLES if stated[role] is None),
        )
