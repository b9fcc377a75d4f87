"""Full collections are rarer during a run, and only then."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from embedstore.pipeline.garbage import fewer_full_collections


@pytest.fixture(autouse=True)
def own_thresholds() -> Iterator[None]:
    """Begin with the thresholds of a program, and restore those of the tests."""
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_only_the_threshold_of_full_collections_is_higher_within_the_block() -> None:
    with fewer_full_collections():
        young, middle, old = gc.get_threshold()
    assert (young, middle) == (700, 10)
    assert old > 10
    assert gc.get_threshold() == (700, 10, 10)


def test_an_error_in_the_block_ends_it() -> None:
    with pytest.raises(KeyError), fewer_full_collections():
        raise KeyError
    assert gc.get_threshold() == (700, 10, 10)


def test_a_higher_threshold_of_the_program_stays() -> None:
    gc.set_threshold(700, 10, 1000)
    with fewer_full_collections():
        assert gc.get_threshold() == (700, 10, 1000)
    assert gc.get_threshold() == (700, 10, 1000)


def test_nothing_is_frozen_and_young_garbage_is_collected_as_before() -> None:
    """Frozen objects that are thawed count as old: stores of earlier runs would stay until a full collection."""
    with fewer_full_collections():
        assert gc.get_freeze_count() == 0
        cycle: list[object] = []
        cycle.append(cycle)
        del cycle
        assert gc.collect(0) > 0
