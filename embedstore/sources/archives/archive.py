"""One tar or zip file: its members, and the bytes of each."""

from __future__ import annotations

import io
import lzma
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from embedstore.errors import ImageError
from embedstore.sources.archives.compressed import DecompressedRanges
from embedstore.sources.archives.member_uri import compression_of
from embedstore.sources.archives.range_file import RangeFile, open_ranges
from embedstore.sources.local_files import check_size
from embedstore.types import FailureReason

LISTING_BUFFER_BYTES = 256 << 10  # one range of a server while the headers of a tar are read


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside an archive.

    Attributes:
        name: inside the archive.
        size: the size of the file, in bytes.
        offset: where its bytes are in a tar; unused in a zip.
    """

    name: str
    size: int
    offset: int = 0


class BrokenArchive(Exception):
    """The archive ends early or is not an archive; the message says how."""


class _RangedArchive:
    """An archive of which ranges are read.

    Args:
        path: path or url.

    Attributes:
        size: in bytes.
        version_ns: changes when the archive is replaced.

    Raises:
        ImageError: if it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._ranges = open_ranges(path)
        self.version_ns = self._ranges.version_ns
        self.size = self._ranges.size


class TarArchive(_RangedArchive):
    """A tar: members are ranges of it, or of what a compressed one holds."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        compression = compression_of(path)
        self._is_compressed = compression is not None
        if compression is not None:
            self._ranges = DecompressedRanges(self._ranges, compression)

    def members(self) -> Iterator[Member]:
        """Yield the files in the order of the archive.

        Raises:
            BrokenArchive: where the archive ends early, or is no tar.
            ImageError: if it cannot be read.
        """
        file = io.BufferedReader(RangeFile(self._ranges), LISTING_BUFFER_BYTES)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for info in tar:
                    tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every header in memory
                    if not self._is_compressed and info.offset_data + info.size > self.size:
                        raise BrokenArchive(f"the archive ends inside {info.name!r}")
                    if info.isreg():
                        yield Member(info.name, info.size, info.offset_data)
            if isinstance(self._ranges, DecompressedRanges) and self._ranges.failure is not None:
                raise self._ranges.failure
        except tarfile.TarError as e:
            raise BrokenArchive(f"{e}; the name of a compressed tar must say so, as .tar.gz does") from e

    def read(self, member: Member) -> bytes:
        """Return the bytes of a member.

        Raises:
            ImageError: if they cannot be read.
        """
        data = self._ranges.read(member.offset, member.size)
        if len(data) < member.size:
            raise ImageError(FailureReason.TRUNCATED, "the archive ends inside the file")
        return data


class ZipArchive(_RangedArchive):
    """A zip file. Every thread has its own view of it."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._local = threading.local()

    def members(self) -> Iterator[Member]:
        """Yield the files in the order of the directory of the archive.

        Raises:
            BrokenArchive: if the archive has no directory: it ends early or is no zip.
            ImageError: if it cannot be read.
        """
        for info in self._zip().infolist():
            if not info.is_dir():
                yield Member(info.filename, info.file_size)

    def read(self, member: Member) -> bytes:
        """Return the bytes of a member.

        Raises:
            ImageError: if they cannot be read: another process changed the archive, they are encrypted or damaged, or
                they are more than the archive says.
        """
        try:
            with self._zip().open(member.name) as file:
                data = file.read(member.size + 1)
        except KeyError as e:
            raise ImageError(FailureReason.MISSING, "the archive has no such file") from e
        except NotImplementedError as e:  # a RuntimeError too
            raise ImageError(FailureReason.UNREADABLE, f"a compression that is not supported: {e}") from e
        except RuntimeError as e:  # zipfile has no class of its own for it
            raise ImageError(FailureReason.UNREADABLE, f"the file is encrypted: {e}") from e
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError) as e:  # bz2 raises OSError
            raise ImageError(FailureReason.CORRUPT, f"{type(e).__name__}: {e}") from e
        if len(data) != member.size:
            raise ImageError(FailureReason.CORRUPT, f"the archive says {member.size:,} bytes, and has others")
        return data

    def _zip(self) -> zipfile.ZipFile:
        """Return the view of this thread."""
        opened: zipfile.ZipFile | None = getattr(self._local, "opened", None)
        if opened is None:
            try:
                opened = zipfile.ZipFile(io.BufferedReader(RangeFile(self._ranges), LISTING_BUFFER_BYTES))
            except ImageError:
                raise
            except (zipfile.BadZipFile, ValueError, NotImplementedError) as e:
                raise BrokenArchive(f"{e}") from e
            self._local.opened = opened
        return opened


Archive = TarArchive | ZipArchive


def open_archive(kind: str, path: str) -> Archive:
    """Open an archive.

    Raises:
        ImageError: if it cannot be opened.
    """
    return TarArchive(path) if kind == "tar" else ZipArchive(path)


def read_member(archive: Archive, member: Member) -> bytes:
    """Return the bytes of a member of usual size.

    Raises:
        ImageError: if it is too large, empty or cannot be read.
    """
    check_size(member.size)
    if member.size == 0:
        raise ImageError(FailureReason.EMPTY, "the file has no bytes")
    return archive.read(member)
