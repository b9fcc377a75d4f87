"""A copy in a vector database gives the store's own answers, and says what is wrong with it in one line.

PostgreSQL with pgvector is a real server. Qdrant is the local mode of its client, or the server at
$EMBEDSTORE_QDRANT_URL.
"""

import json
import os
import re
import subprocess
import sys

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore.errors import BadOption, QueryError, ReplicaError, UnknownColumn
from embedstore.replicas import candidates, pgvector
from embedstore.replicas.replica import ReplicaTable
from embedstore.replicas.servers import can_say
from embedstore.replicas.state import read_state
from embedstore.replicas.write import connect
from embedstore.storage.layout import read_marker
from embedstore.storage.portable_filter import AllOf, Comparison, Operator, portable_filter
from embedstore.storage.queries import replicas as queries
from tests.conftest import ROOT
from tests.helpers.clusters import store_of
from tests.helpers.replica_rows import columns, vectors

pytestmark = pytest.mark.engines


def items(hits):
    return [(h.item, round(h.score, 9)) for h in hits]


@pytest.fixture(scope="module")
def copied(new_address, tmp_path_factory):
    """A store of 600 rows, and a copy of it in two servers."""
    path = tmp_path_factory.mktemp("copied") / "s"
    store = store_of(path, vectors(600), **columns(600))
    two = [new_address(), new_address()]
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
    "ok = false",
    "ok <> true",
    "label >= 'b'",
    "label < 'it''s 2'",
    "label = 'ab'",
    "label IN ('it''s 1', 'z%', NULL)",
    "label NOT IN ('ab', NULL)",
    "label NOT IN ('ab', 'Ä')",
    "2003 <= year",
    "year NOT BETWEEN 2002 AND 2005",
    "year IS NOT NULL",
    "year = NULL",
    "year > 2003.5",
    "score = 0.5",
    "score <> 0.5",
    "score >= 0.25",
    "items.score > -1",
    "length(label) = 2",
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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILTERS)
def test_what_a_server_says_of_a_filter_holds_for_every_match(copied, where):
    """Asked with the condition alone, a server returns every matching row, and no other one if it can say all of it.

    Rows with values that are not the same everywhere are the store's to judge, and are left out here.
    """
    storage, space = copied._session.storage, copied._session.storage.space()
    state, files = read_state(storage.layout, space.key, "embedstore")
    table = ReplicaTable("embedstore", read_marker(storage.layout)["id"], space.key, 8, state.columns, state.writer)
    with storage.catalog.read() as con:
        said = portable_filter(con, where, state.columns, can_say(state.kind))
        if said is None:
            return
        pushed = queries.PushedColumns(state.columns, said.columns)
        held, strange = queries.split_by_copy(con, space.key, where, files.held, pushed)
        everywhere, _ = queries.split_by_copy(con, space.key, None, files.held, pushed)
    found = set()
    for server in connect(state, table):
        if state.kind == "pgvector":  # which may miss rows with its index, and is asked about its filter here
            server._con.execute("SET enable_indexscan = off")
        found |= {item for _, item in server.nearest(vectors(1)[0], 1000, said.condition)}
        server.close()
    found &= set(everywhere.tolist())
    assert set(held.tolist()) <= found
    if said.is_whole:
        assert found == set(held.tolist())
    assert len(strange) + len(held) == len(copied.search(vectors(1)[0], k=1000, where=where, exact=True))


def test_most_comparisons_are_said_by_the_servers(copied):
    """The test before this one would hold if nothing was ever said."""
    storage = copied._session.storage
    state, _ = read_state(storage.layout, storage.space().key, "embedstore")
    with storage.catalog.read() as con:
        said = {where: portable_filter(con, where, state.columns, can_say(state.kind)) for where in COMPARISONS}
        whole = portable_filter(con, "NOT (year = 2001 OR (label LIKE 'x' AND ok))", state.columns)
    unsaid = {where for where, found in said.items() if found is None}
    texts = {"label >= 'b'", "label < 'it''s 2'"} if state.kind == "qdrant" else set()
    assert unsaid == texts | {
        "label LIKE 'it%3'", "ok IS NOT TRUE", "year > 2003.5", "length(label) = 2", "false", "true",
    }  # fmt: skip
    assert all(found.is_whole for found in said.values() if found)
    assert whole.condition == AllOf((Comparison("year", Operator.NOT_EQUAL, (2001,)),))
    assert not whole.is_whole


def test_an_edited_row_is_not_judged_by_its_old_columns(address, tmp_path, monkeypatch):
    """What was edited since the last run is found by its new value, and not by the one that the copy has."""
    monkeypatch.setattr(candidates, "FEW_ITEMS", 5)
    X = vectors(60)
    store = store_of(tmp_path / "s", X, label=["a"] * 30 + ["b"] * 30)
    store.replicate([address], columns=["label"])
    store.edit({"label": "'b'"}, "item <= 10")
    for where in ("label = 'b'", "label = 'a'", "label <> 'b'"):
        for query in (X[3], X[20], X[50]):
            hits = store.search(query, k=25, where=where, replica="embedstore")
            assert items(hits) == items(store.search(query, k=25, where=where, exact=True))


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
    assert (state.rows, state.behind > 0) == (150, True)
    report = store.replicate()
    assert (report.rows, report.written, report.deleted) == (180, 60, 20)
    assert store.replicate().written == 0
    assert store.search(query, k=30, replica="embedstore").notes == ()
    assert store.replicate(check=True).problems == []


def test_columns_go_with_the_vectors(database, tmp_path):
    """Other readers of the database see the columns that were named, and their edits."""
    store = store_of(tmp_path / "s", vectors(40), **columns(40))
    store.replicate([database], columns=["label", "year", "ok", "score"])
    store.edit({"label": "'edited'"}, "item BETWEEN 30 AND 39")
    store.replicate()
    with psycopg.connect(database) as con:
        found = con.execute("SELECT item, label, year, ok, score FROM embedstore ORDER BY item").fetchall()
    wanted = store.sql("SELECT item, label, year, ok, score FROM items ORDER BY item").rows
    without_zero = [tuple(v.replace("\x00", "") if isinstance(v, str) else v for v in row) for row in wanted]
    assert repr(found) == repr(without_zero), "PostgreSQL has no text with a zero character"
    assert [row[1] for row in found].count("edited") == 10


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


def test_a_check_names_what_differs(database, tmp_path):
    """A row that is gone and a vector that was changed on the server are found, and a run corrects the row."""
    store = store_of(tmp_path / "s", vectors(50))
    store.replicate([database])
    with psycopg.connect(database, autocommit=True) as con:
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


def test_a_killed_run_goes_on_where_it_was(database, tmp_path):
    """What was written before the kill is not written again, and the copy is whole afterwards."""
    store = store_of(tmp_path / "s", vectors(100))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "s"), database],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    with pytest.raises(ReplicaError, match="there is no replica embedstore"):
        store.search(1, replica="embedstore")
    report = store.replicate([database])
    assert (report.rows, report.written) == (100, 52)
    assert store.replicate(check=True).problems == []


def test_what_a_user_can_get_wrong_is_one_clear_line(database, tmp_path):
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
        store.replicate([re.sub(r"/d\d+\?", "/nowhere?", database)])
    for wrong in ("mysql://h/x", "h:5432", ""):
        with pytest.raises(ReplicaError, match="names no vector database"):
            store.replicate([wrong])
    with pytest.raises(ReplicaError, match="none of Qdrant"):
        store.replicate(["qdrant://:6333"])
    with pytest.raises(ReplicaError, match=r"cannot connect to qdrant://127.0.0.1:1: .*check the server"):
        store.replicate(["qdrant://127.0.0.1:1"])
    with pytest.raises(ReplicaError, match="there is no replica other of this space"):
        store.search(1, replica="other")
    with pytest.raises(BadOption, match="name the address"):
        store.replicate()
    with pytest.raises(BadOption, match="cannot be the name of a replica"):
        store.replicate([database], name="a; DROP TABLE x")
    with pytest.raises(UnknownColumn, match="lable"):
        store.replicate([database], columns=["lable"])
    store.replicate([database], columns=["label"])
    with pytest.raises(QueryError, match="a replica answers with the k nearest"):
        store.search(1, replica="embedstore", group_by="label")
    with pytest.raises(ReplicaError, match=r"has the columns \['label'\], not \[\]"):
        store.replicate([database], columns=[])
    other = store_of(tmp_path / "t", vectors(20))
    with pytest.raises(ReplicaError, match="belongs to another store; choose another --name"):
        other.replicate([database])
    store.add_vectors(vectors(20, dim=5), {"uri": [f"/{n}" for n in range(20)]}, space="five")
    with pytest.raises(ReplicaError, match=r"another space, of dimension 8 \(this one has 5\)"):
        store.replicate([database], space="five")
    with psycopg.connect(database, autocommit=True) as con:
        con.execute("CREATE TABLE mine (x int)")
        with pytest.raises(ReplicaError, match="is not one that embedstore made"):
            store.replicate([database], name="mine")
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


def test_no_file_of_the_store_has_the_password(database, tmp_path):
    """The password of an address is used in that run and nowhere stored."""
    address = database.replace("postgres:@", "postgres:hunter2secret@")
    store = store_of(tmp_path / "s", vectors(20))
    report = store.replicate([address])
    assert "hunter2" not in report.summary() + str(report.to_json())
    assert not [p for p in (tmp_path / "s").rglob("*") if p.is_file() and b"hunter2" in p.read_bytes()]


def test_another_store_or_dimension_is_refused(address, tmp_path):
    """In every database: a table of another store or space is not written to."""
    store = store_of(tmp_path / "s", vectors(20), label=["a"] * 20)
    store.replicate([address], name="mine", columns=["label"])
    with pytest.raises(ReplicaError, match=r"has the columns \['label'\], not \[\]"):
        store.replicate([address], name="mine", columns=[])
    other = store_of(tmp_path / "t", vectors(20))
    with pytest.raises(ReplicaError, match="belongs to another store; choose another --name"):
        other.replicate([address], name="mine")
    store.add_vectors(vectors(20, dim=5), {"uri": [f"/{n}" for n in range(20)]}, space="five")
    with pytest.raises(ReplicaError, match=r"another space, of dimension 8 \(this one has 5\)"):
        store.replicate([address], name="mine", space="five")


def test_a_description_of_a_stranger_names_no_other_settings(database, tmp_path):
    """Settings of the connection that embedstore does not write are not used: a file of passwords, or its own rules."""
    store = store_of(tmp_path / "s", vectors(20))
    store.replicate([database])
    (path,) = (tmp_path / "s").rglob("replicas/*.json")
    state = json.loads(path.read_text())
    state["servers"][0] |= {"passfile": str(tmp_path / "x"), "require_auth": "password", "options": "-c work_mem=1"}
    path.write_text(json.dumps(state))
    assert len(store.search(1, replica="embedstore")) == 10
    for name, value in (("servers", []), ("servers", [1]), ("rows", "x"), ("format", 9), ("columns", {"a": 1})):
        path.write_text(json.dumps(state | {name: value}))
        with pytest.raises(ReplicaError, match="cannot be used"):
            store.search(1, replica="embedstore")


def test_a_purge_reaches_the_copy_with_the_next_run(address, tmp_path):
    """No file of the store names a purged content; the copy says that it is behind, and then holds it no more."""
    store = store_of(tmp_path / "s", vectors(20))
    store.replicate([address])
    (content,) = (c for (c,) in store.sql("SELECT content::VARCHAR FROM items WHERE item = 3").rows)
    store.purge("item = 3")
    store.compact()
    digest = bytes.fromhex(content.replace("-", ""))
    folder = next((tmp_path / "s" / "spaces").glob("*/replicas"))
    assert not [p for p in folder.iterdir() if digest in p.read_bytes() or p.suffix == ".parquet"]
    assert any("still holds what was purged" in notice for notice in store.notices)
    with pytest.raises(ReplicaError, match="not known since a purge; run `embedstore replicate STORE --name e"):
        store.search(1, replica="embedstore")
    assert store.replicate().deleted == 1
    assert len(store.search(1, k=50, replica="embedstore")) == 19
