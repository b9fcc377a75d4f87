"""Columns of a table in memory hold the values that were given, whichever library made them."""

import datetime
import enum
import uuid
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import embedstore as es
from embedstore.errors import BadManifest, QueryError
from embedstore.plain_values import plain_values

NUMBERS = [
    *(np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64),
    *(np.float16, np.float32, np.float64),
]
MAKERS = {
    "numpy": lambda values: [kind(v) for kind, v in zip(NUMBERS, values * len(NUMBERS), strict=False)],
    "torch": lambda values: [torch.tensor(v) for v in values],
    "arrow": lambda values: list(pa.array(values)),
    "array of objects": lambda values: np.array(values, dtype=object),
    "series": lambda values: pd.Series(values, dtype=object),
    "nullable": lambda values: pd.Series(values, dtype="Int64"),
    "polars": lambda values: pytest.importorskip("polars").Series(values),
    "Arrow array": pa.array,
    "Arrow chunks": lambda values: pa.chunked_array([values]),
    "tensor": torch.tensor,
    "generator": iter,
}


def stored(tmp_path, table):
    """Return the column ``c`` of a table as a store has it, and its types."""
    store = es.create(tmp_path / "s")
    rows = len(table["uri"])
    store.add_vectors(np.eye(rows, 16, dtype=np.float32), table)
    values = store.sql("SELECT c, typeof(c) FROM items ORDER BY item").rows
    return [v for v, _ in values], {kind for _, kind in values}


@pytest.mark.parametrize("maker", sorted(MAKERS))
@pytest.mark.parametrize("nested", [False, True])
def test_numbers_of_every_library_are_numbers(tmp_path, maker, nested):
    """A scalar, a column, and lists of them: none becomes its text."""
    numbers = list(MAKERS[maker]([3, 5]))
    column = [[n, n] for n in numbers] if nested else MAKERS[maker]([3, 5])
    values, kinds = stored(tmp_path, {"uri": [f"/{n}" for n in range(len(numbers))], "c": column})
    flat = [v for value in values for v in (value if nested else [value])]
    assert set(flat) == {3, 5}
    assert all(kind.removesuffix("[]") in {"INTEGER", "BIGINT", "DOUBLE"} for kind in kinds)


@pytest.mark.parametrize(
    "maker", ["arrow", "series", "nullable", "polars", "Arrow array", "Arrow chunks", "array of objects"]
)
def test_integers_beside_an_absent_value_stay_integers(tmp_path, maker):
    """2**53 + 1 is no float."""
    column = MAKERS[maker]([2**53 + 1, None])
    values, kinds = stored(tmp_path, {"uri": ["/0", "/1"], "c": column})
    assert (values, kinds) == ([2**53 + 1, None], {"BIGINT"})


PLAIN = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary()),
    *(st.decimals(allow_nan=False, allow_infinity=False), st.uuids(), st.dates(), st.times(), st.timedeltas()),
    st.datetimes(),
)


@given(st.lists(st.recursive(PLAIN, lambda part: st.lists(part) | st.dictionaries(st.text(), part), max_leaves=5)))
def test_plain_values_are_unchanged(values):
    assert plain_values(values) == values


@given(st.sampled_from(NUMBERS), st.data())
def test_a_scalar_of_numpy_is_the_same_number(kind, data):
    info = np.iinfo(kind) if np.issubdtype(kind, np.integer) else None
    numbers = st.integers(int(info.min), int(info.max)) if info else st.integers(-1000, 1000).map(lambda n: n / 8)
    value = data.draw(numbers)
    (plain,) = plain_values([kind(value)])
    assert plain == value
    assert type(plain) is type(value)


@pytest.mark.parametrize("unit", ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns"])
def test_moments_of_numpy_are_moments(tmp_path, unit):
    """Days are dates, all else are time stamps; an absent one is NULL."""
    moment = np.datetime64("2020-01-31T10:20:30.123456789").astype(f"datetime64[{unit}]")
    values, kinds = stored(tmp_path, {"uri": ["/0", "/1", "/2"], "c": [moment, None, np.datetime64("NaT")]})
    assert np.datetime64(str(values[0])) == moment
    assert values[1:] == [None, None]
    assert all(kind.startswith("DATE" if unit in "YMWD" else "TIMESTAMP") for kind in kinds)


def test_a_time_stamp_of_pandas_keeps_its_nanoseconds(tmp_path):
    moment = pd.Timestamp("2020-01-31T10:20:30.123456789")
    values, _ = stored(tmp_path, {"uri": ["/0", "/1"], "c": [moment, pd.NaT]})
    assert values == ["2020-01-31 10:20:30.123456789", None]


MOMENT = datetime.datetime(2020, 1, 31, 10, 20, 30, 123456)


@pytest.mark.parametrize("unit", ["us", "ns"])
def test_a_moment_in_a_list_or_beside_other_values_is_a_moment(tmp_path, unit):
    """Where no column of NumPy's moments can be made, NumPy itself would give the number of nanoseconds."""
    moment = np.datetime64(MOMENT).astype(f"datetime64[{unit}]")
    assert plain_values([[moment], {"a": moment}, MOMENT]) == [[MOMENT], {"a": MOMENT}, MOMENT]
    assert plain_values([pd.Timestamp(MOMENT).as_unit(unit), MOMENT]) == [MOMENT, MOMENT]
    assert es.create(tmp_path / "s").sql("SELECT ?", [moment]).rows == ((MOMENT,),)


@pytest.mark.parametrize("value", [np.datetime64(1, "ns"), np.datetime64("20000-01-01"), np.timedelta64(3, "M")])
def test_a_moment_that_python_does_not_hold_is_never_a_number(value):
    """It is refused inside a list, and does not lose its last digits."""
    with pytest.raises(TypeError, match="which Python's dates and times do not hold"):
        plain_values([[value]])


class Colour(str, enum.Enum):  # noqa: UP042 - the older form, whose str() is not its text
    RED = "red"


KNOWN = {
    "text that is an enumeration's": (Colour.RED, "red"),
    "a number of a library": (np.float32(0.1), float(np.float32(0.1))),
    "truth": (np.bool_(True), True),
    "a tuple": ((1, 2), [1, 2]),
    "an array": (np.array([1, 2]), [1, 2]),
    "a tensor with a gradient": (torch.ones(2, requires_grad=True), [1.0, 1.0]),
    "a structure": ({"a": np.int64(1)}, {"a": 1}),
    "a decimal": (Decimal("1.10"), Decimal("1.10")),
    "an id": (uuid.UUID(int=7), uuid.UUID(int=7)),
    "a span": (np.timedelta64(90, "s"), datetime.timedelta(seconds=90)),
}


@pytest.mark.parametrize("name", sorted(KNOWN))
@pytest.mark.parametrize("frame", [dict, pd.DataFrame])
def test_other_values_keep_their_meaning(tmp_path, name, frame):
    given_value, wanted = KNOWN[name]
    column = np.empty(2, dtype=object)
    column[0] = column[1] = given_value
    values, _ = stored(tmp_path, frame({"uri": ["/0", "/1"], "c": column}))
    assert values == [wanted, wanted]


@pytest.mark.parametrize(
    "value", [{1, 2}, 1j, np.complex64(1), Fraction(1, 3), object(), range, enum.Enum("E", "A")["A"]]
)
@pytest.mark.parametrize("frame", [dict, pd.DataFrame])
@pytest.mark.parametrize("nested", [False, True])
def test_what_a_table_cannot_hold_is_refused(tmp_path, value, frame, nested):
    """The column and the type are named, and nothing is stored."""
    column = np.empty(2, dtype=object)
    column[0] = column[1] = [value] if nested else value
    store = es.create(tmp_path / "s")
    with pytest.raises(BadManifest, match=f"column 'c' has a value of the type {type(value).__name__}"):
        store.add_vectors(np.eye(2, 8, dtype=np.float32), frame({"uri": ["/0", "/1"], "c": column}))
    assert store.info().items == 0


@pytest.mark.parametrize("column", ["ab", b"ab", {1: 2, 3: 4}, 5, None])
def test_one_value_is_no_column(tmp_path, column):
    """A text is not taken apart into letters, nor a dict into its keys."""
    store = es.create(tmp_path / "s")
    with pytest.raises(BadManifest, match="give one value per row"):
        store.add_vectors(np.eye(2, 8, dtype=np.float32), {"uri": ["/0", "/1"], "c": column})


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_parameter_of_a_query_may_come_from_any_library(tmp_path, name):
    """As in a table, and what a table cannot hold is refused."""
    given_value, wanted = KNOWN[name]
    store = es.create(tmp_path / "s")
    assert store.sql("SELECT ?", [given_value]).rows == ((wanted,),)
    with pytest.raises(QueryError, match="the parameters have a value of the type set"):
        store.sql("SELECT ?", [{1}])


@pytest.mark.parametrize("parameters", ["ab", {"a": 1}])
def test_parameters_are_a_list(tmp_path, parameters):
    with pytest.raises(QueryError, match="a list of one value for each"):
        es.create(tmp_path / "s").sql("SELECT ?, ?", parameters)
