"""A column that says nothing of its type takes that of later values; values of another type replace none."""

import datetime
import uuid
from decimal import Decimal

import numpy as np
import pytest

import embedstore as es
from embedstore.errors import BadManifest

NOTHING = {"no value": None, "not a number": float("nan"), "an empty list": []}
VALUES = {
    "BOOLEAN": True,
    "BIGINT": 7,
    "UBIGINT": 2**63,
    "DOUBLE": 1.5,
    "DECIMAL(3,2)": Decimal("1.10"),
    "VARCHAR": "x",
    "DATE": datetime.date(2020, 1, 31),
    "TIME": datetime.time(3, 4),
    "TIMESTAMP": datetime.datetime(2020, 1, 31, 3),
    "INTERVAL": datetime.timedelta(hours=30),
    "UUID": uuid.UUID(int=5),
    "BLOB": b"\x00\xff",
    "VARCHAR[]": ["a", "b"],
    "INTEGER[]": [1, 2],
    "STRUCT(a INTEGER)": {"a": 1},
}


def add(store, first, value):
    """Add two rows that have one value."""
    table = {"uri": [f"/{first}", f"/{first + 1}"], "c": [value, value]}
    return store.add_vectors(np.eye(4, 8, dtype=np.float32)[first : first + 2], table)


@pytest.mark.parametrize("nothing", sorted(NOTHING))
@pytest.mark.parametrize("kind", sorted(VALUES))
def test_a_column_without_values_takes_any_type(tmp_path, nothing, kind):
    """What said nothing still says nothing: NULL, or an empty list where the type is a list."""
    store = es.create(tmp_path / "s")
    add(store, 0, NOTHING[nothing])
    add(store, 2, VALUES[kind])
    before, _, after, _ = store.sql("SELECT c, typeof(c) FROM items ORDER BY uri").rows
    assert after == (VALUES[kind], kind)
    assert before[0] == ([] if NOTHING[nothing] == [] and kind.endswith("[]") else None)
    assert store.verify().ok


@pytest.mark.parametrize("kind", sorted(set(VALUES) - {"VARCHAR"}))
def test_an_edit_gives_a_column_without_values_its_type(tmp_path, kind):
    """The table of an edit decides likewise."""
    store = es.create(tmp_path / "s")
    add(store, 0, [])
    store.edit_from_table({"uri": ["/0"], "c": [VALUES[kind]]})
    assert store.sql("SELECT c, typeof(c) FROM items ORDER BY uri LIMIT 1").rows == ((VALUES[kind], kind),)


NUMBERS = {"BIGINT": 1, "DOUBLE": 1.0, "DECIMAL(3,2)": Decimal("1.00"), "BIGINT[]": [1]}


@pytest.mark.parametrize("number", sorted(NUMBERS))
@pytest.mark.parametrize("truth_first", [True, False])
def test_true_is_not_the_number_one(tmp_path, number, truth_first):
    """Neither replaces the other: the row is named, and the stored value stays."""
    first, second = (True, NUMBERS[number]) if truth_first else (NUMBERS[number], True)
    store = es.create(tmp_path / "s")
    add(store, 0, first)
    with pytest.raises(BadManifest, match=r"row 1 has .* in the column 'c', which does not fit"):
        add(store, 2, second)
    assert store.sql("SELECT DISTINCT c FROM items").rows == ((first,),)
