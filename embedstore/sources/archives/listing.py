"""The listing of an archive, kept in the store: a rescan of an archive that did not change reads nothing of it.

One file per archive, JSON lines: the archive's path, size and version, then one entry a line. A listing is only kept
when it is complete, and a damaged one is made again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from embedstore.errors import ImageError, StoreError
from embedstore.sources.archives.archive import Archive, BrokenArchive, Member
from embedstore.sources.archives.sidecars import Description, by_key, describe
from embedstore.storage.durable_files import atomic_write
from embedstore.types import FailureReason

FORMAT = 2


@dataclass(frozen=True)
class ListedFile:
    """One file of an archive with what its sidecars say.

    Attributes:
        member: the file.
        label: its label, or None.
        split: its split, or None.
        group: its group, or None.
        columns: the other values of its sidecars.
        problem: why its sidecars could not be used, or None.
        superseded: whether a later file has the same name: it is the file, as when the archive is unpacked.
    """

    member: Member
    label: str | None = None
    split: str | None = None
    group: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    superseded: bool = False


@dataclass(frozen=True)
class Listing:
    """The files of an archive.

    Attributes:
        files: the files in the order of the archive.
        failure: why there may be more files than these, as reason and detail; None for a complete listing.
    """

    files: Sequence[ListedFile]
    failure: tuple[FailureReason, str] | None = None


@dataclass(frozen=True)
class ListingKey:
    """Which state of which archive a listing is of."""

    archive: str
    size: int
    version_ns: int

    @property
    def file_name(self) -> str:
        """The name of the file that holds the listing; one per archive, whatever its state."""
        return sha256(self.archive.encode("utf-8", "surrogateescape")).hexdigest()[:32] + ".jsonl"


def list_archive(archive: Archive) -> Listing:
    """Read the listing of an archive, as far as it can be read."""
    files: list[ListedFile] = []
    failure = None
    try:
        for members, sidecars in by_key(archive.members()):
            description, problem = _describe(archive, sidecars)
            files += [
                ListedFile(m, description.label, description.split, description.group, description.columns, problem)
                for m in members
            ]
    except BrokenArchive as e:
        failure = FailureReason.TRUNCATED, str(e)
    except ImageError as e:
        failure = e.reason, e.detail
    return Listing(_mark_superseded(files), failure)


def _describe(archive: Archive, sidecars: Mapping[str, Member]) -> tuple[Description, str | None]:
    """Return what the sidecars of one key say, and why they could not be used."""
    try:
        return describe({suffix: archive.read(member) for suffix, member in sidecars.items()}), None
    except (ImageError, ValueError, RecursionError) as e:
        names = ", ".join(member.name for member in sidecars.values())
        return Description(), f"{names} cannot be used: {e}"


def _mark_superseded(files: list[ListedFile]) -> list[ListedFile]:
    """Mark the files that a later one of the same name replaces."""
    last = {file.member.name: at for at, file in enumerate(files)}
    return [file if last[file.member.name] == at else replace(file, superseded=True) for at, file in enumerate(files)]


def load_listing(folder: Path, key: ListingKey) -> list[ListedFile] | None:
    """Return the listing of this state of the archive; None if there is none that is whole."""
    damaged = (OSError, ValueError, KeyError, TypeError, RecursionError)
    with suppress(*damaged), (folder / key.file_name).open(encoding="utf-8") as lines:
        head = json.loads(next(lines, "{}"))
        if head == _head(key, head["files"]):
            files = [_from_json(json.loads(line)) for line in lines]
            return files if len(files) == head["files"] else None
    return None


def save_listing(folder: Path, key: ListingKey, files: Iterable[ListedFile]) -> None:
    """Keep a complete listing; a store that cannot be written goes without."""
    lines = [json.dumps(_to_json(file)) for file in files]
    text = "\n".join([json.dumps(_head(key, len(lines))), *lines, ""])
    with suppress(OSError, StoreError):
        folder.mkdir(exist_ok=True)
        with atomic_write(folder / key.file_name) as file:
            file.write(text.encode())


def _head(key: ListingKey, count: int) -> dict[str, Any]:
    """Return the first line."""
    return {
        "format": FORMAT, "archive": key.archive, "size": key.size, "version_ns": key.version_ns, "files": count,
    }  # fmt: skip


def _to_json(file: ListedFile) -> list[Any]:
    """Return one line."""
    member = file.member
    facts = [file.label, file.split, file.group, dict(file.columns), file.problem, file.superseded]
    return [member.name, member.size, member.offset, *(facts if any(facts) else [])]


def _from_json(line: list[Any]) -> ListedFile:
    """Return what one line holds."""
    name, size, offset, *facts = line
    return ListedFile(Member(str(name), int(size), int(offset)), *facts)
