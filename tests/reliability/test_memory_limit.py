"""In a container whose memory runs out, the kernel ends the decoder of the image, and the run continues."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import embedstore as es
from tests.conftest import TINY

GROUPS = Path("/sys/fs/cgroup/memory")
LIMIT = 1 << 30  # bytes that the processes of a group may take together

# The run is larger than the decoder when memory runs out: by size alone, the kernel would end the run.
EMBED = """
import os, sys
from pathlib import Path
Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
ballast = b"x" * (300 << 20)
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


def count_kills(container: Path) -> int:
    """Return how many processes of a group the kernel ended because memory ran out."""
    facts = dict(line.split() for line in (container / "memory.oom_control").read_text().splitlines())
    if "oom_kill" not in facts:
        pytest.skip("this kernel does not count the processes that it ends")
    return int(facts["oom_kill"])


def embed(container: Path, store: es.Store, folder: Path) -> str:
    """Embed a folder in a new process of the group; return the numbers of vectors, failures and known failures."""
    command = [sys.executable, "-c", EMBED, container, store.path, folder]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=250).stdout


def test_large_image_in_a_small_container_costs_itself(container, tmp_path):
    """An image of 676 MB of pixels is a failure, three others are embedded, and the next run does not try it again."""
    folder = tmp_path / "images"
    folder.mkdir()
    for n in range(3):
        Image.new("RGB", (40, 30), (n, 0, 0)).save(folder / f"{n}.png")
    Image.new("RGBA", (13_000, 13_000)).save(folder / "large.tif", compression="tiff_lzw")
    store = es.create(tmp_path / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    assert embed(container, store, folder) == "3 1 0\n"
    kills = count_kills(container)
    assert kills > 0
    assert store.sql("SELECT reason FROM failures").rows == (("crashed",),)
    assert embed(container, store, folder) == "0 0 1\n"
    assert count_kills(container) == kills
    assert store.verify().ok
