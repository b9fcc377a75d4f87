"""Text of a CSV file is text in a spreadsheet, numbers are numbers, and reading gives back what was written."""

import ast
import csv
import datetime
import io

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore import create
from embedstore.storage.spreadsheet_cells import protect_cell, restore_cell, restore_sql
from embedstore.tables import save_records
from tests.conftest import ROOT

FORMULAS = [
    "=1+1", "=cmd|' /C calc'!A0", "+1+cmd|x", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=", "-", "--x", "-5 items",
    "＝1+1", "＋1", "－1", "＠x", "-1e", "+1,5", "=\n=",
]  # fmt: skip
PLAIN = ["", "cat", "a=b", "1-2", "'quoted'", "'", "''", " =1", "-5", "+3.5", "-1e-7", "-.5", "+12.", "[1, -2]", "日本"]


def test_a_formula_becomes_text_and_anything_else_is_as_it_was():
    """An apostrophe in front; not before words and numbers."""
    assert [protect_cell(text) for text in FORMULAS] == ["'" + text for text in FORMULAS]
    assert [protect_cell(text) for text in PLAIN] == PLAIN
    values = [None, -5, -2.5, float("-inf"), True, datetime.date(2020, 1, 2)]
    assert [protect_cell(v) for v in values] == values


TEXT = st.text() | st.text(alphabet="'=+-@\t\r\n＝0.5ex a")


@given(TEXT)
def test_reading_gives_back_every_text(text):
    """Also text that has apostrophes already."""
    cell = protect_cell(text)
    assert restore_cell(cell) == text
    assert cell[:1] not in tuple("=@\t\r\n＝＋－＠")
    assert cell[:1] not in ("+", "-") or float(cell) is not None


@settings(deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=20))
def test_sql_restores_as_python_does(texts):
    """The reader of tables works on columns."""
    with duckdb.connect() as con:
        rows = con.execute(f"SELECT {restore_sql('t')} FROM (SELECT unnest(?::VARCHAR[]) AS t)", [texts]).fetchall()
        assert con.execute(f"SELECT {restore_sql('t')} FROM (SELECT NULL::VARCHAR AS t)").fetchone() == (None,)
    assert [r[0] for r in rows] == [restore_cell(t) for t in texts]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_saved_table_has_no_formula(tmp_path, text):
    """Neither a cell nor the name of a column."""
    save_records([{"item": -1, "=column": text, "score": -0.5}], tmp_path / "t.csv")
    header, row = csv.reader(io.StringIO((tmp_path / "t.csv").read_bytes().decode(), newline=""))
    assert header == ["item", "'=column", "score"]
    assert row == ["-1", "'" + text, "-0.5"]


@pytest.mark.parametrize("text", [*FORMULAS, "'=already", "''-twice", "'plain", "-5", "cat"])
def test_an_edited_table_comes_back_unchanged(tmp_path, text):
    """A caption that was saved to CSV and read again by `edit` is the same text."""
    store = create(tmp_path / "s")
    store.add_vectors(np.eye(2, dtype=np.float32), {"uri": ["/1.jpg", "/2.jpg"], "caption": ["words", "words"]})
    save_records([{"item": 1, "caption": text}], tmp_path / "t.csv")
    store.edit_from_table(tmp_path / "t.csv")
    assert store.sql("select caption from items where item = 1").rows == ((text,),)


def test_every_writer_of_csv_protects_its_cells():
    """A module that writes CSV and does not use the function is found here."""
    writers = set()
    for path in (ROOT / "embedstore").rglob("*.py"):
        calls = [n.func for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
        names = {(getattr(f.value, "id", ""), f.attr) for f in calls if isinstance(f, ast.Attribute)}
        if names & {("csv", "writer"), ("csv", "DictWriter")} or {"to_csv", "write_csv"} & {attr for _, attr in names}:
            writers.add(path)
    assert {p.name for p in writers} >= {"tables.py", "collection.py"}
    assert [p for p in writers if "protect_cell" not in p.read_text(encoding="utf-8")] == []
