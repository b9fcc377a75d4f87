"""Files to pixels, in the order of the plan, on a pool of threads (decoders release the GIL).

A thread decodes an ordinary file itself and hands an odd one to a process (``isolation``). Two
stages overlap: while one group of files is decoded, the next is read and hashed. What has a vector already is not
decoded. Memory is bounded by one group and the queue, whatever the number of files.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import duckdb

from embedstore.errors import ImageError
from embedstore.media.image.isolation import DecodeWorkerPool
from embedstore.media.image.screening import is_safe_in_process
from embedstore.pipeline import plan
from embedstore.pipeline.decoder_choice import COMPARISON_IMAGES, PILLOW_METHOD, DecodeMethod
from embedstore.pipeline.plan import PlannedFile
from embedstore.pipeline.stage_times import StageTimers
from embedstore.sources.local_files import read_file
from embedstore.space import Preprocess
from embedstore.storage.sql import content_hex, object_array
from embedstore.types import Failure, ImageInfo, content_digest

GROUP_FILES = 256
GROUP_BYTES = 64 << 20  # of file data in memory at once, per stage
QUEUE_SIZE = 128  # decoded images waiting for the backbone
POLL_SECONDS = 0.2  # seconds between two looks at whether the run was asked to stop


@dataclass(frozen=True, slots=True)
class PreparedFile:
    """One file, ready for the backbone or for the catalog.

    Attributes:
        todo: the file; its ``item`` is the existing item, also one that was found under another name.
        digest: of the bytes, or "" where they could not be read.
        pixels: uint8 ``(3, H, W)``, an array or a tensor on a device; None where the content has a vector already, or
            failed.
        picture: facts about the image where it was decoded. failure: why it could not be.
        renamed: the item had another name before.
    """

    planned: PlannedFile
    digest: str = ""
    pixels: Any = None
    image_info: ImageInfo | None = None
    failure: Failure | None = None
    is_renamed: bool = False


def read_sample(con: duckdb.DuckDBPyConnection, count: int = 2 * COMPARISON_IMAGES) -> list[bytes]:
    """The first ordinary files of the plan, for :func:`embedstore.pipeline.decoder_choice.choose`."""
    chunk = next(plan.read_planned_files(con.cursor(), count), [])
    read = [_read(t)[1] for t in chunk if t.ref.size <= GROUP_BYTES // count]
    return [data for data in read if is_safe_in_process(data)]


@contextmanager
def open_prepared_files(
    con: duckdb.DuckDBPyConnection,
    preprocess: Preprocess,
    *,
    threads: int,
    isolate_all: bool = False,
    stop_requested: Callable[[], object] = lambda: False,
    timers: StageTimers | None = None,
    method: DecodeMethod = PILLOW_METHOD,
) -> Iterator[Iterator[PreparedFile]]:
    """Prepared files from a thread of their own; leaving the block stops it within seconds, whatever it is at.

    Args:
        con: the catalog's private connection, holding the plan's tables.
        p: the space's preprocessing.
        threads: of the decoding pool.
        careful: decode every file in a process of its own, ordinary ones too: the run before this one was killed, and
            one of them may have done it.
        asked: whether the run was asked to stop; the files then end early.
        meters: of the time that both stages take.
        way: of an ordinary file to its pixels.
    """
    out: queue.Queue[PreparedFile | BaseException | None] = queue.Queue(maxsize=QUEUE_SIZE)
    stopped = threading.Event()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode", initializer=method.initialize_thread)
    isolation = DecodeWorkerPool(preprocess)
    preparer = _Preparer(
        con.cursor(),
        pool,
        lambda data: method.prepare(data, preprocess),
        isolation,
        careful=isolate_all,
        meters=timers or StageTimers(),
    )

    def produce() -> None:
        try:
            for prepared in preparer.run(stopped.is_set):
                _put(out, prepared, stopped)
            _put(out, None, stopped)
        except BaseException as e:
            _put(out, e, stopped)

    thread = threading.Thread(target=produce, name="prepare", daemon=True)
    thread.start()
    try:
        yield _drain(out, stop_requested)
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
        isolation.close()
        pool.shutdown()
        thread.join()


def _put(
    out: queue.Queue[PreparedFile | BaseException | None],
    value: PreparedFile | BaseException | None,
    stopped: threading.Event,
) -> None:
    """Queue a value, waiting for room until told to stop."""
    while not stopped.is_set():
        with suppress(queue.Full):
            out.put(value, timeout=0.1)
            return


def _drain(
    out: queue.Queue[PreparedFile | BaseException | None], asked: Callable[[], object]
) -> Iterator[PreparedFile]:
    """Everything queued, until the end mark or until asked to stop."""
    while not asked():
        try:
            value = out.get(timeout=POLL_SECONDS)
        except queue.Empty:
            continue
        if value is None:
            return
        if isinstance(value, BaseException):
            raise value
        yield value


class _Preparer:
    """The two stages.

    Args:
        con: a cursor for this thread alone. pool: runs both stages. prepare: an ordinary file to pixels.
        isolation: decodes odd files. careful: ordinary ones too. meters: of the time it takes.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        pool: ThreadPoolExecutor,
        prepare: Callable[[bytes], tuple[Any, ImageInfo]],
        isolation: DecodeWorkerPool,
        *,
        careful: bool,
        meters: StageTimers,
    ) -> None:
        self._con = con
        self._meters = meters
        self._pool = pool
        self._ordinary = prepare
        self._isolation = isolation
        self._careful = careful

    def run(self, stopped: Callable[[], bool]) -> Iterator[PreparedFile]:
        """Every file of the plan, in order."""
        ahead: list[Future[tuple[PlannedFile, bytes, PreparedFile]]] | None = None
        for group in _groups(plan.read_planned_files(self._con, GROUP_FILES)):
            submitted = [self._pool.submit(self._read, t) for t in group]
            if ahead is not None:
                yield from self._decode([f.result() for f in ahead])
            ahead = submitted
            if stopped():
                return
        if ahead is not None:
            yield from self._decode([f.result() for f in ahead])

    def _decode(self, read: Sequence[tuple[PlannedFile, bytes, PreparedFile]]) -> Iterator[PreparedFile]:
        """Decode what is new, once per content, and match the rest."""
        rows = self._renamed([prepared for _, _, prepared in read])
        known = self._known([r.digest for r in rows if r.failure is None])
        running: dict[str, Future[PreparedFile]] = {}
        for row, (_, data, _) in zip(rows, read, strict=True):
            if row.failure is None and row.digest not in known and row.digest not in running:
                running[row.digest] = self._pool.submit(self._prepare, row, data)
        finished: dict[str, PreparedFile] = {}
        for row in rows:
            if row.digest in finished:
                yield _again(row, finished[row.digest])
            elif row.digest in running:
                finished[row.digest] = running[row.digest].result()
                yield finished[row.digest]
                finished[row.digest] = replace(finished[row.digest], pixels=None)
            else:
                yield row
        self._learn([d for d, done in finished.items() if done.failure is None])

    def _read(self, t: PlannedFile) -> tuple[PlannedFile, bytes, PreparedFile]:
        """One file's bytes and their digest."""
        with self._meters.read.measured():
            return _read(t)

    def _prepare(self, row: PreparedFile, data: bytes) -> PreparedFile:
        """Decode and resize one image."""
        with self._meters.decode.measured():
            return self._pixels(row, data)

    def _pixels(self, row: PreparedFile, data: bytes) -> PreparedFile:
        """Pixels or a failure, made here or in a process of its own."""
        try:
            if not self._careful and is_safe_in_process(data):
                pixels, picture = self._ordinary(data)
            else:
                pixels, picture = self._isolation.prepare(data)
            return replace(row, pixels=pixels, image_info=picture)
        except ImageError as e:
            return replace(row, failure=Failure.from_ref(row.planned.ref, e.reason, e.detail))

    def _known(self, digests: Sequence[str]) -> set[str]:
        """Which contents have a vector in the space."""
        rows = {"content": object_array(digests)}  # noqa: F841 - read by SQL
        found = self._con.execute(
            "SELECT content::VARCHAR FROM memory.main.known WHERE content IN (SELECT content::UUID FROM rows)"
        )
        return {content_hex(c) for (c,) in found.fetchall()}

    def _learn(self, digests: Sequence[str]) -> None:
        """Later files with these contents need no decoding."""
        if digests:
            rows = {"content": object_array(digests)}  # noqa: F841 - read by SQL
            self._con.execute("INSERT INTO memory.main.known SELECT content::UUID FROM rows")

    def _renamed(self, rows: Sequence[PreparedFile]) -> list[PreparedFile]:
        """Give new names the items that had the same content and whose own name is gone; each item once."""
        new = [r.digest for r in rows if r.failure is None and r.planned.item is None]
        wanted = {"content": object_array(new)}  # noqa: F841 - read by SQL
        found = self._con.execute(
            "SELECT content::VARCHAR, item FROM memory.main.gone "
            "WHERE content IN (SELECT content::UUID FROM wanted) ORDER BY item DESC"
        ).fetchall()
        free: dict[str, list[int]] = {}
        for content, item in found:
            free.setdefault(content_hex(content), []).append(item)
        out, taken = [], []
        for row in rows:
            items = free.get(row.digest)
            if items and row.failure is None and row.planned.item is None:
                taken.append(items.pop())
                out.append(replace(row, planned=PlannedFile(row.planned.ref, taken[-1]), is_renamed=True))
            else:
                out.append(row)
        if taken:
            self._con.execute("DELETE FROM memory.main.gone WHERE list_contains(?, item)", [taken])
        return out


def _groups(chunks: Iterator[list[PlannedFile]]) -> Iterator[list[PlannedFile]]:
    """Chunks split so that one group's files stay under the limit of bytes."""
    for chunk in chunks:
        group: list[PlannedFile] = []
        size = 0
        for t in chunk:
            if group and size + t.ref.size > GROUP_BYTES:
                yield group
                group, size = [], 0
            group.append(t)
            size += t.ref.size
        yield group


def _read(t: PlannedFile) -> tuple[PlannedFile, bytes, PreparedFile]:
    """One file's bytes and their digest; size and mtime stay those of the scan, so a later change is seen."""
    try:
        data = read_file(t.ref.path)
    except ImageError as e:
        return t, b"", PreparedFile(t, failure=Failure.from_ref(t.ref, e.reason, e.detail))
    return t, data, PreparedFile(t, content_digest(data))


def _again(row: PreparedFile, first: PreparedFile) -> PreparedFile:
    """Another file with the bytes of one that was prepared just before."""
    if first.failure is None:
        return row
    return replace(row, failure=Failure.from_ref(row.planned.ref, first.failure.reason, first.failure.detail))
