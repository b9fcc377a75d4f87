"""The runner: prepared images through the backbone into commits, in the order of the plan."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.runtimes.adaptive_encoder import AdaptiveEncoder
from embedstore.backbones.runtimes.runtime import Runtime
from embedstore.errors import NoImages
from embedstore.media.image.decode import DECODER_VERSION
from embedstore.pipeline import plan
from embedstore.pipeline.decode_method import Decoder
from embedstore.pipeline.decoder_choice import PILLOW_METHOD, choose_decode_method, preserve_torch_threads
from embedstore.pipeline.forward import EncodedBatch, ForwardStage
from embedstore.pipeline.read import PreparedFile, open_prepared_files, read_sample
from embedstore.pipeline.report import EmbedReport
from embedstore.pipeline.signals import StopSignal, catch_stop_signals
from embedstore.pipeline.stage_times import StageTimers, StageTimes
from embedstore.sources.open import Source
from embedstore.storage.commit import CommitBatch, FailureRow, ItemRow, storable_rows
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import utc_now
from embedstore.storage.storage import Storage, Writer
from embedstore.timing import available_cores
from embedstore.types import Failure, FailureReason, ImageRef

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone


@dataclass(frozen=True)
class EmbedOptions:
    """How to run.

    Attributes:
        batch_size: images per forward; None is the backbone's choice for its device.
        threads: of the decoding pool; None is one per core.
        runtime: that the backbone runs in. decoder: of ordinary files. Vectors are the same in all.
        commit_rows, commit_seconds: a commit is made when either is reached; a kill loses at most this much work.
        wait: seconds to wait for another writer.
    """

    batch_size: int | None = None
    threads: int | None = None
    runtime: Runtime = Runtime.AUTO
    decoder: Decoder = Decoder.AUTO
    commit_rows: int = 4096
    commit_seconds: float = 5.0
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class EmbedProgress:
    """Where a run stands; ``total`` is 0 while the source is still being scanned."""

    done: int
    total: int
    embedded: int
    failed: int


def embed_source(
    storage: Storage,
    source: Source,
    load_backbone: Callable[[], Backbone | Sequence[Backbone]],
    space: SpaceRecord,
    *,
    options: EmbedOptions = EmbedOptions(),
    progress: Callable[[EmbedProgress], None] = lambda _: None,
) -> EmbedReport:
    """Embed everything that a source finds and the space does not have.

    Args:
        storage, source: from where to where.
        load: gives the space's backbone, or one a device; called only when an image has to be embedded.
        space: which space. options: how. progress: told where the run stands.

    A run that is killed loses what was not committed, and the next run does just that. SIGINT and SIGTERM commit
    what has been embedded and stop.

    Raises:
        NoImages: the source has no file at all.
        StoreBusy: another process is writing.
        KeyboardInterrupt, SystemExit: stopped by a signal, after a commit.
    """
    begin, started = time.perf_counter(), utc_now()
    with ExitStack() as stack:
        stop = stack.enter_context(catch_stop_signals())
        writer = stack.enter_context(storage.writer(f"embed {source.description}", wait=options.wait))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="embedstore-")))
        runner = _Runner(storage, writer, load_backbone, space, options, progress, stop)
        runner.begin(source, folder)
        runner.work()
        if not stop.signal_number:
            runner.finish(source)
        report = runner.report
        report.seconds = round(time.perf_counter() - begin, 3)
        report.notices = [*storage.notices, *runner.notices]
        settings = {"source": source.description, "options": asdict(options)}
        writer.record_run("embed", space.key, settings, report.to_json(), started)
    stop.raise_if_requested()
    return report


class _Runner:
    """One run's state: what is embedded but not committed, and the counts."""

    def __init__(
        self,
        storage: Storage,
        writer: Writer,
        load: Callable[[], Backbone | Sequence[Backbone]],
        space: SpaceRecord,
        options: EmbedOptions,
        progress: Callable[[EmbedProgress], None],
        stop: StopSignal,
    ) -> None:
        self.report = EmbedReport(space=space.name)
        self._storage, self._writer, self._load, self._space = storage, writer, load, space
        self._backbone: AdaptiveEncoder | None = None
        self._threads: Callable[[], None] = lambda: None
        self._forwards = ForwardStage(
            self._encoded,
            lambda: self._backbone.concurrency if self._backbone else 1,
            lambda: self._threads(),  # noqa: PLW0108 - known when the stream begins
        )
        self._meters, self._way = StageTimers(), PILLOW_METHOD
        self._options, self._progress, self._stop = options, progress, stop
        self._attributes: Path | None = None
        self._failed: Counter[str] = Counter()
        self._total = self._done = 0
        self._waiting: list[PreparedFile] = []  # since the last forward, in order
        self._pixels: list[NDArray[np.uint8]] = []
        self._unusable: set[str] = set()  # contents whose vector cannot be stored
        self._batch = CommitBatch()
        self._committed_at = time.monotonic()

    def begin(self, source: Source, folder: Path) -> None:
        """Scan, decide, and write what needs no image."""
        scan = (self._seen(x) for x in source.scan())
        made = plan.build_plan(self._storage, self._space, scan, roots=source.roots, decoder_version=DECODER_VERSION)
        if not made.scanned_count:
            raise NoImages(f"{source.description} has no files; name a folder, files or a manifest of images")
        if source.columns:
            self._attributes = folder / "attributes.parquet"
            source.write_columns(self._attributes)
            self._writer.add_columns(source.columns)
        if source.overrides_metadata:
            self._writer.execute(_REDECLARE)
            if self._attributes:
                self._writer.set_attributes(self._attributes)
        self._writer.execute(_PRESENT_AGAIN)
        self._batch.failures += [FailureRow(f, item) for f, item in made.unreadable]
        self._failed.update(f.reason.value for f, _ in made.unreadable)
        r = self.report
        r.found, r.unchanged, r.known_failures = made.scanned_count, made.unchanged_count, made.known_failures
        r.skipped = source.skipped
        self._total, self._done = made.todo, 0

    def work(self) -> None:
        """Every file of the plan."""
        threads = self._options.threads or available_cores()
        if self._total:
            self._ready(threads)
        begin, cpu = time.perf_counter(), time.process_time()
        with ExitStack() as stack:
            if self._total:
                self._threads = stack.enter_context(preserve_torch_threads())
            self._stream(threads)
        self._commit()
        seconds = max(time.perf_counter() - begin, 1e-9)
        self.report.images_per_second = round(self._done / seconds, 1)
        self.report.failed = dict(self._failed)
        self._tell(seconds, time.process_time() - cpu, threads)

    def _stream(self, threads: int) -> None:
        """Files to pixels to vectors, all stages at once."""
        preprocess = self._space.space.preprocess
        try:
            if self._total and preprocess:
                with open_prepared_files(
                    self._storage.catalog.scratch,
                    preprocess,
                    threads=threads,
                    isolate_all=self._writer.after_crash,
                    stop_requested=lambda: self._stop.signal_number,
                    timers=self._meters,
                    method=self._way,
                ) as files:
                    for prepared in files:
                        self._take(prepared)
                        if self._stop.signal_number:
                            break
            if not self._stop.signal_number:
                self._send()
            self._collect(everything=True)
        finally:
            self._forwards.close()
            if self._backbone:
                self._backbone.close()

    def _tell(self, seconds: float, cpu: float, threads: int) -> None:
        """What ran, and where the time went."""
        if self._backbone is None:
            return
        r, backbone = self.report, self._backbone
        r.batch_size, r.runtime, r.folded = self._size, backbone.runtime.value, backbone.folded
        r.decoder = self._way.decoder.value
        r.agreement = asdict(backbone.agreement) if backbone.agreement else None
        r.parity = asdict(self._way.agreement) if self._way.agreement else None
        spent = StageTimes(
            images=self._forwards.image_count,
            seconds=seconds,
            read=self._meters.read.time,
            decode=self._meters.decode.time,
            forward=self._forwards.seconds,
            write=self._meters.write.time,
            cpu=cpu,
            threads=threads,
            cores=available_cores(),
            shared=backbone.backbone.device == "cpu",
            runtime=r.runtime,
        )
        r.stages, r.bottleneck = spent.to_json(), spent.bottleneck()

    @property
    def notices(self) -> list[str]:
        """What the choices of a runtime and a decoder had to say."""
        return [*(self._backbone.notices if self._backbone else []), *self._way.notices]

    @property
    def _size(self) -> int:
        """Images per forward."""
        return self._options.batch_size or (self._backbone.batch_size if self._backbone else 1)

    def _encoded(self, batch: Any) -> NDArray[np.float32]:
        """Vectors of a batch, on whichever thread asks."""
        if self._backbone is None:
            raise RuntimeError("pixels before a backbone")
        return self._backbone.encode_images(batch)

    def _ready(self, threads: int) -> None:
        """Load the backbone and settle how files become pixels: a run with nothing to read never does."""
        folder = self._storage.layout.towers_folder(self._space.key)
        loaded = self._load()
        networks = loaded if isinstance(loaded, Sequence) else [loaded]
        self._backbone = AdaptiveEncoder(networks, self._options.runtime, folder, expected_images=self._total)
        self.report.device, self.report.precision = self._backbone.device, self._backbone.precision
        if not self._writer.after_crash:  # then every file is decoded in a process of its own
            files = read_sample(self._storage.catalog.scratch)
            self._way = choose_decode_method(
                self._backbone.backbone,
                files,
                requested=self._options.decoder,
                expected_images=self._total,
                threads=threads,
            )

    def finish(self, source: Source) -> None:
        """Mark the items whose files have gone, when the source speaks for whole folders."""
        if source.roots:
            self._writer.execute(_MISSING)
            gone = self._storage.catalog.scratch.execute("SELECT count(*) FROM memory.main.gone").fetchall()
            self.report.missing = int(gone[0][0])

    def _seen(self, found: ImageRef | Failure) -> ImageRef | Failure:
        """Show that the scan goes on; nothing is lost by leaving it."""
        self._stop.raise_if_requested()
        self._done += 1
        if self._done % 1000 == 0:
            self._progress(EmbedProgress(self._done, 0, 0, 0))
        return found

    def _take(self, prepared: PreparedFile) -> None:
        """One file, in order."""
        self._waiting.append(prepared)
        if prepared.pixels is not None:
            self._pixels.append(prepared.pixels)
        if len(self._pixels) >= self._size or len(self._waiting) >= self._options.commit_rows:
            self._send()  # ... or a long run of duplicates or failures: nothing to compute, much to write
            self._collect()
            if len(self._batch.items) >= self._options.commit_rows or self._late():
                self._commit()

    def _late(self) -> bool:
        """The last commit is long ago."""
        return time.monotonic() - self._committed_at > self._options.commit_seconds

    def _send(self) -> None:
        """Give the waiting pixels to the backbone."""
        if self._waiting:
            self._forwards.submit(self._waiting, self._pixels)
        self._waiting, self._pixels = [], []

    def _collect(self, *, everything: bool = False) -> None:
        """Settle every file of the batches that are finished."""
        for batch in self._forwards.done(wait_for_all=everything):
            with self._meters.write.measured():
                self._settle_all(batch)
            self._done += len(batch.files)
            self._progress(EmbedProgress(self._done, self._total, self.report.embedded, self._failed.total()))

    def _settle_all(self, batch: EncodedBatch) -> None:
        """Enter one batch."""
        vectors = iter(batch.vectors if batch.vectors is not None else ())
        for p in batch.files:
            self._settle(p, next(vectors) if p.pixels is not None else None)

    def _settle(self, p: PreparedFile, vector: NDArray[np.float32] | None) -> None:
        """Enter one file into the batch, as an item or as a failure."""
        ref, failure = p.planned.ref, p.failure
        if vector is not None and not storable_rows(vector[None], self._space.dtype)[0]:
            self._unusable.add(p.digest)
        if p.digest in self._unusable:
            failure = Failure.from_ref(
                ref,
                FailureReason.NOT_FINITE,
                f"the backbone's vector is zero, not finite or beyond {self._space.dtype}",
            )
        if failure is not None:
            self._batch.failures.append(FailureRow(failure, p.planned.item))
            self._failed[failure.reason.value] += 1
            return
        self._batch.items.append(ItemRow(ref, p.digest, p.planned.item))
        self.report.renamed += p.is_renamed
        if vector is None:
            self.report.reused += 1
            return
        self.report.embedded += 1
        self._batch.digests.append(p.digest)
        self._batch.vectors.append(vector)
        self._batch.image_info[p.digest] = (ref.size, p.image_info)

    def _commit(self) -> None:
        """Make everything settled durable."""
        if not self._batch:
            self._committed_at = time.monotonic()
            return
        with self._meters.write.measured():
            self._writer.commit(self._batch, space=self._space, decoder=DECODER_VERSION, attributes=self._attributes)
        self.report.commits += 1
        self._batch = CommitBatch()
        self._committed_at = time.monotonic()


_PRESENT_AGAIN = """
UPDATE items SET present = true
WHERE NOT present AND item IN (SELECT item FROM memory.main.standing)
"""

# What a manifest does not say, it leaves as it is.
_REDECLARE = """
UPDATE items SET label = coalesce(j.label, items.label), split = coalesce(j.split, items.split),
                 group_id = coalesce(j.group_id, items.group_id)
FROM memory.main.standing j
WHERE items.item = j.item AND (items.label IS DISTINCT FROM j.label OR items.split IS DISTINCT FROM j.split
                               OR items.group_id IS DISTINCT FROM j.group_id)
"""

_MISSING = "UPDATE items SET present = false WHERE present AND item IN (SELECT item FROM memory.main.gone)"
