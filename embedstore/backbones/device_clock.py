"""How fast a CUDA device computes, by its own clock."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch


class DeviceClock:
    """Measures forward passes by events, which the device records: what the host does beside them does not count.

    Two passes at once share the device, so time in which both run counts once. For many threads.

    Args:
        device: where the network runs; on any other than CUDA nothing is measured.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget what was measured."""
        with self._lock:
            self._images, self._spans = 0, list[tuple[float, float]]()
            self._start: torch.cuda.Event | None = None

    @property
    def images_per_second(self) -> float | None:
        """The rate at which images were computed, or None if nothing was measured."""
        with self._lock:
            seconds = union_length(self._spans) / 1000
            return self._images / seconds if seconds > 0 else None

    def now(self) -> torch.cuda.Event | None:
        """Return an event that the device passes when it has done everything that it was given before."""
        if self._device is None:
            return None
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def add(self, images: int, begin: torch.cuda.Event | None, end: torch.cuda.Event | None) -> None:
        """Count a forward pass between two events that the device has passed."""
        if begin is None or end is None:
            return
        with self._lock:
            self._start = self._start or begin
            self._images += images
            self._spans.append((self._start.elapsed_time(begin), self._start.elapsed_time(end)))


def union_length(spans: Sequence[tuple[float, float]]) -> float:
    """Return the length of what some spans cover; what several cover counts once."""
    total, covered = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, covered))
        covered = max(covered, end)
    return total
