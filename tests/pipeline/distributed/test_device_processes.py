"""One process per device gives the rows of one process, also if processes are killed and files are bad."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import embedstore as es
from embedstore.errors import BadOption, EngineError, ImageError, RuntimeMismatch
from embedstore.pipeline.distributed import engine as engines
from embedstore.pipeline.distributed.cluster_run import EngineWorkers, embed_in_parts
from embedstore.pipeline.distributed.engine import EngineOptions
from embedstore.pipeline.distributed.local_workers import LocalWorkers
from embedstore.pipeline.distributed.part_workers import EndedPart
from embedstore.pipeline.run import EmbedJob, EmbedOptions
from embedstore.sources.open import open_source
from embedstore.storage.inbox.inbox import Inbox
from tests.conftest import ROOT
from tests.helpers.deadly_network import deadly_picture
from tests.pipeline.distributed.test_parts import add_trouble, comparable
from tests.pipeline.test_embed import tiny_store

pytestmark = pytest.mark.timeout(600)
NETWORK = "tests.helpers.deadly_network:make_deadly"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of three files, so that a few photos make many; the processes import the tests."""
    monkeypatch.setattr(engines, "PROCESS_PART_FILES", 3)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def deadly_store(path):
    """Return a store of a network that needs no weights and starts at once."""
    return es.create(path, NETWORK, runtime="eager", device="cpu")


def run_processes(store, source, **options):
    """Embed by two processes on the CPU."""
    return store.embed(source, engine="processes", workers=2, batch_size=2, progress=False, **options)


def ids_by_uri(store):
    """Return the id of every item."""
    return dict(store.sql("SELECT uri, item FROM items").rows)


def child_processes():
    """Return the ids of the processes that this one started to embed on a device."""
    found = []
    for folder in (path for path in Path("/proc").iterdir() if path.name.isdecimal()):
        try:
            command = (folder / "cmdline").read_bytes()
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if b"device_process" in command and int(parent) == os.getpid():
            found.append(int(folder.name))
    return found


def test_two_processes_give_the_rows_of_one(tmp_path, photos):
    """Copies, files that are no images, renamed and missing files: every row, id and vector is that of one process."""
    add_trouble(photos)
    local, store = tiny_store(tmp_path / "local"), tiny_store(tmp_path / "s")
    wanted = local.embed(photos, batch_size=2)
    report = run_processes(store, photos)
    assert (report.embedded, report.reused, report.failures_by_reason) == (12, 1, wanted.failures_by_reason)
    assert (report.device, report.runtime, report.precision) == ("cpu,cpu", wanted.runtime, "fp32")
    assert (report.decoder, report.batch_size) == (wanted.decoder, 2)
    assert "process 1 on cpu" in report.bottleneck
    assert comparable(store) == comparable(local)
    assert ids_by_uri(store) == ids_by_uri(local), "ids are in the order of the plan"
    assert store.verify().ok
    assert store.info().parts == []
    assert run_processes(store, photos).unchanged == 13
    assert child_processes() == []


def test_a_killed_process_and_a_torn_result_cost_their_parts_which_are_done_again(tmp_path, photos, monkeypatch):
    """A process is killed as soon as it has begun, and a result is cut: ids are still in the order of the plan."""
    local, store = deadly_store(tmp_path / "local"), deadly_store(tmp_path / "s")
    local.embed(photos, batch_size=2)
    killed, torn, ended = [], [], threading.Event()
    read = Inbox.read_result

    def kill_one():
        folder = Inbox(store._session.storage.layout, store.spaces[0].key).folder
        while not ended.wait(0.01) and not killed:
            if folder.exists() and list(folder.glob("*.begun")):
                for pid in child_processes()[:1]:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    def cut_once(inbox, plan, waiting):
        if waiting.part == 2 and not torn:
            torn.append(waiting.path)
            waiting.path.write_bytes(waiting.path.read_bytes()[:-3])
        return read(inbox, plan, waiting)

    monkeypatch.setattr(Inbox, "read_result", cut_once)
    thread = threading.Thread(target=kill_one)
    thread.start()
    try:
        report = run_processes(store, photos)
    finally:
        ended.set()
        thread.join()
    assert killed
    assert torn
    assert report.embedded == 12
    assert comparable(store) == comparable(local)
    assert ids_by_uri(store) == ids_by_uri(local)
    assert store.verify().ok


@pytest.mark.slow
def test_a_picture_that_kills_its_process_costs_itself(tmp_path, photos):
    """Two processes die with it, the third attempt finds it; the others are embedded."""
    deadly_picture().save(photos / "train" / "dog" / "deadly.png")
    store = deadly_store(tmp_path / "s")
    report = run_processes(store, photos)
    assert (report.embedded, report.failures_by_reason) == (12, {"crashed": 1})
    assert store.sql("SELECT right(uri, 10) FROM failures").rows == (("deadly.png",),)


def test_an_interrupt_ends_every_process_and_keeps_what_was_embedded(tmp_path, photos):
    """Ctrl-C in a terminal reaches the run and its processes: none is left, and the next run embeds the rest."""
    store = deadly_store(tmp_path / "s")
    script = (
        "import embedstore as es, sys\n"
        "from embedstore.pipeline.distributed import engine\n"
        "engine.PROCESS_PART_FILES = 1\n"
        f"store = es.open(sys.argv[1], runtime='eager', device='cpu', allow_code=[{NETWORK!r}])\n"
        "store.embed(sys.argv[2], engine='processes', workers=2, progress=False)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "s"), str(photos)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    folder = Inbox(store._session.storage.layout, store.spaces[0].key).folder
    deadline = time.monotonic() + 300
    while not list(folder.glob("*.registered")) and run.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)
    errors = run.communicate(timeout=300)[1].decode()
    assert run.returncode not in (0, None), errors
    assert "KeyboardInterrupt" in errors
    with pytest.raises(ProcessLookupError):
        os.killpg(run.pid, 0)
    before = store.info().items
    assert before > 0
    report = run_processes(store, photos)
    assert report.unchanged == before
    assert report.embedded == 12 - before
    assert store.verify().ok


def test_a_killed_run_leaves_no_process(tmp_path, photos):
    """After SIGKILL of the run, its processes end by themselves within seconds."""
    code = (
        "import sys, time; from embedstore.operations.device_process import DeviceProcess\n"
        "from embedstore.operations.part_process import PartTask\n"
        "from embedstore.operations.session import OpenOptions\n"
        "from embedstore.pipeline.run import EmbedOptions\n"
        "p = DeviceProcess.start(PartTask('', '', 1, OpenOptions(), EmbedOptions()), 1, '1', {})\n"
        "print(p.process._process.pid, flush=True); time.sleep(600)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    child = int(run.stdout.readline())
    run.kill()
    run.wait()
    deadline = time.monotonic() + 120
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_a_user_can_get_wrong_is_one_clear_line(tmp_path, photos):
    """Options of another engine, a device that is not there, and a precision that moves the vectors."""
    store = tiny_store(tmp_path / "s")
    with pytest.raises(BadOption, match="use one of local, processes, ray"):
        store.embed(photos, engine="threads")
    with pytest.raises(BadOption, match="address: only the engine ray has this option"):
        store.embed(photos, engine="processes", address="x:1")
    with pytest.raises(BadOption, match="workers: only the engines processes and ray have this option"):
        store.embed(photos, workers=2)
    with pytest.raises(BadOption, match="no device 'cuda:7' on this machine"):
        es.open(tmp_path / "s", device="cuda:7").embed(photos, engine="processes", progress=False)
    opened = es.open(tmp_path / "s", precision="bf16")
    with pytest.raises(RuntimeMismatch, match="--precision bf16 gives other vectors"):
        opened.embed(photos, engine="processes", progress=False)


class OneIsSlow:
    """Workers of this process: they embed a part when they get it, but the first one only when nothing else is left.

    Attributes:
        begun: the parts in the order in which they were begun.
        waited_for_the_first: how many of them were begun before the first one ended.
    """

    places, has_room = 2, True

    def __init__(self, store):
        self.store, self.begun, self.ended, self.waited_for_the_first = store, [], [], 0

    @property
    def running(self):
        return len(self.ended) + (self.waited_for_the_first == 0)

    def begin(self, part):
        self.begun.append(part)
        if part > 1:
            self.ended.append(self._embed(part))

    def wait(self):
        if not self.ended and not self.waited_for_the_first:
            self.waited_for_the_first = len(self.begun)
            self.ended.append(self._embed(1))
        ended, self.ended = self.ended, []
        return ended

    def require_places(self):
        pass

    def _embed(self, part):
        report = es.work(self.store, str(part), runtime="eager", device="cpu", allow_code=[NETWORK], progress=False)
        return EndedPart(part, report.to_json() | {"node": "here", "settled": {}})


def test_results_that_wait_for_an_earlier_part_are_bounded(tmp_path, photos):
    """Twelve parts, of which the first one is slow: eight are begun until it ends, and all are in the plan's order."""
    store = deadly_store(tmp_path / "s")
    session, pool = store._session, OneIsSlow(tmp_path / "s")
    job = EmbedJob(session.storage, open_source(str(photos)), session.space(), EmbedOptions(), lambda _: None)
    workers = EngineWorkers(lambda address: contextlib.nullcontext(pool), 12, "cpu", "process", is_local=True)
    assert embed_in_parts(job, EngineOptions(), workers).embedded == 12
    assert pool.waited_for_the_first == 4 * pool.places
    assert sorted(pool.begun) == list(range(1, 13))
    items = store.sql("SELECT uri FROM items ORDER BY item").rows
    assert items == tuple(sorted(items))


# ---- the pool, with processes that answer as they are told


class Scripted:
    """A process that returns, or raises, what a script says for each part; it notes what it was told at its start."""

    def __init__(self, name, script, log, told):
        self.name, self.script, self.log = name, script, log
        log.append(("start", name, told))

    def embed(self, part):
        self.log.append(("embed", self.name, part))
        answer = self.script(part)
        if isinstance(answer, Exception):
            raise answer
        return {"node": self.name, "settled": answer}

    def end(self):
        self.log.append(("end", self.name))


def pool_of(*scripts):
    """Return a pool with one process for each script, and its log."""
    log = []
    starts = [lambda told, n=n, s=s: Scripted(str(n), s, log, told) for n, s in enumerate(scripts)]
    return LocalWorkers(starts), log


def wait_for(pool):
    """Return the parts that ended, as soon as one did."""
    while not (ended := pool.wait()):
        pass
    return ended


def test_the_first_process_chooses_and_the_others_are_told(tmp_path):
    """Nobody begins before the first part has ended; the second process starts with what the first one chose."""
    choice = {"precision": "fp16", "decoder": "device", "runtime": "eager", "folded_batchnorms": 3}
    pool, log = pool_of(lambda part: choice, lambda part: choice)
    assert pool.has_room
    pool.begin(1)
    assert not pool.has_room
    assert [ended.part for ended in wait_for(pool)] == [1]
    pool.begin(2)
    assert pool.has_room
    pool.begin(3)
    assert not pool.has_room
    assert {wait_for(pool)[0].part, wait_for(pool)[0].part} == {2, 3}
    assert [line for line in log if line[0] == "start"] == [("start", "0", {}), ("start", "1", choice)]
    pool.close()
    assert {line for line in log if line[0] == "end"} == {("end", "0"), ("end", "1")}


def test_a_process_that_chose_otherwise_ends_the_run():
    """The vectors of one run are computed alike."""
    choice = {"precision": "fp16", "decoder": "device", "runtime": "eager", "folded_batchnorms": 0}
    pool, _ = pool_of(lambda part: choice, lambda part: choice | {"folded_batchnorms": 5})
    pool.begin(1)
    wait_for(pool)
    pool.begin(2)
    pool.begin(3)
    with pytest.raises(EngineError, match=r"folded_batchnorms 5, and the first process with 0; use --precision fp32"):
        [wait_for(pool) for _ in range(2)]
    pool.close()


def test_a_part_that_was_decoded_apart_chooses_nothing():
    """After a death the first part is decoded in other processes, by Pillow: the next part chooses for all."""
    choice = {"precision": "fp32", "decoder": "exact", "runtime": "onnx", "folded_batchnorms": 0}
    pool, _ = pool_of(lambda part: None if part == 1 else choice, lambda part: choice)
    pool.begin(1)
    wait_for(pool)
    pool.begin(2)
    assert not pool.has_room
    wait_for(pool)
    assert pool.settled == choice
    pool.begin(3)
    assert pool.has_room
    pool.close()


def test_a_process_that_dies_is_replaced_and_places_that_cannot_start_are_given_up():
    """A death is a problem of the part; without memory for a process, the place is lost, and without places the run."""
    answers = iter([ImageError("crashed", "it crashed (signal 9)"), {}, KeyError("reason")])
    pool, log = pool_of(lambda part: next(answers))
    pool.begin(1)
    (ended,) = wait_for(pool)
    assert (ended.part, ended.report, ended.problem) == (1, None, "it crashed (signal 9)")
    pool.begin(1)
    assert wait_for(pool)[0].report is not None
    pool.begin(2)
    assert wait_for(pool)[0].problem == "KeyError: 'reason'", "an answer that nobody expects ends the part, not the run"
    assert [line[0] for line in log] == ["start", "embed", "end", "start", "embed", "embed"]
    pool.close()

    def refuse(told):
        raise OSError("Cannot allocate memory")

    lost = LocalWorkers([refuse])
    lost.begin(1)
    assert not wait_for(lost)[0].began
    assert not lost.has_room
    with pytest.raises(EngineError, match=r"no worker process can be started \(Cannot allocate memory\)"):
        lost.require_places()
    lost.close()
