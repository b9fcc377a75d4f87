"""CSV: the columns of the items, in cells that a spreadsheet shows as text and never runs."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from embedstore.storage.durable_files import atomic_write
from embedstore.storage.spreadsheet_cells import protect_cell
from embedstore.storage.transfer.selection import SelectedItems
from embedstore.tables import csv_cell


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
            writer.writerows([csv_cell(value) for value in record.values()] for record in records)
    return len(selected)
