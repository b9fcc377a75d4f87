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


def test_child_answers_while_other_threads_of_its_parent_query(store):
    """Children that are forked amid the queries and imports of three threads search, collect garbage and end."""
    code = """
    stop = threading.Event()
    def query(own):
        while not stop.is_set():
            own.search(3, k=5)
            own.sql("SELECT count(*) FROM items")
    threads = [threading.Thread(target=query, args=(s,)) for s in (store, store, es.open(sys.argv[1]))]
    for thread in threads:
        thread.start()
    ends = []
    for n in range(12):
        time.sleep(0.003 * n)
        pid = os.fork()
        if pid == 0:
            ok = answer()
            gc.collect()
            os._exit(0 if ok else 3)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    stop.set()
    for thread in threads:
        thread.join()
    print(ends)
    """
    assert run(code, store) == f"{[0] * 12}\n"


def test_fork_waits_for_the_import_of_another_thread(store, tmp_path):
    """A child imports a module that another thread of its parent was importing during the fork."""
    (tmp_path / "slow_module.py").write_text("import time\ntime.sleep(1)\nvalue = 7\n")
    code = """
    sys.path.insert(0, sys.argv[2])
    threading.Thread(target=__import__, args=("slow_module",)).start()
    time.sleep(0.3)
    pid = os.fork()
    if pid == 0:
        import slow_module
        os._exit(slow_module.value)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    assert run(code, store, tmp_path) == "7\n"


@pytest.mark.parametrize("holder", ["another thread", "the forking thread"])
def test_child_of_a_long_read_reads_and_is_refused_a_change_in_one_clear_line(store, holder):
    """The catalog stays attached in the child: reading works, a change is refused at once with the cause and a cure."""
    code = """
    from embedstore.storage.storage import Storage
    reading, stop = threading.Event(), threading.Event()
    def read():
        with Storage.open(sys.argv[1]).catalog.read():
            reading.set()
            stop.wait(60)
    def child():
        begin = time.monotonic()
        ok = answer()
        try:
            store.edit({"label": "'x'"}, items=[1])
        except es.StoreBusy as e:
            print(ok, "was in use while this process was forked" in str(e), "spawn" in str(e), flush=True)
        os._exit(0 if time.monotonic() - begin < 30 else 3)
    if sys.argv[2] == "another thread":
        threading.Thread(target=read).start()
        reading.wait()
        pid = os.fork() or child()
        stop.set()
    else:
        with Storage.open(sys.argv[1]).catalog.read():
            pid = os.fork() or child()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), answer())
    """
    assert run(code, store, holder) == "True True True\n0 True\n"
