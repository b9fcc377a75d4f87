"""Plan an embedding run in parts: what a local run would embed, as lists that workers take."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedstore.errors import BadBackbone, BadOption, PartsError, StoreDamaged, StoreIOError, StoreUnreadable
from embedstore.pipeline.commit import CommitStage, store_commit
from embedstore.pipeline.kept_values import kept_note
from embedstore.pipeline.plan import EmbedPlan
from embedstore.pipeline.run import EmbedJob, EmbedOptions, EmbedProgress, apply_metadata, plan_source
from embedstore.pipeline.signals import StopSignal, catch_stop_signals
from embedstore.sources.source import Source
from embedstore.storage import disk_errors
from embedstore.storage.inbox.bucket import Bucket
from embedstore.storage.inbox.inbox import ATTRIBUTES, Inbox, PlanFolder, new_plan_folder
from embedstore.storage.inbox.part_list import PartFile
from embedstore.storage.inbox.register import Registrar
from embedstore.storage.inbox.work_plan import MAX_PART_FILES, PlannedSource, WorkPlan, split_evenly
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import utc_now
from embedstore.storage.storage import Storage
from embedstore.storage.writer import Writer
from embedstore.tables import OneRow
from embedstore.temporary import temporary_folder
from embedstore.wording import counted

PART_FILES = 4096  # of a part, if the user names no number of parts


@dataclass(frozen=True)
class PlanOptions:
    """How a run is planned.

    Attributes:
        parts: how many parts; None makes parts of ``part_files`` files.
        part_files: files of a part, if no number of parts is given.
        replace: replace a plan that has parts left.
        engine: who makes the plan; an engine replaces its own without being told.
        wait: seconds to wait for another writer.
        bucket: where workers find the plan and put their results; None is the folder of the store.
        least_parts: make smaller parts where there would be fewer, so that every worker has one.
    """

    parts: int | None = None
    part_files: int = PART_FILES
    replace: bool = False
    engine: str = "plan-parts"
    wait: float = 0.0
    bucket: Bucket | None = None
    least_parts: int = 1

    def count(self, files: int) -> int:
        """Return how many parts some files make."""
        return self.parts or max(-(-files // self.part_files), self.least_parts)


@dataclass(frozen=True)
class PlanReport(OneRow):
    """A plan of parts.

    Attributes:
        plan: its id; "" if nothing has to be embedded.
        parts: how many parts it has.
        files: how many files they have.
        counts: what the scan found, as in the report of a run.
        space: the name of the space.
        notices: what a person should know, one sentence each.
        address: what workers name: the folder of the store, or of a bucket.
    """

    plan: str
    parts: int
    files: int
    counts: dict[str, Any]
    space: str
    notices: tuple[str, ...] = ()
    address: str = ""

    def summary(self) -> str:
        """Return one line for a person."""
        scanned, failed = self.counts["found"], sum(self.counts["failed"].values())
        found = counted(scanned, self.counts["unit"])
        if not self.parts:
            return f"{found}: nothing has to be embedded"
        failures = f", {failed:,} of them failed in the scan" if failed else ""
        return f"{found}{failures}: {self.files:,} to embed in {counted(self.parts, 'part')}"


def plan_parts(
    storage: Storage,
    source: Source,
    space: SpaceRecord,
    options: PlanOptions = PlanOptions(),
    progress: Callable[[EmbedProgress], None] = lambda _: None,
) -> PlanReport:
    """Plan what a local run would embed, and write it as parts into the inbox of the space.

    What needs no image is done now, as in a local run: columns, metadata and presence of known items, and failures of
    the scan. Results of an earlier plan that are waiting are registered first.

    Raises:
        BadOption: if there are too few parts for the files.
        NoImages: if the source has no file.
        PartsError: if an earlier plan has parts left, and is not to be replaced.
        StoreBusy: if another process is writing.
        BadBackbone: if the space holds precomputed vectors.
    """
    space.require_recipe()
    with catch_stop_signals() as stop, storage.writer(f"plan {source.description}", wait=options.wait) as writer:
        return plan_with_writer(writer, EmbedJob(storage, source, space, EmbedOptions(), progress), options, stop)


def plan_with_writer(writer: Writer, job: EmbedJob, options: PlanOptions, stop: StopSignal) -> PlanReport:
    """Plan as :func:`plan_parts` does, for a caller that holds the writer's lock."""
    started = utc_now()
    inbox = Inbox(job.storage.layout, job.space.key)
    if options.bucket is not None:
        require_weights_outside(job.space)
    finish_plan(writer, inbox, options)
    with temporary_folder() as folder, closing(plan_source(job, stop)) as plan:
        attributes, kept = apply_metadata(writer, job.source, plan, folder)
        commits = CommitStage(store_commit(writer, job.space, attributes), job.space, max_rows=4096, max_seconds=5)
        for rows in plan.scan_failures(4096):
            commits.add_failures(rows)
        commits.flush()
        counts = _counts(plan, dict(commits.totals.failures))
        notices = (*job.storage.notices, *job.source.notices, *kept_note(job.source.description, kept))
        if not plan.counts.todo:
            missing = plan.mark_missing(writer) if _covers(job.source) else 0
            settings = {"source": job.source.description, "engine": options.engine}
            counts |= {"missing": missing}
            writer.record_run("embed", job.space.key, settings, counts, started)
            return PlanReport("", 0, 0, counts, job.space.name, notices)
        work = _write_plan(inbox, job, plan, options, (attributes, counts))
    of_bucket = inbox.bucket()
    address = of_bucket.bucket.url if of_bucket else str(job.storage.layout.root)
    return PlanReport(work.id, len(work.parts), work.files, counts, job.space.name, notices, address)


def finish_plan(writer: Writer, inbox: Inbox, options: PlanOptions) -> None:
    """Register what is waiting for an earlier plan, and end that plan.

    Raises:
        PartsError: if it has parts left, and is not to be replaced.
        StoreDamaged: if it is not what was written, and is not to be replaced.
        StoreIOError: if its bucket cannot be used; a plan that replaces it leaves the bucket alone.
    """
    if not inbox.has_plan():
        return
    try:
        registrar = Registrar(writer, inbox)
        registrar.register_waiting()
    except StoreUnreadable:
        raise
    except (StoreIOError, StoreDamaged) as e:
        if not options.replace or (isinstance(e, StoreIOError) and inbox.bucket() is None):
            raise
        inbox.forget_bucket()
        writer.notify([f"what waits for the plan that is replaced was not registered: {e}"])
        return
    if registrar.finish() or options.replace or registrar.plan.engine == options.engine != "plan-parts":
        return
    plan = registrar.plan
    raise PartsError(
        f"{len(registrar.left):,} of {counted(len(plan.parts), 'part')} of the plan for {plan.source.description} "
        "are left; "
        f"embed them with `embedstore work STORE --part N/{len(plan.parts)}`, or replace the plan with "
        "`embedstore plan-parts STORE SOURCE --replace`"
    )


def require_weights_outside(space: SpaceRecord) -> None:
    """Require that workers that see only a bucket can load the backbone.

    Raises:
        BadBackbone: if its weights are a checkpoint of the store.
    """
    weights = space.require_recipe().recipe.weights
    if weights and weights.startswith("checkpoints/"):
        raise BadBackbone(
            f"the weights of space {space.name} are {weights} in the store, which workers of a bucket do not see; "
            "leave --inbox out, and let the workers see the folder of the store"
        )


def _covers(source: Source) -> bool:
    """Return whether items that the source did not find are gone."""
    return bool(source.roots or source.archives or source.tables)


def _counts(plan: EmbedPlan, failed: dict[str, int]) -> dict[str, Any]:
    """Return what the scan found, under the keys of the table ``runs``."""
    c = plan.counts
    return {
        "found": c.scanned, "unit": c.unit, "unchanged": c.unchanged, "known_failures": c.known_failures,
        "failed": failed, "skipped": sum(c.skipped.values()), "skipped_by_kind": dict(c.skipped),
    }  # fmt: skip


def _write_plan(
    inbox: Inbox, job: EmbedJob, plan: EmbedPlan, options: PlanOptions, facts: tuple[Path | None, dict[str, Any]]
) -> WorkPlan:
    """Write the plan and the lists of its parts as a folder that appears whole or not at all."""
    attributes, counts = facts
    sizes = split_evenly(plan.counts.todo, options.count(plan.counts.todo))
    if sizes[0] > MAX_PART_FILES:
        least = -(-plan.counts.todo // MAX_PART_FILES)
        raise BadOption(
            f"{counted(len(sizes), 'part')} of {counted(sizes[0], 'file')} are too large for the memory of a worker; "
            f"use --parts {least} or more"
        )
    with disk_errors.disk_errors(f"write {inbox.folder}"), new_plan_folder(inbox) as folder:
        for files in _parts(plan, list(sizes)):
            folder.add_part(files)
        return _write_shared(folder, job, plan, options, attributes, counts)


def _write_shared(
    folder: PlanFolder,
    job: EmbedJob,
    plan: EmbedPlan,
    options: PlanOptions,
    attributes: Path | None,
    counts: dict[str, Any],
) -> WorkPlan:
    """Write what all parts share, and the plan itself."""
    plan.write_tables(folder.folder)
    if attributes is not None:
        (folder.folder / ATTRIBUTES).write_bytes(attributes.read_bytes())
    source = job.source
    described = PlannedSource(source.description, source.overrides_metadata, _covers(source), tuple(source.columns))
    space = replace(job.space.require_recipe(), is_default=False)
    work = WorkPlan(
        uuid.uuid4().hex, space, described, tuple(folder.parts), folder.shared_files(), counts, options.engine
    )
    folder.write_plan(work, options.bucket)
    return work


def _parts(plan: EmbedPlan, sizes: list[int]) -> Iterator[list[PartFile]]:
    """Yield the files of each part, in the order of the scan."""
    part: list[PartFile] = []
    for chunk in plan.todo(4096):
        for planned in chunk:
            part.append(PartFile(planned.ref, planned.item))
            if len(part) == sizes[0]:
                yield part
                part = []
                sizes.pop(0)
                if not sizes:
                    return
