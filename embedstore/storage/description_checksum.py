"""Descriptions of files: JSON objects with a checksum of themselves, so that a changed name or number is detected."""

from __future__ import annotations

import json
from typing import Any

import xxhash

DESCRIPTION_CHECKSUM_KEY = "description_xxh3"  # where "xxh3" is the checksum of a file that is described


def dump_description(facts: dict[str, Any], key: str) -> bytes:
    """Return the text of a description; values that JSON has no type for are written as text.

    Args:
        facts: what it says.
        key: the entry that gets the checksum.
    """
    plain = json.loads(json.dumps(facts, default=str))
    return json.dumps({**plain, key: _checksum(plain)}, indent=1).encode()


def check_description(facts: Any, key: str, *, required: bool = True) -> dict[str, Any]:
    """Return a description without its checksum.

    Args:
        facts: what JSON holds.
        key: the entry that has the checksum.
        required: whether it must be there; older versions wrote none.

    Raises:
        ValueError: if it does not match its checksum, or lacks it.
        TypeError: if it is not a JSON object.
        RecursionError: if it is nested too deeply.
    """
    if not isinstance(facts, dict):
        raise TypeError("it is not a JSON object")
    plain = {name: value for name, value in facts.items() if name != key}
    if key not in facts and not required:
        return plain
    if facts.get(key) != _checksum(plain):
        raise ValueError("it does not match its checksum")
    return plain


def check_index_description(facts: Any) -> dict[str, Any]:
    """Return the description of an index without its checksum; descriptions of format 2 may have none.

    Raises:
        ValueError: if it does not match its checksum, or lacks it.
        TypeError: if it is not a JSON object.
        RecursionError: if it is nested too deeply.
    """
    old = isinstance(facts, dict) and facts.get("format") == 2
    return check_description(facts, DESCRIPTION_CHECKSUM_KEY, required=not old)


def _checksum(plain: dict[str, Any]) -> str:
    """Return the XXH3-128 over everything but the checksum, as JSON with sorted keys."""
    return str(xxhash.xxh3_128(json.dumps(plain, sort_keys=True).encode()).hexdigest())
