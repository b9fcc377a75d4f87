"""The contents and missing items of a plan, looked up without the catalog."""

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.pipeline import content_set
from embedstore.pipeline.content_set import ContentSet, MissingItems, packed

# few contents, some of which differ in the last byte or the first one alone, or end in zeros
digests = st.one_of(
    st.integers(0, 5).map(lambda n: f"{n:032x}"),
    st.integers(0, 5).map(lambda n: f"{n:02x}" + "0" * 30),
    st.integers(0, 5).map(lambda n: f"{n:02x}" * 16),
    st.integers(0, 2**128 - 1).map(lambda n: f"{n:032x}"),
)


@given(
    first=st.lists(digests, max_size=30),
    steps=st.lists(st.tuples(st.lists(digests, max_size=12), st.lists(digests, max_size=12)), max_size=12),
    most=st.integers(0, 9),
)
def test_a_content_set_answers_as_a_set_does(first, steps, most):
    """Whatever is added in whatever portions, and however soon it becomes arrays: the same contents are present."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content_set, "MAX_RECENT", most)
        known, oracle = ContentSet(np.sort(packed(first))), set(first)
        for added, asked in steps:
            known.add([d for d in dict.fromkeys(added) if d not in oracle])
            oracle |= set(added)
            assert known.present(asked + added + first) == {d for d in asked if d in oracle} | set(added + first)


def test_the_arrays_of_a_content_set_stay_few(monkeypatch):
    """A thousand additions are a few arrays, each more than twice as long as the next: look-ups do not slow down."""
    monkeypatch.setattr(content_set, "MAX_RECENT", 8)
    known = ContentSet(np.sort(packed([f"{n:032x}" for n in range(100)])))
    for n in range(1000):
        known.add([f"{16 * n + k:032x}" for k in range(1000, 1016)])
    sizes = [len(array.contents) for array in known._arrays]
    assert sum(sizes) == 100 + 16_000
    assert all(before > 2 * after for before, after in pairwise(sizes))


@given(
    missing=st.lists(digests, max_size=20),
    groups=st.lists(st.lists(st.one_of(st.none(), digests), max_size=15), max_size=4),
)
def test_each_missing_item_is_claimed_once_and_the_lowest_first(missing, groups):
    """Files with the content of missing items take them in the order of their ids; the others take none."""
    pairs = sorted((content, 10 + n) for n, content in enumerate(missing))
    items = MissingItems(packed([content for content, _ in pairs]), np.array([item for _, item in pairs], np.int64))
    free = defaultdict(list)
    for content, item in pairs:
        free[content].append(item)
    taken = []
    for group in groups:
        wanted = [free[d].pop(0) if d is not None and free[d] else None for d in group]
        assert items.claim(group) == wanted
        taken += [item for item in wanted if item is not None]
    assert sorted(items.claimed()) == sorted(taken)
