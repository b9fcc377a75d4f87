"""Counts of the catalog's rows."""

from __future__ import annotations

from typing import Any

import duckdb

from embedstore.storage.sql import first_row

MAX_LABELS = 50  # labels that are listed, the most frequent first


def table_counts(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Return the counts of items, contents, failures and runs, and of items by label and split."""
    totals = con.execute(
        "SELECT (SELECT count(*) FROM items), (SELECT count(*) FROM items WHERE NOT present), "
        "(SELECT count(*) FROM contents), (SELECT count(*) FROM failures), (SELECT count(*) FROM runs)"
    )
    items, missing, contents, failures, runs = first_row(totals)
    reasons = con.execute("SELECT reason, count(*) FROM failures GROUP BY 1 ORDER BY 2 DESC, 1").fetchall()
    labels = con.execute(
        f"SELECT label, count(*) FROM items GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {MAX_LABELS}"
    ).fetchall()
    splits = con.execute("SELECT split, count(*) FROM items GROUP BY 1 ORDER BY 1").fetchall()
    return {
        "items": items,
        "missing": missing,
        "contents": contents,
        "failures": failures,
        "failure_reasons": dict(reasons),
        "labels": {str(k): n for k, n in labels if k is not None},
        "splits": {str(k): n for k, n in splits if k is not None},
        "runs": runs,
    }


def vectors_by_space(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Return the number of vectors by the key of the space."""
    rows = con.execute('SELECT space, sum("rows")::BIGINT FROM shards GROUP BY space').fetchall()
    return {space: int(count) for space, count in rows}


def browse_counts(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Return how many items, contents, failures and present items without a label there are."""
    row = con.execute(
        "SELECT (SELECT count(*) FROM items), (SELECT count(*) FROM contents), (SELECT count(*) FROM failures), "
        "(SELECT count(*) FROM items WHERE present AND label IS NULL)"
    )
    return dict(zip(("items", "contents", "failures", "unlabelled"), first_row(row), strict=True))
