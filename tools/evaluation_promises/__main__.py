"""Write the table into the page."""

from __future__ import annotations

import argparse
import sys

from tools.evaluation_promises.table import PAGE, render, statements, with_table


def main() -> None:
    """Simulate every statement, tell the progress on stderr, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.evaluation_promises", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="simulated test sets per situation")
    runs, lines = parser.parse_args().runs, []
    for statement in statements():
        lines.append(statement.line(runs))
        print(lines[-1], file=sys.stderr, flush=True)
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), render(lines)), encoding="utf-8")
    print(f"wrote the table of {PAGE}")


if __name__ == "__main__":
    main()
