"""Embed in parts: this process plans and registers, workers on a cluster or on this machine embed."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from embedstore.errors import BackboneError, EngineError, MissingExtra, SpaceError, UnsafeStore
from embedstore.pipeline.distributed.engine import MAX_ATTEMPTS, EngineOptions
from embedstore.pipeline.distributed.part_workers import EndedPart, PartWorkers
from embedstore.pipeline.distributed.plan_parts import PlanOptions, PlanReport, plan_with_writer
from embedstore.pipeline.report import EmbedReport, encoder_facts
from embedstore.pipeline.run import EmbedJob, EmbedProgress
from embedstore.pipeline.signals import StopSignal, catch_stop_signals
from embedstore.storage.inbox.inbox import Inbox
from embedstore.storage.inbox.register import Registrar
from embedstore.wording import counted, per_second

MAX_AHEAD = 4  # parts per worker that may wait for an earlier one, where parts are registered in order
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
        return (
            f"{name}: {counted(self.parts, 'part')}, {counted(self.files, 'file')}, "
            f"{per_second(rate, 'files')} per worker{limit}"
        )


@dataclass(frozen=True)
class EngineWorkers:
    """How an engine makes its workers.

    Attributes:
        open: starts workers for the plan at an address, and ends them.
        places: how many parts they embed at once; None is not known before they are started.
        device: where they compute, for the report.
        node: what the report calls the place of a worker.
        is_local: they are processes of this machine: they choose alike, and parts are registered in the order of the
            plan, as one process would. On a cluster a slow node would hold up the others.
    """

    open: Callable[[str], AbstractContextManager[PartWorkers]]
    places: int | None
    device: str
    node: str
    is_local: bool = False


def embed_in_parts(job: EmbedJob, engine: EngineOptions, workers: EngineWorkers) -> EmbedReport:
    """Embed every file of a source that has no vector in the space, by workers.

    If this process is killed, the results in the inbox are registered by the next run, which embeds the rest.

    Args:
        job: what is embedded.
        engine: the engine and its options.
        workers: how its workers are made.

    Raises:
        EngineError: if the workers cannot be used, or a part failed too often; what was embedded is kept.
        MissingExtra: if Ray is not installed.
        NoImages: if the source has no file.
        StoreBusy: if another process is writing.
    """
    begin, storage = time.perf_counter(), job.storage
    with (
        catch_stop_signals() as stop,
        storage.writer(f"embed {job.source.description}", wait=job.options.wait) as writer,
    ):
        options = PlanOptions(
            part_files=engine.part_files,
            engine=engine.engine.value,
            bucket=engine.bucket,
            least_parts=workers.places or 1,
        )
        plan = plan_with_writer(writer, job, options, stop)
        if not plan.parts:
            return _report(plan, None, time.perf_counter() - begin)
        registrar = Registrar(writer, Inbox(storage.layout, job.space.key))
        run = _PartsRun(job, registrar, stop, in_order=workers.is_local)
        with workers.open(plan.address) as pool:
            run.work(pool)
        registrar.register_waiting()
        finished = registrar.finish()
    stop.raise_if_requested()
    if not finished:
        raise EngineError(run.describe_failures())
    lines = [work.line(f"{workers.node} {name}") for name, work in sorted(run.nodes.items())]
    facts: dict[str, Any] = {"device": workers.device, "runtime": engine.engine.value, "bottleneck": "; ".join(lines)}
    if workers.is_local:
        facts |= encoder_facts(run.settled) | {"notices": [*plan.notices, *run.settled.get("notices", [])]}
    return _report(plan, registrar, time.perf_counter() - begin, **facts)


class _PartsRun:
    """The parts of one run that are left, are being embedded, and failed.

    Args:
        job: what is embedded.
        registrar: registers the results.
        stop: whether the run shall stop.
        in_order: register the parts in the order of the plan, as one process would.

    Attributes:
        nodes: what each node did.
        settled: what the workers chose, as attributes of the report.
    """

    def __init__(self, job: EmbedJob, registrar: Registrar, stop: StopSignal, *, in_order: bool) -> None:
        self.nodes: dict[str, NodeWork] = {}
        self.settled: dict[str, Any] = {}
        self._job, self._registrar, self._stop, self._in_order = job, registrar, stop, in_order
        self._left = deque(registrar.left)
        self._open = set(registrar.left)  # parts that have no result yet and are not given up
        self._first = 1  # no part before it is open
        self._attempts: Counter[int] = Counter()
        self._problems: dict[int, str] = {}

    def work(self, pool: PartWorkers) -> None:
        """Embed and register until nothing is left, or the run shall stop.

        Raises:
            EngineError: if the workers are gone, or none can be started.
        """
        while (self._left or pool.running) and not self._stop.signal_number:
            while self._left and pool.has_room and self._may_begin(self._left[0], pool):
                pool.begin(self._left.popleft())
            for ended in pool.wait():
                self._end(ended)
            pool.require_places()

    def _may_begin(self, part: int, pool: PartWorkers) -> bool:
        """Return whether so few results would wait for an earlier part that this one may be begun."""
        return not self._in_order or part < self._first_open() + MAX_AHEAD * pool.places

    def _first_open(self) -> int:
        """Return the first part that is neither embedded nor given up; one more than all parts if there is none."""
        while self._first not in self._open and self._first <= len(self._registrar.plan.parts):
            self._first += 1
        return self._first

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
            self._open.discard(ended.part)
            self._register()
        elif isinstance(ended.error, HOPELESS):
            raise ended.error
        if not ended.began:
            self._left.appendleft(ended.part)
            return
        for part in self._failed_parts(ended):
            self._try_again(part, ended.problem or "its result was torn")

    def _register(self) -> None:
        """Register the results that wait, in order only those before the first part that has none."""
        self._registrar.register_waiting(before=self._first_open() if self._in_order else None)
        total = self._registrar.total
        failed, modality = total.failures.total(), self._job.space.space.modality
        self._job.progress(EmbedProgress(total.files, self._registrar.plan.files, total.embedded, failed, modality))

    def _failed_parts(self, ended: EndedPart) -> set[int]:
        """Return the parts that failed, or whose results were torn when they were registered."""
        failed = self._registrar.take_torn_parts()
        if ended.report is None or (not self._in_order and ended.part in self._registrar.left):
            failed.add(ended.part)
        return failed

    def _try_again(self, part: int, problem: str) -> None:
        """Put back a part, unless it failed too often."""
        self._attempts[part] += 1
        self._problems[part] = problem
        if self._attempts[part] < MAX_ATTEMPTS:
            self._open.add(part)
            self._first = min(self._first, part)
            self._left.appendleft(part)
        else:
            self._open.discard(part)
            self._register()

    def _count(self, report: dict[str, Any]) -> None:
        """Add a part to the work of its node."""
        node = self.nodes.setdefault(report["node"], NodeWork())
        node.parts += 1
        node.files += report["files"]
        node.seconds += report["seconds"]
        self.settled = self.settled or report["settled"] or {}
        if report["bottleneck"]:
            node.bottlenecks[report["bottleneck"].split(":")[0]] += 1


def _report(plan: PlanReport, registrar: Registrar | None, seconds: float, **facts: Any) -> EmbedReport:
    """Return the report of a run; the facts are its further attributes."""
    counts, total = plan.counts, registrar.total if registrar else None
    failed = Counter(counts["failed"])
    failed.update(total.failures if total else {})
    files = total.files if total else 0
    return EmbedReport(
        scanned=counts["found"],
        unit=counts["unit"],
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
        space=plan.space,
        **{"notices": list(plan.notices), **facts},
    )
