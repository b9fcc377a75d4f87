"""Writing while another process writes."""

import re
import subprocess
import sys
import time

import numpy as np
import pytest

from embedstore.errors import StoreBusy
from tests.helpers.clusters import add, clusters, store_of

HOLD = """
import sys
import time
from embedstore.storage.storage import Storage
with Storage.open(sys.argv[1]).writer("an import"):
    print("held", flush=True)
    time.sleep(600)
"""

WRITES = {
    "add_vectors": lambda s, wait: s.add_vectors(
        np.eye(8, dtype="f4"), {"uri": list("pqrstuvw")}, space="new", wait=wait
    ),
    "edit": lambda s, wait: s.edit({"label": "'x'"}, items=[1], wait=wait),
    "rename": lambda s, wait: s.rename("a", "b", wait=wait),
    "delete": lambda s, wait: s.delete(items=[1], wait=wait),
    "purge": lambda s, wait: s.purge(items=[1], wait=wait),
    "set_default": lambda s, wait: s.set_default("other", wait=wait),
    "rename_space": lambda s, wait: s.rename_space("other", "third", wait=wait),
    "drop_space": lambda s, wait: s.drop_space("other", wait=wait),
    "compact": lambda s, wait: s.compact(wait=wait),
    "save_head": lambda s, wait: s.save_head("h", s.probe("label"), wait=wait),
    "delete_head": lambda s, wait: s.delete_head("kept", wait=wait),
    "predict": lambda s, wait: s.predict("kept", wait=wait),
}


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """A store with a head, on which another process holds the write lock."""
    X, y = clusters(60, noise=0.1)
    store = store_of(tmp_path_factory.mktemp("busy") / "s", X, label=y)
    add(store, X[:, ::-1], "other")
    store.save_head("kept", store.probe("label"))
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(store.path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    yield store, other
    other.kill()
    other.wait()


@pytest.mark.parametrize("name", WRITES)
def test_a_method_that_writes_waits_as_long_as_it_is_told(busy, name):
    """The error names the process and what it does, and the store is unchanged."""
    store, other = busy
    before = store.sql("select count(*) n, min(label) first from items").rows
    start = time.monotonic()
    with pytest.raises(StoreBusy, match=re.escape(f"process {other.pid}") + ".*an import"):
        WRITES[name](store, 0.0)
    assert time.monotonic() - start < 8
    assert store.sql("select count(*) n, min(label) first from items").rows == before
    assert [head.name for head in store.heads] == ["kept"]
