"""Workers that see a bucket and not the store: real S3 servers on loopback."""

import json
import os
import signal
import subprocess
import sys

import pytest

import embedstore as es
from embedstore.errors import BadBackbone, BadOption, NotAStore, PartsError, StoreDamaged, StoreIOError, StoreNotFound
from embedstore.storage.inbox.bucket import Bucket
from embedstore.storage.inbox.inbox import BUCKET, Inbox
from tests.conftest import ROOT
from tests.helpers.rclone_server import serve_folder
from tests.helpers.s3_server import serve_bucket
from tests.pipeline.distributed.test_parts import add_trouble, comparable
from tests.pipeline.test_embed import tiny_store


@pytest.fixture
def bucket(monkeypatch):
    """A bucket on moto's server."""
    with serve_bucket(monkeypatch) as served:
        yield served


def plan(store, photos, url, parts=3):
    """Plan parts into a bucket, and return the address for workers."""
    report = store.plan_parts(photos, parts, inbox=url, progress=False)
    assert (report.parts, report.address.rpartition("/")[0]) == (parts, url)
    return report.address


def work(address, part):
    """Embed a part as a worker that names only the address."""
    return es.work(address, f"{part}/3", runtime="eager", progress=False)


def inbox_of(store):
    """The inbox of the store."""
    return Inbox(store._session.storage.layout, store.spaces[0].key)


def check_rows(tmp_path, photos, url):
    """Three parts by way of a bucket, without the store's folder, give the rows of a local run."""
    add_trouble(photos)
    local = tiny_store(tmp_path / "local", runtime="eager")
    local.embed(photos, progress=False)
    store = tiny_store(tmp_path / "s", runtime="eager")
    address = plan(store, photos, url)
    (tmp_path / "s").rename(tmp_path / "elsewhere")
    for part in (3, 1, 2):
        assert work(address, part).result
        assert work(address, part).result == "", "a part with a result is not done again"
    (tmp_path / "elsewhere").rename(tmp_path / "s")
    assert store.info().parts[0].inbox == address
    report = store.register()
    assert (report.new, report.torn, report.finished) == (3, [], True)
    assert comparable(store) == comparable(local)
    assert store.verify().ok


def test_workers_that_see_a_bucket_give_the_rows_of_a_local_run(bucket, tmp_path, photos):
    """Each result is one request; at the end nothing of the plan is left in the bucket, and other files are."""
    bucket.put({"inbox/mine.txt": b"mine"})
    check_rows(tmp_path, photos, f"{bucket.url}/inbox")
    written = [key for method, key in bucket.writes if method == "PUT" and "/results/" in key]
    assert len(written) == len(set(written)) == 3
    assert not [key for method, key in bucket.writes if method == "POST" and "/results/" in key]
    assert bucket.list_keys() == ["inbox/mine.txt"]


def test_a_second_server_that_checks_signatures(tmp_path, photos, monkeypatch):
    """The same on rclone's server."""
    with serve_folder(tmp_path, monkeypatch, is_written=True) as folder:
        (folder / "mine.txt").write_text("mine")
        check_rows(tmp_path, photos, "s3://photos/inbox")
        assert [p.name for p in folder.rglob("*") if p.is_file()] == ["mine.txt"]


def test_results_in_any_order_and_twice_count_once(bucket, tmp_path, photos):
    """Parts are registered while others are left; a result that arrives again is removed, and a torn one done again."""
    store = tiny_store(tmp_path / "s", runtime="eager")
    address = plan(store, photos, f"{bucket.url}/inbox")
    work(address, 2)
    (key,) = (key for key in bucket.list_keys() if "/results/" in key)
    kept = bucket.read(key)
    assert (store.register().new, store.register().new) == (1, 0)
    assert work(address, 2).result == "", "the bucket says that it is registered"
    bucket.put({key: kept})
    again = store.register()
    assert (again.new, again.repeated) == (0, 1)
    name = work(address, 1).result
    torn = next(key for key in bucket.list_keys() if key.endswith(name))
    bucket.put({torn: bucket.read(torn)[:-10], f"{address.split('/', 3)[3]}/results/strange.txt": b"x"})
    report = store.register()
    assert (report.new, len(report.torn)) == (0, 1)
    assert work(address, 1).result == name
    work(address, 3)
    assert store.register().finished
    assert store.info().items == 12
    assert store.verify().ok


KILLED_WORKER = """
import os, signal, sys
import embedstore as es
from embedstore.storage.inbox import plan_bucket
real = plan_bucket.PlanBucket.put_result
def put(self, name, data):
    if sys.argv[2] == "after":
        self.bucket.write(f"results/{name}", data)
    os.kill(os.getpid(), signal.SIGKILL)
plan_bucket.PlanBucket.put_result = put
es.work(sys.argv[1], "1/3", runtime="eager", progress=False)
"""
KILLED_WRITER = """
import os, signal, sys
import embedstore as es
from embedstore.storage.inbox import plan_bucket
setattr(plan_bucket.PlanBucket, sys.argv[2], lambda self, *_: os.kill(os.getpid(), signal.SIGKILL))
es.open(sys.argv[1]).register()
"""


def run_killed(code, *arguments):
    """Run a program that kills itself."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL


def test_kills_of_workers_and_of_the_writer_lose_nothing(bucket, tmp_path, photos):
    """Before and after the one request of a result, after the commit, and while the plan is removed."""
    local = tiny_store(tmp_path / "local", runtime="eager")
    local.embed(photos, progress=False)
    store = tiny_store(tmp_path / "s", runtime="eager")
    address = plan(store, photos, f"{bucket.url}/inbox")
    run_killed(KILLED_WORKER, address, "before")
    assert not [key for key in bucket.list_keys() if "/results/" in key]
    assert [key for key in bucket.list_keys() if key.endswith("000000001.begun")]
    run_killed(KILLED_WORKER, address, "after")
    assert work(address, 1).result == "", "its result is whole"
    run_killed(KILLED_WRITER, tmp_path / "s", "set_registered")
    assert store.register().repeated == 1
    work(address, 2)
    work(address, 3)
    run_killed(KILLED_WRITER, tmp_path / "s", "remove")
    assert store.info().items == 12
    assert store.register().finished
    assert comparable(store) == comparable(local)
    assert bucket.list_keys() == []


def test_a_server_that_refuses_is_one_line_and_the_next_run_goes_on(bucket, tmp_path, photos):
    """In the plan, the worker, the registration: nothing is lost."""
    store = tiny_store(tmp_path / "s", runtime="eager")
    bucket.refuses = True
    with pytest.raises(StoreIOError, match=r"cannot write s3://.*: PermissionError.*the credentials"):
        store.plan_parts(photos, 3, inbox=f"{bucket.url}/inbox", progress=False)
    assert store.info().parts == []
    bucket.refuses = False
    address = plan(store, photos, f"{bucket.url}/inbox")
    work(address, 1)
    bucket.refuses = True
    for attempt in (lambda: work(address, 2), store.register):
        with pytest.raises(StoreIOError, match=r"cannot read s3://.*: PermissionError") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    bucket.refuses = False
    assert store.register().new == 1
    for part in (2, 3):
        work(address, part)
    assert store.register().finished


def test_what_a_user_can_get_wrong_is_one_clear_line(bucket, tmp_path, photos):
    """No bucket, no plan, weights in the store, a store in a bucket."""
    store = tiny_store(tmp_path / "s")
    for wrong in ("inbox", "/tmp/inbox", "s3://", "http://x/y"):
        with pytest.raises(BadOption, match="is no folder of a bucket; write it as s3://BUCKET/FOLDER"):
            store.plan_parts(photos, 3, inbox=wrong)
    with pytest.raises(BadOption, match="inbox: only the engine ray has this option"):
        store.embed(photos, inbox=bucket.url)
    with pytest.raises(StoreIOError, match="cannot write s3://no-such-bucket"):
        store.plan_parts(photos, 3, inbox="s3://no-such-bucket-of-mine/x", progress=False)
    with pytest.raises(PartsError, match="has no plan of parts; name the folder that"):
        work(f"{bucket.url}/nothing", 1)
    address = plan(store, photos, f"{bucket.url}/inbox")
    with pytest.raises(PartsError, match=r"is for the space .*, not for other"):
        es.work(address, "1/3", space="other")
    for verb in (es.open, es.create):
        with pytest.raises((StoreNotFound, NotAStore, BadOption), match="a store is a folder of this machine"):
            verb(f"{bucket.url}/pets.store")


def test_a_store_of_a_stranger_deletes_nothing_in_other_buckets(bucket, tmp_path, photos):
    """The file that names the bucket may be anybody's: another plan's bucket is neither read nor emptied."""
    victim = tiny_store(tmp_path / "victim", runtime="eager")
    address = plan(victim, photos, f"{bucket.url}/inbox")
    work(address, 1)
    store = tiny_store(tmp_path / "s", runtime="eager")
    plan(store, photos, f"{bucket.url}/other")
    path = inbox_of(store).folder / BUCKET
    before = bucket.list_keys()
    bucket.writes.clear()
    path.write_text(json.dumps({"url": address}))
    with pytest.raises(StoreDamaged, match="holds another plan than the store"):
        store.register()
    path.write_text(json.dumps({"url": bucket.url}))
    with pytest.raises(StoreDamaged, match="is not the bucket of a plan"):
        store.register()
    assert (bucket.list_keys(), bucket.writes) == (before, [])


def test_a_plan_whose_bucket_is_gone_can_be_replaced(bucket, tmp_path, photos):
    """The error names the option, which works; a backup does not share the bucket."""
    store = tiny_store(tmp_path / "s", runtime="eager")
    address = plan(store, photos, f"{bucket.url}/inbox")
    store.backup(tmp_path / "b")
    assert inbox_of(es.open(tmp_path / "b")).bucket() is None
    for key in bucket.list_keys():
        bucket.delete(key)
    with pytest.raises(StoreIOError, match="no plan any more; run `embedstore plan-parts STORE SOURCE --replace`"):
        store.register()
    again = store.plan_parts(photos, 1, replace=True, progress=False)
    assert any("was not registered" in notice for notice in store.notices)
    assert (again.parts, again.address) == (1, str(tmp_path / "s"))
    with pytest.raises(PartsError, match="has no plan of parts"):
        work(address, 1)


def test_weights_in_the_store_need_its_folder(bucket, tmp_path, photos):
    """A worker of a bucket does not see a checkpoint of the store, so the plan is refused and nothing is written."""
    from embedstore.pipeline.distributed.plan_parts import require_weights_outside

    store = tiny_store(tmp_path / "s")
    record = store._session.space()
    object.__setattr__(record.recipe, "weights", "checkpoints/abc/weights.safetensors")
    with pytest.raises(BadBackbone, match="leave --inbox out, and let the workers see the folder of the store"):
        require_weights_outside(record)


def test_names_of_a_bucket(bucket):
    """Names with a prefix, of a folder that is not there, and more than one page of deletions."""
    bucket.put({f"x/a/{n:04d}.k": b"1" for n in range(7)} | {"x/a/b/9.k": b"2"})
    folder = Bucket.parse(f"{bucket.url}/x/")
    assert folder.names("a") == [f"{n:04d}.k" for n in range(7)]
    assert folder.names("a", "0003") == ["0003.k"]
    assert (folder.names("none"), folder.names("none", "0")) == ([], [])
    assert (folder.read("a/0001.k", 10), folder.read("a/none", 10)) == (b"1", None)
    with pytest.raises(StoreIOError, match="more than 0 bytes"):
        folder.read("a/0001.k", 0)
    folder.delete([f"a/{n:04d}.k" for n in range(9)])
    assert bucket.list_keys() == ["x/a/b/9.k"]
