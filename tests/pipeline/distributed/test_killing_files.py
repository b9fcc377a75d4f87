"""A file that kills every process that embeds it costs only itself."""

import os
import signal
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import embedstore as es
from embedstore.errors import BackboneError, ImageError, PartsError
from embedstore.pipeline.distributed import killing_files
from embedstore.pipeline.distributed.killing_files import embed_without_killers
from embedstore.storage.inbox.inbox import Inbox
from embedstore.storage.inbox.part_list import PartFile
from embedstore.storage.inbox.part_result import FileOutcome, PartResult
from embedstore.types import FailureReason
from tests.conftest import ROOT, picture
from tests.helpers.deadly_network import deadly_picture
from tests.helpers.parts import reference
from tests.helpers.vector_stores import digest, vector

NETWORK = "tests.helpers.deadly_network:make_deadly"


class PretendProcess:
    """Embeds files by number; some of them kill, and some ranges die by chance, once."""

    def __init__(self, killers, unlucky=()):
        self.killers, self.unlucky, self.calls = killers, set(unlucky), 0

    def embed(self, first, end):
        self.calls += 1
        if self.killers & set(range(first, end)) or self.calls in self.unlucky:
            raise ImageError(FailureReason.CRASHED, "it crashed (signal 9)")
        contents = [digest(n // 2) for n in range(first, end)]  # neighbours are copies of each other
        once = list(dict.fromkeys(contents))
        vectors = np.stack([vector(n) for n in sorted({n // 2 for n in range(first, end)})]).astype(np.float16)
        return PartResult(3, "decoder", [FileOutcome(c) for c in contents], once, vectors)


@given(st.integers(1, 60), st.data())
def test_exactly_the_files_that_kill_are_failures(count, data):
    """For any killers and a death by chance: every other file has its outcome, in order, and its vector once."""
    killers = data.draw(st.sets(st.integers(0, count - 1), max_size=min(count, 6)))
    process = PretendProcess(killers, data.draw(st.sets(st.integers(1, 3), max_size=1)))
    result = embed_without_killers(
        3, [PartFile(reference(n), None) for n in range(count)], lambda: nullcontext(process)
    )
    failed = {n for n, outcome in enumerate(result.outcomes) if outcome.failure}
    assert failed == killers
    assert all(o.failure.uri == reference(n).uri for n, o in enumerate(result.outcomes) if o.failure)
    assert [o.content for o in result.outcomes] == ["" if n in killers else digest(n // 2) for n in range(count)]
    wanted = sorted({n // 2 for n in range(count) if n not in killers})
    assert result.contents == [digest(n) for n in wanted]
    if wanted:
        assert np.array_equal(result.vectors, np.stack([vector(n) for n in wanted]).astype(np.float16))


def test_processes_that_die_whatever_they_embed_end_the_part(monkeypatch):
    """If nothing ever succeeds, it is not the files: the search ends early with one line."""
    process = PretendProcess(set(range(1000)))
    files = [PartFile(reference(n), None) for n in range(1000)]
    with pytest.raises(PartsError, match=r"part 3 cannot be embedded: 41 processes died in it \(it crashed"):
        embed_without_killers(3, files, lambda: nullcontext(process))
    assert process.calls < 100
    monkeypatch.setattr(killing_files, "MAX_DEATHS", 60)
    process = PretendProcess(set(range(10, 1000)))
    with pytest.raises(PartsError, match="61 processes died"):
        embed_without_killers(3, files, lambda: nullcontext(process))


def deadly_store(path):
    """A store of the network that a magenta picture kills."""
    return es.create(path, NETWORK, runtime="eager", device="cpu")


WORK = (
    "import sys, embedstore as es; es.work(sys.argv[1], '1/1', allow_code=[sys.argv[2]], runtime='eager', device='cpu')"
)


def test_a_picture_that_kills_the_network_is_a_failure_of_the_third_worker(tmp_path):
    """Two workers die with it; the third finds it, embeds the others, and counts it as crashed."""
    (tmp_path / "photos").mkdir()
    for n in range(2):
        picture(n).save(tmp_path / "photos" / f"{n}.png")
    deadly_picture().save(tmp_path / "photos" / "deadly.png")
    store = deadly_store(tmp_path / "s")
    store.plan_parts(tmp_path / "photos", 1, progress=False)
    command = [sys.executable, "-c", WORK, str(tmp_path / "s"), NETWORK]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first = subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode
    Inbox(store._session.storage.layout, store.spaces[0].key).begin(1)  # as the second, to save its seconds
    third = subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode
    assert (first, third) == (-signal.SIGKILL, 0)
    report = store.register()
    assert (report.embedded, report.failures_by_reason, report.finished) == (2, {"crashed": 1}, True)
    ((uri, detail),) = store.sql("SELECT uri, detail FROM failures").rows
    assert uri.endswith("deadly.png")
    assert detail == "the process that embedded it crashed (signal 9)"
    assert store.verify().ok


def test_an_error_that_is_raised_is_no_death(tmp_path, photos, monkeypatch):
    """A worker that ends with an error of its own leaves no mark, and the process of a range raises the same class."""
    store = deadly_store(tmp_path / "s")
    store.plan_parts(photos, 1, progress=False)
    inbox = Inbox(store._session.storage.layout, store.spaces[0].key)
    with pytest.raises(BackboneError, match="allow-code"):
        es.work(tmp_path / "s", "1/1", progress=False)
    assert inbox.begin(1) == 0
    assert inbox.begin(1) == 1
    with pytest.raises(BackboneError, match="allow-code"):
        es.work(tmp_path / "s", "1/1", progress=False)
    assert inbox.begin(1) == 2, "the worker that ended by itself is not counted"
