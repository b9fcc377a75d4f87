"""Stored values that a table leaves as they are, because its cells are empty."""

from __future__ import annotations


def kept_note(description: str, kept: int) -> list[str]:
    """Return what a person should know about cells that were emptied since the last run."""
    if not kept:
        return []
    return [
        f"{description}: {kept:,} empty cells left the stored values as they are; `embedstore edit STORE TABLE` "
        "empties them"
    ]
