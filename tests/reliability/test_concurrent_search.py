"""Three processes search while a fourth adds, deletes, builds indexes and compacts: every result is right."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from embedstore.search.execute import Searcher
from embedstore.search.index import build
from embedstore.search.options import SearchOptions
from embedstore.search.planner import SearchMethod
from embedstore.storage import compact, item_changes
from embedstore.storage.item_changes import ItemSelection
from embedstore.storage.storage import Storage
from tests.conftest import ROOT
from tests.helpers.vector_stores import batch, make

SEARCHER = """
import json, sys
from pathlib import Path
from tests.reliability.test_concurrent_search import search_until_stopped
print(json.dumps(search_until_stopped(Path(sys.argv[1]), int(sys.argv[2]))))
"""

K = 7
MIN_SEARCHES = 4  # per process


def scores(query: np.ndarray, numbers: list[int]) -> dict[int, float]:
    """Compute the cosine of each item with a query."""
    v = np.array([[1, n % 7, n % 11, n % 13] for n in numbers], np.float64).reshape(-1, 4)
    return dict(zip(numbers, (v @ query / np.sqrt((v * v).sum(axis=1))).tolist(), strict=True))


def stable_items(folder: Path) -> set[int]:
    """Return the items that exist from when the writer wrote this list until it writes the next."""
    return set(json.loads((folder / "stable").read_text()))


def search_until_stopped(folder: Path, seed: int) -> dict[str, int]:
    """Search until the stop file exists; check every score, and that no item that existed throughout is missing."""
    rng = np.random.default_rng(seed)
    storage = Storage.open(folder / "s")
    searcher = Searcher(storage)
    done = filtered = with_index = 0
    while not (folder / "stop").exists():
        q = rng.normal(size=4)
        unit = (q / np.linalg.norm(q)).astype(np.float32)
        where = "item % 2 = 0" if done % 3 == 0 else None
        before = stable_items(folder)
        ask = SearchOptions(k=K, where=where, exact=done % 2 == 0)
        found = searcher.search(storage.space(), q.astype(np.float32), ask)
        there = {i for i in before & stable_items(folder) if where is None or i % 2 == 0}
        hits = {h.item: h.score for h in found.hits}
        own = scores(unit.astype(np.float64), list(hits))
        assert all(abs(own[i] - s) < 1e-6 for i, s in hits.items()), (hits, own)
        assert all(h.uri == f"/i/{h.item}.jpg" for h in found.hits), found.hits
        assert where is None or all(i % 2 == 0 for i in hits), hits
        assert not hits.keys() & set(json.loads((folder / "gone").read_text())) - before, "deleted before the search"
        assert len(hits) == K or len(there) < K
        by_index = found.plan.method is SearchMethod.INDEX
        worst = min(hits.values(), default=-2.0)
        missed = [i for i, s in scores(unit.astype(np.float64), sorted(there)).items() if s > worst + 1e-6]
        assert by_index or set(missed) <= hits.keys(), (missed, hits)  # only an index may miss
        done += 1
        filtered += where is not None
        with_index += by_index
        (folder / f"searched {min(done, MIN_SEARCHES)} {seed}").touch()
    return {"searches": done, "filtered": filtered, "with index": with_index}


def change_repeatedly(folder: Path, rounds: int) -> dict[str, int]:
    """Add, delete, index and compact in turn, and write which items stay before and after each change."""
    storage = Storage.open(folder / "s")
    there = set(range(1, 201))
    rng = np.random.default_rng(0)
    following, counts = 201, {"add": 0, "delete": 0, "index": 0, "compact": 0}
    for n in range(rounds):
        doing = ("add", "delete", "index", "compact")[n % 4]
        counts[doing] += 1
        if doing == "add":
            with storage.writer("adding") as writer:
                writer.commit(batch(following, 40), space=storage.space())
            there |= set(range(following, following + 40))
            following += 40
        elif doing == "delete":
            gone = sorted(rng.choice(sorted(there), 20, replace=False).tolist())
            there -= set(gone)
            write_items(folder, "stable", there)
            with storage.writer("deleting") as writer:
                item_changes.delete(writer, ItemSelection(items=gone))
            write_items(folder, "gone", set(range(1, following)) - there)
        elif doing == "index":
            target = build.IndexTarget(kind=("flat", "ivf", "hnsw")[n // 4 % 3])
            build.build_index(storage, storage.space(), target)
        else:
            with storage.writer("compacting") as writer:
                compact.compact(storage, writer)
        write_items(folder, "stable", there)
    return counts


def write_items(folder: Path, name: str, items: set[int]) -> None:
    """Write a list of items atomically."""
    (folder / f"{name}.new").write_text(json.dumps(sorted(items)))
    (folder / f"{name}.new").replace(folder / name)


def wait_for_searches(folder: Path, searches: int, searchers: list[subprocess.Popen[str]]) -> None:
    """Wait until each process has searched so often: on a busy machine its start takes longer than eight changes."""
    limit = time.monotonic() + 120
    while len(list(folder.glob(f"searched {searches} *"))) < 3 and all(p.poll() is None for p in searchers):
        assert time.monotonic() < limit, "the processes do not search"
        time.sleep(0.05)


def search_beside_writer(folder: Path, rounds: int) -> list[dict[str, int]]:
    """Run three searching processes beside one writer and return what each did."""
    make(folder / "s", 100, 100)
    write_items(folder, "stable", set(range(1, 201)))
    write_items(folder, "gone", set())
    searchers = [
        subprocess.Popen(
            [sys.executable, "-c", SEARCHER, str(folder), str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for seed in range(3)
    ]
    try:
        wait_for_searches(folder, 1, searchers)
        counts = change_repeatedly(folder, rounds)
        wait_for_searches(folder, MIN_SEARCHES, searchers)
    finally:
        (folder / "stop").touch()
    assert min(counts.values()) >= rounds // 4
    done = []
    for process in searchers:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        done.append(json.loads(out))
    return done


def test_searches_beside_a_writer_are_right(tmp_path):
    """Every search of three processes is right during eight changes of four kinds."""
    done = search_beside_writer(tmp_path, 8)
    assert all(d["searches"] >= MIN_SEARCHES and d["filtered"] > 0 for d in done), done


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_searches_beside_a_writer_are_right_for_two_hundred_changes(tmp_path):
    """Every search of three processes is right during two hundred changes."""
    done = search_beside_writer(tmp_path, 200)
    assert sum(d["searches"] for d in done) > 300
