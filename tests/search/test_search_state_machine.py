"""Search over a store that changes equals a sort over a model of it."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from embedstore.search.execute import Searcher
from embedstore.search.index import build
from embedstore.search.options import SearchOptions
from embedstore.search.planner import SearchMethod
from embedstore.storage import compact, item_changes
from embedstore.storage import purge as purging
from embedstore.storage.commit import CommitBatch
from embedstore.storage.item_changes import ItemSelection
from embedstore.storage.item_columns import ItemRow
from embedstore.storage.storage import Storage
from embedstore.types import ImageRef
from tests.helpers.vector_stores import SPACE, digest

VECTORS = st.lists(st.integers(-3, 3), min_size=4, max_size=4).filter(any)
FILTERS = {
    None: lambda item: True,
    "label = 'a'": lambda item: item["label"] == "a",
    "label IS NULL": lambda item: item["label"] is None,
    "item % 3 = 0": lambda item: item["id"] % 3 == 0,
    "false": lambda item: False,
}


class Machine(RuleBasedStateMachine):
    """The model holds items by id with content and label, and contents by digest with their vectors."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.storage = Storage.create(self.folder / "s")
        self.searcher = Searcher(self.storage)
        with self.storage.writer("test") as writer:
            writer.add_space(SPACE, name="test", dtype="float16", recipe=None)
        self.items, self.contents, self.next = {}, {}, 1

    def teardown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    @rule(vectors=st.lists(VECTORS, min_size=1, max_size=12), copies=st.integers(0, 2), label=st.sampled_from("abN"))
    def add(self, vectors, copies, label):
        """Add new contents, and more items of existing contents."""
        label = None if label == "N" else label
        new = {digest(1000 * self.next + n): v for n, v in enumerate(vectors)}
        chosen = [*new, *list(self.contents)[:copies]]
        refs = [ImageRef(f"/{self.next + n}", f"/{self.next + n}", 1, 1, label) for n in range(len(chosen))]
        batch = CommitBatch(
            items=[ItemRow(r, d) for r, d in zip(refs, chosen, strict=True)],
            content_info=dict.fromkeys(new, (1, None)),
            digests=list(new),
            vectors=[np.array([v], np.float32) for v in new.values()],
        )
        with self.storage.writer("test") as writer:
            writer.commit(batch, space=self.storage.space())
        for d in chosen:
            self.items[self.next] = {"id": self.next, "content": d, "label": label}
            self.next += 1
        self.contents |= new

    @rule(where=st.sampled_from([w for w in FILTERS if w]), purge=st.booleans())
    def remove(self, where, purge):
        """Delete items, or purge their contents."""
        gone = {i for i, item in self.items.items() if FILTERS[where](item)}
        if purge:
            lost = {self.items[i]["content"] for i in gone}
            gone = {i for i, item in self.items.items() if item["content"] in lost}
            self.contents = {d: v for d, v in self.contents.items() if d not in lost}
        with self.storage.writer("test") as writer:
            done = (purging.purge if purge else item_changes.delete)(writer, ItemSelection(where))
        assert done["items"] == len(gone)
        self.items = {i: item for i, item in self.items.items() if i not in gone}

    @rule(where=st.sampled_from(list(FILTERS)), label=st.sampled_from(["'a'", "'b'", "NULL", "label || 'a'"]))
    def relabel(self, where, label):
        """Set the label of some items."""
        with self.storage.writer("test") as writer:
            item_changes.edit(writer, {"label": label}, ItemSelection(where or "true"))
        for item in self.items.values():
            if FILTERS[where](item):
                old = item["label"]
                item["label"] = {"'a'": "a", "'b'": "b", "NULL": None}.get(label, old and old + "a")

    @rule(kind=st.sampled_from(["flat", "ivf", "hnsw"]))
    def index(self, kind):
        """Build an index over all rows."""
        if not len(self.storage.vector_reader(SPACE)):
            return
        built = build.build_index(self.storage, self.storage.space(), build.IndexTarget(recall=1.0, kind=kind))
        assert built.sidecar.rows == len(self.storage.vector_reader(SPACE))

    @rule()
    def compact(self):
        """Merge files and wipe the vectors that no item has."""
        with self.storage.writer("test") as writer:
            compact.compact(self.storage, writer)
        held = {item["content"] for item in self.items.values()}
        self.contents = {d: v for d, v in self.contents.items() if d in held}
        assert len(self.storage.vector_reader(SPACE)) == len(held)

    def ranked(self, query, where):
        """Return ``(score, item)`` of every matching item, best first."""
        q = (np.array(query, np.float32) / np.linalg.norm(np.array(query, np.float64))).astype(np.float32)
        found = []
        for item in self.items.values():
            if FILTERS[where](item):
                row = np.array(self.contents[item["content"]], np.float64)
                score = (row * q.astype(np.float64)).sum() / np.sqrt((row * row).sum())
                found.append((score, item["id"]))
        return sorted(found, key=lambda f: (-f[0], f[1]))

    @rule(
        query=VECTORS,
        where=st.sampled_from(list(FILTERS)),
        k=st.integers(1, 9),
        offset=st.integers(0, 12),
        group_by=st.sampled_from([None, "label", "content"]),
        least=st.sampled_from([None, -0.5, 0.0, 0.9]),
        method=st.sampled_from([None, *SearchMethod]),
    )
    def search(self, query, where, k, offset, group_by, least, method):
        """A filtered, paged, grouped and cut search gives the items, scores and order of the model."""
        expected = [f for f in self.ranked(query, where) if least is None or f[0] >= least]
        if group_by:
            seen, firsts = set(), []
            for score, item in expected:
                value = self.items[item][group_by]
                if value is None or value not in seen:
                    firsts.append((score, item))
                seen.add(value)
            expected = firsts
        options = SearchOptions(k=k, offset=offset, where=where, min_score=least, group_by=group_by, method=method)
        found = self.searcher.search(self.storage.space(), np.array(query, np.float32), options)
        assert [(h.score, h.item) for h in found.hits] == expected[offset : offset + k]
        assert [h.rank for h in found.hits] == list(range(offset + 1, offset + 1 + len(found.hits)))
        assert [h.label for h in found.hits] == [self.items[h.item]["label"] for h in found.hits]

    @rule(query=VECTORS, least=st.sampled_from([-1.0, 0.0, 0.5]), where=st.sampled_from(list(FILTERS)))
    def threshold(self, query, least, where):
        """A search without k gives every item that reaches a score."""
        expected = [f for f in self.ranked(query, where) if f[0] >= least]
        options = SearchOptions(k=None, min_score=least, where=where)
        found = self.searcher.search(self.storage.space(), np.array(query, np.float32), options)
        assert [(h.score, h.item) for h in found.hits] == expected

    @invariant()
    def the_catalog_is_the_model(self):
        """Ids and labels equal the model."""
        rows = self.storage.sql("SELECT item, label FROM items ORDER BY item")[1]
        assert rows == [(i, item["label"]) for i, item in sorted(self.items.items())]


Machine.TestCase.settings = settings(
    max_examples=8, stateful_step_count=16, deadline=None, suppress_health_check=list(HealthCheck)
)


class TestChangingStore(Machine.TestCase):
    """Hits equal the model under any sequence of adds, deletes, relabels, index builds and compactions."""


@pytest.mark.slow
class TestChangingStoreLonger(Machine.TestCase):
    """Hits equal the model under longer sequences."""

    settings = settings(
        max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
