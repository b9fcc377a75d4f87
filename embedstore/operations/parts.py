"""Embedding in parts on several machines: plan, work, register."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from embedstore.errors import BadOption
from embedstore.operations.inboxes import find_inbox, open_worker_inbox
from embedstore.operations.part_process import PartTask, open_process
from embedstore.operations.planned_backbones import load_planned
from embedstore.operations.session import OpenOptions, Session
from embedstore.pipeline.distributed.worker import PartReport, embed_part, require_part
from embedstore.pipeline.kept_encoder import open_once
from embedstore.pipeline.run import EmbedOptions
from embedstore.reports.progress import Progress, embedding_progress
from embedstore.storage.inbox.register import Registrar
from embedstore.storage.storage import Storage
from embedstore.tables import OneRow
from embedstore.wording import counted

_PART = re.compile(r"(\d{1,9})(?:/(\d{1,9}))?")


@dataclass(frozen=True)
class RegisterReport(OneRow):
    """What was registered.

    Attributes:
        parts: how many parts the plan has.
        registered: how many of them are in the store.
        left: the first parts that are not, at most 100.
        new: parts that were registered now.
        repeated: results of parts that were registered before; they were removed.
        files: files of the new parts.
        embedded: files whose content got a new vector.
        reused: files whose content had a vector already.
        renamed: files among them that are known items under a new name.
        deleted: files whose item was deleted or renamed after the plan was made; they were left out.
        missing: items whose file does not exist any more; counted with the last part.
        failures_by_reason: files that failed.
        torn: results that could not be used, one sentence each; their parts have to be done again.
        finished: whether every part is in the store, and the plan was removed.
        space: the name of the space.
    """

    parts: int
    registered: int
    left: list[int]
    new: int
    repeated: int
    files: int
    embedded: int
    reused: int
    renamed: int
    deleted: int
    missing: int
    failures_by_reason: dict[str, int]
    torn: list[str]
    finished: bool
    space: str

    def summary(self) -> str:
        """Return one line for a person."""
        counts = [f"{self.embedded:,} embedded"]
        optional = (
            (self.reused, "with known content"),
            (self.renamed, "renamed"),
            (self.deleted, "deleted since the plan"),
            (self.missing, "missing now"),
            (sum(self.failures_by_reason.values()), "failed"),
            (self.repeated, "results twice"),
            (len(self.torn), "results torn"),
        )
        counts += [f"{n:,} {what}" for n, what in optional if n]
        state = (
            "the plan is done"
            if self.finished
            else f"{counted(self.parts - self.registered, 'part is', 'parts are')} left"
        )
        new = f"{counted(self.new, 'part')} registered ({', '.join(counts)})"
        return f"{new}, {self.registered:,} of {self.parts:,} in all; {state}"


def parse_part(text: str) -> tuple[int, int | None]:
    """Return the number of a part, and how many there are, from ``17/400`` or ``17``.

    Raises:
        BadOption: if the text is neither.
    """
    match = _PART.fullmatch(text.strip())
    if match is None:
        raise BadOption(f"--part {text!r:.40} is not a part; write it as NUMBER/PARTS, for example 17/400")
    return int(match[1]), int(match[2]) if match[2] else None


def register(session: Session, space: str | None, *, wait: float) -> RegisterReport:
    """Register what workers wrote; see :meth:`embedstore.Store.register`."""
    inbox = find_inbox(session.storage.layout, None if space is None else session.space(space).key)
    with session.storage.writer("register parts", wait=wait) as writer:
        registrar = Registrar(writer, inbox)
        registrar.register_waiting()
        left = registrar.left
        finished = registrar.finish()
    total, plan = registrar.total, registrar.plan
    return RegisterReport(
        parts=len(plan.parts),
        registered=registrar.registered,
        left=left[:100],
        new=total.parts,
        repeated=total.repeated,
        files=total.files,
        embedded=total.embedded,
        reused=total.reused,
        renamed=total.renamed,
        deleted=total.deleted,
        missing=total.missing,
        failures_by_reason=dict(total.failures),
        torn=list(total.torn),
        finished=finished,
        space=plan.space.name,
    )


def work(
    path: str | Path,
    part: str,
    *,
    options: OpenOptions,
    space: str | None,
    batch_size: int | None,
    threads: int | None,
    progress: Progress,
) -> PartReport:
    """Embed one part without opening the catalog; see :func:`embedstore.work`."""
    number, parts = parse_part(part)
    inbox = open_worker_inbox(str(path), space)
    plan = inbox.read_plan()
    require_part(plan, number, parts)
    session = Session(Storage(inbox.layout), options)
    settings = EmbedOptions(
        batch_size=batch_size,
        threads=threads,
        runtime=options.runtime,
        decoder=options.decoder,
        on_cpu=session.computes_on_cpu,
    )
    with embedding_progress(progress) as callback:
        return embed_part(
            session.storage,
            inbox,
            number,
            open_once(lambda: load_planned(session, plan.space)),
            partial(open_process, PartTask(str(path), inbox.space, number, options, settings), inbox),
            options=settings,
            progress=callback,
        )
