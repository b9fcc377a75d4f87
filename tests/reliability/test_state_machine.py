"""Compare a store with a dictionary after every step of random sequences, some interrupted by a kill or a power cut."""

import json
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from embedstore.search.execute import Searcher
from embedstore.search.index import build
from embedstore.search.options import SearchOptions
from embedstore.storage import compact, item_changes
from embedstore.storage import purge as purging
from embedstore.storage.commit import CommitBatch
from embedstore.storage.integrity.verify import verify
from embedstore.storage.item_changes import ItemSelection
from embedstore.storage.item_columns import ItemRow
from embedstore.storage.storage import Storage
from embedstore.types import ImageRef
from tests.helpers.vector_stores import OTHER, SPACE, digest, other, vector
from tests.reliability.disk_simulation import Disk, read_log, run
from tests.reliability.fork_server import ForkServer

CODE = """
import json, sys
from pathlib import Path
from tests.reliability.test_state_machine import perform
perform(Path(sys.argv[1]) / "s", json.loads((Path(sys.argv[1]) / "step").read_text()))
"""


def perform(path: Path, step: dict) -> None:
    """Perform one step, in this process or in one that will be killed."""
    storage = Storage.open(path)
    kind = step["do"]
    if kind == "index":
        build.build_index(storage, storage.space("test"), build.IndexTarget(recall=1.0, kind=step["kind"]))
        return
    with storage.writer(kind) as writer:
        if kind == "add":
            first, numbers = step["first"], step["contents"]
            known = {c.replace("-", "") for (c,) in storage.sql("SELECT content::VARCHAR FROM contents")[1]}
            embedded = {
                c.replace("-", "")
                for (c,) in storage.sql("SELECT content::VARCHAR FROM vectors WHERE space = ?", [SPACE.key])[1]
            }
            new = [n for n in dict.fromkeys(numbers) if digest(n) not in embedded]
            refs = [ImageRef(f"/{first + i}", f"/{first + i}", n, 1, step["label"]) for i, n in enumerate(numbers)]
            writer.commit(
                CommitBatch(
                    items=[ItemRow(r, digest(n)) for r, n in zip(refs, numbers, strict=True)],
                    content_info={digest(n): (n, None) for n in numbers if digest(n) not in known},
                    digests=[digest(n) for n in new],
                    vectors=[vector(n) for n in new],
                ),
                space=storage.space("test"),
            )
        elif kind == "embed":
            have = storage.sql("SELECT content::VARCHAR FROM vectors WHERE space = ?", [OTHER.key])[1]
            new = [n for n in step["contents"] if digest(n) not in {c.replace("-", "") for (c,) in have}]
            if new:
                made = CommitBatch(digests=[digest(n) for n in new], vectors=[other(n) for n in new])
                writer.commit(made, space=storage.space("other"))
        elif kind == "delete":
            item_changes.delete(writer, ItemSelection(items=step["items"]))
        elif kind == "purge":
            purging.purge(writer, ItemSelection(items=step["items"]))
        elif kind == "relabel":
            item_changes.edit(writer, {"label": f"'{step['label']}'"}, ItemSelection(items=step["items"]))
        elif kind == "compact":
            compact.compact(storage, writer)


class Model:
    """The expected state: items by id as (content number, label), and the contents that the other space has."""

    def __init__(self) -> None:
        self.items: dict[int, tuple[int, str | None]] = {}
        self.elsewhere: set[int] = set()
        self.next = 1

    def apply(self, step: dict) -> "Model":
        """Return the model after one step."""
        out = Model()
        out.items, out.elsewhere, out.next = dict(self.items), set(self.elsewhere), self.next
        kind, chosen = step["do"], step.get("items", [])
        if kind == "add":
            for n in step["contents"]:
                out.items[out.next] = (n, step["label"])
                out.next += 1
        elif kind == "embed":
            out.elsewhere |= set(step["contents"])
        elif kind == "relabel":
            out.items |= {i: (self.items[i][0], step["label"]) for i in chosen}
        elif kind == "delete":
            out.items = {i: v for i, v in self.items.items() if i not in chosen}
        elif kind == "purge":
            lost = {self.items[i][0] for i in chosen}
            out.items = {i: v for i, v in self.items.items() if v[0] not in lost}
            out.elsewhere -= lost
        elif kind == "compact":
            out.elsewhere &= {n for n, _ in self.items.values()}
        return out

    def rows(self) -> list[tuple]:
        """Return id, label, content, vector and vector of the other space (or None) of every item."""
        return [
            (i, label, digest(n), vector(n).tolist(), other(n).tolist() if n in self.elsewhere else None)
            for i, (n, label) in sorted(self.items.items())
        ]


def rows(storage: Storage) -> list[tuple]:
    """Return the same of the store."""
    vectors = {}
    for space in (SPACE, OTHER):
        found = storage.sql('SELECT content::VARCHAR, shard, "row" FROM vectors WHERE space = ?', [space.key])[1]
        held = storage.vector_reader(space)
        at = held.positions(np.array([f[1] for f in found], int), np.array([f[2] for f in found], int))
        got = held.read_float32(at).tolist() if found else []
        vectors[space.key] = {f[0]: v for f, v in zip(found, got, strict=True)}
    items = storage.sql("SELECT item, label, content::VARCHAR FROM items ORDER BY item")[1]
    return [
        (i, label, c.replace("-", ""), vectors[SPACE.key].get(c), vectors[OTHER.key].get(c)) for i, label, c in items
    ]


class Machine(RuleBasedStateMachine):
    """Steps of every kind; after an interrupted step the store is as before the step or as after it."""

    recorder: ForkServer

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        (self.folder / "d").mkdir()
        self.path = self.folder / "d" / "s"
        self.storage = Storage.create(self.path)
        with self.storage.writer("test") as writer:
            writer.add_space(SPACE, name="test", dtype="float16", recipe=None)
            writer.add_space(OTHER, name="other", dtype="float32", recipe=None)
        self.model, self.cuts = Model(), 0

    def teardown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def do_step(self, step, how, moment):
        """Perform a step, or interrupt it by a kill or a power cut."""
        if how == "finish":
            perform(self.path, step)
            self.model = self.model.apply(step)
            return
        folder = self.folder / "d"
        (folder / "step").write_text(json.dumps(step))
        base, log = self.folder / "base", self.folder / "log"
        shutil.rmtree(base, ignore_errors=True)
        log.unlink(missing_ok=True)
        shutil.copytree(folder, base)
        done = run(self.recorder, folder, code=CODE, log=log)
        assert done.returncode == 0, done.stderr
        steps = read_log(log)
        at = 1 + int(moment * (len(steps) - 1)) if steps else 0
        complete = self.model.apply(step)
        if how == "kill":
            shutil.rmtree(folder)
            shutil.copytree(base, folder)
            done = run(self.recorder, folder, code=CODE, kill=at)
            assert done.returncode == (-signal.SIGKILL if steps else 0), done.stderr
            possible = [self.model, complete]
        else:
            disk = Disk(base, str(folder))
            for s in steps[:at]:
                disk.apply(s)
            shutil.rmtree(folder)
            disk.cut_power(np.random.default_rng(int(moment * 1e6)), folder)
            possible = [complete] if at == len(steps) else [self.model, complete]
        self.storage = Storage.open(self.path)
        with self.storage.writer("after a crash"):
            pass
        found = rows(self.storage)
        fitting = [m for m in possible if m.rows() == found]
        assert fitting, (step, how, at, len(steps), found, [m.rows() for m in possible])
        self.model = self.settle(fitting[-1])

    def settle(self, model):
        """Adopt from the store what an interrupted step may leave either way: used ids, contents without items."""
        out = model.apply({"do": ""})
        out.next = self.storage.sql("SELECT next_item FROM counters")[1][0][0]
        assert out.next > max(model.items, default=0)
        have = {c.replace("-", "") for (c,) in self.storage.sql(
            "SELECT content::VARCHAR FROM vectors WHERE space = ?", [OTHER.key])[1]}  # fmt: skip
        out.elsewhere = {n for n in range(1, 400) if digest(n) in have}
        return out

    HOW = st.sampled_from(["finish", "finish", "kill", "power cut"])
    MOMENT = st.floats(0, 1)

    @rule(numbers=st.lists(st.integers(1, 60), min_size=1, max_size=9), label=st.sampled_from("ab"), how=HOW, at=MOMENT)
    def add(self, numbers, label, how, at):
        """Add items of new and of known contents."""
        self.do_step({"do": "add", "first": self.model.next, "contents": numbers, "label": label}, how, at)

    @precondition(lambda self: self.model.items)
    @rule(share=st.floats(0, 1), how=HOW, at=MOMENT)
    def embed(self, share, how, at):
        """Add vectors of a second space for some contents."""
        numbers = sorted({n for n, _ in self.model.items.values()})
        self.do_step({"do": "embed", "contents": numbers[: 1 + int(share * len(numbers))]}, how, at)

    @precondition(lambda self: self.model.items)
    @rule(data=st.data(), kind=st.sampled_from(["delete", "purge", "relabel"]), how=HOW, at=MOMENT)
    def alter(self, data, kind, how, at):
        """Delete, purge or relabel some items."""
        items = data.draw(st.lists(st.sampled_from(sorted(self.model.items)), min_size=1, max_size=5, unique=True))
        self.do_step({"do": kind, "items": items, "label": "new"}, how, at)

    @precondition(lambda self: self.model.items)
    @rule(kind=st.sampled_from(["flat", "hnsw"]), how=HOW, at=MOMENT)
    def index(self, kind, how, at):
        """Build an index."""
        if len(self.storage.vector_reader(SPACE)):
            self.do_step({"do": "index", "kind": kind}, how, at)

    @rule(how=HOW, at=MOMENT)
    def compact(self, how, at):
        """Merge vector files and drop vectors without items."""
        self.do_step({"do": "compact"}, how, at)

    @rule()
    def reopen(self):
        """Open the store again, as another process would."""
        self.storage = Storage.open(self.path)
        assert self.storage.notices == []

    @precondition(lambda self: self.model.items)
    @rule(n=st.integers(1, 60))
    def search(self, n):
        """Compare the nearest five with a full sort."""
        q = (vector(n) / np.linalg.norm(vector(n).astype(np.float64))).astype(np.float32).astype(np.float64)
        own = []
        for i, (m, _) in self.model.items.items():
            v = vector(m).astype(np.float64)
            own.append((float((v * q).sum() / np.sqrt((v * v).sum())), i))
        found = Searcher(self.storage).search(self.storage.space("test"), vector(n), SearchOptions(k=5)).hits
        assert [(h.score, h.item) for h in found] == sorted(own, key=lambda s: (-s[0], s[1]))[:5]

    @invariant()
    def every_row_is_right(self):
        """Compare every item, label, content and vector of both spaces."""
        assert rows(self.storage) == self.model.rows()

    @rule()
    def verify(self):
        """Verify that nothing is damaged."""
        assert verify(self.storage).damage == []


@pytest.fixture(autouse=True)
def pass_recorder_to_machine(recorder):
    """Pass the fixture to the machine, which hypothesis creates."""
    Machine.recorder = recorder


CHECKS = list(HealthCheck)
Machine.TestCase.settings = settings(
    max_examples=2, stateful_step_count=7, deadline=None, suppress_health_check=CHECKS, derandomize=True
)


class TestStore(Machine.TestCase):
    """Any sequence of steps, finished or interrupted, leaves the rows of the dictionary."""


@pytest.mark.slow
@pytest.mark.timeout(7200)
class TestStoreLonger(Machine.TestCase):
    """Longer sequences, and more of them."""

    settings = settings(max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=CHECKS)
