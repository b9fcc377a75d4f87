"""Every kind of source: counts that add up, a rescan that reads nothing, and a table of them that is current."""

from pathlib import Path

import pytest

from tests.sources.kinds import KINDS, measure
from tools.source_table import PAGE, render_page

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_counts_of_a_kind_add_up_and_a_rescan_reads_nothing(kind, tmp_path):
    """Items, failures and skipped names are those of the example; the second run reads and downloads nothing."""
    for package in kind.needs:
        pytest.importorskip(package, reason=f"{package} is not installed")
    found = measure(kind, tmp_path)
    assert (found.items, found.failures, found.skipped) == kind.counts
    assert found.rescan_reads == 0


def test_the_table_of_kinds_is_current():
    """``python -m tools.source_table`` would change nothing."""
    page = PAGE.read_text(encoding="utf-8")
    assert render_page(page) == page


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_bad_input_of_the_table_is_tried_by_a_test(kind):
    """Each entry names a test that exists."""
    assert kind.hostile
    for where in kind.hostile.values():
        file, _, function = where.partition("::")
        assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), where
