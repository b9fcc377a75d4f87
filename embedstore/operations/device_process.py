"""A process of this machine that embeds parts on one device; both ends."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from embedstore.backbones.loading import computes_on_cpu, resolve_devices
from embedstore.media.worker_process import WorkerProcess, serve
from embedstore.operations.part_process import PART_SECONDS, PartTask, remote_error
from embedstore.operations.part_worker import PartWorker
from embedstore.operations.session import Session
from embedstore.pipeline.decoder import Decoder
from embedstore.pipeline.distributed.cluster_run import EngineWorkers
from embedstore.pipeline.distributed.local_workers import LocalWorkers, StartProcess
from embedstore.pipeline.run import EmbedJob
from embedstore.resources import available_cores, grant_cores, limit_library_threads

PARENT_SECONDS = 1.0  # between two looks of a process whether its parent is there
CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from embedstore.operations.device_process import main; main({cores})"
)


def device_workers(session: Session, job: EmbedJob, workers: int | None) -> EngineWorkers:
    """Return how the processes of a run are made: one for each device, or so many in turn over the devices.

    Args:
        session: the open store, whose options name the devices.
        job: what is embedded.
        workers: how many processes; None is one per device.
    """
    opened = session.options
    on_cpu = computes_on_cpu(opened.device, opened.precision) and "," not in opened.device
    devices = ["cpu"] if on_cpu else resolve_devices(opened.device)
    count = workers or len(devices)
    cores = max(1, available_cores() // count)
    threads = job.options.threads and max(1, job.options.threads // count)
    options = replace(job.options, threads=threads)
    task = PartTask("", job.space.key, 0, opened, options)
    tasks = [replace(task, opened=replace(opened, device=devices[n % len(devices)])) for n in range(count)]
    names = ",".join(t.opened.device for t in tasks)
    return EngineWorkers(partial(_open, tasks, cores), count, names, "process", is_local=True)


@contextmanager
def _open(tasks: list[PartTask], cores: int, address: str) -> Iterator[LocalWorkers]:
    """Yield the processes of a run; they end with the block."""
    names = [f"{n} on {task.opened.device}" for n, task in enumerate(tasks, 1)]
    starts: list[StartProcess] = [
        partial(DeviceProcess.start, replace(task, address=address), cores, name)
        for task, name in zip(tasks, names, strict=True)
    ]
    with closing(LocalWorkers(starts)) as workers:
        yield workers


@dataclass(frozen=True)
class DeviceProcess:
    """The process, seen from the run that started it.

    Attributes:
        task: what it embeds, without the number of a part.
        cores: the cores that it may use.
        name: its number and its device.
        process: both pipes.
    """

    task: PartTask
    cores: int
    name: str
    process: WorkerProcess

    @classmethod
    def start(cls, task: PartTask, cores: int, name: str, settled: dict[str, Any]) -> DeviceProcess:
        """Start a process that computes as the first one does.

        Args:
            task: what it embeds, without the number of a part.
            cores: the cores that it may use.
            name: its number and its device.
            settled: what the first process chose; nothing for that one, and for texts and sounds.

        Raises:
            OSError: if no process can be started.
        """
        process = WorkerProcess(CODE.format(cores=cores), PART_SECONDS, f"process {name}")
        return cls(with_choice(task, settled), cores, name, process)

    def embed(self, part: int) -> dict[str, Any]:
        """Embed a part and return its report, with the ``node`` and what was ``settled``.

        Raises:
            ImageError: if the process dies.
            PartsError: if it raises an error that is none of ours; one of ours is raised as it is.
        """
        request = replace(self.task, part=part).to_json() | {"cores": self.cores}
        facts, _ = self.process.ask(json.dumps(request).encode(), b"")
        if "error" in facts:
            raise remote_error(facts["error"], facts["text"], part)
        return facts | {"node": self.name}

    def end(self) -> None:
        """Kill the process."""
        self.process.end()


def with_choice(task: PartTask, settled: dict[str, Any]) -> PartTask:
    """Return a task with the precision, decoder and batch size that the first process chose, as if requested."""
    if not settled:
        return task
    decoder = Decoder(settled["decoder"])
    return replace(
        task,
        opened=replace(task.opened, precision=settled["precision"], decoder=decoder),
        options=replace(task.options, decoder=decoder, batch_size=settled["batch_size"]),
    )


def main(cores: int) -> None:
    """Answer the requests of the run that started this process, and end when that is gone."""
    grant_cores(cores)
    limit_library_threads()
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), name="parent", daemon=True).start()
    serve(partial(_answer, PartWorker()), PART_SECONDS, 0)


def _end_with_parent(parent: int) -> None:
    """End this process when another one has become its parent: a run that was killed reads no result."""
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(1)


def _answer(worker: PartWorker, request: bytes, _: bytes) -> tuple[dict[str, Any], bytes]:
    """Embed one part, or report what prevents it."""
    values = json.loads(request)
    cores = values.pop("cores")
    task = PartTask.from_json(values)
    try:
        return worker.run(task.part, cores, task.address, task.space, task.opened, task.options), b""
    except Exception as e:  # whatever a network raises is the run's to report
        return {"error": type(e).__name__, "text": str(e) or "no message"}, b""
