"""Run a network over any number of inputs, and find the batch size that suits its device; torch is not imported."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.forward_gate import ForwardGate
from embedstore.devices import describe_memory, is_out_of_memory
from embedstore.errors import BadBackbone

MIN_GAIN = 1.05  # speed-up that twice the batch size must bring to be worth twice the memory

EncodeFunction = Callable[[Any], NDArray[np.float32]]  # a batch (B, ...), an array or a tensor, to vectors (B, D)


class BatchRunner:
    """Split inputs into batches that fit into memory. It alone decides an encoder's batch size.

    Args:
        dim: length of a vector.
        batch_size: inputs per forward pass at first.
        device: the device's name, for the error message.
        gate: shared by the forward passes on the device.
        release_memory: called after memory ran out, before the next attempt.

    Attributes:
        batch_size: inputs per forward pass, halved when memory runs out.
    """

    def __init__(
        self,
        dim: int,
        batch_size: int,
        *,
        device: str = "cpu",
        gate: ForwardGate | None = None,
        release_memory: Callable[[], None] = lambda: None,
    ) -> None:
        self.batch_size = batch_size
        self._gate = gate or ForwardGate()
        self._dim, self._device, self._release_memory = dim, device, release_memory

    def run(self, inputs: Any, forward: EncodeFunction) -> NDArray[np.float32]:
        """Return the vectors of all inputs.

        Args:
            inputs: ``(N, ...)``, an array or a tensor.
            forward: one forward pass; it gets at most ``batch_size`` inputs.

        Returns:
            float32 ``(N, D)``.

        Raises:
            BadBackbone: when a single input does not fit into the device's memory.
        """
        out = np.empty((len(inputs), self._dim), np.float32)
        start = 0
        while start < len(inputs):
            batch = inputs[start : start + self.batch_size]
            vectors = self._forward_or_retry(batch, forward)
            if vectors is None:
                self.batch_size = min(self.batch_size, len(batch) // 2)
                continue
            out[start : start + len(batch)] = vectors
            start += len(batch)
        return out

    def _forward_or_retry(self, batch: Any, forward: EncodeFunction) -> NDArray[np.float32] | None:
        """Return the vectors, or None if the batch does not fit into memory even when nothing else runs.

        Batches of two threads may fill the memory that each of them fits into, so a batch is tried again alone before
        it is halved.
        """
        with self._gate.forward():
            vectors = self._forward_or_none(batch, forward)
        if vectors is None:
            with self._gate.alone():
                self._release_memory()
                vectors = self._forward_or_none(batch, forward, alone=True)
                self._release_memory()
        return vectors

    def _forward_or_none(
        self, batch: Any, forward: EncodeFunction, *, alone: bool = False
    ) -> NDArray[np.float32] | None:
        """Return the vectors, or None if memory ran out and a smaller batch, or this one alone, may fit.

        The exception ends with this frame: its traceback refers to the tensors that filled the memory.
        """
        try:
            return forward(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) > 1 or not alone:
                return None
            device = f"{self._device}{describe_memory(self._device)}"
            raise BadBackbone(
                f"one input of {'x'.join(map(str, batch.shape[1:]))} values does not fit into the memory of {device}; "
                "use --device cpu, --precision fp16 or a smaller backbone"
            ) from error

    def tune(self, encode: EncodeFunction, pixels: Any, *, smallest: int, largest: int) -> dict[int, float]:
        """Set the batch size to the smallest beyond which larger batches bring no more speed.

        Args:
            encode: embeds a batch through this runner.
            pixels: prepared images ``(B, 3, H, W)``, an array or a tensor; they are repeated as needed.
            smallest: the first batch size that is tried; it doubles from there.
            largest: the last batch size that may be tried.

        Returns:
            Images per second by batch size, each from one forward pass after a warm-up.
        """
        pixels = pixels if isinstance(pixels, np.ndarray) else pixels.cpu().numpy()

        def throughput(size: int) -> float | None:
            batch = np.resize(pixels, (size, *pixels.shape[1:]))
            self.batch_size = size
            encode(batch)
            if self.batch_size < size:
                return None
            begin = time.perf_counter()
            encode(batch)
            return size / (time.perf_counter() - begin)

        self.batch_size, rates = find_batch_size(throughput, smallest, largest)
        return rates


def find_batch_size(
    throughput: Callable[[int], float | None], smallest: int, largest: int
) -> tuple[int, dict[int, float]]:
    """Double the batch size as long as that pays.

    Args:
        throughput: images per second at a batch size, or None if it does not fit into memory.
        smallest: the first size that is tried.
        largest: the last size that may be tried.

    Returns:
        The smallest size within 5% of the fastest, and the measured throughput by size.
    """
    rates: dict[int, float] = {}
    size = smallest
    while size <= largest:
        rate = throughput(size)
        if rate is None:
            break
        rates[size] = rate
        if size > smallest and rate < MIN_GAIN * rates[size // 2]:
            break
        size *= 2
    if not rates:
        return max(1, smallest // 2), rates
    fastest = max(rates.values())
    return min(size for size, rate in rates.items() if rate * MIN_GAIN >= fastest), rates


def require_pixels(batch: Any, size: tuple[int, int]) -> None:
    """Check that a batch holds prepared images.

    Raises:
        ValueError: when the batch is not uint8 ``(B, 3, height, width)``.
    """
    expected = (3, *size)
    if str(batch.dtype) not in ("uint8", "torch.uint8") or batch.ndim != 4 or tuple(batch.shape[1:]) != expected:
        raise ValueError(f"expected uint8 (B, {', '.join(map(str, expected))}), got {batch.dtype} {tuple(batch.shape)}")
