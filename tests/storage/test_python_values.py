"""A value of a table leaves a store as it came: in SQL, hits and their files, in JSON, CSV and Parquet."""

import csv
import datetime
import json
import math

import duckdb
import numpy as np
import pytest

import embedstore as es
from embedstore.cli import main

ROWS = 3
EXACT_TIME = "2020-09-13 12:26:40.123456789"
UTC = datetime.UTC
# by name: the value in SQL, as Python has it, and as JSON has it
VALUES = {
    "nanoseconds": (f"TIMESTAMP_NS '{EXACT_TIME}'", EXACT_TIME, EXACT_TIME),
    "no nanoseconds": (
        "TIMESTAMP_NS '2020-09-13 12:26:40.5'",
        datetime.datetime(2020, 9, 13, 12, 26, 40, 500_000),
        "2020-09-13 12:26:40.500000",
    ),
    "many times": (f"[TIMESTAMP_NS '{EXACT_TIME}']", [EXACT_TIME], [EXACT_TIME]),
    "part": (f"{{'a INTERVAL': TIMESTAMP_NS '{EXACT_TIME}'}}", {"a INTERVAL": EXACT_TIME}, {"a INTERVAL": EXACT_TIME}),
    "no end": ("DATE 'infinity'", "infinity", "infinity"),
    "no start": ("TIMESTAMP '-infinity'", "-infinity", "-infinity"),
    "late": ("DATE '20000-01-31'", "20000-01-31", "20000-01-31"),
    "day": ("DATE '2020-01-31'", datetime.date(2020, 1, 31), "2020-01-31"),
    "zone": ("TIMESTAMPTZ '2020-01-31 12:00+00'", datetime.datetime(2020, 1, 31, 12, tzinfo=UTC), None),
    "bytes": ("'\\x00\\xFFa'::BLOB", b"\x00\xffa", "00ff61"),
    "all bytes": ("['\\x00'::BLOB]", [b"\x00"], ["00"]),
    "big": ("18446744073709551615::UBIGINT", 2**64 - 1, 2**64 - 1),
    "structure": ("{'a': 1, 'b': 'x'}", {"a": 1, "b": "x"}, {"a": 1, "b": "x"}),
    "map": ("MAP {'k': 1}", {"k": 1}, {"k": 1}),
    "infinite": ("'-inf'::DOUBLE", -math.inf, None),
    "formula": ("'=1+1'", "=1+1", "=1+1"),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of vectors whose table has a column of each kind."""
    folder = tmp_path_factory.mktemp("values")
    columns = ", ".join(f'{value[0]} AS "{name}"' for name, value in VALUES.items())
    duckdb.sql(f"SELECT 'i' || n AS uri, {columns} FROM range({ROWS}) t(n)").write_parquet(str(folder / "t.parquet"))
    store = es.create(folder / "s")
    store.add_vectors(np.eye(ROWS, 4, dtype=np.float32), folder / "t.parquet")
    return store


@pytest.fixture
def printed(store, capsys):
    """Run a command on the store: what it printed."""

    def run(verb, *words):
        with pytest.raises(SystemExit) as end:
            main([verb, str(store.path), *map(str, words)])
        assert not end.value.code
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("name", VALUES)
def test_python_gets_the_value_or_its_text(store, name):
    """What Python's type cannot hold is text, whole."""
    right = VALUES[name][1]
    (row,) = store.sql(f'SELECT "{name}" FROM items LIMIT 1').rows
    hit = store.search(like=1, k=1)[0]
    assert row[0] == right
    assert type(row[0]) is type(right)
    assert hit.columns[name] == right


def test_json_has_each_value(store, printed):
    """In `sql --json` and in hits."""
    (first, *_) = json.loads(printed("sql", "SELECT * FROM items", "--json"))
    hit = json.loads(printed("search", "--item", 1, "-k", 1, "--json"))["hits"][0]
    for name, (_, _, right) in VALUES.items():
        if name != "zone":
            assert first[name] == hit[name] == right, name


def test_files_of_hits_have_each_value(store, printed, tmp_path):
    """CSV cells of lists and structures are JSON; Parquet has the types, where it can."""
    for suffix in ("csv", "parquet"):
        printed("search", "--item", 1, "-k", 1, "-o", tmp_path / f"h.{suffix}")
    (row,) = csv.DictReader((tmp_path / "h.csv").open())
    typed = duckdb.sql(f"SELECT * FROM '{tmp_path / 'h.parquet'}'")
    values = dict(zip(typed.columns, typed.fetchall()[0], strict=True))
    for name in ("bytes", "nanoseconds", "big", "infinite", "day", "structure", "zone", "no nanoseconds"):
        assert values[name] == VALUES[name][1], name
    assert row["nanoseconds"] == EXACT_TIME
    assert row["bytes"] == "00ff61"
    assert json.loads(row["structure"]) == VALUES["structure"][1]
    assert json.loads(row["many times"]) == [EXACT_TIME]
    assert row["formula"] == "'=1+1"


def test_an_export_has_each_value(store, printed, tmp_path):
    """CSV, in the same notation as the files of hits."""
    printed("export", tmp_path / "all.csv")
    printed("search", "--item", 1, "-k", ROWS, "-o", tmp_path / "h.csv")
    (first, *_) = csv.DictReader((tmp_path / "all.csv").open())
    (hit, *_) = csv.DictReader((tmp_path / "h.csv").open())
    assert {name: first[name] for name in VALUES} == {name: hit[name] for name in VALUES}
