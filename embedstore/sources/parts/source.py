"""A source whose PDF files and videos are embedded page by page and frame by frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from embedstore.errors import ItemError
from embedstore.media.extraction.kinds import PDF, VIDEO, ExtractionKind
from embedstore.modality import Modality
from embedstore.sources.archives import member_uri as archives
from embedstore.sources.locations import part_reference, read_location
from embedstore.sources.parts.extract import kind_of_file, list_parts
from embedstore.sources.parts.listing import PartListings, Parts
from embedstore.sources.parts.options import DEFAULT_SECONDS, PartOptions
from embedstore.sources.parts.part_uri import PartUri
from embedstore.sources.source import Scan, ScanSummary, Source
from embedstore.types import Failure, ImageRef
from embedstore.wording import counted

_FRAGMENTS = {PDF: "#page=", VIDEO: "#t="}
_CURES = {  # of what was skipped, by what the space embeds
    Modality.IMAGE: {PDF: "--pages embeds the pages of PDF files", VIDEO: "--every SECONDS embeds frames of videos"},
    Modality.TEXT: {PDF: "write the text to .txt files first: pdftotext FILE.pdf"},
    Modality.AUDIO: {VIDEO: "write the sound as FLAC first: ffmpeg -i FILE sound.flac"},
}


class PartsSource:
    """The files of another source; of PDF files the pages, and of videos frames.

    The group of a page or frame is its file. The other source leaves out PDF files and videos that are not wanted, and
    all of them where the space embeds texts or sound; one that the user names as the source fails there as a whole.

    Args:
        files: the other source.
        options: which pages and frames.
        modality: what the space embeds.
        listings: the folder that keeps the pages and moments of files; None keeps none.
        hints: what a person should know about options that would read more, one sentence each.
    """

    def __init__(
        self,
        files: Source,
        options: PartOptions,
        modality: Modality,
        listings: Path | None,
        hints: Sequence[str] = (),
    ) -> None:
        self._files, self._hints = files, tuple(hints)
        self._cures, self._is_split = _CURES[modality], modality is Modality.IMAGE
        self._every = options.every if options.frames else DEFAULT_SECONDS
        self._key_frames = options.key_frames
        self._listings = {
            PDF: PartListings(listings, "pages"),
            VIDEO: PartListings(listings, f"every={self._every},key_frames={self._key_frames}"),
        }
        self._is_covered = {PDF: options.pages, VIDEO: options.frames}
        self._skipped: Counter[str] = Counter()
        self._named: list[tuple[str, str]] = []  # files that the user named as the source

    @property
    def description(self) -> str:
        """One line for the run's record."""
        return self._files.description

    @property
    def roots(self) -> tuple[str, ...]:
        """Folders that the source covers completely."""
        return self._files.roots

    @property
    def archives(self) -> tuple[str, ...]:
        """Archives that the source covers completely."""
        return self._files.archives

    @property
    def tables(self) -> tuple[tuple[str, str], ...]:
        """Rows of tables, and pages and frames of files, that the source covers completely."""
        fragments = [fragment for kind, fragment in _FRAGMENTS.items() if self._is_covered[kind]]
        folders = [(root.rstrip("/") + "/", fragment) for root in self._files.roots for fragment in fragments]
        members = [("", f"::{path}{fragment}") for path in self._files.archives for fragment in fragments]
        return (*self._files.tables, *folders, *members, *self._named)

    @property
    def columns(self) -> dict[str, str]:
        """The user's own columns."""
        return self._files.columns

    @property
    def overrides_metadata(self) -> bool:
        """Whether its label, split and group replace those that the store holds."""
        return self._files.overrides_metadata

    @property
    def stated_columns(self) -> Collection[str]:
        """Which of ``label``, ``split`` and ``group`` it has a column for."""
        return self._files.stated_columns

    @property
    def notices(self) -> Sequence[str]:
        """What a person should know about the reading: also which option reads what was skipped."""
        skipped = [self._hint(kind) for kind in self._cures if self._count_skipped(kind.suffixes)]
        return [*self._files.notices, *self._hints, *skipped, *self._archive_hints()]

    @property
    def unit(self) -> str:
        """What a scan finds."""
        return self._files.unit

    def scan(self) -> Scan:
        """Start a pass over every image, page and frame; a file that cannot be opened is one failure."""
        summary = ScanSummary()
        return Scan(self._entries(summary), summary)

    def read(self, refs: Sequence[ImageRef]) -> Iterator[bytes | Failure]:
        """Yield the bytes of every image, page or frame, or why they cannot be read."""
        return self._files.read(refs)

    def write_columns(self, parquet: Path) -> None:
        """Write ``uri`` and the user's own columns."""
        self._files.write_columns(parquet)

    def _entries(self, summary: ScanSummary) -> Iterator[ImageRef | Failure]:
        """Yield the entries of the other source, and parts in place of files that have them."""
        self._named.clear()
        scan = self._files.scan()
        for entry in scan:
            kind = kind_of_file(entry.path) if self._is_split and isinstance(entry, ImageRef) else None
            if kind is None or not isinstance(entry, ImageRef):
                yield entry
            else:
                yield from self._parts(kind, entry)
        summary.skipped.update(scan.summary.skipped)
        self._skipped = summary.skipped

    def _parts(self, kind: ExtractionKind, file: ImageRef) -> Iterator[ImageRef | Failure]:
        """Yield the references of the parts of one file, or why there are none."""
        if not self._is_covered[kind]:
            self._named.append((f"{file.uri}#", _FRAGMENTS[kind]))
        try:
            parts = self._list(kind, file)
        except ItemError as e:
            yield Failure.from_ref(file, e.reason, e.detail)
            return
        for part in parts:
            yield part_reference(file, PartUri(file.path, part))

    def _list(self, kind: ExtractionKind, file: ImageRef) -> Parts:
        """Return the parts of one file, from its kept listing if it did not change since."""
        listings = self._listings[kind]
        kept = listings.load(file)
        if kept is not None:
            return kept
        parts = list_parts(kind, file.path, read_location, every=self._every, key_frames=self._key_frames)
        listings.save(file, parts)
        return parts

    def _count_skipped(self, suffixes: Iterable[str]) -> int:
        """Return how many files with one of some suffixes were skipped."""
        return sum(self._skipped[suffix] for suffix in suffixes)

    def _hint(self, kind: ExtractionKind) -> str:
        """Return how to embed what was skipped."""
        one, several = ("PDF file", "PDF files") if kind is PDF else ("video", "videos")
        skipped = counted(self._count_skipped(kind.suffixes), f"{one} was", f"{several} were")
        return f"{skipped} skipped; {self._cures[kind]}"

    def _archive_hints(self) -> Iterator[str]:
        """Yield how to embed what is in the archives of a folder."""
        if count := self._count_skipped(archives.SUFFIXES):
            skipped = counted(count, "archive was", "archives were")
            yield f"{skipped} skipped; name archives themselves to embed what is in them, as in 'FOLDER/*.tar'"
