"""Stage "read": the bytes of the planned files and their digests, one group ahead of the decoder."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from embedstore.pipeline.plan import FilesToRead, PlannedFile
from embedstore.pipeline.stage_times import StageTimer
from embedstore.resources import memory_share
from embedstore.sources.source import Source
from embedstore.types import Failure, content_digest

GROUP_FILES = 256
GROUP_BYTES = 64 << 20  # of file data in memory at once: one group is decoded while the next is read
TASK_FILES = 16  # files that one thread asks the source for at once, at most


@dataclass(frozen=True, slots=True)
class FileContent:
    """One file that was read.

    Attributes:
        planned: the file. Its size and mtime are those of the scan, so that a later change is noticed.
        data: the bytes.
        digest: the identity of the content.
        failure: why the file could not be read; ``data`` and ``digest`` are empty then.
    """

    planned: PlannedFile
    data: bytes = b""
    digest: str = ""
    failure: Failure | None = None


def read_files(
    source: Source, plan: FilesToRead, pool: ThreadPoolExecutor, threads: int, timer: StageTimer
) -> Iterator[list[FileContent]]:
    """Yield the planned files in order, in groups; the next group is read while one is used.

    Args:
        source: reads the files.
        plan: which files.
        pool: the threads that read.
        threads: their number; a group has a task for each of them.
        timer: the timer of the stage.
    """
    reading: deque[list[Future[list[FileContent]]]] = deque()
    for group in _groups(plan):
        size = max(1, min(TASK_FILES, len(group) // threads))
        tasks = [group[i : i + size] for i in range(0, len(group), size)]
        reading.append([pool.submit(_read, source, task, timer) for task in tasks])
        if len(reading) > 1:
            yield _results(reading.popleft())
    while reading:
        yield _results(reading.popleft())


def read_sample(source: Source, plan: FilesToRead, count: int) -> list[bytes]:
    """Return the bytes of up to ``count`` files at the beginning of the plan, leaving out large and unreadable ones."""
    first = next(plan.todo(count), [])
    refs = [planned.ref for planned in first if planned.ref.size <= _group_bytes() // count]
    return [data for data in source.read(refs) if isinstance(data, bytes)]


def _results(tasks: list[Future[list[FileContent]]]) -> list[FileContent]:
    """Wait for the tasks of one group and return its files in order."""
    return [content for task in tasks for content in task.result()]


def _groups(plan: FilesToRead) -> Iterator[list[PlannedFile]]:
    """Yield the planned files in groups that stay within both limits; a larger file is a group of its own."""
    for chunk in plan.todo(GROUP_FILES):
        group: list[PlannedFile] = []
        size, most = 0, _group_bytes()
        for planned in chunk:
            if group and size + planned.ref.size > most:
                yield group
                group, size = [], 0
            group.append(planned)
            size += planned.ref.size
        yield group


def _group_bytes() -> int:
    """Return the bytes of file data in one group: at most a thirty-second part of the memory of this process."""
    return memory_share(GROUP_BYTES, 32)


def _read(source: Source, files: Sequence[PlannedFile], timer: StageTimer) -> list[FileContent]:
    """Read and hash some files."""
    with timer.measure():
        return [
            FileContent(planned, failure=data)
            if isinstance(data, Failure)
            else FileContent(planned, data, content_digest(data))
            for planned, data in zip(files, source.read([f.ref for f in files]), strict=True)
        ]
