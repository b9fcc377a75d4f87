"""The service searches by a copy in a vector database as the store does."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from embedstore.errors import BadOption, ReplicaError
from embedstore.replicas import candidates
from tests.conftest import ROOT
from tests.helpers.clusters import store_of
from tests.helpers.replica_rows import columns, vectors
from tests.server.conftest import running

pytestmark = pytest.mark.engines


def test_a_server_searches_by_a_replica_that_a_request_names(tmp_path, address):
    """The hits are those of the store itself, filtered too; a replica that is not there is one sentence."""
    store = store_of(tmp_path / "s", vectors(60), **columns(60))
    store.replicate(address, name="copy")
    with running(store) as server, server.client() as client:

        def hits(**more):
            answer = client.post("/api/v1/search", json={"item": 3, "k": 7} | more)
            assert answer.status_code == 200, answer.text
            return [(hit["id"], hit["score"]) for hit in answer.json()["hits"]]

        for where in ({}, {"where": "year >= 2003"}):
            assert hits(replica="copy", **where) == hits(**where)
        refused = client.post("/api/v1/search", json={"item": 3, "replica": "none"})
        assert (refused.status_code, refused.json()["kind"]) == (400, "ReplicaError")


def test_a_server_that_was_started_with_a_replica_searches_by_it(tmp_path, address):
    """Every search goes by it, unless its options need the store or a request says otherwise; its lag is counted."""
    store = store_of(tmp_path / "s", vectors(60), **columns(60))
    store.replicate(address, name="copy")
    with running(store, replica="copy") as server, server.client() as client:

        def search(**more):
            answer = client.post("/api/v1/search", json={"item": 3, "k": 7} | more)
            assert answer.status_code == 200, answer.text
            found = answer.json()
            return found["replica"], [hit["id"] for hit in found["hits"]], found["notes"]

        assert search(replica="") == (None, [hit.item for hit in store.search(3, k=7)], [])
        assert search() == ("copy", *search(replica="")[1:])
        shown = client.get("/api/v1/store").json()["replica"]
        assert (shown["name"], shown["rows"], shown["behind"]) == ("copy", 60, 0)
        store.add_vectors(vectors(1, seed=9), {"uri": ["new"]}, space=store.spaces[0].name)
        assert client.get("/api/v1/store").json()["replica"]["behind"] > 0
        assert client.get("/api/v1/replica/lag").json() == {"name": "copy", "lacks": 1}
        used, _, (note,) = search()
        assert used == "copy"
        assert "lacks 1 of the matching items" in note
        store.replicate(name="copy")
        assert client.get("/api/v1/store").json()["replica"]["behind"] == 0
        assert client.get("/api/v1/replica/lag").json()["lacks"] == 0
        store.add_vectors(vectors(9, dim=3), {"uri": [f"uri {n}" for n in range(9)]}, space="other")
        used, hits, notes = search(space="other", item=store.sql("SELECT max(item) FROM items").rows[0][0], k=2)
        assert (used, len(hits)) == (None, 2)
        assert notes == ["replica copy is not of space other; the store itself was searched"]


@pytest.mark.parametrize("size", [5, 40, 58])
def test_a_search_inside_a_selection_goes_by_a_replica(tmp_path, address, monkeypatch, size):
    """The hits are those of the store among the selected items, whether few or many, with a filter or without."""
    monkeypatch.setattr(candidates, "FEW_ITEMS", 20)
    store = store_of(tmp_path / "s", vectors(60), **columns(60))
    store.replicate(address, name="copy", columns=["year"])
    ids = np.random.default_rng(size).permutation(np.arange(1, 61))[:size].tolist()
    with running(store) as server, server.client() as client:
        handle = client.post("/api/v1/selections", json={"ids": ids}).json()["handle"]
        for k, where in itertools.product((1, 4, 20), (None, "year >= 2003")):
            query = {"item": 7, "k": k, "where": where, "selection": handle}
            by_store, by_copy = (
                client.post("/api/v1/search", json=query | {"replica": name}).json()["hits"] for name in ("", "copy")
            )
            assert by_copy == by_store
            assert {hit["id"] for hit in by_copy} <= set(ids)


def test_a_server_is_not_started_with_a_replica_that_is_not_there(tmp_path, database):
    """The name is checked before anything listens, in Python and on the command line."""
    store = store_of(tmp_path / "s", vectors(10))
    store.replicate(database, name="copy")
    with pytest.raises(ReplicaError, match=r"there is no replica none of this space \(copy is known here\)"):
        store.serve(port=0, open_browser=False, replica="none", announce=pytest.fail)
    with pytest.raises(BadOption, match="cannot be the name of a replica"):
        store.serve(port=0, open_browser=False, replica="No Name", announce=pytest.fail)
    command = [sys.executable, "-m", "embedstore", "serve", str(tmp_path / "s"), "--no-open", "--replica", "none"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "no replica none" in done.stderr
