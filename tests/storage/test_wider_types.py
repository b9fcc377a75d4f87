"""A column takes the values of a later table whose type is wider, and loses no digit of the values it has."""

import datetime
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore.errors import BadManifest
from embedstore.storage.wider_types import wider_type

KINDS = {
    "int8": st.integers(-128, 127).map(np.int8),
    "uint16": st.integers(0, 2**16 - 1).map(np.uint16),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint64": st.integers(0, 2**64 - 1).map(np.uint64),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "float32": st.floats(width=32, allow_nan=False, allow_infinity=False).map(np.float32),
    "decimal": st.decimals(-1000, 1000, places=3),
    "long decimal": st.decimals(-1000, 1000, places=30),
}


def table(first, values):
    """Rows of one column, named from ``first``."""
    return {"uri": [f"r{first + k}" for k in range(len(values))], "c": values}


def column(values):
    """Values of one kind as a person would hand them over."""
    return np.array(values) if isinstance(values[0], np.generic) else list(values)


def add(store, first, values):
    vectors = np.random.default_rng(first).normal(size=(len(values), 4)).astype(np.float32)
    return store.add_vectors(vectors, table(first, column(values)))


def stored(store):
    """Return the values by name, and the type of the column."""
    rows = store.sql("SELECT uri, c, typeof(c) FROM items").rows
    return {uri: value for uri, value, _ in rows}, {kind for _, _, kind in rows}


def is_same_number(a, b):
    """Return whether two values are one number, or the digits that are printed of both."""
    return exact(a) == exact(b) or printed(a) == printed(b)


def exact(value):
    """Return a number without any rounding, whatever its type."""
    if isinstance(value, float | np.floating):
        return Fraction(float(value))
    return Fraction(value) if isinstance(value, Decimal) else Fraction(int(value))


def printed(value):
    """Return the number that the printed digits say."""
    return Fraction(repr(float(value)) if isinstance(value, np.floating) else str(value))


@st.composite
def two_columns(draw):
    return [draw(st.lists(KINDS[draw(st.sampled_from(sorted(KINDS)))], min_size=1, max_size=4)) for _ in range(2)]


@settings(max_examples=25, deadline=None)
@given(values=two_columns())
@example(values=[[2**60 + 1], [1.5]])  # no type holds both
@example(values=[[1, 2], [1.5]])
@example(values=[[np.float32(0.1)], [0.1]])
@example(values=[[0.1], [np.float32(0.1)]])
@example(values=[[np.float32(0.5)], [2**60 + 1]])
@example(values=[[np.uint64(2**64 - 1)], [-1]])
@example(values=[[Decimal("0.1")], [Decimal("12.345")]])
@example(values=[[0.0], [Decimal("0.001")]])  # a DOUBLE has its digits
@example(values=[[Decimal("0.001")], [0.5, 0.1]])
@example(values=[[Decimal("0." + "3" * 30)], [0.1]])  # 0.1 gets no digits that it did not have
@example(values=[[0.1], [Decimal("0." + "3" * 30)]])  # which no DOUBLE has
def test_both_columns_are_kept_to_the_last_digit_or_the_second_is_refused(values, tmp_path_factory):
    """An integer, an unsigned one, a number with a point: in any order, equal as numbers, or one clear error."""
    store = es.create(tmp_path_factory.mktemp("wider") / "s.store")
    add(store, 0, values[0])
    kept, kinds = stored(store)
    error = report = None
    try:
        report = add(store, 100, values[1])
    except BadManifest as e:
        error = str(e)
    now, kinds_now = stored(store)
    if report is None:
        assert "'c'" in error
        assert (now, kinds_now) == (kept, kinds)
        return
    given_values = {
        f"r{first + k}": v for first, column in zip((0, 100), values, strict=True) for k, v in enumerate(column)
    }
    assert now.keys() == given_values.keys()
    assert all(is_same_number(now[uri], given) for uri, given in given_values.items()), (now, given_values)
    assert len(kinds_now) == 1
    assert bool(report.notices) == (kinds_now != kinds)


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        ([[]], [["a"]], "VARCHAR[]"),
        ([[]], [[1]], "INTEGER[]"),
        ([[1]], [[]], "INTEGER[]"),
        ([[1]], [[1.5]], "DOUBLE[]"),
        ([None], [1], "BIGINT"),
        ([pd.NaT], [datetime.datetime(2020, 1, 1, 10, 11, 12, 500)], "TIMESTAMP"),
        ([{"a": None}], [{"a": "x"}], "STRUCT(a VARCHAR)"),
    ],
)
def test_what_says_nothing_of_its_type_fits_every_type(tmp_path, first, second, kind):
    """Empty lists and absent values leave the type to the first values."""
    store = es.create(tmp_path / "s.store")
    for k, values in enumerate((first, second)):
        store.add_vectors(np.eye(1, 4, dtype=np.float32), pd.DataFrame(table(k, values)))
    values, kinds = stored(store)
    assert kinds == {kind}
    assert values["r1"] == second[0]


def test_numbers_in_lists_keep_their_digits(tmp_path):
    """DuckDB makes 0.1000000000000000090 of 0.1 where a column has thirty places."""
    store = es.create(tmp_path / "s.store")
    long = Decimal("0." + "3" * 30)
    add(store, 0, [[long], None, []])
    add(store, 100, [[0.1, None], [0.001]])
    values, kinds = stored(store)
    assert values == {
        "r0": [long],
        "r1": None,
        "r2": [],
        "r100": [Decimal("0.1"), None],
        "r101": [Decimal("0.001")],
    }
    assert kinds == {"DECIMAL(30,30)[]"}


def test_a_manifest_in_text_and_an_edit_widen_too(tmp_path):
    """`score` is 1, 2, 3 in the first file and has 1.5 in the next."""
    store = es.create(tmp_path / "s.store")
    add(store, 0, [1, 2, 3])
    (tmp_path / "next.csv").write_text("uri,c\nr0,1.5\nr1,\n")
    edit = store.edit_from_table(tmp_path / "next.csv")
    assert stored(store) == ({"r0": 1.5, "r1": None, "r2": 3.0}, {"DOUBLE"})
    assert any("was BIGINT in the store; now it is DOUBLE" in notice for notice in edit.notices)


@pytest.mark.parametrize(
    ("a", "b", "wider"),
    [
        ("BIGINT", "DOUBLE", "DOUBLE"),
        ("TINYINT", "UTINYINT", "SMALLINT"),
        ("UBIGINT", "BIGINT", "HUGEINT"),
        ("DECIMAL(1,1)", "INTEGER", "DECIMAL(11,1)"),
        ("DECIMAL(38,1)", "DECIMAL(38,30)", None),
        ("TIMESTAMP_S", "TIMESTAMP", "TIMESTAMP"),
        ("FLOAT", "DOUBLE", "DOUBLE"),
        ("DATE", "TIMESTAMP", None),
        ("VARCHAR", "BIGINT", None),
        ("BOOLEAN", "BIGINT", None),
        ("INTEGER[]", "DOUBLE[]", "DOUBLE[]"),
        ("INTEGER[]", "VARCHAR[]", None),
    ],
)
def test_the_wider_of_two_types(a, b, wider):
    assert wider_type(a, b) == wider == wider_type(b, a)
