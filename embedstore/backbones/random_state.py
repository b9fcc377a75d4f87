"""The random generators of the program that uses this library: embedding leaves them as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def keep_random_state() -> Iterator[None]:
    """Restore the states of the generators that libraries draw from.

    Some networks of sound draw a number per layer though they only use it in training, and some feature extractors draw
    an item of the batch. They draw on the CPU, whatever the device.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


@contextmanager
def seeded_cpu(seed: int) -> Iterator[None]:
    """Seed the CPU's generator while the block runs; no generator of a device is read, set or seeded.

    ``torch.manual_seed`` would seed those of all GPUs, which nobody restores.

    Args:
        seed: the random seed of the numbers inside the block.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
