"""Write the table in docs/sources.md from the examples in tests/sources/kinds.py: ``python -m tools.source_table``.

Every kind is embedded twice with the real library or server first; nothing is written if a count differs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.sources.kinds import KINDS, SourceKind, measure

PAGE = Path(__file__).parents[1] / "docs" / "sources.md"
BEGIN, END = "<!-- table: python -m tools.source_table -->", "<!-- end of the table -->"
HEADER = (
    "| kind | as you name it | read by (extra) | items + failures + skipped = found | read or downloaded by a rescan | "
    "bad input that is tried |\n|---|---|---|---|---|---|"
)


def render_table() -> str:
    """Return the table of all kinds."""
    return "\n".join([HEADER, *(_row(kind) for kind in KINDS)])


def render_page(page: str) -> str:
    """Return a page with its table replaced."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{render_table()}\n\n{END}{after}"


def _row(kind: SourceKind) -> str:
    """Return the row of one kind."""
    counts = " + ".join(map(str, kind.counts)) + f" = {sum(kind.counts)}"
    return f"| {kind.name} | {kind.named_as} | {kind.library} | {counts} | 0 | {', '.join(kind.hostile)} |"


def main() -> None:
    """Try every kind, and write the page."""
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(kind, Path(folder))
        if (found.items, found.failures, found.skipped, found.rescan_reads) != (*kind.counts, 0):
            sys.exit(f"{kind.name}: {found}, where {kind.counts} and no read is expected; nothing is written")
    PAGE.write_text(render_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
