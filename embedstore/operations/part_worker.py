"""A worker that embeds parts, wherever it runs: on a cluster, or in a process of this machine."""

from __future__ import annotations

import socket
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from embedstore.operations.inboxes import open_worker_inbox
from embedstore.operations.part_process import PartTask, open_process
from embedstore.operations.planned_backbones import load_planned
from embedstore.operations.session import OpenOptions, Session
from embedstore.pipeline.distributed.worker import embed_part
from embedstore.pipeline.kept_encoder import KeptEncoder
from embedstore.pipeline.run import EmbedOptions
from embedstore.resources import grant_cores
from embedstore.storage.inbox.inbox import Inbox
from embedstore.storage.storage import Storage


class PartWorker:
    """It loads the backbone once, chooses how to run it once, and embeds parts.

    It is made without arguments: everything is read from the store, so that it can be made again anywhere.
    """

    def __init__(self) -> None:
        self._inboxes: dict[str, Inbox] = {}
        self._encoders: dict[tuple[str, OpenOptions], KeptEncoder] = {}

    def run(
        self, part: int, cores: int, address: str, space: str, opened: OpenOptions, options: EmbedOptions
    ) -> dict[str, Any]:
        """Embed one part.

        Args:
            part: its number.
            cores: the cores that this worker may use; its node may have more, for other workers.
            address: the folder of the store, or of the plan in a bucket.
            space: the key of the space.
            opened: how the backbone is loaded.
            options: how to run.

        Returns:
            The report of the part, the ``node``, and what was ``settled`` for all parts of this worker.
        """
        grant_cores(cores)
        if address not in self._inboxes:
            self._inboxes[address] = open_worker_inbox(address, space)
        inbox = self._inboxes[address]
        session = Session(Storage(inbox.layout), opened)
        here = replace(options, on_cpu=session.computes_on_cpu)  # this node may have a GPU where another has none
        process = partial(open_process, PartTask(address, space, part, opened, here), inbox)
        kept = self._encoder(session, inbox)
        report = embed_part(session.storage, inbox, part, kept, process, options=here)
        return asdict(report) | {"node": socket.gethostname(), "settled": kept.settled}

    def _encoder(self, session: Session, inbox: Inbox) -> KeptEncoder:
        """Return the encoder of a space, which is opened at its first part."""
        key = (inbox.space, session.options)
        if key not in self._encoders:
            self._encoders[key] = KeptEncoder(
                lambda: load_planned(session, inbox.read_plan().space), lambda: inbox.read_plan().files
            )
        return self._encoders[key]
