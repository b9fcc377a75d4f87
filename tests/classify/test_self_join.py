"""The pairs of near rows are those of plain products, whichever way they are compared."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore import resources
from embedstore.classify.data import self_join
from embedstore.classify.data.self_join import nearest_pairs
from embedstore.classify.heads.knn import WeightedKNN
from embedstore.classify.heads.numerics import block_rows
from embedstore.cosine_bounds import ROUNDING, main_directions, shorten


def crowd(n, dim, seed, *, copies, spread):
    """Rows of which so many are near each of some pictures; the first two are zero."""
    rng = np.random.default_rng(seed)
    pictures = rng.standard_normal((max(1, n // copies), dim))
    X = pictures[np.arange(n) % len(pictures)] + spread * rng.standard_normal((n, dim))
    X[:2] = 0
    return X.astype(np.float32)


def oracle(X, neighbors, least):
    """Every pair of two rows of which one is among the nearest of the other, by one product of all rows."""
    norm = np.linalg.norm(X, axis=1, keepdims=True)
    unit = X / np.where(norm > 0, norm, 1)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    kept = cosine >= np.sort(cosine, axis=1)[:, [-min(neighbors, len(X) - 1)]]
    a, b = np.nonzero((kept | kept.T) & (cosine >= least))
    return {(int(i), int(j)) for i, j in zip(a, b, strict=True) if i < j}, cosine


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(4, 160),
    dim=st.sampled_from([3, 100, 200, 513]),
    seed=st.integers(0, 999),
    copies=st.integers(1, 12),
    spread=st.sampled_from([0.01, 0.2, 0.5]),
    least=st.sampled_from([0.5, 0.8, 0.97]),
    tile=st.sampled_from([(7, 5), (32, 64), (1024, 2048)]),
)
def test_the_pairs_are_those_of_a_plain_product(n, dim, seed, copies, spread, least, tile):
    """No pair is lost and none is invented, up to rounding at the threshold, for every size of the tiles."""
    X = crowd(n, dim, seed, copies=copies, spread=spread)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_join, "TILE", tile)
        found = nearest_pairs(X, 32, min_cosine=least)
    wanted, cosine = oracle(X, 32, least)
    sure = {p for p in wanted if cosine[p] >= least + 1e-5}
    pairs = set(zip(found.a.tolist(), found.b.tolist(), strict=True))
    assert len(pairs) == len(found)
    assert sure <= pairs <= wanted | {p for p in pairs if abs(cosine[p] - least) < 1e-5}
    assert np.abs(found.cosine - np.minimum(cosine[found.a, found.b], 1)).max(initial=0) < 1e-5
    assert (np.diff(found.cosine) <= 0).all()


@pytest.mark.parametrize("neighbors", [1, 5])
def test_a_row_with_more_copies_than_neighbors_keeps_the_nearest(neighbors):
    """Forty rows near one picture: each pair is of a row and one of its nearest, as where all rows are compared."""
    X = crowd(240, 300, 3, copies=40, spread=0.3)
    wanted, _ = oracle(X, neighbors, 0.5)
    found = nearest_pairs(X, neighbors, min_cosine=0.5)
    assert set(zip(found.a.tolist(), found.b.tolist(), strict=True)) == wanted


def test_bounds_replace_most_of_the_work(monkeypatch):
    """Rows without copies are ruled out in few dimensions: no row is compared with all rows in all of them."""
    monkeypatch.setattr(self_join._Nearest, "of", lambda *_: pytest.fail("all rows were compared"))
    X = crowd(1500, 512, 5, copies=1, spread=0.0)
    X[7] = X[900] + 0.01
    found = nearest_pairs(X, 32, min_cosine=0.95)
    assert list(zip(found.a.tolist(), found.b.tolist(), strict=True)) == [(7, 900)]


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 60), dim=st.sampled_from([5, 128, 129, 300]), seed=st.integers(0, 999))
def test_a_product_of_short_rows_is_at_least_the_cosine(n, dim, seed):
    """The bound holds for every pair, also where the directions are those of other rows."""
    rng = np.random.default_rng(seed)
    X, other = (rng.standard_normal((n, dim)) * rng.random(dim) for _ in range(2))
    X, other = ((m / np.linalg.norm(m, axis=1, keepdims=True)).astype(np.float32) for m in (X, other))
    short = shorten(X, main_directions(other))
    assert (short @ short.T >= X @ X.T - ROUNDING).all()


@pytest.mark.parametrize("memory", [1 << 20, 64 << 20, 1 << 40, None])
def test_blocks_follow_the_memory_of_the_process(memory, monkeypatch):
    """A block takes at most a sixteenth of the memory; votes do not depend on it."""
    monkeypatch.setattr(resources, "_own_memory", lambda: memory)
    rows = block_rows(4096, 10_000)
    assert 1 <= rows <= 4096
    assert memory is None or rows * 10_000 <= max(memory // 16, 10_000)
    assert memory != 1 << 20 or rows == 6
    X = crowd(300, 40, 1, copies=3, spread=0.4)
    y = np.arange(300) % 3
    head = WeightedKNN(5).fit(X, y)
    votes = head.predict_proba(X)
    monkeypatch.setattr(resources, "_own_memory", lambda: None)
    assert np.allclose(votes, head.predict_proba(X), atol=1e-6)
