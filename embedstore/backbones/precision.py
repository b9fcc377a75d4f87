"""The precision of forward passes: fp32 in truth, or a half precision that has proved to give the same vectors.

Half precision moves vectors: of MobileNetV2 to a least cosine of 0.99 in bf16, where fp16 keeps 0.99998 and overflows
in other networks. So it is treated like a runtime: the first batch of a run is computed in fp32, and a half precision
is used only where its vectors agree (:data:`~embedstore.backbones.runtimes.runtime.MIN_COSINE`).
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

HALF_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class _TrueFp32:
    """Whether CUDA computes fp32 exactly, which is a setting of the whole process: kept while any thread needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: dict[Any, str] = {}

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                for backend in _fp32_backends():
                    self._before[backend] = backend.fp32_precision
                    backend.fp32_precision = "ieee"
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for backend, setting in self._before.items():
                    backend.fp32_precision = setting


_true_fp32 = _TrueFp32()


def true_fp32(device_type: str) -> AbstractContextManager[None]:
    """Return a context in which fp32 is computed as fp32: by default CUDA rounds the inputs of convolutions to TF32.

    Args:
        device_type: as ``torch.device`` has it; only ``cuda`` needs it.
    """
    return _true_fp32 if device_type == "cuda" else nullcontext()


def _fp32_backends() -> list[Any]:
    """Return what decides how fp32 is computed on CUDA."""
    return [torch.backends.cuda.matmul, torch.backends.cudnn.conv]  # type: ignore[attr-defined]


class HalfWeights:
    """The weights of linear layers and convolutions, cast once for autocast, which would cast them for every batch.

    Normalizations keep their fp32 weights, and autocast computes them in fp32.

    Args:
        module: the network.
        dtype: a half precision.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        layers = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)]
        parameters = {id(p): (m, name, p) for m in layers for name, p in m.named_parameters(recurse=False)}
        used_elsewhere = _counts(module)
        self._swaps = [
            (m, name, p, nn.Parameter(p.to(dtype), requires_grad=False))
            for m, name, p in parameters.values()
            if used_elsewhere[id(p)] == 1 and p.dtype == torch.float32
        ]

    def use_half(self) -> None:
        """Put the cast weights into the network."""
        for module, name, _, half in self._swaps:
            setattr(module, name, half)

    def use_full(self) -> None:
        """Put the fp32 weights back, to the bit."""
        for module, name, full, _ in self._swaps:
            setattr(module, name, full)


def _counts(module: nn.Module) -> dict[int, int]:
    """Return by parameter in how many places of the network it is; a tied weight is left as it is."""
    counts: dict[int, int] = {}
    for part in module.modules():
        for p in part.parameters(recurse=False):
            counts[id(p)] = counts.get(id(p), 0) + 1
    return counts
