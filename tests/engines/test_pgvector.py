"""A copy in a real PostgreSQL gives the store's own answers, and says what is wrong with it in one line."""

import itertools
import os
import re
import subprocess
import sys

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore.errors import BadOption, QueryError, ReplicaError, UnknownColumn
from embedstore.replicas import candidates, pgvector
from tests.conftest import ROOT
from tests.helpers.clusters import store_of

pytestmark = pytest.mark.engines
NUMBERS = itertools.count()


def vectors(n, dim=8, seed=0):
    """Random rows: float32 ``(n, dim)``."""
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def columns(n):
    """Columns with NULLs, equal values and text with quotes."""
    rng = np.random.default_rng(1)
    return {
        "label": [None if v == 0 else f"it's {v}" for v in rng.integers(0, 4, n)],
        "year": [None if v == 0 else 2000 + int(v) for v in rng.integers(0, 9, n)],
        "ok": [None if v == 0 else bool(v == 1) for v in rng.integers(0, 3, n)],
        "score": [None if v < 0.1 else float(v) for v in rng.random(n)],
    }


def items(hits):
    return [(h.item, round(h.score, 9)) for h in hits]


@pytest.fixture
def address(postgres):
    """A fresh database."""
    return postgres(f"d{next(NUMBERS)}")


@pytest.fixture(scope="module")
def copied(postgres, tmp_path_factory):
    """A store of 600 rows, and a copy of it in two servers."""
    path = tmp_path_factory.mktemp("copied") / "s"
    store = store_of(path, vectors(600), **columns(600))
    two = [postgres(f"two{next(NUMBERS)}"), postgres(f"two{next(NUMBERS)}")]
    report = store.replicate(two, columns=["label", "year", "ok", "score"])
    assert (report.rows, report.written, report.deleted) == (600, 600, 0)
    return store


COMPARISONS = [
    "label = 'it''s 1'",
    "label <> 'it''s 2'",
    "label IS NULL",
    "label LIKE 'it%3'",
    "year > 2003",
    "year <> 2004",
    "year IN (2001, 2002, NULL)",
    "year BETWEEN 2002 AND 2005",
    "score < 0.5",
    "ok",
    "NOT ok",
    "ok IS NOT TRUE",
    "false",
    "true",
]
FILTERS = st.recursive(
    st.sampled_from(COMPARISONS),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        | inner.map(lambda f: f"(NOT {f})")
    ),
    max_leaves=4,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILTERS, st.integers(1, 40), st.integers(0, 30), st.integers(0, 5), st.booleans())
def test_any_filter_gives_the_hits_of_the_store(copied, where, k, offset, seed, many):
    """NULL, <> and NOT mean the same; if k items match, k come back, exactly or by the index."""
    query = vectors(1, seed=100 + seed)[0]
    before = candidates.FEW_ITEMS, pgvector.LIST_ITEMS
    try:
        if many:  # every path of a large copy: the index, and a temporary table where it falls short
            candidates.FEW_ITEMS, pgvector.LIST_ITEMS = 20, 20
        found = copied.search(query, k=k, offset=offset, where=where, replica="embedstore")
    finally:
        candidates.FEW_ITEMS, pgvector.LIST_ITEMS = before
    wanted = copied.search(query, k=k, offset=offset, where=where, exact=True)
    assert len(found) == len(wanted)
    if not many:
        assert items(found) == items(wanted)
    if len(wanted):
        recall = len({h.item for h in found} & {h.item for h in wanted}) / len(wanted)
        assert recall >= 0.6, recall


def test_additions_edits_and_deletions_arrive(address, tmp_path):
    """A second run writes what changed; until then newer rows are searched in the store and deleted ones are masked."""
    X = vectors(200)
    store = store_of(tmp_path / "s", X[:150], **{k: v[:150] for k, v in columns(200).items()})
    store.replicate([address], columns=["label"])
    table = {"uri": [f"/{n}" for n in range(150, 200)], "label": ["new"] * 50}
    store.add_vectors(X[150:], table, space="numbers")
    store.delete("item <= 20")
    store.edit({"label": "'edited'"}, "item BETWEEN 30 AND 39")
    query = X[170]
    before = store.search(query, k=30, replica="embedstore")
    assert items(before) == items(store.search(query, k=30, exact=True))
    assert any("lacks 50 of the matching items" in note for note in before.notes)
    (state,) = store.info().replicas
    assert (state["rows"], state["behind"] > 0) == (150, True)
    report = store.replicate()
    assert (report.rows, report.written, report.deleted) == (180, 60, 20)
    assert store.replicate().written == 0
    assert store.search(query, k=30, replica="embedstore").notes == ()
    with psycopg.connect(address) as con:
        edited = con.execute("SELECT count(*) FROM embedstore WHERE label = 'edited'").fetchone()
    assert edited == (10,)
    assert store.replicate(check=True).problems == []


def test_an_edited_image_is_searched_by_its_new_vector(address, tmp_path):
    """An item with another content than its copy counts as newer."""
    X = vectors(40)
    store = store_of(tmp_path / "s", X)
    store.replicate([address])
    with store._session.storage.writer("test") as writer, writer.transaction() as con:
        con.execute("UPDATE items SET content = (SELECT content FROM items WHERE item = 2) WHERE item = 1")
    hits = store.search(X[1], k=2, replica="embedstore")
    assert [h.item for h in hits] == [1, 2]
    assert store.replicate().written == 1
    assert store.replicate(check=True).problems == []


def test_a_check_names_what_differs(address, tmp_path):
    """A row that is gone and a vector that was changed on the server are found, and a run corrects the row."""
    store = store_of(tmp_path / "s", vectors(50))
    store.replicate([address])
    with psycopg.connect(address, autocommit=True) as con:
        con.execute("DELETE FROM embedstore WHERE item = 7")
        con.execute("UPDATE embedstore SET embedding = '[1,0,0,0,0,0,0,0]' WHERE item = 9")
    problems = store.replicate(check=True).problems
    assert any("49 rows, the store 50" in p for p in problems)
    assert any("missing, such as 7" in p for p in problems)
    assert any("differ, such as item 9" in p for p in problems)
    assert store.replicate().written == 1


KILLED = """
import sys, os, signal
import embedstore as es
from embedstore.replicas import pgvector
from embedstore.storage.queries import replicas
replicas.CHUNK_ROWS = 16
real, calls = pgvector.PgvectorReplica.put, []
def put(self, *rows):
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    calls.append(1)
    real(self, *rows)
pgvector.PgvectorReplica.put = put
es.open(sys.argv[1]).replicate([sys.argv[2]])
"""


def test_a_killed_run_goes_on_where_it_was(address, tmp_path):
    """What was written before the kill is not written again, and the copy is whole afterwards."""
    store = store_of(tmp_path / "s", vectors(100))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "s"), address],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    with pytest.raises(ReplicaError, match="there is no replica embedstore"):
        store.search(1, replica="embedstore")
    report = store.replicate([address])
    assert (report.rows, report.written) == (100, 52)
    assert store.replicate(check=True).problems == []


def test_what_a_user_can_get_wrong_is_one_clear_line(address, postgres, tmp_path):
    """Wrong address, no such database, another store, another dimension, a table of somebody else, a missing copy."""
    store = store_of(tmp_path / "s", vectors(20), label=["a"] * 20)
    with pytest.raises(
        ReplicaError, match=r"cannot connect to postgresql://me@127.0.0.1:1/x: .*refused.*check the server"
    ):
        store.replicate(["postgresql://me:secret@127.0.0.1:1/x"])
    with pytest.raises(ReplicaError, match="no URL of PostgreSQL") as caught:
        store.replicate(["postgresql://me:sec%ret@h/x"])
    assert "sec" not in str(caught.value).split("postgresql://USER")[0]
    with pytest.raises(ReplicaError, match="does not exist"):
        store.replicate([re.sub(r"/d\d+\?", "/nowhere?", address)])
    with pytest.raises(ReplicaError, match="there is no replica other of this space"):
        store.search(1, replica="other")
    with pytest.raises(BadOption, match="name the address"):
        store.replicate()
    with pytest.raises(BadOption, match="cannot be the name of a replica"):
        store.replicate([address], name="a; DROP TABLE x")
    with pytest.raises(UnknownColumn, match="lable"):
        store.replicate([address], columns=["lable"])
    store.replicate([address], columns=["label"])
    with pytest.raises(QueryError, match="a replica answers with the k nearest"):
        store.search(1, replica="embedstore", group_by="label")
    with pytest.raises(ReplicaError, match=r"has the columns \['label'\], not \[\]"):
        store.replicate([address], columns=[])
    other = store_of(tmp_path / "t", vectors(20))
    with pytest.raises(ReplicaError, match="belongs to another store; choose another --name"):
        other.replicate([address])
    store.add_vectors(vectors(20, dim=5), {"uri": [f"/{n}" for n in range(20)]}, space="five")
    with pytest.raises(ReplicaError, match=r"another space, of dimension 8 \(this one has 5\)"):
        store.replicate([address], space="five")
    with psycopg.connect(address, autocommit=True) as con:
        con.execute("CREATE TABLE mine (x int)")
        with pytest.raises(ReplicaError, match="is not one that embedstore made"):
            store.replicate([address], name="mine")
        con.execute("DROP TABLE embedstore; DELETE FROM embedstore_replicas")
    with pytest.raises(ReplicaError, match="has no table embedstore any more"):
        store.search(1, replica="embedstore")


def test_a_restored_backup_does_not_answer_for_the_original(address, tmp_path):
    """A copy that another copy of the store rewrote is refused, until it is replicated again."""
    store = store_of(tmp_path / "s", vectors(20))
    store.replicate([address])
    store.backup(tmp_path / "b")
    twin = es.open(tmp_path / "b")
    twin.delete("item > 5")
    twin.replicate([address])
    with pytest.raises(ReplicaError, match="written from another copy of the store"):
        store.search(1, replica="embedstore")
    assert store.replicate().written == 15
    assert len(store.search(1, k=20, replica="embedstore")) == 20


def test_no_file_of_the_store_has_the_password(postgres, tmp_path):
    """The password of an address is used in that run and nowhere stored."""
    address = postgres(f"p{next(NUMBERS)}").replace("postgres:@", "postgres:hunter2secret@")
    store = store_of(tmp_path / "s", vectors(20))
    report = store.replicate([address])
    assert "hunter2" not in report.summary() + str(report.to_json())
    assert not [p for p in (tmp_path / "s").rglob("*") if p.is_file() and b"hunter2" in p.read_bytes()]
