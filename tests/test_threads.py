"""Parts in threads: one result whatever the number of cores, and one thread of linear algebra in each."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from embedstore import threads
from embedstore.classify.data import self_join
from embedstore.classify.data.item_groups import item_groups
from embedstore.classify.data.self_join import nearest_pairs
from embedstore.classify.heads import LogisticProbe, WeightedKNN
from embedstore.classify.heads.linear import coordinates, softmax


@pytest.fixture
def cores(monkeypatch):
    """Set the number of cores that parts are computed on."""
    return lambda count: monkeypatch.setattr(threads, "available_cores", lambda: count)


def blas_threads():
    """Return the most threads of a library of matrix products."""
    return max(info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas")


def process_threads():
    """Return the most threads of a library whose limit is one of the process."""
    return max(info["num_threads"] for info in threadpool_info() if info.get("threading_layer") == "pthreads")


@settings(max_examples=20, deadline=None)
@given(count=st.integers(0, 20), n_cores=st.integers(1, 4))
def test_results_come_in_order(count, n_cores):
    """Each part is computed once, also where there are fewer parts than threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "available_cores", lambda: n_cores)
        assert list(threads.map_parts(lambda n: n * n, iter(range(count)))) == [n * n for n in range(count)]


def test_only_a_few_parts_are_computed_ahead(cores):
    """Parts are taken as results are: their results do not collect in memory."""
    cores(2)
    taken = []
    results = threads.map_parts(lambda n: n, (taken.append(n) or n for n in range(100)))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(taken) <= 7
    results.close()


def test_an_error_of_a_part_is_that_of_the_call(cores):
    """No part is computed afterwards, and the next call computes its own."""
    cores(2)
    begun = []
    with pytest.raises(ZeroDivisionError):
        list(threads.map_parts(lambda n: begun.append(n) or 1 // (5 - n), range(100)))
    before = len(begun)
    assert before < 20
    assert list(threads.map_parts(lambda n: n * n, range(100))) == [n * n for n in range(100)]
    assert len(begun) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_fork_computes_parts_on_threads_of_its_own(cores):
    """The threads that are kept do not exist in a child, which would wait for them."""
    cores(2)
    assert list(threads.map_parts(lambda n: n, range(9))) == list(range(9))
    child = os.fork()
    if not child:
        os._exit(0 if list(threads.map_parts(lambda n: n, range(9))) == list(range(9)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_who_leaves_early_leaves_no_limit(cores):
    """An iterator that is kept between two results, as by a traceback, does not keep the process at one thread."""
    cores(2)
    before, seen = process_threads(), set()
    results = threads.map_parts(lambda n: seen.add(process_threads()) or n, range(50))
    assert next(results) == 0
    deadline = time.monotonic() + 60
    while process_threads() != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (seen, process_threads()) == ({1}, before)
    results.close()


def test_the_limit_of_one_thread_ends_with_the_last_that_needs_it():
    """Two that overlap do not leave the process with one thread."""
    before = process_threads()
    first, second = threads.single_threaded_algebra(), threads.single_threaded_algebra()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert process_threads() == 1
    second.__exit__(None, None, None)
    assert process_threads() == before


def openmp_threads():
    """Return the most threads of OpenMP that a parallel section of the calling thread starts."""
    return max(info["num_threads"] for info in threadpool_info() if info["user_api"] == "openmp")


@settings(max_examples=12, deadline=None)
@given(order=st.permutations([0, 0, 1, 1, 2, 2]))
def test_limits_of_several_threads_overlap_in_any_order(order):
    """OpenMP has a limit per thread: each has one inside the block, and afterwards what it had before."""
    import sklearn.cluster  # noqa: F401 - brings a library of OpenMP

    pools = [ThreadPoolExecutor(1) for _ in range(3)]
    before, process_before = [pool.submit(openmp_threads).result(60) for pool in pools], process_threads()
    inside = {}
    for n in order:
        if n not in inside:
            inside[n] = threads.single_threaded_algebra()
            pools[n].submit(inside[n].__enter__).result(60)
            assert pools[n].submit(openmp_threads).result(60) == 1
        else:
            pools[n].submit(inside.pop(n).__exit__, None, None, None).result(60)
            assert pools[n].submit(openmp_threads).result(60) == before[n]
        assert process_threads() == (1 if inside else process_before)
    for pool in pools:
        pool.shutdown()


def test_a_library_that_is_loaded_inside_a_block_is_limited_by_the_next_one():
    """The second block knows the libraries of a package that the first did not, and the end restores both."""
    script = """
import json
import numpy
import scipy.linalg
from threadpoolctl import threadpool_info
from embedstore.threads import single_threaded_algebra

counts = lambda: {i["filepath"]: i["num_threads"] for i in threadpool_info()}
plain = counts()
with single_threaded_algebra():
    import faiss
    import sklearn.cluster
    loaded = counts()
    with single_threaded_algebra():
        inside = counts()
print(json.dumps([plain, loaded, inside, counts()]))
"""
    environment = os.environ | {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"}
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    plain, loaded, inside, after = json.loads(run.stdout)
    assert set(loaded) > set(plain)
    assert set(inside.values()) == {1}
    assert after == loaded | plain


def test_parts_of_a_part_are_computed_by_its_thread(cores):
    """Threads do not multiply."""
    cores(2)
    inner = lambda n: list(threads.map_parts(lambda _: threading.get_ident(), range(4)))  # noqa: E731
    assert all(len(set(idents)) == 1 for idents in threads.map_parts(inner, range(6)))


def test_a_probe_is_the_same_on_any_number_of_cores_and_like_that_of_one_pass(cores, monkeypatch):
    """The choice of C and the path are equal to the bit; a pass in one part gives the same optimum."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 4, 1200)
    X = (rng.standard_normal((1200, 24)) + 0.7 * rng.standard_normal((4, 24))[y]).astype(np.float32)
    whole = LogisticProbe(5, device="cpu").fit(X, y)
    for module in (softmax, coordinates):
        monkeypatch.setattr(module, "THREADED_WORK", 0.0)
    monkeypatch.setattr(softmax, "_BLOCK_LOGITS", 64)
    cores(1)
    one = LogisticProbe(5, device="cpu").fit(X, y)
    cores(3)
    three = LogisticProbe(5, device="cpu").fit(X, y)
    assert np.array_equal(one.coef_, three.coef_)
    assert one.path_ == three.path_
    assert (whole.C_, len(whole.path_)) == (one.C_, len(one.path_))
    assert np.abs(whole.coef_ - one.coef_).max() < 1e-3 * np.abs(whole.coef_).max()


def test_votes_and_near_duplicates_do_not_depend_on_the_cores(cores, monkeypatch):
    """The neighbors in blocks of several threads are those of one search, and so are pairs within cells."""
    rng = np.random.default_rng(5)
    X = rng.standard_normal((2600, 16)).astype(np.float32)
    X[1300:] = X[:1300] + 0.02 * rng.standard_normal((1300, 16))
    queries, y = rng.standard_normal((300, 16)), np.arange(2600) % 3
    cores(1)
    whole, alone = WeightedKNN(5).fit(X, y).nearest_neighbors(queries), nearest_pairs(X, 8, min_cosine=0.9)
    cores(3)
    parts = WeightedKNN(5, block_size=32).fit(X, y).nearest_neighbors(queries)
    assert np.array_equal(whole[1], parts[1])
    assert np.allclose(whole[0], parts[0], atol=1e-6)
    monkeypatch.setattr(self_join, "TILE", (64, 128))
    tiles = nearest_pairs(X, 8, min_cosine=0.9)
    assert set(zip(tiles.a, tiles.b, strict=True)) == set(zip(alone.a, alone.b, strict=True))
    monkeypatch.setattr(self_join, "is_exact", lambda *_: False)
    in_cells = nearest_pairs(X, 8, min_cosine=0.99)
    cores(1)
    again = nearest_pairs(X, 8, min_cosine=0.99)
    assert np.array_equal(in_cells.a, again.a)
    assert np.array_equal(in_cells.b, again.b)
    assert len(in_cells) > 1000


def test_several_callers_at_once_get_their_own_results(cores):
    """A server evaluates for several people: their parts do not mix, and the limit is removed at the end."""
    cores(2)
    before = blas_threads()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: list(threads.map_parts(lambda n: n * k, range(30))), range(8)))
    assert found == [[n * k for n in range(30)] for k in range(8)]
    assert blas_threads() == before


@settings(max_examples=60, deadline=None)
@given(items=st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([None, "g", "h", "i"])), max_size=14))
def test_groups_are_the_components_of_contents_and_declared_groups(items):
    """Two items are together if and only if a chain of equal contents and equal groups joins them."""
    numbers = item_groups([content for content, _ in items], [group for _, group in items]).groups
    joined = np.eye(len(items), dtype=bool)
    for i, (content, group) in enumerate(items):
        for j, (other, other_group) in enumerate(items):
            joined[i, j] |= content == other or (group is not None and group == other_group)
    for _ in items:
        joined = (joined.astype(int) @ joined.astype(int)) > 0
    assert np.array_equal(numbers[:, None] == numbers[None, :], joined)
