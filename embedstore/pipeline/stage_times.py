"""Where the time of a run went, and what that says: the line that names the bottleneck."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

MIN_CPU_UTILIZATION = 0.85  # of the cores' time: more is seldom reached with threads that wait for each other
MIN_DEVICE_UTILIZATION = 0.9  # of the device's rate: as much as can be had beside decoding
BOTTLENECK_NAMES = {
    "the network": "backbone-bound",
    "decoding": "decode-bound",
    "reading": "read-bound",
    "writing": "write-bound",
}


@dataclass(frozen=True)
class StageTime:
    """Seconds of one stage over all its threads: on the clock, and of the processor."""

    wall: float = 0.0
    cpu: float = 0.0


class StageTimer:
    """Adds up the time of one stage; for many threads."""

    def __init__(self) -> None:
        self.time = StageTime()
        self._lock = threading.Lock()

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Add the block's time."""
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
            with self._lock:
                self.time = StageTime(self.time.wall + wall, self.time.cpu + cpu)


@dataclass(frozen=True)
class StageTimers:
    """Of the stages beside the backbone: reading and hashing, decoding and resizing, settling and committing."""

    read: StageTimer = field(default_factory=StageTimer)
    decode: StageTimer = field(default_factory=StageTimer)
    write: StageTimer = field(default_factory=StageTimer)


@dataclass(frozen=True)
class StageTimes:
    """What the stages of one run took, after the backbone was loaded.

    Attributes:
        images: decoded and embedded. seconds: on the clock.
        read, decode, write: over all threads of the stage.
        forward: seconds on the clock in which the backbone was computing.
        cpu: seconds of the whole process.
        threads: of the pool that reads and decodes. cores: that this process may use.
        shared: the backbone computes on the same cores.
        runtime: of the backbone.
    """

    images: int
    seconds: float
    read: StageTime
    decode: StageTime
    forward: float
    write: StageTime
    cpu: float
    threads: int
    cores: int
    shared: bool
    runtime: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def bottleneck(self) -> str:
        """One line: which stage limits, by how much, and what would help; "" where nothing was embedded."""
        if not self.images or self.seconds <= 0 or self.cpu <= 0:
            return ""
        if self._starved():
            return self._reading()
        return self._on_shared_cores() if self.shared else self._beside_a_device()

    def _starved(self) -> bool:
        """Threads waited for the disk longer than they and the backbone worked."""
        waited = self.read.wall - self.read.cpu
        return waited > self.decode.wall and waited / self.threads > MIN_CPU_UTILIZATION * self.forward

    def _reading(self) -> str:
        """The disk or the network file system limits."""
        share = (self.read.wall - self.read.cpu) / (self.threads * self.seconds)
        cure = f"more --threads than {self.threads} would read more files at once; a faster disk would help too"
        return f"read-bound: {self.threads} threads waited for files {share:.0%} of the time; {cure}"

    def _on_shared_cores(self) -> str:
        """Decoding and the network take the same cores: what they take of them decides."""
        shares = {"reading": self.read.cpu, "decoding": self.decode.cpu, "writing": self.write.cpu}
        shares = {"the network": max(0.0, self.cpu - sum(shares.values())), **shares}
        used = self.cpu / (self.seconds * self.cores)
        told = ", ".join(f"{name} {part / self.cpu:.0%}" for name, part in shares.items())
        name = max(shares, key=lambda n: shares[n])
        cure = self._cure(name)
        if used < MIN_CPU_UTILIZATION:
            cure = f"{1 - used:.0%} of the cores stood idle or worked for other programs; " + cure
        return f"{BOTTLENECK_NAMES[name]}: of the CPU time {told}; {cure}"

    def _cure(self, name: str) -> str:
        """What to change where cores are the limit."""
        if name == "decoding":
            return "smaller files or more cores would lift it"
        if name != "the network":
            return "a faster disk would lift it"
        if self.runtime == "eager":
            return "--runtime onnx, a smaller backbone or a GPU would lift it"
        return "a smaller backbone, more cores or a GPU would lift it"

    def _beside_a_device(self) -> str:
        """The device computes while cores decode: the slower of the two rates decides."""
        reached = self.images / self.seconds
        backbone = self.images / max(self.forward, 1e-9)
        decoding = self.images * self.threads / max(self.read.wall + self.decode.wall, 1e-9)
        share = reached / backbone
        of = f"{share:.0%} of the device's rate ({backbone:,.0f} images/s)"
        if decoding >= backbone or share >= MIN_DEVICE_UTILIZATION:
            return f"backbone-bound: {of}; a smaller backbone, --precision bf16 or a faster device would lift it"
        wanted = min(self.cores, math.ceil(self.threads * backbone / decoding))
        if wanted > self.threads:
            lifted = min(1.0, share * wanted / self.threads)
            return f"decode-bound: {of}; {wanted} threads instead of {self.threads} would lift it to {lifted:.0%}"
        return f"decode-bound: {of}; all {self.cores} cores decode: smaller files or more cores would lift it"
