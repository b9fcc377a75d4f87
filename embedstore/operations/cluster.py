"""Embed on a cluster; see :meth:`embedstore.Store.embed` with ``engine``."""

from __future__ import annotations

import socket
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore.operations.part_process import PartTask
from embedstore.operations.planned_backbones import load_planned
from embedstore.operations.session import OpenOptions, Session
from embedstore.pipeline.distributed.cluster_run import embed_on_cluster
from embedstore.pipeline.distributed.engine import EngineOptions
from embedstore.pipeline.distributed.worker import embed_part
from embedstore.pipeline.report import EmbedReport
from embedstore.pipeline.run import EmbedJob, EmbedOptions
from embedstore.storage.inbox.inbox import Inbox
from embedstore.storage.layout import find_store
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

    def run(self, part: int, path: str, space: str, opened: OpenOptions, options: EmbedOptions) -> dict[str, Any]:
        """Embed one part.

        Args:
            part: its number.
            path: the folder of the store.
            space: the key of the space.
            opened: how the backbone is loaded.
            options: how to run.

        Returns:
            The report of the part, and the ``node``.
        """
        layout = find_store(Path(path))
        inbox = Inbox(layout, space)
        session = Session(Storage(layout), opened)

        def load() -> list[Backbone | SequenceBackbone]:
            if space not in self._backbones:
                self._backbones[space] = load_planned(session, inbox.read_plan().space)
            return self._backbones[space]

        here = replace(options, on_cpu=session.computes_on_cpu)  # this node may have a GPU where another has none
        task = PartTask(layout.root, space, part, opened, here)
        report = embed_part(session.storage, inbox, part, load, task.open_process, options=here)
        return asdict(report) | {"node": socket.gethostname()}


def embed(session: Session, job: EmbedJob, engine: EngineOptions) -> EmbedReport:
    """Embed on a cluster that sees the folder of the store and the source."""
    options = replace(job.options, threads=job.options.threads or engine.cpus)
    task = (str(session.path), job.space.key, session.options, options)
    return embed_on_cluster(job, engine, PartWorker, task)
