"""Values that people set: conflicts are told, changes can be undone, and nothing acknowledged is lost."""

import os
import shutil
import signal
import subprocess
import sys
import threading

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore.errors import EditConflict, ItemNotFound
from embedstore.operations import change_values
from embedstore.operations.change_values import Expectation, NewValue
from tests.helpers import vector_stores
from tests.server.conftest import ROOT, running


@pytest.fixture
def own_server(color_store, tmp_path):
    """A server of a copy of the store of colors, which the test may change."""
    shutil.copytree(color_store, tmp_path / "own.store")
    with running(es.open(tmp_path / "own.store")) as found:
        yield found


def label(client, ids, value, *, who="ann", **more) -> httpx.Response:
    body = {"ids": ids, "column": "label", "value": value, "who": who} | more
    return client.post("/api/v1/labels", json=body)


def labels(server) -> dict[int, str | None]:
    return dict(server.store.sql("select item, label from items order by item").rows)


def test_a_label_is_set_undone_and_set_again(own_server):
    """The history says who changed what; undo and redo restore exactly what was there."""
    before = labels(own_server)
    with own_server.client() as client:
        assert label(client, [1, 2, 9], "crimson", overwrite=True).json()["change"]["items"] == 3
        assert labels(own_server) == before | dict.fromkeys((1, 2, 9), "crimson")
        undone = client.post("/api/v1/undo", json={"who": "ann"})
        assert (undone.status_code, labels(own_server)) == (200, before)
        assert client.post("/api/v1/undo", json={"who": "ann"}).status_code == 404
        assert client.post("/api/v1/redo", json={"who": "ben"}).status_code == 404
        client.post("/api/v1/redo", json={"who": "ann"})
        assert labels(own_server) == before | dict.fromkeys((1, 2, 9), "crimson")
        history = client.get("/api/v1/history").json()["changes"]
    assert [(c["operation"], c["who"], c["items"], c["undone"]) for c in history] == [
        ("redo", "ann", 3, False),
        ("undo", "ann", 3, True),
        ("label", "ann", 3, True),
    ]
    assert [c["value"] for c in history] == ["crimson"] * 3


def test_the_history_of_an_item_and_of_a_column(own_server):
    """An item's history has the changes that touched it, each with what it had afterwards."""
    with own_server.client() as client:
        label(client, [1, 2, 3], "a", overwrite=True)
        label(client, [2], "b", overwrite=True, who="ben")
        label(client, [2], 5, overwrite=True, column="stars", create_column=True)
        client.post("/api/v1/undo", json={"who": "ben"})
        label(client, [7, 8], "c", overwrite=True)

        def history(**params):
            changes = client.get("/api/v1/history", params=params).json()["changes"]
            return [(c["operation"], c["column"], c["value"], c["who"]) for c in changes]

        of_item = [
            ("undo", "label", "a", "ben"),
            ("label", "stars", "5", "ann"),
            ("label", "label", "b", "ben"),
            ("label", "label", "a", "ann"),
        ]
        assert history(item=2) == of_item
        assert history(item=2, column="stars") == of_item[1:2]
        assert history(item=2, limit=1) == of_item[:1]
        assert history(item=1) == of_item[3:]
        assert history(item=12) == []
        assert [h[0] for h in history(column="stars")] == ["label"]


def test_a_value_that_changed_since_it_was_shown_is_a_conflict(own_server):
    """The second of two browsers is told which items changed, and nothing is overwritten."""
    before = labels(own_server)
    with own_server.client() as ann, own_server.client() as ben:
        assert label(ann, [1, 2], "x", expected=[before[1], before[2]]).status_code == 200
        answer = label(ben, [2, 3], "y", expected=[before[2], before[3]], who="ben")
        assert answer.status_code == 409
        assert "items 2 have another value" in answer.json()["error"]
        assert labels(own_server) == before | {1: "x", 2: "x"}
        assert label(ben, [2, 3], "y", expected=["x", before[3]], who="ben").status_code == 200
        undo = ann.post("/api/v1/undo", json={"who": "ann"})  # ben's value is not taken away with it
        assert (undo.status_code, labels(own_server)[2]) == (409, "y")


def test_a_request_has_to_say_what_it_replaces(own_server):
    """Without expected values, a digest or overwrite nothing is changed."""
    before = labels(own_server)
    with own_server.client() as client:
        assert label(client, [1], "x").status_code == 400
        assert label(client, [1], "x", expected=["a", "b"]).status_code == 400
        assert label(client, [99], "x", overwrite=True).status_code == 404
    assert labels(own_server) == before


def test_a_selection_is_labelled_by_the_digest_of_what_it_showed(own_server):
    """The digest of a selection's values fits once; after another change it does not."""
    with own_server.client() as client:
        handle = client.post("/api/v1/selections", json={"where": "label = 'red'"}).json()["handle"]
        shown = client.get(f"/api/v1/selections/{handle}/values").json()
        assert shown["values"] == [{"value": "red", "count": 4}]
        body = {"selection": handle, "column": "label", "value": "x", "digest": shown["digest"]}
        assert client.post("/api/v1/labels", json=body).json()["change"]["items"] == 4
        assert client.post("/api/v1/labels", json=body).status_code == 409


def test_own_columns_are_created_and_typed(own_server):
    """A new column has the type of its first value; a value that does not fit is refused in words."""
    with own_server.client() as client:
        body = {"ids": [1, 2], "column": "stars", "value": 3, "create_column": True, "overwrite": True}
        assert client.post("/api/v1/labels", json=body).status_code == 200
        assert own_server.store.sql("select item, stars from items where stars is not null").rows == ((1, 3), (2, 3))
        refused = client.post("/api/v1/labels", json=body | {"value": "many"})
        assert (refused.status_code, refused.json()["kind"]) == (400, "QueryError")
        assert "does not fit 'stars'" in refused.json()["error"]
        assert client.post("/api/v1/labels", json=body | {"value": 4, "expected": [3, 3]}).status_code == 200
        for column in ("item", "uri", "embedstore_x", "a\x00b"):
            assert client.post("/api/v1/labels", json=body | {"column": column}).status_code == 400


def test_several_labels_are_added_and_removed(own_server):
    """Add and remove change one of several labels in a text and leave the others."""
    with own_server.client() as client:
        for value, operation, expected in (
            ("round", "add", "red;round"),
            ("soft", "add", "red;round;soft"),
            ("round", "add", "red;soft;round"),
            ("red", "remove", "soft;round"),
            ("soft", "remove", "round"),
            ("round", "remove", None),
        ):
            item = own_server.store.sql("select min(item) from items where uri like '%/red/%'").rows[0][0]
            label(client, [item], value, operation=operation, overwrite=True)
            assert labels(own_server)[item] == expected
        assert label(client, [1], "a;b", operation="add", overwrite=True).status_code == 400


def test_a_server_that_is_read_only_changes_nothing(color_store):
    """Every route that changes the store answers 403."""
    with running(es.open(color_store), read_only=True) as server, server.client() as client:
        assert label(client, [1], "x", overwrite=True).status_code == 403
        for route in ("undo", "redo"):
            assert client.post(f"/api/v1/{route}", json={}).status_code == 403
        assert client.get("/api/v1/store").json()["read_only"] is True


def test_another_writer_is_told(own_server):
    """While another process writes, a label waits and then says who writes; the store shows it."""
    code = "import sys, time, embedstore as es\nwith es.open(sys.argv[1])._session.storage.writer('a long run'):\n" \
           " print('writing', flush=True); time.sleep(60)"  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    path = str(own_server.store.path)
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, env=environment) as other:
        try:
            other.stdout.readline()
            with own_server.client() as client:
                writer = client.get("/api/v1/store").json()["writer"]
                assert (writer["pid"], writer["operation"]) == (other.pid, "a long run")
        finally:
            other.kill()


KILLED = """
import sys, itertools, numpy as np, embedstore as es
from embedstore.operations import change_values as c
session = es.open(sys.argv[1])._session
for n in itertools.count():
    c.set_value(session, c.NewValue("label", np.array([1, 2, 3]), f"v{n}"), c.Expectation(), "ann")
    print(n, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_was_acknowledged(color_store, tmp_path):
    """After SIGKILL the values are those of the last acknowledged change or the next, with its history."""
    shutil.copytree(color_store, tmp_path / "s")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "s")]
    for kill_after in (3, 7):
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
            lines = [process.stdout.readline() for _ in range(kill_after)]
            process.send_signal(signal.SIGKILL)
            last = int((lines + process.stdout.readlines())[-1])
        store = es.open(tmp_path / "s")
        values = {v for (v,) in store.sql("select label from items where item in (1, 2, 3)").rows}
        assert values <= {f"v{last}", f"v{last + 1}"}
        assert len(values) == 1
        newest = change_values.history(store._session, limit=1)[0]
        assert values == {newest.value}


STEP = st.one_of(
    st.tuples(
        st.just("set"),
        st.lists(st.integers(1, 6), min_size=1, max_size=4, unique=True),
        st.sampled_from(["a", "b", None]),
    ),
    st.tuples(st.sampled_from(["undo", "redo"]), st.none(), st.none()),
)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(STEP, st.sampled_from(["ann", "ben"])), max_size=8))
def test_any_changes_undos_and_redos_give_what_a_model_gives(steps):
    """Per person an undo takes back the last change if its values are still there; a redo takes back the undo."""
    from embedstore.temporary import temporary_folder

    with temporary_folder() as folder:
        vector_stores.make(folder / "s", 6)
        session = es.open(folder / "s")._session
        model = dict(session.storage.sql("select item, label from items")[1])
        done = {"ann": [], "ben": []}
        undone = {"ann": [], "ben": []}
        for (operation, items, value), who in steps:
            if operation == "set":
                change_values.set_value(session, NewValue("label", np.array(items), value), Expectation(), who)
                done[who].append({i: (model[i], value) for i in items})
                undone[who].clear()
                model |= dict.fromkeys(items, value)
                continue
            source, target = (done, undone) if operation == "undo" else (undone, done)
            act = change_values.undo if operation == "undo" else change_values.redo
            if not source[who]:
                with pytest.raises(ItemNotFound):
                    act(session, who, None)
                continue
            pairs = {i: p if operation == "undo" else p[::-1] for i, p in source[who][-1].items()}
            if any(model[i] != now for i, (_, now) in pairs.items()):
                with pytest.raises(EditConflict):
                    act(session, who, None)
                continue
            act(session, who, None)
            target[who].append(source[who].pop())
            model |= {i: old for i, (old, _) in pairs.items()}
        assert dict(session.storage.sql("select item, label from items")[1]) == model


def test_many_browsers_label_at_once(own_server):
    """Eight clients that set other items at once are all acknowledged, and every value is there."""

    def work(n):
        with own_server.client() as client:
            answers.append(label(client, [n], f"v{n}", overwrite=True).status_code)

    answers = []
    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 8
    assert {n: v for n, v in labels(own_server).items() if n <= 8} == {n: f"v{n}" for n in range(1, 9)}
