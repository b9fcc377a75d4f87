"""Forward passes that share a device, and what must be alone on it: a change of a network, a retry."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from embedstore.devices import full_name


class ForwardGate:
    """A lock that forward passes share; whoever is alone waits for them and keeps new ones out."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._running = 0
        self._is_taken = False

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Hold the gate together with other forward passes."""
        with self._condition:
            self._condition.wait_for(lambda: not self._is_taken)
            self._running += 1
        try:
            yield
        finally:
            with self._condition:
                self._running -= 1
                self._condition.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the gate alone. The thread must not hold it already."""
        with self._condition:
            self._condition.wait_for(lambda: not self._is_taken)
            self._is_taken = True
            self._condition.wait_for(lambda: self._running == 0)
        try:
            yield
        finally:
            with self._condition:
                self._is_taken = False
                self._condition.notify_all()


_gates: dict[str, ForwardGate] = {}
_gates_lock = threading.Lock()


def gate_of_device(device: str) -> ForwardGate:
    """Return the gate of a device, which all networks on it share: they share its memory.

    Args:
        device: its name; ``cuda`` and ``cuda:0`` are one device.
    """
    name = full_name(device)
    with _gates_lock:
        return _gates.setdefault(name, ForwardGate())
