"""Embedding on a real Ray cluster gives the rows of a local run, also if workers and nodes are killed."""

import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest

import embedstore as es
from embedstore.errors import BadOption, EngineError, MissingExtra
from embedstore.operations import cluster as operation
from embedstore.pipeline.distributed import cluster_address
from embedstore.pipeline.distributed import engine as engines
from embedstore.pipeline.distributed.cluster_address import ClusterWatch, require_cluster
from embedstore.pipeline.distributed.plan_parts import PlanOptions, plan_parts
from embedstore.pipeline.distributed.ray_cluster import RayWorkers
from embedstore.sources.open import open_source
from embedstore.storage.inbox.inbox import Inbox
from tests.conftest import ROOT, picture
from tests.engines import kill_run
from tests.engines.kill_run import worker_pids
from tests.helpers.deadly_network import deadly_picture
from tests.pipeline.distributed.test_parts import add_trouble, comparable
from tests.pipeline.test_embed import tiny_store

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of two files, so that a few photos make many."""
    monkeypatch.setattr(engines, "PART_FILES", 2)


def test_a_cluster_gives_the_rows_of_a_local_run_while_workers_are_killed(cluster, tmp_path, photos):
    """Two nodes, seven parts, and workers killed as soon as they work: nothing is lost, double or wrong."""
    add_trouble(photos)
    local = tiny_store(tmp_path / "local", runtime="eager")
    local.embed(photos)
    store = tiny_store(tmp_path / "s", runtime="eager")
    killed, ended = [], threading.Event()

    def kill_workers():
        while not ended.wait(0.05) and len(killed) < 2:
            inbox = Inbox(store._session.storage.layout, store.spaces[0].key)
            begun = list(inbox.folder.glob("*.begun")) if inbox.folder.exists() else []
            for pid in worker_pids(cluster) if begun else []:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                break
            if killed:
                time.sleep(1.0)

    thread = threading.Thread(target=kill_workers)
    thread.start()
    try:
        report = store.embed(photos, engine="ray", cpus=1, progress=False)
    finally:
        ended.set()
        thread.join()
    assert killed
    assert (report.embedded, report.reused, report.runtime) == (12, 1, "ray")
    assert report.failures_by_reason == {"not_an_image": 1, "empty": 1, "missing": 1}
    assert "node" in report.bottleneck
    assert comparable(store) == comparable(local)
    assert store.verify().ok
    assert store.info().parts == []
    assert store.embed(photos, engine="ray", progress=False).unchanged == 13


def test_a_run_goes_on_where_a_killed_driver_ended(cluster, tmp_path, photos):
    """Results that wait in the inbox of a driver that died are registered, and only the rest is embedded."""
    store = tiny_store(tmp_path / "s", runtime="eager")
    storage = store._session.storage
    options = PlanOptions(part_files=2, engine="ray")
    plan_parts(storage, open_source(str(photos)), storage.space(), options)
    es.work(tmp_path / "s", "2/6", runtime="eager", progress=False)
    es.work(tmp_path / "s", "5/6", runtime="eager", progress=False)
    report = store.embed(photos, engine="ray", cpus=1, progress=False)
    assert (report.unchanged, report.embedded) == (4, 8)
    assert store.info().items == 12


def test_a_part_that_always_fails_is_given_up_and_the_rest_is_stored(cluster, tmp_path, photos, monkeypatch):
    """The error names the part and why; the other parts are in the store."""
    store = tiny_store(tmp_path / "s", runtime="eager")
    from embedstore.storage.inbox import inbox as inboxes

    real = inboxes.PlanFolder.write_plan

    def write_plan_and_break_a_list(self, plan, bucket):
        real(self, plan, bucket)
        path = self.folder / "lists" / "000000003.jsonl"
        path.write_bytes(b"broken" + path.read_bytes())

    monkeypatch.setattr(inboxes.PlanFolder, "write_plan", write_plan_and_break_a_list)
    with pytest.raises(EngineError, match=r"1 of 6 parts were not embedded: part 3 failed 4 times .*not the list"):
        store.embed(photos, engine="ray", cpus=1, progress=False)
    assert store.info().items == 10
    monkeypatch.undo()
    assert store.embed(photos, progress=False).embedded == 2


def test_what_a_user_can_get_wrong_is_one_clear_line(cluster, tmp_path, photos):
    """Another engine, options for another engine, and workers that no node has room for."""
    store = tiny_store(tmp_path / "s")
    with pytest.raises(BadOption, match="use one of local, processes, ray"):
        store.embed(photos, engine="spark")
    with pytest.raises(BadOption, match="address: only the engine ray has this option"):
        store.embed(photos, address="x:1", cpus=2)
    with pytest.raises(BadOption, match="cpus is 0, but must be at least 1"):
        store.embed(photos, engine="ray", cpus=0)
    with pytest.raises(EngineError, match="no node of the cluster has 64 cores and 0 GPUs"):
        store.embed(photos, engine="ray", cpus=64, progress=False)
    assert store.embed(photos, progress=False).embedded == 12, "a local run replaces nothing and needs no plan"


def test_an_address_without_a_cluster_is_reported_at_once(cluster):
    """Ray itself would try for minutes: nobody there, no such host, and another form of address."""
    for address in ("127.0.0.1:1", "no-such-host.invalid:6379", "127.0.0.1:99999"):
        with pytest.raises(EngineError, match="no Ray cluster answers at"):
            require_cluster(address)
    for address in ("ray://x:1", "host", "host:port", ""):
        with pytest.raises(EngineError, match="write it as HOST:PORT"):
            require_cluster(address)
    for address in (cluster.address, "auto"):
        require_cluster(address)


class Greeting(socketserver.BaseRequestHandler):
    """Answers like a server of another kind: SSH, HTTP/1.1, or one that closes at once."""

    greeting = b""

    def handle(self):
        """Send the greeting."""
        self.request.sendall(self.greeting)


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_a_server_of_another_kind_is_no_cluster(greeting):
    """Its answer is not that of a server of Ray's kind."""
    handler = type("Handler", (Greeting,), {"greeting": greeting})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(EngineError, match=r"no Ray cluster answers at .*; `ray start --head` prints"):
            require_cluster(f"127.0.0.1:{server.server_address[1]}")
        server.shutdown()


def test_a_server_that_never_answers_is_no_cluster(monkeypatch):
    """It is not waited for."""
    monkeypatch.setattr(cluster_address, "CONNECT_SECONDS", 0.5)
    timed_out = pytest.raises(EngineError, match=r"no Ray cluster answers at .*timed out")
    with socket.create_server(("127.0.0.1", 0)) as silent, timed_out:
        require_cluster(f"127.0.0.1:{silent.getsockname()[1]}")


def test_a_cluster_that_is_gone_in_mid_run_ends_it_with_one_line(cluster, monkeypatch):
    """Ray ends the whole process a minute after its head node died; before that, the run ends by itself."""
    monkeypatch.setattr(cluster_address, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(cluster_address, "GONE_SECONDS", 0.2)
    alive, gone = ClusterWatch(cluster.address), ClusterWatch("127.0.0.1:1")
    gone.check()  # once may be by chance
    time.sleep(0.3)
    alive.check()
    with pytest.raises(EngineError, match=r"127.0.0.1:1 does not answer any more .*what was embedded is kept"):
        gone.check()


class WorkerWithoutPackages:
    """A worker on a node that lacks a package."""

    def __init__(self):
        raise ImportError("no module named open_clip on this node")

    def run(self, *_):
        """Embed nothing: it is never made."""


def test_workers_that_cannot_start_end_the_run_with_the_reason(cluster, tmp_path, photos, monkeypatch):
    """Nodes that lack a package cost no retries of every part: the line says what is missing."""
    monkeypatch.setattr(operation, "PartWorker", WorkerWithoutPackages)
    store = tiny_store(tmp_path / "s", runtime="eager")
    begun = []
    real = RayWorkers.begin
    monkeypatch.setattr(RayWorkers, "begin", lambda pool, part: (begun.append(part), real(pool, part)))
    with pytest.raises(EngineError, match=r"no worker can be started .*ImportError: no module named open_clip on this"):
        store.embed(photos, engine="ray", cpus=1, progress=False)
    assert len(begun) == 2, "one try for each worker that the cluster has room for"
    monkeypatch.undo()
    assert store.embed(photos, progress=False).embedded == 12


def test_without_ray_the_error_names_the_extra(tmp_path, photos, monkeypatch):
    """A machine without Ray gets the command that installs it, before anything is written."""
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    store = tiny_store(tmp_path / "s")
    picture(1).save(photos / "new.png")
    with pytest.raises(MissingExtra, match=r"pip install 'embedstore\[ray\]'"):
        store.embed(photos, engine="ray", progress=False)
    assert store.info().items == 0


DRIVER = """
import sys
import embedstore as es
es.open(sys.argv[1], runtime="eager").embed(sys.argv[2], engine="ray", address=sys.argv[3], cpus=1, progress=False)
"""


def start_driver(store, photos, address):
    """Start `embed` in a process of its own, which can be killed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", DRIVER, str(store), str(photos), address]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_a_driver_that_is_killed_loses_nothing(cluster, tmp_path, photos):
    """The command is killed with SIGKILL once a part is done; the next one embeds the rest."""
    local = tiny_store(tmp_path / "local", runtime="eager")
    local.embed(photos, progress=False)
    store = tiny_store(tmp_path / "s", runtime="eager")
    plan_ahead = PlanOptions(part_files=2, engine="ray")  # parts as small as in the other tests
    plan_parts(store._session.storage, open_source(str(photos)), store._session.storage.space(), plan_ahead)
    es.work(tmp_path / "s", "1/6", runtime="eager", progress=False)
    driver = start_driver(tmp_path / "s", photos, cluster.address)
    deadline = time.monotonic() + 120
    while es.open(tmp_path / "s").info().items == 0 and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    driver.kill()
    driver.wait()
    second = start_driver(tmp_path / "s", photos, cluster.address)
    assert second.wait() == 0, second.stderr.read()[-2000:]
    assert comparable(es.open(tmp_path / "s")) == comparable(local)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_fifty_kills_lose_nothing(tmp_path):
    """20,000 small images on three nodes; workers, nodes and the driver are killed 50 times, over several runs."""
    images = tmp_path / "images"
    kill_run.write_images(images, int(os.environ.get("EMBEDSTORE_KILL_IMAGES", "20000")))
    most = int(os.environ.get("EMBEDSTORE_KILLS", "50"))
    wanted = kill_run.embed_locally(tmp_path / "local.store", images)
    kills = Counter()
    with kill_run.small_cluster(3) as nodes:
        for seed in range(most):
            setting = kill_run.KillSetting(kills=most - kills.total(), seed=seed)
            result = kill_run.run_once(nodes, tmp_path, images, wanted, setting)
            assert result.is_right, result
            kills.update(result.kills)
            if kills.total() >= most:
                break
    assert kills.total() >= most
    assert set(kills) == {"worker", "node", "driver"}


@pytest.mark.slow
def test_kills_lose_nothing_where_results_go_to_a_bucket(tmp_path):
    """The same with a real S3 server, and workers that never see the folder of the store."""
    images = tmp_path / "images"
    kill_run.write_images(images, 1000)
    wanted = kill_run.embed_locally(tmp_path / "local.store", images)
    with kill_run.serve_inbox() as inbox, kill_run.small_cluster(2) as nodes:
        setting = kill_run.KillSetting(part_files=100, kills=5, inbox=inbox)
        result = kill_run.run_once(nodes, tmp_path, images, wanted, setting)
    assert result.is_right, result
    assert result.kills


def test_a_comparison_notices_what_is_lost_double_or_wrong():
    """The oracle of the kills is not blind: each fault is counted as what it is."""
    vectors = np.eye(3, dtype=np.float32)
    turned = vectors + np.float32([[0], [0.1], [0]])
    wanted = kill_run.Rows(["a", "b", "c"], [(1,), (2,), (3,)], vectors, [("x", "empty")], 3)
    faults = {
        (0, 0, 0): wanted,
        (1, 0, 1): kill_run.Rows(["a", "b"], [(1,), (2,)], vectors[:2], [("x", "empty")], 2),
        (0, 1, 0): kill_run.Rows(["a", "b", "c"], wanted.facts, vectors, [("x", "empty")], 4),
        (0, 0, 2): kill_run.Rows(["a", "b", "c"], [(1,), (9,), (3,)], vectors, [], 3),
        (0, 0, 1): kill_run.Rows(["a", "b", "c"], wanted.facts, turned, [("x", "empty")], 3),
    }
    for counts, found in faults.items():
        result = kill_run.RunResult()
        kill_run.compare_rows(result, found, wanted)
        assert (result.lost, result.double, result.wrong) == counts


@pytest.mark.slow
def test_a_picture_that_kills_its_worker_costs_itself(cluster, tmp_path, photos):
    """Two workers die with it, and the third finds it; the others are embedded, and no retry is left over."""
    deadly_picture().save(photos / "train" / "dog" / "deadly.png")
    network = "tests.helpers.deadly_network:make_deadly"
    store = es.create(tmp_path / "s", network, runtime="eager", device="cpu")
    report = store.embed(photos, engine="ray", cpus=1, progress=False)
    assert (report.embedded, report.failures_by_reason) == (12, {"crashed": 1})
    assert store.sql("SELECT right(uri, 10) FROM failures").rows == (("deadly.png",),)
    assert store.embed(photos, engine="ray", progress=False).known_failures == 1
