"""The archives that this process has open, so that reading one member does not list the archive again."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from embedstore.errors import ImageError
from embedstore.sources.archives.archive import Archive, BrokenArchive, Member, open_archive, read_member
from embedstore.sources.archives.member_uri import MemberUri
from embedstore.types import FailureReason

MAX_OPEN_ARCHIVES = 16


@dataclass
class OpenedArchive:
    """An archive and its members by name; of two with one name the later counts, as in ``tar`` itself."""

    archive: Archive
    members: dict[str, Member] = field(default_factory=dict)
    listed: bool = False

    def add(self, members: Iterable[Member]) -> None:
        """Add members whose place is known."""
        self.members.update((member.name, member) for member in members)

    def find(self, name: str) -> Member:
        """Return a member; list the archive if it was not listed yet.

        Raises:
            ImageError: if the archive has no such member, or cannot be read.
        """
        if name not in self.members and not self.listed:
            try:
                self.add(self.archive.members())
            except BrokenArchive as e:
                if name not in self.members:
                    raise ImageError(FailureReason.TRUNCATED, f"the archive is broken: {e}") from e
            self.listed = True
        try:
            return self.members[name]
        except KeyError:
            raise ImageError(FailureReason.MISSING, "the archive has no such file") from None


_lock = threading.Lock()  # held for moments only, and a forked child gets a new one
_opened: OrderedDict[tuple[str, str], OpenedArchive] = OrderedDict()


def opened_archive(kind: str, path: str) -> OpenedArchive:
    """Return an archive that is open, or open it.

    Raises:
        ImageError: if it cannot be opened.
    """
    with _lock:
        opened = _opened.get((kind, path))
        if opened is not None:
            _opened.move_to_end((kind, path))
            return opened
    return remember_archive(kind, path, open_archive(kind, path))


def remember_archive(kind: str, path: str, archive: Archive) -> OpenedArchive:
    """Keep an archive that was opened, in place of an earlier state of it."""
    opened = OpenedArchive(archive)
    with _lock:
        _opened[kind, path] = opened
        _opened.move_to_end((kind, path))
        while len(_opened) > MAX_OPEN_ARCHIVES:
            _opened.popitem(last=False)
    return opened


def read_archive_member(uri: MemberUri) -> bytes:
    """Return the bytes of a member.

    Raises:
        ImageError: if the archive or the member cannot be read.
    """
    opened = opened_archive(uri.kind, uri.archive)
    return read_member(opened.archive, opened.find(uri.name))


def stat_archive_member(uri: MemberUri) -> tuple[int, int]:
    """Return size and version of a member.

    Raises:
        ImageError: if the archive or the member cannot be read.
    """
    opened = opened_archive(uri.kind, uri.archive)
    return opened.find(uri.name).size, opened.archive.version_ns


def _leave_parent() -> None:
    """Get a new lock in a forked child: a thread that the child does not have may hold the old one."""
    global _lock  # noqa: PLW0603 - the open archives are of the whole process
    _lock = threading.Lock()
    _opened.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_parent)
