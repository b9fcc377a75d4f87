"""Where the time of a run went, and which stage limits its speed."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from embedstore.modality import Modality
from embedstore.resources import available_cores
from embedstore.wording import per_second

MIN_CPU_UTILIZATION = 0.85  # of the cores' time: more is seldom reached with threads that wait for each other
MIN_DEVICE_UTILIZATION = 0.9  # of the device's rate: as much as can be reached while cores decode
BOTTLENECK_NAMES = {
    "the network": "backbone-bound",
    "decoding": "decode-bound",
    "reading": "read-bound",
    "writing": "write-bound",
}
# The keys of the stored reports (table ``runs``) that differ from the attributes.
_JSON_KEYS = {"forward_seconds": "forward", "cpu_seconds": "cpu", "shares_cpu": "shared"}


@dataclass(frozen=True)
class StageTime:
    """Seconds of one stage, summed over all its threads: wall time and processor time."""

    wall: float = 0.0
    cpu: float = 0.0


class StageTimer:
    """The sum of the time that the threads of one stage spent."""

    def __init__(self) -> None:
        self.time = StageTime()
        self._lock = threading.Lock()

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Add the time of the block."""
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
            with self._lock:
                self.time = StageTime(self.time.wall + wall, self.time.cpu + cpu)


@dataclass(frozen=True)
class StageTimers:
    """The timers of all stages but the backbone's.

    Attributes:
        read: reading and hashing.
        decode: decoding and resizing.
        write: committing.
        begin: when the stages began.
        begin_cpu: the processor time of the process then.
    """

    read: StageTimer = field(default_factory=StageTimer)
    decode: StageTimer = field(default_factory=StageTimer)
    write: StageTimer = field(default_factory=StageTimer)
    begin: float = field(default_factory=time.perf_counter)
    begin_cpu: float = field(default_factory=time.process_time)

    def finish(
        self, *, images: int, forward_seconds: float, threads: int, shares_cpu: bool, runtime: str, modality: Modality
    ) -> StageTimes:
        """Return the times up to now; the arguments are those of :class:`StageTimes`."""
        return StageTimes(
            images=images,
            seconds=max(time.perf_counter() - self.begin, 1e-9),
            read=self.read.time,
            decode=self.decode.time,
            forward_seconds=forward_seconds,
            write=self.write.time,
            cpu_seconds=time.process_time() - self.begin_cpu,
            threads=threads,
            cores=available_cores(),
            shares_cpu=shares_cpu,
            runtime=runtime,
            modality=modality,
        )


@dataclass(frozen=True)
class StageTimes:
    """What the stages of one run took, after the backbone was loaded.

    Attributes:
        images: images, texts or clips that were decoded and embedded.
        seconds: wall time of all stages together.
        read: over all threads of the stage.
        decode: over all threads of the stage.
        forward_seconds: wall time in which the backbone was computing; on a GPU by its own clock, without what the host
            does for it.
        write: committing, on a thread of its own.
        cpu_seconds: processor time of the whole process.
        threads: the size of the pool that reads and decodes.
        cores: cores that this process may use.
        shares_cpu: whether the backbone computes on the same cores.
        runtime: the runtime of the backbone.
        modality: the modality of the items.
    """

    images: int
    seconds: float
    read: StageTime
    decode: StageTime
    forward_seconds: float
    write: StageTime
    cpu_seconds: float
    threads: int
    cores: int
    shares_cpu: bool
    runtime: str
    modality: Modality = Modality.IMAGE

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, under the keys of the table ``runs``."""
        return {_JSON_KEYS.get(name, name): value for name, value in asdict(self).items()}

    def bottleneck(self) -> str:
        """Return one line: which stage limits, by how much, and what would help; "" if nothing was embedded."""
        if not self.images or self.seconds <= 0 or self.cpu_seconds <= 0:
            return ""
        if self._is_read_bound():
            return self._describe_reading()
        return self._describe_shared_cores() if self.shares_cpu else self._describe_device()

    def _is_read_bound(self) -> bool:
        """Return whether threads waited for files longer than they and the backbone worked."""
        waited = self.read.wall - self.read.cpu
        return waited > self.decode.wall and waited / self.threads > MIN_CPU_UTILIZATION * self.forward_seconds

    def _describe_reading(self) -> str:
        """Describe a run that the disk or the network file system limits."""
        share = (self.read.wall - self.read.cpu) / (self.threads * self.seconds)
        cure = f"more --threads than {self.threads} would read more files at once; a faster disk would help too"
        return f"read-bound: {self.threads} threads waited for files {share:.0%} of the time; {cure}"

    def _describe_shared_cores(self) -> str:
        """Describe a run in which decoding and the network share the cores: the larger share limits."""
        seconds = {"reading": self.read.cpu, "decoding": self.decode.cpu, "writing": self.write.cpu}
        seconds = {"the network": max(0.0, self.cpu_seconds - sum(seconds.values())), **seconds}
        utilization = self.cpu_seconds / (self.seconds * self.cores)
        shares = ", ".join(f"{name} {part / self.cpu_seconds:.0%}" for name, part in seconds.items())
        name = max(seconds, key=lambda n: seconds[n])
        cure = self._cure(name)
        if utilization < MIN_CPU_UTILIZATION:
            cure = f"{1 - utilization:.0%} of the cores were idle or worked for other programs; " + cure
        return f"{BOTTLENECK_NAMES[name]}: of the CPU time {shares}; {cure}"

    def _cure(self, name: str) -> str:
        """Return what to change if cores are the limit."""
        if name == "decoding":
            return "smaller files or more cores would lift it"
        if name != "the network":
            return "a faster disk would lift it"
        if self.runtime == "eager" and self.modality is Modality.IMAGE:
            return "--runtime onnx, a smaller backbone or a GPU would lift it"
        return "a smaller backbone, more cores or a GPU would lift it"

    def _describe_device(self) -> str:
        """Describe a run in which a device computes while cores decode: the slower of the two rates limits."""
        reached = self.images / self.seconds
        backbone = self.images / max(self.forward_seconds, 1e-9)
        decoding = self.images * self.threads / max(self.read.wall + self.decode.wall, 1e-9)
        share = reached / backbone
        of = f"{share:.0%} of the device's rate ({per_second(backbone, self.modality.plural)})"
        if decoding >= backbone or share >= MIN_DEVICE_UTILIZATION:
            return f"backbone-bound: {of}; a smaller backbone or a faster device would lift it"
        threads = min(self.cores, math.ceil(self.threads * backbone / decoding))
        if threads > self.threads:
            lifted = min(1.0, share * threads / self.threads)
            return f"decode-bound: {of}; {threads} threads instead of {self.threads} would lift it to {lifted:.0%}"
        return f"decode-bound: {of}; all {self.cores} cores decode: smaller files or more cores would lift it"
