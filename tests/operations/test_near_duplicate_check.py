"""Both errors of the threshold of near-duplicates are measured on copies of the store's own images."""

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.errors import BadBackbone
from tests.helpers.clusters import clusters, store_of


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of 40 smooth random images of two labels, embedded with the bundled network."""
    folder, rng = tmp_path_factory.mktemp("copies"), np.random.default_rng(0)
    for n in range(40):
        small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        target = folder / "images" / "ab"[n % 2] / f"{n}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC).save(target)
    store = es.create(folder / "s", "tiny")
    store.embed(folder / "images")
    return store


def test_copies_of_every_kind_are_made_and_counted(store):
    """Eight images give eight copies of each kind; all reach a low threshold, and none a threshold of one."""
    low = store.check_near_duplicates("label", max_images=8, near_duplicate_threshold=0.01)
    assert [k.copies for k in low.kinds] == [8, 8, 8]
    assert [k.found for k in low.kinds] == [8, 8, 8]
    assert all(0.01 < k.lowest <= k.median <= 1.0001 for k in low.kinds)
    chosen = store.check_near_duplicates("label", max_images=8)
    assert 0.7 <= chosen.threshold <= 1
    assert chosen.expected_false_pairs == 0.1
    for kind, at_low in zip(chosen.kinds, low.kinds, strict=True):
        assert (kind.lowest, kind.median) == (at_low.lowest, at_low.median)
        assert (kind.found == 8) is (kind.lowest >= chosen.threshold)
    assert [r["kind"] for r in chosen.records()][1] == "mirrored"


def test_a_store_of_vectors_has_no_images_to_copy(tmp_path):
    """Precomputed vectors are refused with their name."""
    X, y = clusters(30)
    with pytest.raises(BadBackbone):
        store_of(tmp_path / "s", X, label=y).check_near_duplicates("label")
