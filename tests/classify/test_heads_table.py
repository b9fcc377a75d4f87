"""The table of heads in the documentation is what its command would write for the figures in it."""

from pathlib import Path

import numpy as np
import pytest

from embedstore.classify import heads
from tests.benchmarks import bench_heads

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


def table():
    """The rows between the marks, as cells, and the sentence below them."""
    page = PAGE.read_text(encoding="utf-8")
    lines = page[page.index(bench_heads.BEGIN) : page.index(bench_heads.END)].strip().splitlines()[1:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return rows[0], rows[2:-1], rows[-1], lines[-1]


def test_each_row_says_where_the_default_is_not_near_the_best():
    """By the figures of the row, in tenths of a point; at least ten data sets, every head."""
    header, rows, _, _ = table()
    assert header[1:-1] == list(heads.HEAD_NAMES)
    assert len(rows) >= 10
    for row in rows:
        points = dict(zip(heads.HEAD_NAMES, map(float, row[1:-1]), strict=True))
        gain = max(points.values()) - points[bench_heads.DEFAULT]
        if gain < 0.25:
            assert row[-1] == "within 0.2"
        else:
            assert row[-1].startswith(f"{max(points, key=points.get)} +{gain:.1f} (sd ")


def test_the_sentence_counts_the_rows_and_the_time():
    """It is what the command writes."""
    _, rows, seconds, sentence = table()
    total = dict(zip(heads.HEAD_NAMES, map(float, seconds[1:-1]), strict=True))
    near = sum(row[-1] == "within 0.2" for row in rows)
    assert sentence == bench_heads.verdict_of(near, len(rows), total)


def test_a_row_by_hand():
    """Two heads, two divisions: 90 and 94 against 91 and 95 points, and a head that is a tenth better."""
    found = {"logistic": (np.array([0.90, 0.94]), 0.1), "knn": (np.array([0.91, 0.95]), 0.1)}
    assert bench_heads.row_of("a", found) == "| a | 92.0 | 93.0 | knn +1.0 (sd 0.0) |"
    found["knn"] = (np.array([0.901, 0.941]), 0.1)
    assert bench_heads.row_of("a", found) == "| a | 92.0 | 92.1 | within 0.2 |"
    assert bench_heads.verdict_of(1, 2, {"logistic": 1.0, "knn": 3.0}) == (
        "The default is within 0.2 points of the best of the 2 heads on 1 of the 2 sets, in 25% of the CPU time of all."
    )
    with pytest.raises(ValueError, match="substring not found"):
        bench_heads.with_table("a page without the marks", [])
