"""Results on stdout, as text or as one JSON document; everything else on stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from embedstore.cli.streams import is_utf8
from embedstore.tables import to_json_value


def print_json(value: Any) -> None:
    """Print one JSON document and nothing else."""
    print(json.dumps(to_json_value(value), ensure_ascii=not is_utf8(sys.stdout), indent=1))


def print_result(facts: Mapping[str, Any], as_json: bool) -> None:
    """Print names and values, or one JSON document."""
    print_json(facts) if as_json else print_facts(list(facts.items()))


def print_json_lines(rows: Sequence[Any]) -> None:
    """Print one JSON document per line."""
    for row in rows:
        print(json.dumps(to_json_value(row), ensure_ascii=not is_utf8(sys.stdout)))


def print_note(text: str) -> None:
    """Print a note to stderr."""
    print(text, file=sys.stderr)


class StderrLogHandler(logging.Handler):
    """Print log records of a store, such as what it recovered, as notes to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        print_note(one_line(record.getMessage()))


def print_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print columns padded to their widest cell, with numbers aligned to the right."""
    cells = [[_cell(v) for v in row] for row in rows]
    widths = [max([len(n), *(len(row[i]) for row in cells)]) for i, n in enumerate(names)]
    right = [
        bool(rows) and all(isinstance(row[i], int | float) or row[i] is None for row in rows) for i in range(len(names))
    ]
    print("  ".join(n.rjust(w) if r else n.ljust(w) for n, w, r in zip(names, widths, right, strict=True)).rstrip())
    for row in cells:
        print("  ".join(v.rjust(w) if r else v.ljust(w) for v, w, r in zip(row, widths, right, strict=True)).rstrip())


def print_facts(pairs: Sequence[tuple[str, Any]]) -> None:
    """Print names and values, one pair per line."""
    width = max(len(n) for n, _ in pairs)
    for name, value in pairs:
        print(f"{name.ljust(width)}  {_cell(value)}")


def _cell(value: Any) -> str:
    """Return a value as text on one line."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return one_line(str(value))


def one_line(text: str) -> str:
    """Return text without line breaks and with control characters escaped: a file name may hold terminal codes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


def format_bytes(count: int) -> str:
    """Return a number of bytes with a unit."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
