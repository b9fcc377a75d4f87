"""A Ray cluster: connect to it, or start Ray on this machine, and give out parts to workers on it.

Ray schedules and restarts. It never holds the truth: what a worker did is a file in the inbox of the store.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from embedstore.errors import EmbedstoreError, EngineError, MissingExtra
from embedstore.pipeline.distributed.engine import EngineOptions

CONNECT_SECONDS = 10.0
WORKER_CORES = 4
POLL_SECONDS = 1.0  # between two checks of whether the run shall stop


@dataclass(frozen=True)
class WorkerSetting:
    """How workers are made.

    Attributes:
        count: how many.
        cpus: cores of each.
        gpus: GPUs of each.
    """

    count: int
    cpus: int
    gpus: float


@dataclass(frozen=True)
class EndedPart:
    """A part that a worker ended, or failed at.

    Attributes:
        part: its number.
        report: what the worker returned; None if it failed.
        problem: why it failed.
        error: the error of ours that the worker raised, if there is one.
    """

    part: int
    report: dict[str, Any] | None = None
    problem: str = ""
    error: EmbedstoreError | None = None


def import_ray() -> Any:
    """Return the package ray, which reports no usage statistics unless the user wants it to.

    Raises:
        MissingExtra: if it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as e:
        raise MissingExtra("Ray is not installed; run `pip install 'embedstore[ray]'`") from e
    return ray


@contextmanager
def connected(options: EngineOptions) -> Iterator[Any]:
    """Yield the package ray, connected; a connection that the program has already is used and stays.

    Raises:
        MissingExtra: if Ray is not installed.
        EngineError: if there is no cluster at the address.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    if options.address is not None:
        _require_address(options.address)
    try:
        ray.init(
            address=options.address or "local",
            include_dashboard=False if options.address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as e:
        where = f"at {options.address}" if options.address else "on this machine"
        raise EngineError(f"Ray {where} cannot be used: {_first_line(e)}; check `ray status` there") from e
    try:
        yield ray
    finally:
        ray.shutdown()


def worker_setting(ray: Any, options: EngineOptions) -> WorkerSetting:
    """Return how workers are made: one per GPU, or one per few cores.

    Raises:
        EngineError: if no node of the cluster has what a worker needs.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most_cpus = int(max((node.get("CPU", 0) for node in nodes), default=0))
    gpus_in_all = sum(node.get("GPU", 0) for node in nodes)
    gpus = options.gpus if options.gpus is not None else float(gpus_in_all > 0)
    cpus = options.cpus or max(1, min(WORKER_CORES, most_cpus))
    fitting = [node for node in nodes if node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus]
    if not fitting:
        raise EngineError(
            f"no node of the cluster has {cpus} cores and {gpus:g} GPUs for a worker (it has {len(nodes)} nodes with "
            f"at most {most_cpus} cores, and {gpus_in_all:g} GPUs); use smaller --cpus and --gpus"
        )
    room = sum(int(min(n.get("CPU", 0) // cpus, n.get("GPU", 0) / gpus if gpus else 1 << 30)) for n in fitting)
    return WorkerSetting(options.workers or max(1, room), cpus, gpus)


class RayWorkers:
    """Workers that embed one part at a time each; one that dies is replaced.

    Args:
        ray: the package, connected.
        setting: how workers are made.
        make: the class of the workers: it takes nothing, and ``run(part, cores, *task)`` returns JSON values.
        task: what ``run`` gets besides the part and the cores of a worker.
    """

    def __init__(self, ray: Any, setting: WorkerSetting, make: Callable[[], Any], task: tuple[Any, ...]) -> None:
        self._ray, self._setting, self._task = ray, setting, task
        self._make = ray.remote(num_cpus=setting.cpus, num_gpus=setting.gpus, max_restarts=0)(make)
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[int, Any]] = {}

    @property
    def has_room(self) -> bool:
        """Whether another part can be begun."""
        return len(self._running) < self._setting.count

    @property
    def running(self) -> int:
        """How many parts are being embedded."""
        return len(self._running)

    def begin(self, part: int) -> None:
        """Give a part to a worker."""
        worker = self._idle.pop() if self._idle else self._make.remote()
        self._running[worker.run.remote(part, self._setting.cpus, *self._task)] = (part, worker)

    def wait(self) -> list[EndedPart]:
        """Return the parts that ended, after a second at the latest."""
        if not self._running:
            return []
        ended, _ = self._ray.wait(list(self._running), timeout=POLL_SECONDS)
        return [self._end(reference) for reference in ended]

    def _end(self, reference: Any) -> EndedPart:
        """Return how a part ended."""
        part, worker = self._running.pop(reference)
        try:
            report = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as e:
            self._idle.append(worker)
            cause = e.cause if isinstance(e.cause, Exception) else e
            ours = cause if isinstance(cause, EmbedstoreError) else None
            return EndedPart(part, problem=_first_line(cause), error=ours)
        except self._ray.exceptions.RayError as e:  # the worker or its node died
            return EndedPart(part, problem=_first_line(e))
        self._idle.append(worker)
        return EndedPart(part, report)

    def close(self) -> None:
        """End every worker."""
        for worker in [*self._idle, *(worker for _, worker in self._running.values())]:
            self._ray.kill(worker)


def _require_address(address: str) -> None:
    """Require that something answers at an address: Ray itself would try for minutes.

    Raises:
        EngineError: if nothing does.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise EngineError(f"{address!r} is not the address of a Ray cluster; write it as HOST:PORT, or as auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as e:
        raise EngineError(
            f"no Ray cluster answers at {address} ({e}); `ray start --head` prints the address of a new one"
        ) from e


def _first_line(error: Exception) -> str:
    """Return the first line of a message."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
