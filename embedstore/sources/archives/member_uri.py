"""The uri of a file inside an archive, in fsspec's chained form: ``tar://cats/1.jpg::/data/photos.tar``."""

from __future__ import annotations

from dataclasses import dataclass

from embedstore.sources.uris import scheme_of

SUFFIXES = {".tar": "tar", ".zip": "zip", ".cbz": "zip"}
SEPARATOR = "::"


@dataclass(frozen=True, slots=True)
class MemberUri:
    """A file inside an archive.

    Attributes:
        kind: ``"tar"`` or ``"zip"``.
        name: the name inside the archive.
        archive: the path or url of the archive.
    """

    kind: str
    name: str
    archive: str

    def __str__(self) -> str:
        return f"{self.kind}://{self.name}{SEPARATOR}{self.archive}"


def parse_member_uri(uri: str) -> MemberUri | None:
    """Return what a uri names inside an archive; None if it does not name a member of an archive."""
    kind = scheme_of(uri)
    if kind not in SUFFIXES.values() or SEPARATOR not in uri:
        return None
    name, archive = uri.split("://", 1)[1].rsplit(SEPARATOR, 1)
    return MemberUri(str(kind), name, archive)


def archive_kind(path: str) -> str | None:
    """Return ``"tar"`` or ``"zip"`` for the path or url of an archive, from its suffix; None for another file."""
    lowered = path.lower()
    return next((kind for suffix, kind in SUFFIXES.items() if lowered.endswith(suffix)), None)
