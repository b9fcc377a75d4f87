"""A child of a process that used a store neither hangs nor harms, however it was forked and however it ends."""

import multiprocessing
import os
import subprocess
import sys
import textwrap

import pytest

from embedstore.storage import lock
from embedstore.storage.storage import Storage
from tests.helpers.vector_stores import expected, make, rows

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

USE = """
import faiss, gc, os, sys, threading, time
import embedstore as es
store = es.open(sys.argv[1])
wanted = [h.item for h in store.search(3, k=5)]
def answer():
    return [h.item for h in store.search(3, k=5)] == wanted and store.sql("SELECT count(*) FROM items").rows == ((16,),)
"""


@pytest.fixture
def store(tmp_path):
    """Create a store with a flat index."""
    from embedstore.search.index import build

    storage = make(tmp_path / "s", 8, 8)
    build.build_index(storage, storage.space(), build.IndexTarget(recall=1.0, kind="flat"))
    return tmp_path / "s"


def run(code: str, *arguments: object, timeout: float = 120.0) -> str:
    """Run code in a new process and return its output; a hang fails the test."""
    command = [sys.executable, "-c", USE + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout).stdout


@pytest.mark.parametrize("end", ["os._exit(0 if ok else 3)", "sys.exit(0 if ok else 3)"])
def test_children_of_a_server_answer_and_end(store, end):
    """Four children that are forked after a search all search, collect garbage and end, and so does the parent."""
    code = f"""
    pids = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            ok = answer()
            gc.collect()
            {end}
        pids.append(pid)
    print([os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in pids], answer())
    """
    assert run(code, store) == "[0, 0, 0, 0] True\n"


def test_child_that_drops_the_store_ends(store):
    """A child that never uses the store, deletes it and collects garbage ends."""
    code = """
    pid = os.fork()
    if pid == 0:
        del store
        gc.collect()
        sys.exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    assert run(code, store) == "0\n"


def test_child_can_write_after_its_parent_wrote(store):
    """Parent and children write in turns, and every write is there."""
    code = """
    for n in range(4):
        pid = os.fork()
        if pid == 0:
            store.edit({"label": f"'child {n}'"}, items=[n + 1], wait=60)
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        store.edit({"label": f"'parent {n}'"}, items=[n + 5], wait=60)
    print(store.sql("SELECT label FROM items WHERE item <= 8 ORDER BY item").rows)
    """
    labels = [(f"child {n}",) for n in range(4)] + [(f"parent {n}",) for n in range(4)]
    assert run(code, store) == f"{tuple(labels)}\n"
    assert rows(Storage.open(store)) == expected(16)


def test_child_does_not_keep_the_lock_of_a_parent_that_ended(tmp_path):
    """A writer that was killed while a child of it lives on does not lock the store."""
    make(tmp_path / "s", 3)
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        with lock.writer_lock(tmp_path / "s" / "LOCK", "killed"):
            if os.fork() == 0:
                os.read(reader, 1)  # lives on
                os._exit(0)
            os.kill(os.getpid(), 9)
    os.waitpid(parent, 0)
    try:
        with lock.writer_lock(tmp_path / "s" / "LOCK", "next") as held:
            assert held.after_crash
    finally:
        os.write(writer, b"x")
        os.close(writer)
        os.close(reader)


def _search(path: str) -> list[int]:
    import embedstore as es

    return [h.item for h in es.open(path).search(3, k=5)]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_processes_of_multiprocessing_search(store, method):
    """A pool of two processes searches after its parent did, with every way of starting processes."""
    wanted = _search(str(store))
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(_search, [str(store)] * 4).get(timeout=120) == [wanted] * 4
