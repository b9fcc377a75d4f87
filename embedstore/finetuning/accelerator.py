"""accelerate, which knows mixed precision and several processes; random numbers that a seed and an epoch decide."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from embedstore.errors import MissingExtra

if TYPE_CHECKING:
    from accelerate import Accelerator

MIXED_PRECISION = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}


def process_rank() -> int:
    """Number of this process among those that ``accelerate launch`` started, 0 when it is alone. On GPUs each process
    takes its own, so this is asked before a network is loaded.
    """  # noqa: D205
    local = int(os.environ.get("LOCAL_RANK", "-1"))
    if local >= 0 and torch.cuda.is_available():  # pragma: no cover - wants a GPU
        torch.cuda.set_device(local)
    return int(os.environ.get("RANK", "0"))


def create_accelerator(device: str, precision: str) -> Accelerator:
    """The accelerator of this process.

    Args:
        device: of the backbone, as torch names it; with several processes accelerate gives each its own.
        precision: ``fp32``, ``fp16`` or ``bf16``.

    Raises:
        MissingExtra: accelerate is not installed.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
    except ImportError as e:
        raise MissingExtra(
            "fine-tuning needs the package accelerate, which is not installed; run `pip install embedstore[finetune]`"
        ) from e
    AcceleratorState._reset_state()  # a run before this one, in the same process, may have had another precision
    return Accelerator(cpu=device == "cpu", mixed_precision=MIXED_PRECISION[precision], device_placement=False)


@contextmanager
def fixed_seed(*seed: int) -> Iterator[None]:
    """Everything random inside follows the numbers given, and nothing outside notices."""
    number = int(np.random.default_rng(seed).integers(0, 2**31))
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(number)
        np.random.seed(number)  # noqa: NPY002 - what libraries draw from
        random.seed(number)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
