"""Which contents are of a modality, by the format that was decoded."""

from __future__ import annotations

from embedstore.modality import Modality
from embedstore.storage.quoting import quote_literal

_OTHER_FORMATS = tuple(f for modality in Modality for f in modality.formats)


def of_modality(content: str, modality: Modality) -> str:
    """Return SQL that is true for a content of a modality; one of unknown format is an image.

    Args:
        content: SQL for the content.
        modality: the modality.
    """
    if modality is Modality.IMAGE:  # nearly all contents of most stores: the others are few, and are what is looked up
        return f"coalesce({content} NOT IN ({_contents(_OTHER_FORMATS)}), true)"
    return f"coalesce({content} IN ({_contents(modality.formats)}), false)"


def _contents(formats: tuple[str, ...]) -> str:
    """Return SQL for the contents that have one of some formats."""
    return f"SELECT content FROM contents WHERE format IN ({', '.join(map(quote_literal, formats))})"
