"""One embedding run: scan -> plan -> read -> decode -> forward -> commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

from embedstore.backbones.runtimes.runtime import Runtime
from embedstore.errors import NoImages
from embedstore.media.decoders import decoder_version
from embedstore.modality import Modality
from embedstore.pipeline.commit import CommitStage, store_commit
from embedstore.pipeline.decode import default_decode_threads, open_prepared_files
from embedstore.pipeline.decode_method import preserve_torch_threads
from embedstore.pipeline.decoder import Decoder
from embedstore.pipeline.encoder import EncoderRequest, LoadBackbone, RunEncoder
from embedstore.pipeline.forward import ForwardStage
from embedstore.pipeline.garbage import fewer_full_collections
from embedstore.pipeline.kept_encoder import OpenEncoder, open_once
from embedstore.pipeline.kept_values import kept_note
from embedstore.pipeline.plan import EmbedPlan, FilesToRead, build_plan
from embedstore.pipeline.read_order import ReadOrder
from embedstore.pipeline.report import EmbedReport, EncodingResult, build_report
from embedstore.pipeline.signals import StopSignal, catch_stop_signals
from embedstore.pipeline.stage_times import StageTimers, StageTimes
from embedstore.sources.skip_rules import skipped_summary
from embedstore.sources.source import Scan, Source
from embedstore.storage.run_progress import ProgressRecorder
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import utc_now
from embedstore.storage.storage import Storage
from embedstore.storage.writer import Writer
from embedstore.temporary import temporary_folder
from embedstore.types import Failure, ImageRef

SCAN_PROGRESS_FILES = 1000  # between two reports of progress while scanning


@dataclass(frozen=True)
class EmbedOptions:
    """How to run.

    Attributes:
        batch_size: images per forward pass; None is the backbone's choice for its device.
        threads: the size of the decoding pool; None is one per core, fewer where memory is short.
        runtime: the runtime of the backbone; the vectors are the same in all.
        decoder: the decoder of ordinary files; the vectors are the same in all.
        commit_rows: a commit is made after this many files.
        commit_seconds: a commit is made after this many seconds; a kill loses at most this much work.
        wait: seconds to wait for another writer.
        order: in which files are read; the vectors are the same.
        on_cpu: the network would compute on the CPU in fp32, where the space's exported tower takes its place.
    """

    batch_size: int | None = None
    threads: int | None = None
    runtime: Runtime = Runtime.AUTO
    decoder: Decoder = Decoder.AUTO
    commit_rows: int = 4096
    commit_seconds: float = 5.0
    wait: float = 0.0
    order: ReadOrder = ReadOrder.SCAN
    on_cpu: bool = False


@dataclass(frozen=True, slots=True)
class EmbedProgress:
    """How far a run is.

    Attributes:
        done: files that were scanned or, once ``total`` is known, read.
        total: files to read; 0 while the source is scanned.
        embedded: files whose content got a new vector.
        failed: files that failed.
        modality: what is read.
    """

    done: int
    total: int
    embedded: int
    failed: int
    modality: Modality = Modality.IMAGE


def embed_source(
    storage: Storage,
    source: Source,
    load_backbone: LoadBackbone,
    space: SpaceRecord,
    *,
    options: EmbedOptions = EmbedOptions(),
    progress: Callable[[EmbedProgress], None] = lambda _: None,
) -> EmbedReport:
    """Embed every file of a source that has no vector in the space.

    A run that is killed loses only what was not committed, and the next run does just that. SIGINT and SIGTERM commit
    what has been embedded and stop.

    Args:
        storage: the store.
        source: where the files come from.
        load_backbone: loads the space's backbone, or one for each device; called only if a file has to be read.
        space: the space that is filled.
        options: how to run.
        progress: called with how far the run is.

    Raises:
        NoImages: if the source has no file.
        StoreBusy: if another process is writing.
        KeyboardInterrupt: if SIGINT stopped the run, after a commit.
        SystemExit: if SIGTERM stopped the run, after a commit.
    """
    begin, started = time.perf_counter(), utc_now()
    job = EmbedJob(storage, source, space, options, progress)
    with (
        catch_stop_signals() as stop,
        storage.writer(f"embed {source.description}", wait=options.wait) as writer,
        temporary_folder() as folder,
        closing(plan_source(job, stop)) as plan,
    ):
        attributes, kept_values = apply_metadata(writer, source, plan, folder)
        commit = store_commit(writer, space, attributes)
        commits = CommitStage(commit, space, max_rows=options.commit_rows, max_seconds=options.commit_seconds)
        for rows in plan.scan_failures(options.commit_rows):
            commits.add_failures(rows)
        encoding = None
        if plan.counts.todo:
            encoding = embed_files(job, plan, open_once(load_backbone), commits, stop, isolate_all=writer.after_crash)
        commits.flush()
        covers = source.roots or source.archives or source.tables
        missing = plan.mark_missing(writer) if covers and not stop.signal_number else 0
        report = build_report(
            plan.counts,
            commits.totals,
            encoding,
            missing=missing,
            seconds=round(time.perf_counter() - begin, 3),
            space=space.name,
            notices=[
                *storage.notices,
                *source.notices,
                *kept_note(source.description, kept_values),
                *(encoding.encoder.notices if encoding else []),
            ],
        )
        settings = {"source": source.description, "options": asdict(options)}
        writer.record_run("embed", space.key, settings, report.to_json(), started)
    stop.raise_if_requested()
    return report


@dataclass(frozen=True)
class EmbedJob:
    """What one run embeds, from where to where, and how."""

    storage: Storage
    source: Source
    space: SpaceRecord
    options: EmbedOptions
    progress: Callable[[EmbedProgress], None]


def plan_source(job: EmbedJob, stop: StopSignal) -> EmbedPlan:
    """Decide what has to be done; raise NoImages without a file, BadManifest if the store cannot take the columns."""
    job.storage.check_columns(job.source.columns)
    scan = job.source.scan()
    watched = Scan(_watch(scan, stop, job.progress), scan.summary)
    modality = job.space.space.modality
    plan = build_plan(
        job.storage,
        job.space.key,
        watched,
        source=job.source,
        decoder_version=decoder_version(modality),
        modality=modality,
        order=job.options.order,
    )
    if not plan.counts.scanned:
        skipped = f" to embed, {skipped_summary(plan.counts.skipped)}" if plan.counts.skipped else ""
        cures = [f"name a folder, files or a manifest of {modality.plural}", *job.source.notices]
        raise NoImages(f"{job.source.description} has no {job.source.unit}s{skipped}; {'; '.join(cures)}")
    return plan


def _watch(scan: Scan, stop: StopSignal, progress: Callable[[EmbedProgress], None]) -> Iterator[ImageRef | Failure]:
    """Yield the entries of a scan and report progress; a signal ends the run here, since nothing is lost by that."""
    for count, entry in enumerate(scan, 1):
        stop.raise_if_requested()
        if count % SCAN_PROGRESS_FILES == 0:
            progress(EmbedProgress(count, 0, 0, 0))
        yield entry


def apply_metadata(writer: Writer, source: Source, plan: EmbedPlan, folder: Path) -> tuple[Path | None, int]:
    """Write what needs no image: the user's own columns, and the metadata and presence of known items.

    Returns:
        A Parquet file of ``uri`` and the user's own columns, or None if the source has none; and how many stored values
        stay because their cells are empty.
    """
    attributes, kept = None, 0
    if source.columns:
        attributes = folder / "attributes.parquet"
        source.write_columns(attributes)
        writer.add_columns(source.columns)
        if source.overrides_metadata:
            kept += writer.set_attributes(attributes)
    kept += plan.update_items(writer, overrides_metadata=source.overrides_metadata, stated=source.stated_columns)
    return attributes, kept


def embed_files(
    job: EmbedJob,
    plan: FilesToRead,
    open_encoder: OpenEncoder,
    commits: CommitStage,
    stop: StopSignal,
    *,
    isolate_all: bool,
) -> EncodingResult:
    """Read, decode, embed and commit the files of the plan, all stages at once."""
    threads = job.options.threads or default_decode_threads()
    batch_size, max_files = job.options.batch_size, job.options.commit_rows
    modality = job.space.space.modality
    with _open(job, plan, open_encoder, threads, isolate_all=isolate_all) as run, ExitStack() as stack:
        settings = run.decode_settings(threads, isolate_all=isolate_all)
        stack.enter_context(fewer_full_collections())
        timers, recorder = StageTimers(), stack.enter_context(closing(ProgressRecorder(job.storage.layout)))
        restore_threads = stack.enter_context(preserve_torch_threads())
        files = stack.enter_context(
            open_prepared_files(job.source, plan, settings, stop_requested=lambda: stop.signal_number, timers=timers)
        )
        forward = ForwardStage(run, batch_size=batch_size, max_files=max_files, initializer=restore_threads)
        stack.callback(forward.close)
        stack.enter_context(commits.on_thread(timers.write, stop))
        for batch in forward.run(files):
            commits.add(batch)
            totals, failed = commits.totals, commits.totals.failures.total()
            job.progress(EmbedProgress(totals.files, plan.counts.todo, totals.embedded, failed, modality))
            recorder.record(totals.files, plan.counts.todo)
        stack.close()
        return EncodingResult(
            run,
            _times(run, forward, timers, threads, modality),
            batch_size or run.batch_size,
            commits.totals.files,
        )


def _open(
    job: EmbedJob, plan: FilesToRead, open_encoder: OpenEncoder, threads: int, *, isolate_all: bool
) -> AbstractContextManager[RunEncoder]:
    """Open the encoder of the run."""
    options, space = job.options, job.space
    decoder = None if isolate_all else options.decoder
    request = EncoderRequest(options.runtime, decoder, threads, options.batch_size, options.on_cpu)
    towers_folder = job.storage.layout.towers_folder(space.key)
    return open_encoder(job.source, plan, request, space=space.space, towers_folder=towers_folder)


def _times(run: RunEncoder, forward: ForwardStage, timers: StageTimers, threads: int, modality: Modality) -> StageTimes:
    """Return where the time of the stages went."""
    return timers.finish(
        images=forward.item_count,
        forward_seconds=run.device_seconds(forward.item_count) or forward.seconds,
        threads=threads,
        shares_cpu=run.device.startswith("cpu"),
        runtime=run.runtime,
        modality=modality,
    )
