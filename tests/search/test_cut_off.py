"""The cut-off of a search: a text about what is absent has a hit in at most the promised share of cases."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.search.cut_off import REFERENCES, alpha_of, cut_off


def test_the_references_are_a_hundred_different_texts():
    """Their number bounds the share that can be promised: one in a hundred."""
    assert len(REFERENCES) == len(set(REFERENCES)) >= 110
    assert all(text.isascii() and "-" not in text for text in REFERENCES)


def test_strictness_is_a_share_of_absent_texts():
    """0.5 is 5%, 1 is 1%, 0 shows everything."""
    assert alpha_of(0) is None
    assert alpha_of(0.5) == pytest.approx(0.05)
    assert alpha_of(1) == pytest.approx(0.01)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=60), st.floats(0.01, 0.9))
def test_at_most_the_share_of_the_references_themselves_would_fit(best, alpha):
    """At most max(0, floor(alpha (n + 1)) - 1) of the reference scores reach the cut-off."""
    threshold = cut_off(np.array(best, np.float32), alpha)
    assert sum(b >= threshold for b in best) <= max(0, math.floor(alpha * (len(best) + 1)))


def test_the_level_holds_in_simulation():
    """Over 4,000 collections, with 100 references each, a further absent text fits in 5% of cases at most."""
    rng = np.random.default_rng(0)
    for noise in (rng.normal, rng.standard_cauchy, rng.exponential):
        best = noise(size=(4000, 101))
        fits = [row[100] >= cut_off(row[:100], 0.05) for row in best]
        assert np.mean(fits) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)
        assert np.mean(fits) >= 0.03


@pytest.fixture(scope="module")
def clip(shared_data):
    folder = shared_data / "clip_vectors"
    return {name: np.load(folder / f"{name}.npy").astype(np.float32) for name in (
        "flickr100_image_vectors", "flickr100_text_vectors", "cifar500_image_vectors")}  # fmt: skip


def test_captions_of_absent_photos_seldom_have_a_hit_and_present_ones_often(clip):
    """Real CLIP vectors: captions of photos against other pictures fit in 5% of cases; their own photos mostly do."""
    rng = np.random.default_rng(1)
    texts, photos = clip["flickr100_text_vectors"], clip["flickr100_image_vectors"][::5]
    absent = (texts @ clip["cifar500_image_vectors"].T).max(axis=1)  # no caption describes a picture of CIFAR-10
    own = (texts * photos[np.arange(500) // 5]).sum(axis=1)
    false_hits, found = [], []
    for _ in range(200):
        order = rng.permutation(500)
        threshold = cut_off(absent[order[:100]], 0.05)
        false_hits.append((absent[order[100:]] >= threshold).mean())
        found.append((own >= threshold).mean())
    assert np.mean(false_hits) <= 0.05
    assert np.mean(found) >= 0.8
