"""Mixed precision and several processes through accelerate, and reproducible random numbers."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from embedstore.errors import MissingExtra
from embedstore.storage.forks import is_forked_child

if TYPE_CHECKING:
    from accelerate import Accelerator

MIXED_PRECISION = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}


def process_rank() -> int:
    """Return the rank of this process under ``accelerate launch``, 0 when it is alone.

    On GPUs each process selects its own device, so call this before a network is loaded.
    """
    local = int(os.environ.get("LOCAL_RANK", "-1"))
    if local >= 0 and torch.cuda.is_available():  # pragma: no cover - needs a GPU
        torch.cuda.set_device(local)
    return int(os.environ.get("RANK", "0"))


def create_accelerator(device: str, precision: str) -> Accelerator:
    """Return the accelerator of this process.

    Args:
        device: the device of the backbone, as torch names it; with several processes accelerate gives each its own.
        precision: ``fp32``, ``fp16`` or ``bf16``.

    Raises:
        MissingExtra: if accelerate is not installed.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
    except ImportError as e:
        raise MissingExtra(
            "fine-tuning needs the package accelerate, which is not installed; run `pip install embedstore[finetune]`"
        ) from e
    AcceleratorState._reset_state()  # an earlier run in the same process may have had another precision
    return Accelerator(cpu=device == "cpu", mixed_precision=MIXED_PRECISION[precision], device_placement=False)


@contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """Compute with some threads in the block: the order of a sum, and so its last bits, depends on their number.

    A forked child keeps its one thread, because it would wait for the threads that stayed in its parent.

    Args:
        count: the number of threads on the CPU; 0 changes nothing.
    """
    before = torch.get_num_threads()
    if not count or count == before or is_forked_child():
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def fixed_seed(*seed: int, device: torch.device) -> Iterator[None]:
    """Seed the random generators for the block, and restore their states afterwards.

    Args:
        seed: any numbers.
        device: whose generator is seeded as well as the CPU's; other devices of the machine are not touched.
    """
    number = int(np.random.default_rng(seed).integers(0, 2**31))
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(number)
        _seed_device(device, number)
        np.random.seed(number)  # noqa: NPY002 - the generator that libraries draw from
        random.seed(number)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def _seed_device(device: torch.device, number: int) -> None:
    """Seed the generator of one device."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)
