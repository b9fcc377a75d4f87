"""A number that tells whether a source has changed."""

from __future__ import annotations

import xxhash

from embedstore.sources.source import Source
from embedstore.types import Failure


def fingerprint(source: Source) -> str:
    """Return a checksum of the names, sizes and versions of everything in a source; nothing is read but its listing.

    Raises:
        SourceError: if the source cannot be listed.
    """
    digest = xxhash.xxh3_128()
    for entry in source.scan():
        reason = entry.reason if isinstance(entry, Failure) else ""
        facts = f"{entry.path}\0{entry.size}\0{entry.mtime_ns}\0{reason}\n"
        digest.update(facts.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
