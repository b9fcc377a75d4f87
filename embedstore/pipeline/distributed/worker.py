"""Embed one part of a plan, without the catalog: its list in, one result out."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import PartsError
from embedstore.media.decoders import decoder_version
from embedstore.pipeline.commit import CommitStage
from embedstore.pipeline.content_set import ContentSet
from embedstore.pipeline.distributed.killing_files import OpenProcess, embed_without_killers
from embedstore.pipeline.kept_encoder import OpenEncoder
from embedstore.pipeline.plan import PlanCounts, PlannedFile
from embedstore.pipeline.report import EncodingResult
from embedstore.pipeline.run import EmbedJob, EmbedOptions, EmbedProgress, embed_files
from embedstore.pipeline.signals import catch_stop_signals
from embedstore.sources.planned_files import PlannedFiles
from embedstore.storage import disk_errors
from embedstore.storage.commit import CommitBatch
from embedstore.storage.inbox.inbox import Inbox
from embedstore.storage.inbox.part_list import PartFile
from embedstore.storage.inbox.part_result import PartResult, result_of_batch
from embedstore.storage.inbox.work_plan import WorkPlan
from embedstore.storage.storage import Storage
from embedstore.tables import OneRow
from embedstore.wording import counted, per_second

DEATHS_OF_CHANCE = 2  # of workers of one part, before its files are suspected one by one


@dataclass(frozen=True)
class PartReport(OneRow):
    """What a worker did.

    Attributes:
        part: the number of the part.
        parts: how many parts the plan has.
        files: files of the part; 0 if it was done already.
        embedded: vectors that were computed.
        failures_by_reason: files that failed.
        seconds: wall time.
        images_per_second: files per second of the embedding stages.
        bottleneck: one line that says which stage limits the speed.
        result: the name of the file in the inbox; "" if the part was done already.
    """

    part: int
    parts: int
    files: int = 0
    embedded: int = 0
    failures_by_reason: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    images_per_second: float = 0.0
    bottleneck: str = ""
    result: str = ""

    def summary(self) -> str:
        """Return one line for a person."""
        if not self.result:
            return f"part {self.part}/{self.parts} is done already"
        failed = sum(self.failures_by_reason.values())
        failures = f", {failed:,} failed" if failed else ""
        return (
            f"part {self.part}/{self.parts}: {counted(self.files, 'file')}, {self.embedded:,} embedded{failures} in "
            f"{self.seconds:.1f} s, {per_second(self.images_per_second, 'files')}; {self.bottleneck}"
        )


class FilesOfPart:
    """The plan of a worker: the files of its part.

    Args:
        files: the files.
        known: contents that have a vector, ``S16``, ascending.
    """

    def __init__(self, files: Sequence[PartFile], known: NDArray[np.bytes_]) -> None:
        self.counts = PlanCounts(len(files), len(files), unchanged=0, known_failures=0, new_failures=0, skipped={})
        self._files, self._known = files, ContentSet(known)

    def todo(self, chunk_rows: int) -> Iterator[list[PlannedFile]]:
        """Yield the files in order, at most ``chunk_rows`` at a time."""
        for first in range(0, len(self._files), chunk_rows):
            yield [PlannedFile(*file) for file in self._files[first : first + chunk_rows]]

    def known(self, digests: Sequence[str]) -> set[str]:
        """Return which contents had a vector when the plan was made, or get one in this part."""
        return self._known.present(digests)

    def learn(self, digests: Sequence[str]) -> None:
        """Remember contents that get a vector in this part."""
        self._known.add(digests)

    def claim_renamed(self, digests: Sequence[str | None]) -> list[int | None]:
        """Return no item for any file: the writer finds renamed items when it registers the part."""
        return [None] * len(digests)


def require_part(plan: WorkPlan, part: int, parts: int | None) -> None:
    """Require that a plan has a part.

    Args:
        plan: the plan.
        part: the number of the part.
        parts: how many parts the user expects; None is any number.

    Raises:
        PartsError: if it does not.
    """
    count = len(plan.parts)
    if parts is not None and parts != count:
        raise PartsError(
            f"--part {part}/{parts} is of a plan of {counted(parts, 'part')}, but the plan for "
            f"{plan.source.description} has "
            f"{count:,}; name it as --part {min(part, count)}/{count}"
        )
    if not 1 <= part <= count:
        raise PartsError(f"there is no part {part}; the plan for {plan.source.description} has parts 1 to {count:,}")


def embed_part(
    storage: Storage,
    inbox: Inbox,
    part: int,
    open_encoder: OpenEncoder,
    open_process: OpenProcess,
    *,
    options: EmbedOptions = EmbedOptions(),
    progress: Callable[[EmbedProgress], None] = lambda _: None,
) -> PartReport:
    """Embed one part and write its result into the inbox; do nothing if it has one.

    Only the files of the plan are read, not the catalog. A killed worker leaves no result. The second one decodes every
    file of the part in a process of its own, since a file may be the cause. The third one embeds in another process
    and finds the file that kills it, which becomes a failure.

    Args:
        storage: the store.
        inbox: the inbox of the space.
        part: the number of the part.
        open_encoder: opens the encoder, or keeps it from part to part.
        open_process: starts a process that embeds ranges of the part.
        options: how to run.
        progress: called with how far the part is.

    Raises:
        PartsError: if there is no such part, or it cannot be embedded because its processes die whatever they embed.
        StoreDamaged: if the plan is not what was written.
        StoreIOError: if the disk is full or fails; nothing is left of the part.
        KeyboardInterrupt: if SIGINT stopped the worker; nothing is left of the part.
        SystemExit: if SIGTERM stopped the worker; nothing is left of the part.
    """
    plan = inbox.read_plan()
    require_part(plan, part, None)
    if inbox.is_done(part):
        return PartReport(part, len(plan.parts))
    begin = time.perf_counter()
    with disk_errors.disk_errors(f"write to {inbox.folder}"):
        deaths = inbox.begin(part)
    try:
        if deaths < DEATHS_OF_CHANCE:
            job = PartJob.open(storage, inbox, plan, part)
            result, encoding = job.embed(open_encoder, options, progress, isolate_all=deaths > 0)
        else:
            result, encoding = embed_without_killers(part, inbox.read_list(plan, part), open_process), None
        with disk_errors.disk_errors(f"write to {inbox.folder}"):
            name = inbox.put_result(plan, result)
    except BaseException:
        inbox.give_back(part, deaths)
        raise
    return _report(plan, result, encoding, name, time.perf_counter() - begin)


def _report(
    plan: WorkPlan, result: PartResult, encoding: EncodingResult | None, name: str, seconds: float
) -> PartReport:
    """Return the report of a part."""
    files = len(result.outcomes)
    failures = Counter(outcome.failure.reason.value for outcome in result.outcomes if outcome.failure)
    rate = encoding.files / encoding.times.seconds if encoding else files / seconds
    return PartReport(
        result.part,
        len(plan.parts),
        files=files,
        embedded=len(result.contents),
        failures_by_reason=dict(failures),
        seconds=round(seconds, 3),
        images_per_second=round(rate, 1),
        bottleneck=encoding.times.bottleneck() if encoding else "a file killed its process, so that others were used",
        result=name,
    )


@dataclass(frozen=True)
class PartJob:
    """Files of one part, and what a worker needs to embed them.

    Attributes:
        storage: the store.
        plan: the plan.
        part: the number of the part.
        files: the files, or some of them.
        known: contents that had a vector when the plan was made, ``S16``, ascending.
    """

    storage: Storage
    plan: WorkPlan
    part: int
    files: Sequence[PartFile]
    known: NDArray[np.bytes_]

    @classmethod
    def open(cls, storage: Storage, inbox: Inbox, plan: WorkPlan, part: int) -> PartJob:
        """Return the job of a whole part.

        Raises:
            StoreDamaged: if its list is not the one that the plan names.
        """
        return cls(storage, plan, part, inbox.read_list(plan, part), inbox.known_contents(plan))

    def embed(
        self,
        open_encoder: OpenEncoder,
        options: EmbedOptions,
        progress: Callable[[EmbedProgress], None] = lambda _: None,
        *,
        isolate_all: bool,
    ) -> tuple[PartResult, EncodingResult]:
        """Read, decode and embed the files.

        Raises:
            KeyboardInterrupt: if SIGINT stopped the worker.
            SystemExit: if SIGTERM stopped the worker.
        """
        batches: list[CommitBatch] = []
        space = self.plan.space
        commits = CommitStage(batches.append, space, max_rows=math.inf, max_seconds=math.inf)
        source = PlannedFiles([ref for ref, _ in self.files], self.plan.source.description)
        job = EmbedJob(self.storage, source, space, options, progress)
        chosen = FilesOfPart(self.files, self.known)
        with catch_stop_signals() as stop:
            encoding = embed_files(job, chosen, open_encoder, commits, stop, isolate_all=isolate_all)
        stop.raise_if_requested()
        batch = (batches or [CommitBatch()])[0]
        decoder = decoder_version(space.space.modality)
        return result_of_batch(self.part, self.files, batch, decoder=decoder, dtype=space.dtype), encoding
