"""Delimited text as spreadsheets write it: marks, semicolons, UTF-16, decimal commas, and the line ``sep=``."""

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import BadManifest
from embedstore.sources.table_options import TableOptions
from embedstore.sources.tables import InputTable
from embedstore.storage.column_names import ROLE_COLUMNS

ENCODINGS = {
    "utf-8": b"", "utf-8 with a mark": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}  # fmt: skip


def read(folder, text, *, encoding="utf-8", name="t.csv", **options):
    """Write a file in one encoding and read it: types, rows and notices."""
    data = ENCODINGS[encoding] + text.encode(encoding.split(" ")[0])
    (folder / name).write_bytes(data)
    table = InputTable.read_file(str(folder / name), TableOptions(**options), ROLE_COLUMNS)
    rows = table.con.execute("SELECT * EXCLUDE (embedstore_row) FROM given ORDER BY embedstore_row").fetchall()
    return table.columns(), rows, " ".join(table.notices)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("statement", ["", "sep={}\r\n", '"sep={}"\n'])
def test_what_a_spreadsheet_writes_is_understood(tmp_path, encoding, delimiter, statement):
    """Every encoding, delimiter and first line; numbers with decimal commas are numbers, labels with commas are not."""
    rows = ["uri;label;weight;size;note", "a.png;1,5;3,14;7;x, y", "b.png;2,5;-0,5E-3;;", "c.png;;;12;1,5"]
    text = statement.format(delimiter) + "\r\n".join(rows).replace(";", delimiter) + "\r\n"
    types, got, notices = read(tmp_path, text, encoding=encoding)
    assert types == {"uri": "VARCHAR", "label": "VARCHAR", "weight": "DOUBLE", "size": "BIGINT", "note": "VARCHAR"}
    assert got == [
        ("a.png", "1,5", 3.14, 7, "x, y"), ("b.png", "2,5", -0.0005, None, None), ("c.png", None, None, 12, "1,5"),
    ]  # fmt: skip
    assert "'weight' have decimal commas" in notices
    assert "note" not in notices


@settings(max_examples=60, deadline=None)
@given(numbers=st.lists(st.decimals(-(10**9), 10**9, places=4), min_size=1, max_size=5))
def test_decimal_commas_lose_no_digit(tmp_path_factory, numbers):
    """Four decimals cannot be thousands; the value is the one that was written."""
    cells = "".join(f"u{i};{str(n).replace('.', ',')}\n" for i, n in enumerate(numbers))
    _, rows, _ = read(tmp_path_factory.mktemp("t"), f"uri;x\n{cells}")
    assert [float(x) for _, x in rows] == [float(n) for n in numbers]


@pytest.mark.parametrize("cells", [["1,234", "12,345"], ["1,234", "5"], ["1,234,567", "2,000"]])
def test_commas_that_may_separate_thousands_are_left_and_named(tmp_path, cells):
    """1,234 is one number in one country and another in the next: it stays text, and that is said."""
    types, rows, notices = read(tmp_path, "uri;x\n" + "".join(f"u{i};{c}\n" for i, c in enumerate(cells)))
    assert types["x"] == "VARCHAR"
    assert [x for _, x in rows] == cells
    assert "'x' stays text" in notices


@pytest.mark.parametrize("cells", [["3,14", "x"], ["3,14", "007,5"], ["1,2,3"], ["1.234,5"], ["a, b"], ["2020-01-31"]])
def test_other_text_with_commas_stays_as_it_is(tmp_path, cells):
    """One cell that is no such number decides."""
    _, rows, notices = read(tmp_path, "uri;x\n" + "".join(f"u{i};{c}\n" for i, c in enumerate(cells)))
    assert [str(x) for _, x in rows] == cells
    assert "decimal" not in notices


def test_in_a_file_with_commas_between_cells_nothing_is_changed(tmp_path):
    """A quoted 3,14 is text."""
    types, rows, _ = read(tmp_path, 'uri,x\na,"3,14"\n')
    assert (types["x"], rows) == ("VARCHAR", [("a", "3,14")])


def test_the_column_of_a_store_decides(tmp_path):
    """Decimal commas fit a column of numbers, text stays text, and what fits neither is named with its row."""
    text = "uri;x\na;3,14\nb;2,5\n"
    assert read(tmp_path, text, known_types={"x": "DOUBLE"})[1] == [("a", 3.14), ("b", 2.5)]
    assert read(tmp_path, text, known_types={"x": "VARCHAR"})[1] == [("a", "3,14"), ("b", "2,5")]
    with pytest.raises(BadManifest, match="row 2 has '1,234'"):
        read(tmp_path, "uri;x\na;5\nb;1,234\n", known_types={"x": "DOUBLE"})
