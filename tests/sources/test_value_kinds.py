"""A column of a table in memory holds values of one kind, unchanged, or is refused with two examples."""

import datetime
import json
import uuid
from decimal import Decimal

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import embedstore as es
from embedstore.errors import BadManifest
from embedstore.sources.frames import as_frame

X = np.eye(3, 4, dtype=np.float32)
DAY, MOMENT = datetime.date(2024, 1, 2), datetime.datetime(2024, 1, 2, 5)
FAMILIES = {
    "text": st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    "numbers": st.integers(-(2**62), 2**62),
    "truth values": st.booleans(),
    "bytes": st.binary(min_size=1),
    "dates": st.dates(DAY),
    "time stamps without a time zone": st.datetimes(MOMENT, MOMENT.replace(year=2200)),
    "UUIDs": st.uuids(),
}


def read_back(values):
    """The values as DuckDB reads the column."""
    frame = as_frame({"c": values})  # noqa: F841 - read by SQL
    return [value for (value,) in duckdb.sql("SELECT c FROM frame").fetchall()]


def columns(families):
    """Columns of the families and of absent values, as values, as lists and as dicts of them."""
    values = st.one_of(st.none(), *(FAMILIES[name] for name in families))
    parts = st.lists(values, min_size=1, max_size=4)
    return parts | st.lists(parts, min_size=1, max_size=4) | st.lists(st.fixed_dictionaries({"k": values}), min_size=1)


@given(st.sampled_from(sorted(FAMILIES)).flatmap(lambda name: columns([name])))
def test_values_of_one_kind_are_stored_unchanged(values):
    """Alone, in lists and in dicts, beside absent ones."""
    assert read_back(values) == values


@given(st.lists(st.sampled_from(sorted(FAMILIES)), min_size=2, max_size=2, unique=True).flatmap(columns))
def test_values_of_two_kinds_are_unchanged_or_refused(values):
    """Nothing becomes text, a number or a moment because of its neighbours."""
    try:
        back = read_back(values)
    except BadManifest as e:
        assert "a column is of one kind" in str(e)  # noqa: PT017 - either way is right
    else:
        assert back == values
        assert [type(v) for v in back] == [type(v) for v in values]


@pytest.mark.parametrize("frame", [dict, pd.DataFrame])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, "a", 2], r"'c' has numbers and text \(1 and 'a'\)"),
        ([True, 1, None], r"'c' has truth values and numbers \(True and 1\)"),
        ([[1], ["a"], None], r"'c' has numbers and text \(1 and 'a'\)"),
        ([{"k": 1}, {"k": [2]}, None], r"'c' has under the key 'k' numbers and lists"),
        ([DAY, MOMENT, None], r"'c' has dates and time stamps"),
        ([MOMENT, MOMENT.replace(tzinfo=datetime.UTC), None], "without a time zone and time stamps with a time zone"),
        ([uuid.UUID(int=3), "x", None], r"'c' has UUIDs and text"),
        ([b"x", "x", None], r"'c' has bytes and text"),
    ],
)
def test_a_column_of_several_kinds_is_refused_with_examples(tmp_path, frame, values, said):
    """The store is as before."""
    store = es.create(tmp_path / "s")
    with pytest.raises(BadManifest, match=said):
        store.add_vectors(X, frame({"uri": ["/0", "/1", "/2"], "c": values}))
    assert len(store) == 0


@pytest.mark.parametrize("frame", [dict, pd.DataFrame])
@pytest.mark.parametrize("values", [["a", float("nan"), None], [DAY, float("nan"), None], [Decimal("1.5"), 2, None]])
def test_nan_beside_other_values_is_absent(tmp_path, frame, values):
    """As pandas writes an absent text; integers beside decimals stay numbers."""
    store = es.create(tmp_path / "s")
    store.add_vectors(X, frame({"uri": ["/0", "/1", "/2"], "c": values}))
    stored = [value for (value,) in store.sql("SELECT c FROM items ORDER BY item").rows]
    assert stored == [None if value != value else value for value in values]


def test_dicts_with_other_keys_keep_their_values(tmp_path):
    """A number under one key and a text under another stay what they are; counts under many keys stay a map."""
    store = es.create(tmp_path / "s")
    table = {"uri": ["/0", "/1", "/2"], "c": [{"a": 1}, {"b": "x"}, None], "n": [{"cat": 2}, {"dog": 3}, {}]}
    store.add_vectors(X, table)
    rows = store.sql("SELECT c, n FROM items ORDER BY item").rows
    assert [c for c, _ in rows] == [{"a": 1, "b": None}, {"a": None, "b": "x"}, None]
    assert [n for _, n in rows] == [{"cat": 2}, {"dog": 3}, {}]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, "a", None], "text and numbers"),
        ([True, 1, None], "numbers and truth values"),
        ([[1], "a", None], "text and lists"),
        ([[1, "a"], [2], None], "lists or objects of different kinds"),
        ([1, 2.5, None], None),
        (["1", "a", None], None),
        ([{"a": 1}, {"b": "x"}, None], None),
    ],
)
def test_a_column_of_json_that_becomes_text_is_said(tmp_path, values, said):
    """A file may mix kinds: its values are kept as they are written, and the report says so."""
    rows = [json.dumps({"uri": f"/{n}", "c": value}) for n, value in enumerate(values)]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    notices = es.create(tmp_path / "s").add_vectors(X, tmp_path / "t.jsonl").notices
    assert [f"'c' is stored as text, since it has {said}" in n for n in notices if "stored as text" in n] == (
        [True] if said else []
    )
