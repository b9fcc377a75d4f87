"""Tables of results: DataFrames, Arrow tables, files and HTML."""

import csv
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

import duckdb
import pytest

from embedstore.errors import QueryError
from embedstore.storage.record_types import value_type
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


BIG = 13570027672830659665  # beyond int64
VALUES = [
    {"hash": BIG, "id": "007", "day": "2020-01-01", "n": None, "all": None, "list": ["2020-01-01"], "huge": 2**100},
    {"hash": None, "id": "1e5", "day": "2020-01-02", "n": 2**53 + 1, "all": None, "list": [], "huge": 1},
]


def test_values_and_their_types_are_kept_in_every_form(tmp_path):
    """Text that looks like a number or a date stays text, and integers keep every digit, also next to a NULL."""
    table = Rows(VALUES)
    table.save(tmp_path / "t.parquet")
    rows = duckdb.sql(f"FROM '{tmp_path}/t.parquet'")
    assert rows.fetchall() == [tuple({**r, "huge": str(r["huge"])}.values()) for r in VALUES]
    kinds = dict(zip(rows.columns, map(str, rows.types), strict=True))
    assert kinds == {
        "hash": "UBIGINT", "id": "VARCHAR", "day": "VARCHAR", "n": "BIGINT", "all": "VARCHAR", "list": "VARCHAR[]",
        "huge": "VARCHAR",
    }  # fmt: skip
    pytest.importorskip("pandas")
    frame = table.df()
    assert (frame["hash"][0], frame["n"][1], frame["huge"][0]) == (BIG, 2**53 + 1, 2**100)
    assert frame["hash"].isna().tolist() == [False, True]
    assert table.arrow().to_pylist() == [{**r, "huge": str(r["huge"])} for r in VALUES]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, None], "BOOLEAN"),
        ([1, 2.5], "DOUBLE"),
        ([2**53 + 1, 0.5], "VARCHAR"),
        ([1, True], "VARCHAR"),
        ([Decimal("1.10"), Decimal("100")], "DECIMAL(38, 2)"),
        ([Decimal("1e60")], "VARCHAR"),
        ([{"a b": 1, "c": None}, {"a b": 2, "c": "x"}], 'STRUCT("a b" BIGINT, "c" VARCHAR)'),
        ([{"a": 1}, {"b": 2}], "VARCHAR"),
        ([[[1], [2**63]], []], "UBIGINT[][]"),
        ([date(2020, 1, 1)], "DATE"),
        ([datetime(2020, 1, 1), None], "TIMESTAMP"),
        ([datetime(2020, 1, 1, tzinfo=UTC)], "TIMESTAMPTZ"),
        ([object()], "VARCHAR"),
    ],
)
def test_the_type_of_values_is_the_narrowest_that_is_exact(values, kind):
    """No value would change in it."""
    assert value_type(values) == kind


def test_a_table_that_cannot_be_saved_leaves_the_old_file(tmp_path):
    """Another suffix and a table without rows raise QueryError; an existing file keeps its content."""
    path = tmp_path / "rows.csv"
    path.write_text("old")
    with pytest.raises(QueryError, match="has no rows"):
        Rows([]).save(path)
    with pytest.raises(QueryError, match=r"\.csv, \.parquet or \.jsonl"):
        Rows(RECORDS).save(tmp_path / "rows.xls")
    assert path.read_text() == "old"
