"""A checkpoint's manifest: JSON with a checksum of itself, so that a changed class name or setting is detected."""

from __future__ import annotations

import json
from typing import Any

from embedstore.storage.description_checksum import check_description, dump_description

CHECKSUM_KEY = "xxh3"


def dump_manifest(metadata: dict[str, Any]) -> bytes:
    """Return the manifest's text; values that JSON has no type for are written as strings."""
    return dump_description(metadata, CHECKSUM_KEY)


def parse_manifest(data: bytes) -> dict[str, Any]:
    """Return the metadata of a manifest; manifests of older versions have no checksum.

    Raises:
        ValueError: if the text is not JSON or does not match its checksum.
        TypeError: if it is not a JSON object.
        RecursionError: if it is nested too deeply.
    """
    return check_description(json.loads(data), CHECKSUM_KEY, required=False)
