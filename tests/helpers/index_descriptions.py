"""Change the description of an index as somebody would who knows the format: with a checksum that fits."""

import json
from pathlib import Path
from typing import Any

from embedstore.storage.description_checksum import DESCRIPTION_CHECKSUM_KEY, dump_description


def write_description(path: Path, facts: dict[str, Any]) -> None:
    """Write a description."""
    plain = {name: value for name, value in facts.items() if name != DESCRIPTION_CHECKSUM_KEY}
    path.write_bytes(dump_description(plain, DESCRIPTION_CHECKSUM_KEY))


def change_description(path: Path, **changes: Any) -> None:
    """Change entries of a description."""
    write_description(path, json.loads(path.read_text()) | changes)
