"""JSON text that must be an object: descriptions of spaces, heads and stores, also from somebody else."""

from __future__ import annotations

import json
from typing import Any


def parse_json_object(data: str | bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        ValueError: if the text is not JSON, or is nested too deeply.
        TypeError: if it is not an object.
    """
    try:
        value = json.loads(data)
    except RecursionError as e:
        raise ValueError("it is nested too deeply") from e
    if not isinstance(value, dict):
        raise TypeError("it is not a JSON object")
    return value
