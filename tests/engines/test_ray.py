"""Embedding on a real Ray cluster gives the rows of a local run, also if workers and nodes are killed."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.errors import BadOption, EngineError, MissingExtra
from embedstore.pipeline.distributed import engine as engines
from embedstore.pipeline.distributed.plan_parts import PlanOptions, plan_parts
from embedstore.sources.open import open_source
from embedstore.storage.inbox.inbox import Inbox
from tests.conftest import ROOT, picture
from tests.pipeline.distributed.test_parts import add_trouble, comparable
from tests.pipeline.test_embed import tiny_store

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of two files, so that a few photos make many."""
    monkeypatch.setattr(engines, "PART_FILES", 2)


def worker_pids():
    """The processes of Ray that run a worker of ours."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(b"ray::PartWorker"):
                found.append(int(folder.name))
    return found


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
            for pid in worker_pids() if begun else []:
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

    def write_plan_and_break_a_list(self, plan):
        real(self, plan)
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
    with pytest.raises(BadOption, match="use one of local, ray"):
        store.embed(photos, engine="spark")
    with pytest.raises(BadOption, match="address and cpus: only the engine ray has them"):
        store.embed(photos, address="x:1", cpus=2)
    with pytest.raises(BadOption, match="cpus is 0, but must be at least 1"):
        store.embed(photos, engine="ray", cpus=0)
    with pytest.raises(EngineError, match="no node of the cluster has 64 cores and 0 GPUs"):
        store.embed(photos, engine="ray", cpus=64, progress=False)
    assert store.embed(photos, progress=False).embedded == 12, "a local run replaces nothing and needs no plan"


def test_an_address_without_a_cluster_is_reported_at_once(tmp_path):
    """Ray itself would try for minutes."""
    from embedstore.pipeline.distributed.ray_cluster import _require_address

    for address in ("127.0.0.1:1", "no-such-host.invalid:6379"):
        with pytest.raises(EngineError, match="no Ray cluster answers at"):
            _require_address(address)
    for address in ("ray://x:1", "host", "host:port", ""):
        with pytest.raises(EngineError, match="write it as HOST:PORT"):
            _require_address(address)


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


def kill_at_random(cluster, store, photos, kills, seed):
    """Kill a worker, a node or the driver at random moments until there were enough kills; then let it end."""
    rng = random.Random(seed)
    done = {"worker": 0, "node": 0, "driver": 0}
    driver = start_driver(store, photos, cluster.address)
    node = None
    deadline = time.monotonic() + 3000
    while sum(done.values()) < kills and time.monotonic() < deadline:
        time.sleep(rng.uniform(0.5, 4.0))
        if driver.poll() is not None:
            if driver.returncode == 0:
                break
            driver = start_driver(store, photos, cluster.address)
        kind = rng.choice(["worker", "worker", "node", "driver"])
        if kind == "worker" and (pids := worker_pids()):
            os.kill(rng.choice(pids), signal.SIGKILL)
        elif kind == "node":
            if node is not None:
                cluster.remove_node(node, allow_graceful=False)
            node = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
        elif kind == "driver":
            driver.kill()
            driver.wait()
            driver = start_driver(store, photos, cluster.address)
        else:
            continue
        done[kind] += 1
    while driver.wait() != 0:
        assert time.monotonic() < deadline, driver.stderr.read()[-2000:]
        driver = start_driver(store, photos, cluster.address)
    if node is not None:
        cluster.remove_node(node, allow_graceful=False)
    return done


def assert_same_rows(store, local):
    """Every row is equal; vectors are equal but for the last bit, which the images of the same batch may turn."""
    (found, *other), (wanted, *expected) = comparable(store), comparable(local)
    assert other == expected
    assert {uri: row[:-1] for uri, row in found.items()} == {uri: row[:-1] for uri, row in wanted.items()}
    a, b = (np.array([rows[uri][-1] for uri in sorted(wanted)]) for rows in (found, wanted))
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosines.min() > 0.99999


def check_kills(cluster, tmp_path, *, photos, kills, seed):
    """After all kills: no row is lost, double or wrong, compared with a local run."""
    local = tiny_store(tmp_path / "local", runtime="eager")
    local.embed(photos, progress=False)
    store = tiny_store(tmp_path / "s", runtime="eager")
    done = kill_at_random(cluster, tmp_path / "s", photos, kills, seed)
    store = es.open(tmp_path / "s")
    assert_same_rows(store, local)
    assert store.sql("SELECT count(*) - count(DISTINCT uri) FROM items").rows == ((0,),)
    assert store.verify().ok
    return done


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
def test_fifty_kills_lose_nothing(cluster, tmp_path):
    """20,000 small images; workers, nodes and the driver are killed 50 times."""
    photos = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for n in range(int(os.environ.get("EMBEDSTORE_KILL_IMAGES", "20000"))):
        path = photos / f"{n // 1000}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    kills = int(os.environ.get("EMBEDSTORE_KILLS", "50"))
    done = check_kills(cluster, tmp_path, photos=photos, kills=kills, seed=0)
    assert done["worker"] or done["driver"] or done["node"]
