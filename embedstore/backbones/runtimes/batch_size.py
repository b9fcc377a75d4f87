"""The batch size from which more images at once bring no more speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone
    from embedstore.backbones.runtimes.onnx_encoder import OnnxEncoder

MIN_GAIN = 1.05  # by which twice the images must be faster to be worth twice the memory


def find_batch_size(
    throughput: Callable[[int], float | None], start: int, max_size: int
) -> tuple[int, dict[int, float]]:
    """Double the batch as long as that pays.

    Args:
        rate: images per second at a batch size; None where it does not fit into memory.
        start, most: the first and the largest size that is tried.

    Returns:
        The smallest size that is within 5% of every larger one tried, and what was measured.
    """
    found: dict[int, float] = {}
    size = start
    while size <= max_size:
        reached = throughput(size)
        if reached is None:
            break
        found[size] = reached
        if size > start and reached < MIN_GAIN * found[size // 2]:
            break
        size *= 2
    if not found:
        return max(1, start // 2), found
    best = max(found.values())
    return min(s for s, r in found.items() if r * MIN_GAIN >= best), found


def throughput_function(encoder: Backbone | OnnxEncoder, pixels: Any) -> Callable[[int], float | None]:
    """Images per second of a network at a batch size, from one forward after a warm-up, for :func:`knee`.

    Args:
        network: its ``batch_size`` is raised to what is tried, and comes back halved where memory ran out.
        pixels: prepared images ``(B, 3, H, W)``, an array or a tensor on the device, repeated as needed.
    """
    pixels = pixels if isinstance(pixels, np.ndarray) else pixels.cpu().numpy()

    def rate(size: int) -> float | None:
        batch = np.resize(pixels, (size, *pixels.shape[1:]))
        encoder.batch_size = max(encoder.batch_size, size)
        encoder.encode_images(batch)
        if encoder.batch_size < size:
            return None
        begin = time.perf_counter()
        encoder.encode_images(batch)
        return size / (time.perf_counter() - begin)

    return rate
