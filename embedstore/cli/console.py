"""Results on stdout, as words or as one JSON document; everything else on stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

from embedstore.tables import to_json_value


def print_json(value: Any) -> None:
    """One JSON document and nothing else."""
    print(json.dumps(to_json_value(value), ensure_ascii=False, indent=1))


def print_json_lines(rows: Sequence[Any]) -> None:
    """One JSON document a line."""
    for row in rows:
        print(json.dumps(to_json_value(row), ensure_ascii=False))


def print_note(text: str) -> None:
    """A word beside the result."""
    print(text, file=sys.stderr)


class StderrLogHandler(logging.Handler):
    """What a store has to say by itself, such as what it mended: words beside the result."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say one."""
        print_note(one_line(record.getMessage()))


def print_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns padded to their widest cell; numbers to the right."""
    cells = [[_cell(v) for v in row] for row in rows]
    widths = [max([len(n), *(len(row[i]) for row in cells)]) for i, n in enumerate(names)]
    right = [
        bool(rows) and all(isinstance(row[i], int | float) or row[i] is None for row in rows) for i in range(len(names))
    ]
    print("  ".join(n.rjust(w) if r else n.ljust(w) for n, w, r in zip(names, widths, right, strict=True)).rstrip())
    for row in cells:
        print("  ".join(v.rjust(w) if r else v.ljust(w) for v, w, r in zip(row, widths, right, strict=True)).rstrip())


def print_facts(pairs: Sequence[tuple[str, Any]]) -> None:
    """Names and values, one pair a line."""
    width = max(len(n) for n, _ in pairs)
    for name, value in pairs:
        print(f"{name.ljust(width)}  {_cell(value)}")


def _cell(value: Any) -> str:
    """A value as a person reads it, on one line."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return one_line(str(value))


def one_line(text: str) -> str:
    """Without line breaks, and control characters written out: a file's name may hold what a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


def format_bytes(count: int) -> str:
    """Bytes for a person."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
