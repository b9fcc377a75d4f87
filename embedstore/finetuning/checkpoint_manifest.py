"""A checkpoint's manifest: JSON with a checksum of itself, so that a changed class name or setting is detected."""

from __future__ import annotations

import json
from typing import Any

import xxhash

CHECKSUM_KEY = "xxh3"


def dump_manifest(metadata: dict[str, Any]) -> bytes:
    """Return the manifest's text; values that JSON has no type for are written as strings."""
    plain = json.loads(json.dumps(metadata, default=str))
    return json.dumps({**plain, CHECKSUM_KEY: _digest(plain)}, indent=1).encode()


def parse_manifest(data: bytes) -> dict[str, Any]:
    """Return the metadata of a manifest; manifests of older versions have no checksum.

    Raises:
        ValueError: if the text is not JSON or does not match its checksum.
        TypeError: if it is not a JSON object.
        RecursionError: if it is nested too deeply.
    """
    metadata = json.loads(data)
    if not isinstance(metadata, dict):
        raise TypeError("it is not a JSON object")
    checksum = metadata.pop(CHECKSUM_KEY, None)
    if checksum is not None and checksum != _digest(metadata):
        raise ValueError("it does not match its checksum")
    return metadata


def _digest(plain: dict[str, Any]) -> str:
    """Return the XXH3-128 over everything but the checksum."""
    return str(xxhash.xxh3_128(json.dumps(plain, sort_keys=True).encode()).hexdigest())
