"""Random numbers that are the same every time, without a trace in the program's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded_cpu(seed: int) -> Iterator[None]:
    """Seed the CPU's generator while the block runs; no generator of a device is read, set or seeded.

    ``torch.manual_seed`` would seed those of all GPUs, which nobody restores.

    Args:
        seed: of the numbers inside the block.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
