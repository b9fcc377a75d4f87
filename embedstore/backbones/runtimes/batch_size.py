"""The batch size from which more images at once bring no more speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone
    from embedstore.backbones.runtimes.onnx import Exported

GAIN = 1.05  # by which twice the images must be faster to be worth twice the memory


def knee(rate: Callable[[int], float | None], start: int, most: int) -> tuple[int, dict[int, float]]:
    """Double the batch as long as that pays.

    Args:
        rate: images per second at a batch size; None where it does not fit into memory.
        start, most: the first and the largest size that is tried.

    Returns:
        The smallest size that is within 5% of every larger one tried, and what was measured.
    """
    found: dict[int, float] = {}
    size = start
    while size <= most:
        reached = rate(size)
        if reached is None:
            break
        found[size] = reached
        if size > start and reached < GAIN * found[size // 2]:
            break
        size *= 2
    if not found:
        return max(1, start // 2), found
    best = max(found.values())
    return min(s for s, r in found.items() if r * GAIN >= best), found


def rated(network: Backbone | Exported, pixels: Any) -> Callable[[int], float | None]:
    """Images per second of a network at a batch size, from one forward after a warm-up, for :func:`knee`.

    Args:
        network: its ``batch_size`` is raised to what is tried, and comes back halved where memory ran out.
        pixels: prepared images ``(B, 3, H, W)``, an array or a tensor on the device, repeated as needed.
    """
    pixels = pixels if isinstance(pixels, np.ndarray) else pixels.cpu().numpy()

    def rate(size: int) -> float | None:
        batch = np.resize(pixels, (size, *pixels.shape[1:]))
        network.batch_size = max(network.batch_size, size)
        network.encode_images(batch)
        if network.batch_size < size:
            return None
        begin = time.perf_counter()
        network.encode_images(batch)
        return size / (time.perf_counter() - begin)

    return rate
