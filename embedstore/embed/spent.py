"""Where the time of a run went, and what that says: the line that names the bottleneck."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

BUSY = 0.85  # of the cores' time: more is seldom reached with threads that wait for each other
CLEAR = 0.9  # a stage that could not do so much more than what was reached limits


class Meter:
    """Seconds of one stage over all its threads: on the clock, and of the processor."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self._lock = threading.Lock()

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Add the block's time."""
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            with self._lock:
                self.wall += time.perf_counter() - wall
                self.cpu += time.thread_time() - cpu


@dataclass(frozen=True)
class Spent:
    """What the stages of one run took, after the backbone was loaded.

    Attributes:
        images: decoded and embedded. seconds: on the clock.
        decode, decode_cpu: seconds over all decoding threads, reading and hashing included.
        forward: seconds on the clock in which the backbone was computing.
        write, write_cpu: seconds of settling and committing.
        cpu: of the whole process.
        threads: of the decoding pool. cores: that this process may use.
        shared: the backbone computes on the same cores.
        runtime: of the backbone.
    """

    images: int
    seconds: float
    decode: float
    decode_cpu: float
    forward: float
    write: float
    write_cpu: float
    cpu: float
    threads: int
    cores: int
    shared: bool
    runtime: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded."""
        return {k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(self).items()}

    def verdict(self) -> str:
        """One line: which stage limits, by how much, and what would help; "" where nothing was embedded."""
        if not self.images or self.seconds <= 0:
            return ""
        return self._on_shared_cores() if self.shared else self._beside_a_device()

    def _on_shared_cores(self) -> str:
        """Decoding and the network take the same cores: what they take of them decides."""
        if not self.cpu:
            return ""
        forward = max(0.0, self.cpu - self.decode_cpu - self.write_cpu)
        shares = {"the network": forward, "decoding": self.decode_cpu, "writing": self.write_cpu}
        used = self.cpu / (self.seconds * self.cores)
        told = ", ".join(f"{name} {part / self.cpu:.0%}" for name, part in shares.items())
        if used < BUSY and self.decode - self.decode_cpu > self.decode_cpu and self.forward < BUSY * self.seconds:
            more = "more --threads would overlap more reads" if self.threads < 4 * self.cores else "a faster disk helps"
            return f"read-bound: decoding threads waited {1 - self.decode_cpu / self.decode:.0%} of their time; {more}"
        name = max(shares, key=lambda n: shares[n])
        kind = {"the network": "backbone-bound", "decoding": "decode-bound", "writing": "write-bound"}[name]
        where = f"{used * self.cores:.1f} of {self.cores} cores" if self.cores > 1 else f"{used:.0%} of one core"
        return f"{kind}: {told} of the CPU time on {where}; {self._cure(name)}"

    def _cure(self, name: str) -> str:
        """What to change where cores are the limit."""
        if name == "decoding":
            return "smaller files or more cores would lift it"
        if name == "writing":
            return "a faster disk would lift it"
        if self.runtime == "eager":
            return "--runtime onnx, a smaller backbone or a GPU would lift it"
        return "a smaller backbone, more cores or a GPU would lift it"

    def _beside_a_device(self) -> str:
        """The device computes while cores decode: the slower of the two rates decides."""
        reached = self.images / self.seconds
        backbone = self.images / self.forward if self.forward else float("inf")
        decoding = self.images * self.threads / self.decode if self.decode else float("inf")
        if decoding >= backbone or reached >= CLEAR * backbone:
            return (
                f"backbone-bound: {reached / backbone:.0%} of the device's rate ({backbone:,.0f} images/s); "
                "a smaller backbone, --precision bf16 or a faster device would lift it"
            )
        share = reached / backbone
        wanted = min(self.cores, -(-self.threads * backbone // decoding))
        if wanted > self.threads:
            lifted = min(1.0, share * wanted / self.threads)
            cure = f"{wanted:.0f} threads instead of {self.threads} would lift it to {lifted:.0%}"
        else:
            cure = f"all {self.cores} cores decode: smaller files or more cores would lift it"
        return f"decode-bound: {share:.0%} of the device's rate ({backbone:,.0f} images/s); {cure}"


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
