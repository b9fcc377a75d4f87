"""Batches: split to fit into memory, and sized for speed."""

import numpy as np
import pytest

from embedstore.backbones.batch_runner import BatchRunner, find_batch_size
from embedstore.errors import BadBackbone


def limited_forward(limit, sizes):
    """A forward pass that runs out of memory beyond ``limit`` rows, and records how many it was given."""

    def forward(batch):
        sizes.append(len(batch))
        if len(batch) > limit:
            raise MemoryError
        return batch.astype(np.float32)

    return forward


def test_the_batch_size_is_halved_when_memory_runs_out_and_remains_halved():
    """A device with room for two rows gets two from then on, after one try alone; every row comes back in order."""
    sizes, released = [], []
    runner = BatchRunner(1, 8, release_memory=lambda: released.append(len(sizes)))
    rows = np.arange(5)[:, None]
    assert runner.run(rows, limited_forward(2, sizes)).tolist() == rows.tolist()
    assert sizes == [5, 5, 2, 2, 1]
    assert runner.batch_size == 2
    assert released == [1, 2]


def test_a_single_input_that_does_not_fit_is_an_error_with_a_cure():
    """Halving ends at one row; the error names its shape, the device and what to change."""
    runner = BatchRunner(1, 8, device="cuda:1")
    with pytest.raises(BadBackbone, match=r"one input of 3x4 values does not fit .* of cuda:1; use --device cpu"):
        runner.run(np.zeros((5, 3, 4)), limited_forward(0, []))


def test_another_error_is_not_mistaken_for_a_lack_of_memory():
    """A shape error is raised at once, and the batch size does not change."""
    runner = BatchRunner(1, 8)

    def forward(batch):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        runner.run(np.zeros((5, 1)), forward)
    assert runner.batch_size == 8


def test_the_best_batch_size_is_the_smallest_within_five_percent_of_the_fastest():
    """Worked by hand: constant from 8 on; a size that does not fit ends the search; a gain of 5% continues it."""
    constant = {1: 10, 2: 20, 4: 40, 8: 60, 16: 61, 32: 99}
    assert find_batch_size(constant.get, 1, 32) == (8, {b: constant[b] for b in (1, 2, 4, 8, 16)})
    assert find_batch_size({8: 10, 16: 20}.get, 8, 64)[0] == 16
    assert find_batch_size({}.get, 8, 64) == (4, {})
    rising = {b: float(b) for b in (1, 2, 4, 8)}
    assert find_batch_size(rising.get, 1, 8) == (8, rising)


def test_tuning_stays_within_memory():
    """Sizes that do not fit are not chosen, and the runner keeps the size that was chosen."""
    runner = BatchRunner(1, 8)
    rates = runner.tune(lambda rows: runner.run(rows, limited_forward(4, [])), np.zeros((3, 1)), smallest=1, largest=64)
    assert runner.batch_size in rates
    assert max(rates) <= 4
