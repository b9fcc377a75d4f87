"""Write the table into the page."""

from __future__ import annotations

import argparse
import sys

from tools.evaluation_promises.statement import Statement
from tools.evaluation_promises.table import PAGE, date_of, render, statements, table_of, with_table


def _stored(statement: Statement, table: list[str]) -> str:
    """Return the line of the table that has this statement, or no text."""
    return next((line for line in table if line.startswith(statement.words)), "")


def _table() -> list[str]:
    """Return the lines of the table as the page has them now."""
    return table_of(PAGE.read_text(encoding="utf-8"))


def _write(new: Statement, line: str) -> None:
    """Write one line into the table; the others stay as the page has them now, in the order of the statements."""
    table = _table()
    lines = [line if s.words == new.words else _stored(s, table) for s in statements()]
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), render([x for x in lines if x])), encoding="utf-8")


def _is_due(statement: Statement, stored: str, args: argparse.Namespace) -> bool:
    """Return whether the arguments ask for this line."""
    if args.only not in statement.words or (args.missing and stored):
        return False
    return not (args.before and stored) or date_of(stored) < args.before


def main() -> None:
    """Simulate the statements, report the progress on stderr, and write the table after each."""
    parser = argparse.ArgumentParser(prog="python -m tools.evaluation_promises", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="simulated test sets per situation")
    parser.add_argument("--only", default="", help="simulate the lines that contain this text, and keep the others")
    parser.add_argument("--missing", action="store_true", help="simulate the lines that the table does not have")
    parser.add_argument("--before", metavar="DATE", help="simulate the lines that are older, for example 2026-11-27")
    args = parser.parse_args()
    for statement in statements():
        if not _is_due(statement, _stored(statement, _table()), args):
            continue
        line = statement.line(args.runs)
        print(line, file=sys.stderr, flush=True)
        _write(statement, line)
    print(f"wrote the table of {PAGE}")


if __name__ == "__main__":
    main()
