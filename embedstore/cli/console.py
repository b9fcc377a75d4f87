"""Results on stdout, as text or as one JSON document; everything else on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from embedstore.cli.streams import is_utf8, write_bytes
from embedstore.reports.terminal_text import visible, visible_json, visible_lines
from embedstore.tables import to_json_value


def print_json(value: Any) -> None:
    """Print one JSON document and nothing else."""
    _print_document(json.dumps(to_json_value(value), ensure_ascii=not is_utf8(sys.stdout), indent=1))


def print_result(facts: Mapping[str, Any], as_json: bool) -> None:
    """Print names and values, or one JSON document."""
    print_json(facts) if as_json else print_facts(list(facts.items()))


def print_json_lines(rows: Sequence[Any]) -> None:
    """Print one JSON document per line."""
    for row in rows:
        _print_document(json.dumps(to_json_value(row), ensure_ascii=not is_utf8(sys.stdout)))


def print_line(text: str = "") -> None:
    """Print one line; names in it may hold anything."""
    print(visible(text))


def print_lines(text: str) -> None:
    """Print a text of ours that has several lines."""
    print(visible_lines(text))


def print_note(text: str) -> None:
    """Print a note of one line to stderr."""
    print(visible(text), file=sys.stderr)


def print_uris(uris: Iterable[str], *, null: bool) -> None:
    """Print uris alone, for another program; with escapes where stdout is a terminal.

    Args:
        uris: the uris.
        null: end each with a NUL character and not with a line break, which a uri may contain.
    """
    for uri in uris:
        print_line(uri) if sys.stdout.isatty() else print(uri, end="\0" if null else "\n")


def print_paths(paths: Iterable[str], *, null: bool) -> None:
    """Print paths alone, for another program: the bytes that the system knows; with escapes on a terminal.

    Args:
        paths: as :func:`os.fsdecode` returns them.
        null: end each with a NUL character and not with a line break, which a path may contain.
    """
    for path in paths:
        print_line(path) if sys.stdout.isatty() else write_bytes(os.fsencode(path) + (b"\0" if null else b"\n"))


def _print_document(document: str) -> None:
    """Print a JSON document, exactly; on a terminal with escapes that JSON knows."""
    print(visible_json(document) if sys.stdout.isatty() else document)


class StderrLogHandler(logging.Handler):
    """Print log records of a store, such as what it recovered, as notes to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        print_note(record.getMessage())


def print_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print columns padded to their widest cell, with numbers aligned to the right."""
    cells = [[_cell(v) for v in row] for row in rows]
    names = [visible(n) for n in names]
    widths = [max([len(n), *(len(row[i]) for row in cells)]) for i, n in enumerate(names)]
    right = [
        bool(rows) and all(isinstance(row[i], int | float) or row[i] is None for row in rows) for i in range(len(names))
    ]
    print_line(
        "  ".join(n.rjust(w) if r else n.ljust(w) for n, w, r in zip(names, widths, right, strict=True)).rstrip()
    )
    for row in cells:
        print_line(
            "  ".join(v.rjust(w) if r else v.ljust(w) for v, w, r in zip(row, widths, right, strict=True)).rstrip()
        )


def print_facts(pairs: Sequence[tuple[str, Any]]) -> None:
    """Print names and values, one pair per line."""
    pairs = [(visible(name), value) for name, value in pairs]
    width = max(len(n) for n, _ in pairs)
    for name, value in pairs:
        print_line(f"{name.ljust(width)}  {_cell(value)}")


def _cell(value: Any) -> str:
    """Return a value as text on one line."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return visible(str(value))


def format_bytes(count: int) -> str:
    """Return a number of bytes with a unit."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
