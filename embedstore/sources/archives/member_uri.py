"""The uri of a file inside an archive, in fsspec's chained form: ``tar://cats/1.jpg::/data/photos.tar``."""

from __future__ import annotations

from dataclasses import dataclass

from embedstore.sources.folder_labels import NO_FOLDERS
from embedstore.sources.uris import scheme_of

COMPRESSED_SUFFIXES = {
    ".tar.gz": "gzip", ".tgz": "gzip", ".tar.bz2": "bzip2", ".tbz2": "bzip2", ".tbz": "bzip2", ".tar.xz": "xz",
    ".txz": "xz", ".tar.zst": "zstd", ".tzst": "zstd",
}  # fmt: skip
SUFFIXES = {".tar": "tar", ".zip": "zip", ".cbz": "zip"} | dict.fromkeys(COMPRESSED_SUFFIXES, "tar")
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

    @property
    def names(self) -> list[str]:
        """The folders inside the archive, outermost first, and the name of the file."""
        return member_names(self.kind, self.name)


def member_names(kind: str, name: str) -> list[str]:
    """Return the folders of a member of an archive, outermost first, and its own name.

    Some programs for Windows write backslashes into a zip, where the format has slashes (APPNOTE 4.4.17).
    """
    *folders, own = (name.replace("\\", "/") if kind == "zip" else name).split("/")
    return [folder for folder in folders if folder not in NO_FOLDERS] + [own]


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


def compression_of(path: str) -> str | None:
    """Return how a tar is compressed, from its suffix; None for a plain one."""
    lowered = path.lower()
    return next((name for suffix, name in COMPRESSED_SUFFIXES.items() if lowered.endswith(suffix)), None)
