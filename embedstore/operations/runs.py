"""A judgement as a row of ``runs``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from embedstore.errors import StoreBusy
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage

_PATIENCE = 2.0  # seconds: a long `embed` must not cost anybody an answer


def record(
    storage: Storage,
    space: SpaceRecord | None,
    verb: str,
    settings: dict[str, Any],
    result: dict[str, Any],
    started: datetime,
) -> None:
    """Keep what was asked and answered. While another process writes, the answer stands and a notice says so."""
    try:
        with storage.writer(f"record {verb}", wait=_PATIENCE) as writer:
            writer.record_run(verb, space.key if space else None, settings, result, started)
    except StoreBusy as e:
        storage.add_notices([f"this {verb} is not among the runs: {e}"])
