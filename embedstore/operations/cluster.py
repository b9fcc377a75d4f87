"""Embed on a cluster; see :meth:`embedstore.Store.embed` with ``engine``."""

from __future__ import annotations

import socket
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from embedstore.operations.inboxes import open_worker_inbox
from embedstore.operations.part_process import PartTask, open_process
from embedstore.operations.planned_backbones import load_planned
from embedstore.operations.session import OpenOptions, Session
from embedstore.pipeline.distributed.cluster_run import embed_on_cluster
from embedstore.pipeline.distributed.engine import EngineOptions
from embedstore.pipeline.distributed.worker import embed_part
from embedstore.pipeline.report import EmbedReport
from embedstore.pipeline.run import EmbedJob, EmbedOptions
from embedstore.resources import grant_cores
from embedstore.storage.inbox.inbox import Inbox
from embedstore.storage.storage import Storage

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone
    from embedstore.backbones.sequence import SequenceBackbone


class PartWorker:
    """A worker on a cluster: it loads the backbone once, and embeds parts.

    It is made without arguments: everything is read from the store, so that it can be made again anywhere.
    """

    def __init__(self) -> None:
        self._backbones: dict[str, list[Backbone | SequenceBackbone]] = {}
        self._inboxes: dict[str, Inbox] = {}

    def run(
        self, part: int, cores: int, address: str, space: str, opened: OpenOptions, options: EmbedOptions
    ) -> dict[str, Any]:
        """Embed one part.

        Args:
            part: its number.
            cores: that this worker may use; its node may have more, for other workers.
            address: the folder of the store, or of the plan in a bucket.
            space: the key of the space.
            opened: how the backbone is loaded.
            options: how to run.

        Returns:
            The report of the part, and the ``node``.
        """
        grant_cores(cores)
        if address not in self._inboxes:
            self._inboxes[address] = open_worker_inbox(address, space)
        inbox = self._inboxes[address]
        session = Session(Storage(inbox.layout), opened)

        def load() -> list[Backbone | SequenceBackbone]:
            if space not in self._backbones:
                self._backbones[space] = load_planned(session, inbox.read_plan().space)
            return self._backbones[space]

        here = replace(options, on_cpu=session.computes_on_cpu)  # this node may have a GPU where another has none
        process = partial(open_process, PartTask(address, space, part, opened, here), inbox)
        report = embed_part(session.storage, inbox, part, load, process, options=here)
        return asdict(report) | {"node": socket.gethostname()}


def embed(session: Session, job: EmbedJob, engine: EngineOptions) -> EmbedReport:
    """Embed on a cluster that sees the source, and the folder of the store or a bucket."""
    task = (job.space.key, session.options, job.options)
    return embed_on_cluster(job, engine, PartWorker, task)
