"""Both errors of duplicates are measured on copies of the store's own images."""

import pytest

import embedstore as es
from embedstore.errors import BadBackbone, BadOption
from tests.helpers.clusters import clusters, store_of
from tests.helpers.natural_images import natural_image


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Thirty pictures, embedded with the bundled network."""
    folder = tmp_path_factory.mktemp("errors")
    (folder / "images").mkdir()
    for n in range(30):
        natural_image(n).save(folder / "images" / f"{n}.png")
    store = es.create(folder / "s", "tiny")
    store.embed(folder / "images")
    return store


def test_pixels_find_every_copy_and_no_other_pair(store):
    """Twenty copies of each of four kinds, and ten pairs of different pictures, with Wilson's intervals."""
    measured = store.copy_errors(max_images=20)
    pixels = [s for s in measured.shares if s.way == "pixels"]
    assert [(s.pairs, s.counted) for s in pixels] == [(20, 20)] * 4 + [(10, 0)]
    assert [s.is_copy for s in pixels] == [True] * 4 + [False]
    assert (pixels[0].high, pixels[-1].low) == (1, 0)
    assert 0.8 < pixels[0].low < 0.9, "Wilson: 20 of 20 is at least 0.84"
    assert 0.2 < pixels[-1].high < 0.35, "Wilson: 0 of 10 is at most 0.28"


def test_the_threshold_moves_the_cosine_alone(store):
    """At a cosine of 1 no crop and no other pair counts, at a low one all do, and the pixels say the same."""
    high, low = (store.copy_errors(t, max_images=8) for t in (1.0, 0.01))
    assert [s.counted for s in high.shares if s.way == "cosine"][-2:] == [0, 0]
    assert all(s.counted == s.pairs for s in low.shares if s.way == "cosine")
    assert [s for s in high.shares if s.way == "pixels"] == [s for s in low.shares if s.way == "pixels"]


def test_what_cannot_be_measured_is_refused(store, tmp_path):
    """One image makes no pair, and vectors without a network have no copies."""
    with pytest.raises(BadOption, match="two images"):
        store.copy_errors(max_images=1)
    X, y = clusters(30)
    with pytest.raises(BadBackbone):
        store_of(tmp_path / "s", X, label=y).copy_errors()
