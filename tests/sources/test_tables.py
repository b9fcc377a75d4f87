"""The one reader of tables: encodings, delimiters, types that change no value, and what the store holds already."""

import codecs
import csv
import datetime
import gzip
import json
import math
import uuid
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import BadEncoding, BadManifest, BadOption
from embedstore.sources.table_options import TableOptions
from embedstore.sources.tables import InputTable
from embedstore.sources.text_files import read_lines
from embedstore.storage.spreadsheet_cells import protect_cell

ROLES = ("uri", "label", "split", "group")
MARKED = {
    "utf-8": b"", "utf-8-sig": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE, "utf-32-be": codecs.BOM_UTF32_BE,
}  # fmt: skip


def read(folder: Path, content: str | bytes, name: str = "t.csv", **options) -> tuple[dict[str, str], list[tuple]]:
    """Return the types of the columns, and the rows, of a file."""
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(InputTable.read_file(str(folder / name), TableOptions(**options), ROLES))


def read_table(table: InputTable) -> tuple[dict[str, str], list[tuple]]:
    """Return the types of the columns, and the rows, of a table that was read."""
    rows = table.con.execute("SELECT * EXCLUDE (embedstore_row) FROM given ORDER BY embedstore_row").fetchall()
    return table.columns(), rows


def column(folder: Path, *cells: str, **options) -> tuple[str, list]:
    """Return the type and the values of a column with these cells."""
    body = "".join(f'u{i},"{c}"\n' for i, c in enumerate(cells))
    types, rows = read(folder, f"uri,x\n{body}", **options)
    return types["x"], [row[1] for row in rows]


# ---- encodings and delimiters


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", MARKED)
def test_every_encoding_with_a_mark_and_every_delimiter_is_read(tmp_path, encoding, delimiter):
    """The header, quoted cells with the delimiter inside, and letters of several scripts arrive unchanged."""
    text = f'uri{delimiter}größe\r\n"a{delimiter}b"{delimiter}ünï ✓ 한국\r\nc{delimiter}"say ""hi"""\r\n'
    data = MARKED[encoding] + text.encode(encoding.removesuffix("-sig"))
    types, rows = read(tmp_path, data)
    assert list(types) == ["uri", "größe"]
    assert rows == [(f"a{delimiter}b", "ünï ✓ 한국"), ("c", 'say "hi"')]


def test_a_delimiter_that_the_suffix_does_not_promise_is_stated(tmp_path):
    """Commas in .csv and tabs in .tsv need no word."""
    for name, delimiter, words in (("t.csv", ";", "semicolons"), ("t.csv", "\t", "tabs"), ("t.csv", ",", None)):
        (tmp_path / name).write_text(f"uri{delimiter}n\na{delimiter}1\n")
        notices = InputTable.read_file(str(tmp_path / name), TableOptions(), ROLES).notices
        assert [words in n for n in notices] == ([True] if words else [])


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_another_encoding_is_one_line_whose_cure_works(tmp_path, encoding):
    """The message names the file, the byte, the line and the option; with the option the text is right."""
    data = "uri,note\na,x\nb,größe\n".encode(encoding)
    with pytest.raises(BadEncoding) as e:
        read(tmp_path, data)
    message = str(e.value)
    assert "\n" not in message
    assert f"{tmp_path}/t.csv" in message
    assert "byte 0xf6 in line 3" in message
    assert f"--encoding {encoding}" in message
    assert read(tmp_path, data, encoding=encoding)[1][1] == ("b", "größe")
    for order in ("le", "be"):
        with pytest.raises(BadEncoding, match=f"--encoding utf-16-{order}"):
            read(tmp_path, "uri\na\n".encode(f"utf-16-{order}"))
    for wrong in ("no-such", "base64"):
        with pytest.raises(BadOption, match=wrong):
            read(tmp_path, data, encoding=wrong)


def test_a_character_that_is_cut_by_a_block_is_read(tmp_path):
    """A file larger than one block, with a letter of two bytes across the border, compressed too."""
    text = "uri,n\n" + "".join(f"{i:07},é\n" for i in range(150_000))
    for name, data in (("t.csv", text.encode()), ("t.csv.gz", gzip.compress(text.encode()))):
        rows = read(tmp_path, data, name)[1]
        assert (len(rows), rows[-1]) == (150_000, ("0149999", "é"))


def test_lines_of_a_class_list_are_clean_names(tmp_path):
    """A byte-order mark, Windows line ends, outer white space, blank lines and decomposed letters do not matter."""
    (tmp_path / "c.txt").write_bytes("\ufeffcat\r\n\r\n caf\u0065\u0301\u00a0\r\n".encode())
    assert read_lines(str(tmp_path / "c.txt")) == ["cat", "café"]
    (tmp_path / "c.txt").write_bytes("größe\n".encode("cp1252"))
    with pytest.raises(BadEncoding, match=r"c\.txt is not UTF-8"):
        read_lines(str(tmp_path / "c.txt"))
    assert read_lines(str(tmp_path / "c.txt"), encoding="cp1252") == ["größe"]


# ---- types


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "-7", ""], "BIGINT", [1, -7, None]),
        (["13570027672830659665", "1"], "UBIGINT", [13570027672830659665, 1]),
        (["18446744073709551616", "-1"], "HUGEINT", [18446744073709551616, -1]),
        (["007", "8"], "VARCHAR", ["007", "8"]),
        (["+1", "2"], "VARCHAR", ["+1", "2"]),
        (["0.5", "2", "1e-3"], "DOUBLE", [0.5, 2.0, 0.001]),
        (["1.000000000000000056e-01"], "DOUBLE", [0.1]),  # how NumPy writes 0.1 with 19 digits
        (["0.30000000000000004", "nan"], "DOUBLE", [0.30000000000000004, math.nan]),
        (["0.1234567890123456789"], "DECIMAL(20,19)", [Decimal("0.1234567890123456789")]),
        (["9007199254740993.5"], "DECIMAL(17,1)", [Decimal("9007199254740993.5")]),
        (["1e400"], "VARCHAR", ["1e400"]),
        (["true", "False"], "BOOLEAN", [True, False]),
        (["t", "f"], "VARCHAR", ["t", "f"]),
        (["2020-01-31", ""], "DATE", [datetime.date(2020, 1, 31), None]),
        (["2020-13-31"], "VARCHAR", ["2020-13-31"]),
        (["31.01.2020"], "VARCHAR", ["31.01.2020"]),
        (["2020-01-31T10:00:00.123456"], "TIMESTAMP", [datetime.datetime(2020, 1, 31, 10, 0, 0, 123456)]),
        (["2020-01-31 10:00:00.123456789"], "VARCHAR", ["2020-01-31 10:00:00.123456789"]),
        (["6F9619FF-8B86-D011-B42D-00CF4FC964FF"], "VARCHAR", ["6F9619FF-8B86-D011-B42D-00CF4FC964FF"]),
        ([" 1", "2 "], "BIGINT", [1, 2]),
        (["", ""], "VARCHAR", [None, None]),
    ],
)
def test_a_column_is_typed_only_where_no_value_changes(tmp_path, cells, kind, values):
    """Case by case; the type is decided by all cells."""
    found, got = column(tmp_path, *cells)
    assert found == kind
    assert str(got) == str(values)


NUMBERS = st.one_of(
    st.integers(-(2**127) + 1, 2**127 - 1).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(-(10**18), 10**18, places=12).map(lambda d: f"{d:f}"),
    st.from_regex(r"-?[0-9]{1,30}(\.[0-9]{1,30})?(e[+-]?[0-9]{1,3})?", fullmatch=True),
)


@settings(max_examples=150, deadline=None)
@given(cells=st.lists(NUMBERS, min_size=1, max_size=4))
def test_a_number_never_loses_a_digit(tmp_path_factory, cells):
    """As a typed value it is the number that was written; what no type holds stays text."""
    kind, values = column(tmp_path_factory.mktemp("t"), *cells)
    for cell, value in zip(cells, values, strict=True):
        if kind == "VARCHAR":
            assert value == cell
        elif kind == "DOUBLE":
            digits = len(Decimal(cell).as_tuple().digits)
            assert value == float(cell)
            assert Decimal(f"{value:.{max(digits - 1, 0)}e}") == Decimal(cell)
        else:
            assert Decimal(value) == Decimal(cell)


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10), min_size=1),
    kind=st.sampled_from(["csv", "semicolon", "jsonl", "json", "dict", "frame", "arrow"]),
)
def test_text_is_unchanged_through_every_format(tmp_path_factory, rows, kind):
    """An x before the text keeps it text; white space, quotes, line ends and any script are kept."""
    values, folder = [f"x{text}" for text in rows], tmp_path_factory.mktemp("t")
    uris = [f"u{i}" for i in range(len(rows))]
    if kind in ("csv", "semicolon"):
        frame = pd.DataFrame({"uri": uris, "note": values})
        frame.to_csv(folder / "t.csv", index=False, sep=";" if kind == "semicolon" else ",", quoting=csv.QUOTE_ALL)
        table = InputTable.read_file(str(folder / "t.csv"), TableOptions(), ROLES)
    elif kind in ("jsonl", "json"):
        objects = [{"uri": u, "note": v} for u, v in zip(uris, values, strict=True)]
        text = json.dumps(objects) if kind == "json" else "".join(json.dumps(o) + "\n" for o in objects)
        (folder / f"t.{kind}").write_text(text)
        table = InputTable.read_file(str(folder / f"t.{kind}"), TableOptions(), ROLES)
    else:
        columns = {"uri": uris, "note": values}
        frames = {"dict": lambda c: c, "frame": pd.DataFrame, "arrow": pa.table}
        table = InputTable.read_frame(frames[kind](columns), TableOptions(), ROLES)
    assert [row[1] for row in read_table(table)[1]] == values


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "dict", "frame", "arrow"])
def test_values_that_other_readers_change_are_kept_in_every_format(tmp_path, kind):
    """uint64, UUIDs in upper case, leading zeros, booleans, nested lists; absent values are NULL."""
    name = str(uuid.UUID(int=2**127 + 11)).upper()
    columns = {
        "uri": ["a", "b"], "hash": np.array([13570027672830659665, 1], np.uint64), "id": [name, None],
        "code": ["007", "1"], "ok": [True, False], "tags": [["x", "Y"], []], "deep": [[[1], [2, 3]], [[]]],
    }  # fmt: skip
    frame = pd.DataFrame(columns)
    if kind == "parquet":
        frame.to_parquet(tmp_path / "t.parquet")
    elif kind == "jsonl":
        frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    if kind in ("parquet", "jsonl"):
        table = InputTable.read_file(str(tmp_path / f"t.{kind}"), TableOptions(), ROLES)
    else:
        given_table = {"dict": columns, "frame": frame, "arrow": pa.Table.from_pandas(frame)}[kind]
        table = InputTable.read_frame(given_table, TableOptions(), ROLES)
    assert read_table(table)[1] == [
        ("a", 13570027672830659665, name, "007", True, ["x", "Y"], [[1], [2, 3]]),
        ("b", 1, None, "1", False, [], [[]]),
    ]


def test_numbers_of_a_json_file_keep_their_digits(tmp_path):
    """Integers beyond 64 bits, long decimals, integers of 64 bits in lists, and text that looks like a number."""
    text = (
        '{"uri": "a", "big": 1267650600228229401496703205376, "d": 0.1234567890123456789, '
        '"l": [13570027672830659665]}\n'
        '{"uri": "b", "s": "007", "mixed": 1}\n{"uri": "c", "mixed": "x", "l": [1]}\n'
    )
    types, rows = read(tmp_path, text, "t.jsonl")
    assert types["l"] == "UBIGINT[]"
    assert rows == [
        ("a", 2**100, Decimal("0.1234567890123456789"), [13570027672830659665], None, None),
        ("b", None, None, None, "007", "1"),
        ("c", None, None, [1], None, "x"),
    ]


def test_a_list_of_python_values_is_not_forced_into_one_type():
    """NumPy would make a rectangle of the lists, or round the integer."""
    frame = {"uri": ["a", "b"], "big": [2**64 - 1, -1], "lists": [["x"], ["y", "z"]]}
    _, rows = read_table(InputTable.read_frame(frame, TableOptions(), ROLES))
    assert rows == [("a", 2**64 - 1, ["x"]), ("b", -1, ["y", "z"])]


def test_a_cell_that_was_protected_from_spreadsheets_is_read_as_it_was(tmp_path):
    """Our own CSV files come back unchanged."""
    values = ["=1+2", "-x", "@me", "'=quoted", "plain", "+ 1"]
    body = "".join(f"u{i},{protect_cell(v)}\n" for i, v in enumerate(values))
    assert [row[1] for row in read(tmp_path, f"uri,note\n{body}")[1]] == values


# ---- what the store holds already


@pytest.mark.parametrize(
    ("kind", "cells", "values"),
    [
        ("BIGINT", ["", ""], [None, None]),
        ("BIGINT", ["2001", "7"], [2001, 7]),
        ("BIGINT", ["2.0", ""], [2, None]),
        ("DOUBLE", ["1", "0.5"], [1.0, 0.5]),
        ("VARCHAR", ["1.10", "007"], ["1.10", "007"]),
        ("VARCHAR[]", ["1.10", ""], [["1.10"], None]),
        ("DATE", ["2020-01-31", ""], [datetime.date(2020, 1, 31), None]),
    ],
)
def test_a_column_of_the_store_says_the_type(tmp_path, kind, cells, values):
    """Empty cells fit any type; text stays as written where the store holds text."""
    assert column(tmp_path, *cells, known_types={"X": kind}) == (kind, values)


@pytest.mark.parametrize(
    ("kind", "cells", "bad"),
    [("BIGINT", ["1", "soon"], "'soon'"), ("DATE", ["", "0.5"], "'0.5'"), ("DOUBLE", ["9007199254740993"], "'9007"),
     ("BOOLEAN", ["true", "2"], "'2'"), ("DOUBLE", ["5", "x"], "'x'"),
     ("BIGINT", ["1", "1" * 45], f"'{'1' * 45}'")],
)  # fmt: skip
def test_a_value_that_does_not_fit_the_store_is_named_with_its_row(tmp_path, kind, cells, bad):
    """The message has the file, the row, the value, the column and what the store holds."""
    with pytest.raises(BadManifest) as e:
        column(tmp_path, *cells, known_types={"x": kind})
    message = str(e.value)
    assert f"row {len(cells)} has {bad}" in message
    assert f"holds {kind}" in message
    assert "t.csv" in message


@pytest.mark.parametrize("rows", ["p1.jpg\n", "p1.jpg,1,2\n", "p1.jpg,1\np2.jpg\n"])
def test_a_row_of_another_width_does_not_hide_the_header(tmp_path, rows):
    """The row is the fault, not the header, which would be read as one name."""
    file = tmp_path / "t.csv"
    file.write_text("uri,x\n" + rows)
    columns = None
    with suppress(BadManifest):
        columns = list(InputTable.read_file(str(file), TableOptions(), ()).columns())
    assert columns in (None, ["uri", "x"])
    if columns is None:
        with pytest.raises(BadManifest, match="CSV Error"):
            InputTable.read_file(str(file), TableOptions(), ())
