"""A checkpoint's note: JSON with a checksum of itself, so that no class of it changes its name unnoticed."""

from __future__ import annotations

import json
from typing import Any

import xxhash

CHECKSUM_KEY = "xxh3"


def dump_manifest(metadata: dict[str, Any]) -> bytes:
    """The note's text. What is no JSON goes as text."""
    plain = json.loads(json.dumps(metadata, default=str))
    return json.dumps({**plain, CHECKSUM_KEY: _digest(plain)}, indent=1).encode()


def parse_manifest(data: bytes) -> dict[str, Any]:
    """The facts of a note; one of an older version has no checksum.

    Raises:
        ValueError: it is no JSON, or not what was written. TypeError: it is no object. RecursionError: it nests too
            deep.
    """
    found = json.loads(data)
    if not isinstance(found, dict):
        raise TypeError("it is no JSON object")
    said = found.pop(CHECKSUM_KEY, None)
    if said is not None and said != _digest(found):
        raise ValueError("it does not match its checksum")
    return found


def _digest(plain: dict[str, Any]) -> str:
    """XXH3-128 over everything else."""
    return str(xxhash.xxh3_128(json.dumps(plain, sort_keys=True).encode()).hexdigest())
