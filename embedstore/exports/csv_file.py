"""CSV: the columns of the items, in cells that a spreadsheet shows as text and never runs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from embedstore.storage.durable_files import atomic_write
from embedstore.storage.spreadsheet_cells import protect_cell
from embedstore.storage.transfer.selection import SelectedItems
from embedstore.tables import to_json_value


def write_csv(selected: SelectedItems, path: Path) -> int:
    """Write the items to a CSV file with a header.

    Returns:
        How many items were written.

    Raises:
        OSError: if the disk refuses; a file that was at ``path`` is unchanged.
    """
    with atomic_write(path) as file, io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
        writer = csv.writer(text)
        for number, block in enumerate(selected.blocks()):
            records = selected.records(block)
            if number == 0:
                writer.writerow([protect_cell(name) for name in records[0]])
            writer.writerows([_cell(value) for value in record.values()] for record in records)
    return len(selected)


def _cell(value: Any) -> Any:
    """Return a value as a cell; lists and structures are JSON."""
    if isinstance(value, list | tuple | dict):
        value = json.dumps(to_json_value(value), ensure_ascii=False)
    elif isinstance(value, bytes):
        value = value.hex()
    elif not isinstance(value, str | int | float | bool | None):
        value = str(value)
    return protect_cell(value)
