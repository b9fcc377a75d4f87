"""Embed on a cluster: this process plans and registers, workers on the cluster embed parts."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from embedstore.errors import BackboneError, EngineError, MissingExtra, SpaceError, UnsafeStore
from embedstore.pipeline.distributed import ray_cluster
from embedstore.pipeline.distributed.engine import MAX_ATTEMPTS, EngineOptions
from embedstore.pipeline.distributed.plan_parts import PlanOptions, PlanReport, plan_with_writer
from embedstore.pipeline.distributed.ray_cluster import EndedPart, RayWorkers
from embedstore.pipeline.report import EmbedReport
from embedstore.pipeline.run import EmbedJob, EmbedProgress
from embedstore.pipeline.signals import StopSignal, catch_stop_signals
from embedstore.storage.inbox.inbox import Inbox
from embedstore.storage.inbox.register import Registrar

HOPELESS = (BackboneError, SpaceError, MissingExtra, UnsafeStore)  # another attempt ends in the same way


@dataclass
class NodeWork:
    """What one node did.

    Attributes:
        parts: parts that it embedded.
        files: their files.
        seconds: their wall time, summed.
        bottlenecks: the line of each part that says what limited it, without its numbers.
    """

    parts: int = 0
    files: int = 0
    seconds: float = 0.0
    bottlenecks: Counter[str] = field(default_factory=Counter)

    def line(self, name: str) -> str:
        """Return one line for a person."""
        limit = f"; {self.bottlenecks.most_common(1)[0][0]}" if self.bottlenecks else ""
        rate = self.files / self.seconds if self.seconds else 0.0
        return f"node {name}: {self.parts:,} parts, {self.files:,} files, {rate:,.0f} images/s per worker{limit}"


def embed_on_cluster(
    job: EmbedJob, engine: EngineOptions, make_worker: Callable[[], Any], task: tuple[Any, ...]
) -> EmbedReport:
    """Embed every file of a source that has no vector in the space, on a Ray cluster.

    If this process is killed, the results in the inbox are registered by the next run, which embeds the rest.

    Args:
        job: what is embedded.
        engine: the cluster and its workers.
        make_worker: the class of the workers, see :class:`RayWorkers`.
        task: what each worker gets besides its part, its cores and the address of the inbox.

    Raises:
        EngineError: if the cluster cannot be used, or a part failed too often; what was embedded is kept.
        MissingExtra: if Ray is not installed.
        NoImages: if the source has no file.
        StoreBusy: if another process is writing.
    """
    ray_cluster.import_ray()
    begin, storage = time.perf_counter(), job.storage
    with (
        catch_stop_signals() as stop,
        storage.writer(f"embed {job.source.description}", wait=job.options.wait) as writer,
    ):
        options = PlanOptions(part_files=engine.part_files, engine=engine.engine.value, bucket=engine.bucket)
        plan = plan_with_writer(writer, job, options, stop)
        if not plan.parts:
            return _report(plan, None, {}, time.perf_counter() - begin)
        registrar = Registrar(writer, Inbox(storage.layout, job.space.key))
        run = _ClusterRun(job, registrar, stop)
        with ray_cluster.connected(engine) as ray:
            pool = RayWorkers(ray, ray_cluster.worker_setting(ray, engine), make_worker, (plan.address, *task))
            with closing(pool):
                run.work(pool)
        registrar.register_waiting()
        finished = registrar.finish()
    stop.raise_if_requested()
    if not finished:
        raise EngineError(run.describe_failures())
    return _report(plan, registrar, run.nodes, time.perf_counter() - begin)


class _ClusterRun:
    """The parts of one run that are left, are being embedded, and failed.

    Args:
        job: what is embedded.
        registrar: registers the results.
        stop: whether the run shall stop.
    """

    def __init__(self, job: EmbedJob, registrar: Registrar, stop: StopSignal) -> None:
        self.nodes: dict[str, NodeWork] = {}
        self._job, self._registrar, self._stop = job, registrar, stop
        self._left = deque(registrar.left)
        self._attempts: Counter[int] = Counter()
        self._problems: dict[int, str] = {}

    def work(self, pool: RayWorkers) -> None:
        """Embed and register until nothing is left, or the run shall stop.

        Raises:
            EngineError: if the cluster is gone, or no worker can be started.
        """
        while (self._left or pool.running) and not self._stop.signal_number:
            while self._left and pool.has_room:
                pool.begin(self._left.popleft())
            for ended in pool.wait():
                self._end(ended)
            pool.require_places()

    def describe_failures(self) -> str:
        """Describe the parts that were given up."""
        part, problem = next(iter(sorted(self._problems.items())), (0, "its result is torn"))
        return (
            f"{len(self._registrar.left):,} of {len(self._registrar.plan.parts):,} parts were not embedded: part "
            f"{part} failed {MAX_ATTEMPTS} times ({problem}); the others are stored; run the command again for the rest"
        )

    def _end(self, ended: EndedPart) -> None:
        """Register what ended, and try again what failed."""
        if ended.report is not None:
            self._count(ended.report)
            self._registrar.register_waiting()
            total = self._registrar.total
            failed = total.failures.total()
            self._job.progress(EmbedProgress(total.files, self._registrar.plan.files, total.embedded, failed))
        elif isinstance(ended.error, HOPELESS):
            raise ended.error
        if not ended.began:
            self._left.append(ended.part)
        elif ended.part in self._registrar.left:  # it failed, or its result was torn
            self._attempts[ended.part] += 1
            self._problems[ended.part] = ended.problem or "its result was torn"
            if self._attempts[ended.part] < MAX_ATTEMPTS:
                self._left.append(ended.part)

    def _count(self, report: dict[str, Any]) -> None:
        """Add a part to the work of its node."""
        node = self.nodes.setdefault(report["node"], NodeWork())
        node.parts += 1
        node.files += report["files"]
        node.seconds += report["seconds"]
        if report["bottleneck"]:
            node.bottlenecks[report["bottleneck"].split(":")[0]] += 1


def _report(plan: PlanReport, registrar: Registrar | None, nodes: dict[str, NodeWork], seconds: float) -> EmbedReport:
    """Return the report of a run."""
    counts, total = plan.counts, registrar.total if registrar else None
    failed = Counter(counts["failed"])
    failed.update(total.failures if total else {})
    files = total.files if total else 0
    return EmbedReport(
        scanned=counts["found"],
        embedded=total.embedded if total else 0,
        reused=total.reused if total else 0,
        unchanged=counts["unchanged"],
        failures_by_reason=dict(failed),
        known_failures=counts["known_failures"],
        renamed=total.renamed if total else 0,
        missing=total.missing if total else counts.get("missing", 0),
        skipped=counts["skipped"],
        skipped_by_kind=counts["skipped_by_kind"],
        commits=total.parts if total else 0,
        seconds=round(seconds, 3),
        images_per_second=round(files / seconds, 1) if seconds else 0.0,
        device="a cluster",
        runtime="ray",
        space=plan.space,
        notices=list(plan.notices),
        bottleneck="; ".join(work.line(name) for name, work in sorted(nodes.items())),
    )
