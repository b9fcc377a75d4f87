"""Tables of results: DataFrames, Arrow tables, files and HTML."""

import csv
from dataclasses import dataclass

import duckdb
import pytest

from embedstore.errors import QueryError
from embedstore.tables import Table

RECORDS = [{"name": "a<b", "score": 0.5, "tags": ["x", "y"]}, {"name": "π", "score": None, "tags": []}]


@dataclass(frozen=True)
class Rows(Table):
    rows: list

    def records(self):
        return self.rows


def test_a_table_converts_to_pandas_and_arrow():
    """Both conversions hold the records."""
    pytest.importorskip("pandas")
    assert Rows(RECORDS).df()["name"].tolist() == ["a<b", "π"]
    assert Rows(RECORDS).arrow().to_pylist() == RECORDS


def test_a_table_shows_itself_as_html():
    """Values are escaped, rows beyond fifty are counted, and no rows are a sentence."""
    text = Rows(RECORDS)._repr_html_()
    assert "<th>name</th>" in text
    assert "a&lt;b" in text
    assert "<p>10 more rows</p>" in Rows([{"n": n} for n in range(60)])._repr_html_()
    assert Rows([])._repr_html_() == "<p>0 rows</p>"


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_is_saved_under_missing_folders(tmp_path, suffix):
    """The file holds the records, and no temporary file is left next to it."""
    path = tmp_path / "new" / "folder" / f"rows.{suffix}"
    Rows(RECORDS).save(path)
    if suffix == "csv":
        found = [(r["name"], r["score"]) for r in csv.DictReader(path.open(encoding="utf-8"))]
        assert found == [("a<b", "0.5"), ("π", "")]
    else:
        assert duckdb.sql(f"SELECT name, score, tags FROM '{path}'").fetchall() == [tuple(r.values()) for r in RECORDS]
    assert list(path.parent.iterdir()) == [path]


def test_a_table_that_cannot_be_saved_leaves_the_old_file(tmp_path):
    """Another suffix and a table without rows raise QueryError; an existing file keeps its content."""
    path = tmp_path / "rows.csv"
    path.write_text("old")
    with pytest.raises(QueryError, match="has no rows"):
        Rows([]).save(path)
    with pytest.raises(QueryError, match=r"\.csv, \.parquet or \.jsonl"):
        Rows(RECORDS).save(tmp_path / "rows.xls")
    assert path.read_text() == "old"
