"""A Ray cluster: connect to it, or start Ray on this machine, and give out parts to workers on it.

Ray schedules and restarts. It never holds the truth: what a worker did is a file in the inbox of the store.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from embedstore.errors import EmbedstoreError, EngineError, MissingExtra
from embedstore.pipeline.distributed.cluster_address import ClusterWatch, require_cluster
from embedstore.pipeline.distributed.engine import EngineOptions
from embedstore.pipeline.distributed.part_workers import POLL_SECONDS, EndedPart

WORKER_CORES = 4
_COLOR = re.compile("\x1b\\[[0-9;]*m")
_NODE = re.compile(r"\bip: (\S+)")  # in Ray's description of a worker that died


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
        require_cluster(options.address)
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


@contextmanager
def ray_workers(
    engine: EngineOptions, make: Callable[[], Any], task: tuple[Any, ...], address: str
) -> Iterator[RayWorkers]:
    """Yield workers for the plan at an address, on a cluster; they end with the block.

    Raises:
        MissingExtra: if Ray is not installed.
        EngineError: if there is no cluster at the address, or no node has what a worker needs.
    """
    with (
        connected(engine) as ray,
        closing(RayWorkers(ray, worker_setting(ray, engine), make, (address, *task))) as pool,
    ):
        yield pool


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
        self._places, self._start_problem = setting.count, ""
        self._watch = ClusterWatch(ray.get_runtime_context().gcs_address)
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[int, Any]] = {}

    @property
    def places(self) -> int:
        """How many parts are embedded at once."""
        return self._places

    @property
    def has_room(self) -> bool:
        """Whether another part can be begun."""
        return len(self._running) < self._places

    def require_places(self) -> None:
        """Require that a worker can be started: each place where none could is given up.

        Raises:
            EngineError: if no place is left.
        """
        if not self._places:
            raise EngineError(
                f"no worker can be started on the cluster ({self._start_problem}); every node needs embedstore and "
                "what it imports, in the version of this machine; what was embedded is kept"
            )

    @property
    def running(self) -> int:
        """How many parts are being embedded."""
        return len(self._running)

    def begin(self, part: int) -> None:
        """Give a part to a worker."""
        worker = self._idle.pop() if self._idle else self._make.remote()
        self._running[worker.run.remote(part, self._setting.cpus, *self._task)] = (part, worker)

    def wait(self) -> list[EndedPart]:
        """Return the parts that ended, after a second at the latest.

        Raises:
            EngineError: if the cluster is gone.
        """
        if not self._running:
            return []
        self._watch.check()
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
        except self._ray.exceptions.RayError as e:
            return self._end_without_worker(part, e)
        self._idle.append(worker)
        return EndedPart(part, report)

    def _end_without_worker(self, part: int, error: Exception) -> EndedPart:
        """Return how a part ended whose worker died, or could not be started; the latter is not tried again."""
        if getattr(error, "actor_init_failed", False):
            self._places -= 1
            self._start_problem = _last_line(error)
            return EndedPart(part, problem=self._start_problem, began=False)
        return EndedPart(part, problem=_death(error))

    def close(self) -> None:
        """End every worker."""
        for worker in [*self._idle, *(worker for _, worker in self._running.values())]:
            self._ray.kill(worker)


def _death(error: Exception) -> str:
    """Return why a worker ended that died; Ray's own first line does not name the node."""
    text = str(error)
    node = _NODE.search(text)
    return f"its worker{f' on {node[1]}' if node else ''} died" if "died" in text else _first_line(error)


def _first_line(error: Exception) -> str:
    """Return the first line of a message."""
    return next(iter(_lines(error)), type(error).__name__)


def _last_line(error: Exception) -> str:
    """Return the last line of a message: of a traceback it is the error itself."""
    return next(reversed(_lines(error)), type(error).__name__)


def _lines(error: Exception) -> list[str]:
    """Return the lines of a message that have text, without colors of a terminal."""
    return [line.strip() for line in _COLOR.sub("", str(error)).splitlines() if line.strip()]
