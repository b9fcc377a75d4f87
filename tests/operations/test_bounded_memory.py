"""What a long-running process keeps is limited in bytes, and is what was put in."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedstore.operations.bounded_cache import BoundedCache
from embedstore.operations.packed_ids import PackedIds

IDS = st.integers(0, 2**63 - 1)


@given(st.lists(IDS, max_size=50) | st.lists(st.integers(0, 300), max_size=200, unique=True).map(sorted))
def test_packed_ids_are_the_ids_in_their_order(ids):
    """Any ids come back, in their order, and take no more than eight bytes each."""
    packed = PackedIds.of(np.array(ids, np.int64))
    assert packed.unpack().dtype == np.int64
    assert packed.unpack().tolist() == ids
    assert packed.nbytes <= 8 * len(ids)


def test_the_ids_of_a_filter_take_a_bit_each():
    """Every third of 800,000 ids takes 100 kB, however large the first id is."""
    for first in (0, 2**62):
        ids = np.arange(0, 800_000, 3) + first
        assert PackedIds.of(ids).nbytes == 100_000
        assert np.array_equal(PackedIds.of(ids).unpack(), ids)
    assert PackedIds.of(ids[::-1].copy()).nbytes == ids.nbytes


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 12), st.booleans()), max_size=60))
def test_a_cache_holds_what_was_used_last_within_its_limits(steps):
    """Against a list: values that were used last stay while they fit; the newest one always does."""
    cache = BoundedCache(20, lambda value: value, max_values=4)
    expected: list[tuple[int, int]] = []
    for key, size, is_put in steps:
        held = dict(expected)
        if is_put:
            expected = [(k, v) for k, v in expected if k != key] + [(key, size)]
            cache.put(key, size)
        else:
            assert cache.get(key) == held.get(key)
            if key in held:
                expected = [(k, v) for k, v in expected if k != key] + [(key, held[key])]
        while len(expected) > 1 and (len(expected) > 4 or sum(v for _, v in expected) > 20):
            del expected[0]
        assert (len(cache), cache.bytes) == (len(expected), sum(v for _, v in expected))
    cache.keep_only(lambda key: key % 2 == 0)
    assert {key for key in range(7) if cache.get(key) is not None} == {k for k, _ in expected if k % 2 == 0}
