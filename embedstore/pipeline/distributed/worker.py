"""Embed one part of a plan, without the catalog: its list in, one result out."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import PartsError
from embedstore.media.decoders import decoder_version
from embedstore.pipeline.commit import CommitStage
from embedstore.pipeline.encoder import LoadBackbone
from embedstore.pipeline.plan import PlanCounts, PlannedFile
from embedstore.pipeline.report import EncodingResult
from embedstore.pipeline.run import EmbedJob, EmbedOptions, EmbedProgress, embed_files
from embedstore.pipeline.signals import catch_stop_signals
from embedstore.sources.planned_files import PlannedFiles
from embedstore.storage import disk_errors
from embedstore.storage.commit import CommitBatch
from embedstore.storage.inbox.inbox import Inbox
from embedstore.storage.inbox.part_list import PartFile
from embedstore.storage.inbox.part_result import result_of_batch
from embedstore.storage.inbox.work_plan import WorkPlan
from embedstore.storage.storage import Storage
from embedstore.tables import OneRow


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

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def summary(self) -> str:
        """Return one line for a person."""
        if not self.result:
            return f"part {self.part}/{self.parts} is done already"
        failed = sum(self.failures_by_reason.values())
        failures = f", {failed:,} failed" if failed else ""
        return (
            f"part {self.part}/{self.parts}: {self.files:,} files, {self.embedded:,} embedded{failures} in "
            f"{self.seconds:.1f} s, {self.images_per_second:,.0f} images/s; {self.bottleneck}"
        )


class FilesOfPart:
    """The plan of a worker: the files of its part.

    Args:
        files: the files.
        known: contents that have a vector, ``S16``, ascending.
    """

    def __init__(self, files: Sequence[PartFile], known: NDArray[np.bytes_]) -> None:
        self.counts = PlanCounts(len(files), len(files), unchanged=0, known_failures=0, new_failures=0, skipped={})
        self._files, self._known = files, known
        self._learned: set[str] = set()

    def todo(self, chunk_rows: int) -> Iterator[list[PlannedFile]]:
        """Yield the files in order, at most ``chunk_rows`` at a time."""
        for first in range(0, len(self._files), chunk_rows):
            yield [PlannedFile(*file) for file in self._files[first : first + chunk_rows]]

    def known(self, digests: Sequence[str]) -> set[str]:
        """Return which contents had a vector when the plan was made, or get one in this part."""
        wanted = np.array([bytes.fromhex(d) for d in digests], "S16")
        places = np.searchsorted(self._known, wanted)
        inside = places < len(self._known)
        found = np.zeros(len(wanted), bool)
        found[inside] = self._known[places[inside]] == wanted[inside]
        return {d for d, is_known in zip(digests, found, strict=True) if is_known or d in self._learned}

    def learn(self, digests: Sequence[str]) -> None:
        """Remember contents that get a vector in this part."""
        self._learned.update(digests)

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
            f"--part {part}/{parts} is of a plan of {parts:,} parts, but the plan for {plan.source.description} has "
            f"{count:,}; name it as --part {min(part, count)}/{count}"
        )
    if not 1 <= part <= count:
        raise PartsError(f"there is no part {part}; the plan for {plan.source.description} has parts 1 to {count:,}")


def embed_part(
    storage: Storage,
    inbox: Inbox,
    part: int,
    load_backbone: LoadBackbone,
    *,
    options: EmbedOptions = EmbedOptions(),
    progress: Callable[[EmbedProgress], None] = lambda _: None,
) -> PartReport:
    """Embed one part and write its result into the inbox; do nothing if it has one.

    Only the files of the plan are read, not the catalog. A killed worker leaves no result. The next one decodes every
    file of the part in a process of its own, since a file may be the cause.

    Raises:
        PartsError: if there is no such part.
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
    files = inbox.read_list(plan, part)
    with disk_errors.disk_errors(f"write to {inbox.folder}"):
        was_killed = inbox.begin(part)
    source = PlannedFiles([ref for ref, _ in files], plan.source.description)
    job = EmbedJob(storage, source, plan.space, options, progress)
    known = inbox.known_contents(plan)
    batch, encoding = _embed(job, FilesOfPart(files, known), load_backbone, isolate_all=was_killed)
    result = result_of_batch(
        part, files, batch, decoder=decoder_version(plan.space.space.modality), dtype=plan.space.dtype
    )
    with disk_errors.disk_errors(f"write to {inbox.folder}"):
        path = inbox.put_result(plan, result)
    return PartReport(
        part,
        len(plan.parts),
        files=len(files),
        embedded=len(result.contents),
        failures_by_reason=dict(Counter(row.failure.reason.value for row in batch.failures)),
        seconds=round(time.perf_counter() - begin, 3),
        images_per_second=round(encoding.files / encoding.times.seconds, 1),
        bottleneck=encoding.times.bottleneck(),
        result=path.name,
    )


def _embed(
    job: EmbedJob, plan: FilesOfPart, load_backbone: LoadBackbone, *, isolate_all: bool
) -> tuple[CommitBatch, EncodingResult]:
    """Read, decode and embed the files of a part."""
    batches: list[CommitBatch] = []
    commits = CommitStage(batches.append, job.space, max_rows=math.inf, max_seconds=math.inf)
    with catch_stop_signals() as stop:
        encoding = embed_files(job, plan, load_backbone, commits, stop, isolate_all=isolate_all)
    stop.raise_if_requested()
    return (batches or [CommitBatch()])[0], encoding
