"""Stage "decode": from the bytes of files to the backbone's input, in order, on threads (decoders release the GIL).

Of images, a thread decodes an ordinary file itself and gives an unusual one to a separate process. A content that has a
vector is not decoded. Memory is bounded by one group of files and the queue, whatever the number of files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Protocol

from embedstore.errors import ImageError, ItemError
from embedstore.media.image.isolation import DecodeWorkerPool
from embedstore.media.image.screening import is_safe_in_process
from embedstore.pipeline.decode_method import PILLOW_METHOD, DecodeMethod
from embedstore.pipeline.plan import FilesToRead, PlannedFile
from embedstore.pipeline.prefetch import Prefetch
from embedstore.pipeline.read import FileContent, read_files
from embedstore.pipeline.stage_times import StageTimer, StageTimers
from embedstore.resources import available_cores, memory_slots
from embedstore.sources.source import Source
from embedstore.space import Preprocess
from embedstore.types import ContentInfo, Failure, FailureReason

QUEUE_SIZE = 128  # decoded images waiting for the backbone
TASK_FILES = 16  # files that a thread decodes in a row, and that are handed on at once: a task costs about 20 µs
TASKS_PER_THREAD = 4  # of a group, at least: with fewer files a task is smaller, so that every thread has work
THREAD_BYTES = 384 << 20  # of a thread that decodes the largest ordinary image: 192 MiB as RGB, and a copy


@dataclass(frozen=True, slots=True)
class PreparedFile:
    """One file, ready for the backbone or for the catalog.

    Attributes:
        planned: the file; its ``item`` is also set where the file is a known item under a new name.
        digest: the identity of the content, or "" if the file could not be read.
        input: what the backbone reads: of an image its pixels, uint8 ``(3, H, W)``, an array or a tensor on a device;
            None if the content has a vector already, or failed.
        info: facts about the content, if it was decoded.
        failure: why the file cannot be embedded.
        is_renamed: whether the item had another name before.
    """

    planned: PlannedFile
    digest: str = ""
    input: Any = None
    info: ContentInfo | None = None
    failure: Failure | None = None
    is_renamed: bool = False

    def with_input(self, value: Any, info: ContentInfo) -> PreparedFile:
        """Return this file with the input of the backbone, and facts about the content."""
        return PreparedFile(self.planned, self.digest, value, info, None, self.is_renamed)

    def failed(self, reason: FailureReason, detail: str) -> PreparedFile:
        """Return this file with why it cannot be embedded."""
        return replace(self, failure=Failure.from_ref(self.planned.ref, reason, detail))

    def failed_like(self, failure: Failure | None) -> PreparedFile:
        """Return this file with the failure of another file that has the same bytes, if that has one."""
        return self if failure is None else self.failed(failure.reason, failure.detail)


class FileDecoder(Protocol):
    """Turns the bytes of a file into a backbone's input; for many threads."""

    def decode_together(self, files: Sequence[tuple[PreparedFile, bytes]]) -> dict[str, PreparedFile]:
        """Return, by digest, those of some files that are decoded at once; the others are for ``decode``."""

    def decode(self, file: PreparedFile, data: bytes) -> PreparedFile:
        """Return the file with its input or its failure."""

    def close(self) -> None:
        """End what is decoding."""


class DecodeSettings(Protocol):
    """How the files of one modality are decoded.

    Attributes:
        threads: the size of the pool that reads and decodes.
    """

    @property
    def threads(self) -> int: ...  # noqa: D102

    def open_decoder(self) -> FileDecoder:
        """Return the decoder of one run."""

    def initialize_thread(self) -> None:
        """Prepare a thread that decodes."""


@dataclass(frozen=True)
class ImageSettings:
    """How images are decoded.

    Attributes:
        preprocess: the preprocessing of the space.
        method: from an ordinary file to pixels.
        threads: the size of the pool that reads and decodes.
        isolate_all: decode ordinary files in a separate process too: the run before this one was killed, and one
            of them may be the cause.
    """

    preprocess: Preprocess
    threads: int
    method: DecodeMethod = PILLOW_METHOD
    isolate_all: bool = False

    def open_decoder(self) -> FileDecoder:
        """Return the decoder of one run."""
        return ImageDecoder(self)

    def initialize_thread(self) -> None:
        """Prepare a thread that decodes."""
        self.method.initialize_thread()


@dataclass(frozen=True)
class SequenceSettings:
    """How texts or sounds become the input of their backbone.

    Attributes:
        prepare: from the bytes of an item to the input, and facts about the content.
        release: ends the processes that prepare items.
        threads: the size of the pool that reads and decodes.
    """

    prepare: Callable[[bytes], tuple[Any, ContentInfo]]
    release: Callable[[], None]
    threads: int

    def open_decoder(self) -> FileDecoder:
        """Return the decoder of one run."""
        return SequenceDecoder(self)

    def initialize_thread(self) -> None:
        """Prepare a thread that decodes."""


def default_decode_threads() -> int:
    """Return the size of the decoding pool: one thread per core, fewer where memory is short."""
    return memory_slots(available_cores(), THREAD_BYTES)


@contextmanager
def open_prepared_files(
    source: Source,
    plan: FilesToRead,
    settings: DecodeSettings,
    *,
    stop_requested: Callable[[], object],
    timers: StageTimers,
) -> Iterator[Iterator[PreparedFile]]:
    """Read and decode the planned files on threads of their own.

    Leaving the block ends reading and decoding within seconds, whatever they are doing.

    Args:
        source: reads the files.
        plan: which files, and what is known about their contents.
        settings: how they are decoded.
        stop_requested: whether the run shall stop; the files then end early.
        timers: the timers of the stages.

    Yields:
        The prepared files, in the order of the plan.
    """
    pool = ThreadPoolExecutor(settings.threads, "decode", initializer=settings.initialize_thread)
    decoder = settings.open_decoder()
    tasks = DecodeTasks(decoder, pool, settings.threads, timers.decode)
    files = decode_files(read_files(source, plan, pool, settings.threads, timers.read), plan, tasks)
    prefetch = Prefetch(in_chunks(files, TASK_FILES), QUEUE_SIZE // TASK_FILES, stop_requested)
    try:
        yield chain.from_iterable(prefetch)
    finally:
        prefetch.stop()
        tasks.stop()
        pool.shutdown(wait=False, cancel_futures=True)
        decoder.close()  # ends a decode that hangs, on which the pool and the thread may wait
        pool.shutdown()
        prefetch.join()


@dataclass(frozen=True)
class DecodeTasks:
    """Decodes files on a pool of threads, several in a task.

    Attributes:
        decoder: decodes one file.
        pool: the threads.
        threads: their number.
        timer: the timer of the stage.
    """

    decoder: FileDecoder
    pool: ThreadPoolExecutor
    threads: int
    timer: StageTimer = field(default_factory=StageTimer)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def start(self, files: Sequence[tuple[PreparedFile, bytes]]) -> dict[str, Future[list[PreparedFile]]]:
        """Start to decode files of different content; return the task of each digest."""
        size = max(1, min(TASK_FILES, len(files) // (TASKS_PER_THREAD * self.threads)))
        running = {}
        for first in range(0, len(files), size):
            part = files[first : first + size]
            task = self.pool.submit(self._decode, part)
            running.update(dict.fromkeys((file.digest for file, _ in part), task))
        return running

    def stop(self) -> None:
        """End every task after the file that it is decoding."""
        self._stopped.set()

    def _decode(self, files: Sequence[tuple[PreparedFile, bytes]]) -> list[PreparedFile]:
        """Decode some files at once, and the others one after the other."""
        decoded = []
        with self.timer.measure():
            together = self.decoder.decode_together(files)
            for file, data in files:
                if self._stopped.is_set():
                    raise CancelledError
                decoded.append(together.get(file.digest) or self.decoder.decode(file, data))
        return decoded


def decode_files(groups: Iterator[list[FileContent]], plan: FilesToRead, tasks: DecodeTasks) -> Iterator[PreparedFile]:
    """Yield every file in order: decode what is new, once per content, and match the rest with what is known."""
    for group in groups:
        files = _match_renamed(group, plan)
        known = plan.known([f.digest for f in files if f.failure is None])
        running = tasks.start(_first_of_each(files, group, known))
        group.clear()  # a file's bytes are free once its task has ended, and before the next group is read
        ready: dict[str, PreparedFile] = {}  # the rest of one task: tasks hold the files in their order
        decoded: dict[str, Failure | None] = {}
        for file in files:
            if file.digest in decoded:
                yield file.failed_like(decoded[file.digest])
            elif file.digest in running:
                task = running.pop(file.digest)
                ready = ready or {result.digest: result for result in task.result()}
                result = ready.pop(file.digest)
                decoded[file.digest] = result.failure
                yield result
            else:
                yield file
        plan.learn([digest for digest, failure in decoded.items() if failure is None])


def _first_of_each(
    files: Sequence[PreparedFile], group: Sequence[FileContent], known: set[str]
) -> list[tuple[PreparedFile, bytes]]:
    """Return the first file of every content that is not known, and its bytes."""
    new: dict[str, tuple[PreparedFile, bytes]] = {}
    for file, content in zip(files, group, strict=True):
        if file.failure is None and file.digest not in known:
            new.setdefault(file.digest, (file, content.data))
    return list(new.values())


def in_chunks(files: Iterator[PreparedFile], size: int) -> Iterator[list[PreparedFile]]:
    """Yield the files in lists of at most ``size``; what came before an error is yielded before it is raised."""
    chunk: list[PreparedFile] = []
    try:
        for file in files:
            chunk.append(file)
            if len(chunk) == size:
                yield chunk
                chunk = []
    except Exception:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def _match_renamed(group: Sequence[FileContent], plan: FilesToRead) -> list[PreparedFile]:
    """Return the files, and give new names the missing items that have the same content."""
    claimed = plan.claim_renamed([c.digest if c.failure is None and c.planned.item is None else None for c in group])
    return [
        PreparedFile(c.planned, c.digest, failure=c.failure)
        if item is None
        else PreparedFile(PlannedFile(c.planned.ref, item), c.digest, is_renamed=True)
        for c, item in zip(group, claimed, strict=True)
    ]


class ImageDecoder:
    """Decodes and resizes images; for many threads.

    Args:
        settings: how.
    """

    def __init__(self, settings: ImageSettings) -> None:
        self._settings = settings
        self._isolation = DecodeWorkerPool(settings.preprocess)

    def decode_together(self, files: Sequence[tuple[PreparedFile, bytes]]) -> dict[str, PreparedFile]:
        """Return, by digest, those of some files that the decoder of a device decodes at once."""
        if self._settings.method.together is None or self._settings.isolate_all:
            return {}
        safe = [(file, data) for file, data in files if is_safe_in_process(data)]
        prepared = self._settings.method.prepare_together([data for _, data in safe], self._settings.preprocess)
        return {safe[n][0].digest: safe[n][0].with_input(*result) for n, result in prepared.items()}

    def decode(self, file: PreparedFile, data: bytes) -> PreparedFile:
        """Return the file with its pixels or its failure."""
        try:
            return file.with_input(*self._prepare(data))
        except ImageError as e:
            return file.failed(e.reason, e.detail)

    def close(self) -> None:
        """End the processes for unusual files, also those that are decoding."""
        self._isolation.close()

    def _prepare(self, data: bytes) -> tuple[Any, ContentInfo]:
        """Return pixels and facts, from this thread or from a separate process."""
        if not self._settings.isolate_all and is_safe_in_process(data):
            return self._settings.method.prepare(data, self._settings.preprocess)
        return self._isolation.prepare(data)


class SequenceDecoder:
    """Turns texts or sounds into the input of their backbone; for many threads.

    Args:
        settings: how.
    """

    def __init__(self, settings: SequenceSettings) -> None:
        self._settings = settings

    def decode_together(self, files: Sequence[tuple[PreparedFile, bytes]]) -> dict[str, PreparedFile]:
        """Return nothing: texts and sounds are decoded one by one."""
        return {}

    def decode(self, file: PreparedFile, data: bytes) -> PreparedFile:
        """Return the file with its input or its failure."""
        try:
            return file.with_input(*self._settings.prepare(data))
        except ItemError as e:
            return file.failed(e.reason, e.detail)

    def close(self) -> None:
        """End the processes that prepare items, also those that are at work."""
        self._settings.release()
