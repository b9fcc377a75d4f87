"""Objects that exist before a run are left out of full collections, and only during the run."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from embedstore.pipeline.garbage import ignore_existing_objects


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    """Begin and end without frozen objects."""
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_existing_objects_are_left_out_only_within_the_block() -> None:
    with ignore_existing_objects():
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0


def test_an_error_in_the_block_ends_it() -> None:
    with pytest.raises(KeyError), ignore_existing_objects():
        raise KeyError
    assert gc.get_freeze_count() == 0


def test_garbage_made_within_the_block_is_collected() -> None:
    with ignore_existing_objects():
        cycle: list[object] = []
        cycle.append(cycle)
        del cycle
        assert gc.collect() > 0


def test_what_the_caller_froze_stays_frozen() -> None:
    gc.freeze()
    with ignore_existing_objects():
        pass
    assert gc.get_freeze_count() > 0
