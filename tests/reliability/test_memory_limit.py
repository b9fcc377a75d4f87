"""In a container with little memory every part takes less, and an image that is too large for it costs itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import embedstore as es
from tests.conftest import TINY
from tests.helpers.clusters import clusters, store_of

GROUPS = Path("/sys/fs/cgroup/memory")
LIMIT = 1 << 30  # bytes that the processes of a group may take together

# With data of its own the run is larger than the decoder when memory runs out: by size, the kernel would end the run.
EMBED = """
import os, sys
from pathlib import Path
Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
ballast = b"x" * (int(sys.argv[4]) << 20)
import embedstore as es
report = es.open(sys.argv[2]).embed(sys.argv[3], labels_from=None)
print(report.embedded, report.failures, report.known_failures)
"""


@pytest.fixture
def container():
    """Create a group of processes that may take 1 GiB together; skip where that is not possible."""
    group = GROUPS / f"embedstore-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(LIMIT))
    except OSError as e:
        pytest.skip(f"this user cannot create a memory group (cgroup v1) here: {e.strerror}")
    yield group
    group.rmdir()


# What the parts of a process in the group would take.
SHARES = """
import os, sys
from pathlib import Path
Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
import embedstore as es
from embedstore import resources
from embedstore.storage.query_limits import QueryLimits
from embedstore.search.index.build import IndexTarget
print(resources.memory_bytes(), QueryLimits().memory_bytes, IndexTarget().memory_bytes)
store = es.open(sys.argv[2])
with store._session.storage.catalog.read() as con:
    print(con.execute("SELECT current_setting('memory_limit'), current_setting('threads')").fetchone())
print(store.search(like=1, k=3)[1].item, store.build_index(recall=1).sidecar.recall)
"""


def count_kills(container: Path) -> int:
    """Return how many processes of a group the kernel ended because memory ran out."""
    facts = dict(line.split() for line in (container / "memory.oom_control").read_text().splitlines())
    if "oom_kill" not in facts:
        pytest.skip("this kernel does not count the processes that it ends")
    return int(facts["oom_kill"])


def embed(container: Path, store: es.Store, folder: Path, ballast_megabytes: int) -> str:
    """Embed a folder in a new process of the group, which has data of its own; return what the report counts."""
    command = [sys.executable, "-c", EMBED, container, store.path, folder, str(ballast_megabytes)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=250).stdout


def test_every_part_takes_less_in_a_small_container(container, tmp_path):
    """The limits are those of the group: 1 GiB, and a quarter of it for a query, half of it for an index."""
    X, _ = clusters(3000, noise=0.3)
    store = store_of(tmp_path / "s", X)
    command = [sys.executable, "-c", SHARES, container, store.path]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout.splitlines()
    assert shown[0] == f"{LIMIT} {LIMIT // 4} {LIMIT // 2}"
    assert shown[1] == f"('256.0 MiB', {len(os.sched_getaffinity(0))})"
    assert shown[2] == f"{store.search(like=1, k=3)[1].item} 1.0"


@pytest.mark.parametrize("ballast_megabytes", [pytest.param(0, marks=pytest.mark.slow), 300])
def test_large_image_in_a_small_container_costs_itself(container, tmp_path, ballast_megabytes):
    """An image of 676 MB of pixels is a failure, three others are embedded, and the next run does not try it again.

    Nothing is killed: the decoder may take what the container has left, however large the program around it is.
    """
    folder = tmp_path / "images"
    folder.mkdir()
    for n in range(3):
        Image.new("RGB", (40, 30), (n, 0, 0)).save(folder / f"{n}.png")
    Image.new("RGBA", (13_000, 13_000)).save(folder / "large.tif", compression="tiff_lzw")
    store = es.create(tmp_path / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    assert embed(container, store, folder, ballast_megabytes) == "3 1 0\n"
    assert store.sql("SELECT reason FROM failures").rows == (("no_memory",),)
    assert embed(container, store, folder, ballast_megabytes) == "0 0 1\n"
    assert count_kills(container) == 0
    assert store.verify().ok


LIMIT_AS_A_USER = """
import os, resource, sys
from embedstore.cgroups import group_memory_left
from embedstore.media import worker_process
worker_process.limit_to_container()  # imports what another user may not be able to read
resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
if os.geteuid() == 0:
    os.setuid(65534)  # root may raise every limit
worker_process.limit_to_container()
print(group_memory_left() is not None, resource.getrlimit(resource.RLIMIT_DATA)[1] >> 30)
"""


def test_a_limit_that_a_user_cannot_raise_stays():
    """`ulimit -d` of a batch system: a decoder that tried to raise it would end at its first request."""
    command = [sys.executable, "-c", LIMIT_AS_A_USER]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100)
    if done.stdout.startswith("False"):
        pytest.skip("no group of processes limits the memory here")
    assert done.stdout == "True 2\n"
