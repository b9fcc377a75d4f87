"""A process that embeds ranges of the files of a part, so that a file that kills it costs only itself; both ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from embedstore import errors
from embedstore.backbones.runtimes.runtime import Runtime
from embedstore.errors import EmbedstoreError, ImageError, PartsError
from embedstore.media.worker_process import WorkerProcess, serve
from embedstore.operations.inboxes import open_worker_inbox
from embedstore.operations.planned_backbones import load_planned
from embedstore.operations.session import OpenOptions, Session
from embedstore.pipeline.decoder import Decoder
from embedstore.pipeline.distributed.worker import PartJob
from embedstore.pipeline.kept_encoder import KeptEncoder
from embedstore.pipeline.run import EmbedOptions
from embedstore.storage.inbox.inbox import Inbox
from embedstore.storage.inbox.part_result import PartResult, decode_result, encode_result
from embedstore.storage.storage import Storage

PART_SECONDS = 24 * 3600.0  # for a part or a range of its files; a file that hangs its decoder is ended much earlier
CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    f"from embedstore.operations.part_process import main; main({PART_SECONDS})"
)
NAME = "the process that embedded it"


@dataclass(frozen=True)
class PartTask:
    """What a process has to know to embed files of a part.

    Attributes:
        address: the folder of the store, or of the plan in a bucket.
        space: the key of the space.
        part: the number of the part.
        opened: how the backbone is loaded.
        options: how to run.
    """

    address: str
    space: str
    part: int
    opened: OpenOptions
    options: EmbedOptions

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        opened = asdict(self.opened) | {"allow_code": sorted(self.opened.allow_code)}
        return {
            "address": self.address, "space": self.space, "part": self.part, "opened": opened,
            "options": asdict(self.options),
        }  # fmt: skip

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PartTask:
        """Return the task of plain values."""
        opened, options = values["opened"], values["options"]
        chosen = {"runtime": Runtime(opened["runtime"]), "decoder": Decoder(opened["decoder"])}
        settings = {"runtime": Runtime(options["runtime"]), "decoder": Decoder(options["decoder"])}
        return cls(
            values["address"],
            values["space"],
            values["part"],
            OpenOptions(**opened | chosen | {"allow_code": frozenset(opened["allow_code"])}),
            EmbedOptions(**options | settings),
        )


@contextmanager
def open_process(task: PartTask, inbox: Inbox) -> Iterator[PartProcess]:
    """Yield a process that embeds ranges of a part; it ends with the block.

    Args:
        task: what it embeds.
        inbox: the inbox of the worker that starts it.
    """
    process = PartProcess(task, inbox)
    try:
        yield process
    finally:
        process.end()


@dataclass
class PartProcess:
    """The process, seen from the worker that started it; one that died is replaced.

    Attributes:
        task: what it embeds.
        inbox: the inbox of the worker that started it.
    """

    task: PartTask
    inbox: Inbox
    _process: WorkerProcess | None = field(default=None, repr=False)

    def embed(self, first: int, end: int) -> PartResult:
        """Return the result of the files from ``first`` to before ``end``.

        Raises:
            ImageError: if the process dies.
            PartsError: if it raises an error that is none of ours; one of ours is raised as it is.
        """
        data = self._ask(first, end)
        plan = self.inbox.read_plan()
        return decode_result(data, plan, self.inbox.read_list(plan, self.task.part)[first:end], part=self.task.part)

    def end(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.end()

    def _ask(self, first: int, end: int) -> bytes:
        """Send a range of the part to the process, and return the result of it."""
        self._process = self._process or WorkerProcess(CODE, PART_SECONDS, NAME)
        request = json.dumps(self.task.to_json() | {"first": first, "end": end}).encode()
        try:
            facts, data = self._process.ask(request, b"")
        except ImageError:
            self.end()
            self._process = None
            raise
        if "error" in facts:
            raise remote_error(facts["error"], facts["text"], self.task.part)
        return data


def remote_error(name: str, text: str, part: int) -> EmbedstoreError:
    """Return the error that the process raised, of its own class if that is one of ours."""
    found = getattr(errors, name, None)
    if isinstance(found, type) and issubclass(found, EmbedstoreError) and not issubclass(found, errors.ItemError):
        return found(text)
    return PartsError(f"part {part} cannot be embedded: {name}: {text[:300]}; correct that, and run it again")


def main(timeout_seconds: float) -> None:
    """Answer the requests of the worker that started this process."""
    serve(partial(_answer, []), timeout_seconds, 0)


def _answer(opened: list[tuple[Session, Inbox, KeptEncoder]], request: bytes, _: bytes) -> tuple[dict[str, Any], bytes]:
    """Embed one range, or report what prevents it; the encoder of the first request is kept."""
    values = json.loads(request)
    first, end = values.pop("first"), values.pop("end")
    try:
        task = PartTask.from_json(values)
        if not opened:
            inbox = open_worker_inbox(task.address, task.space)
            session = Session(Storage(inbox.layout), task.opened)
            kept = KeptEncoder(lambda: load_planned(session, inbox.read_plan().space), lambda: inbox.read_plan().files)
            opened.append((session, inbox, kept))
        return {}, _embed(*opened[0], task, first, end)
    except Exception as e:  # whatever a network raises is the worker's to report
        return {"error": type(e).__name__, "text": str(e) or "no message"}, b""


def _embed(session: Session, inbox: Inbox, kept: KeptEncoder, task: PartTask, first: int, end: int) -> bytes:
    """Return the encoded result of a range."""
    plan = inbox.read_plan()
    job = PartJob.open(session.storage, inbox, plan, task.part)
    options = replace(task.options, on_cpu=session.computes_on_cpu)
    chosen = replace(job, files=job.files[first:end])
    return encode_result(plan, chosen.embed(kept, options, isolate_all=True)[0])
