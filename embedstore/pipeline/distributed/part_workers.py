"""The workers of an engine, as the run that plans and registers sees them: they take parts and end them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from embedstore.errors import EmbedstoreError

POLL_SECONDS = 1.0  # between two checks of whether the run shall stop


@dataclass(frozen=True)
class EndedPart:
    """A part that a worker ended, or failed at.

    Attributes:
        part: its number.
        report: what the worker returned; None if it failed.
        problem: why it failed.
        error: the error of ours that the worker raised, if there is one.
        began: whether a worker began the part; False if none could be started for it.
    """

    part: int
    report: dict[str, Any] | None = None
    problem: str = ""
    error: EmbedstoreError | None = None
    began: bool = True


class PartWorkers(Protocol):
    """The workers of one run.

    Attributes:
        places: how many parts they embed at once.
        has_room: whether another part can be begun.
        running: how many parts are being embedded.
    """

    @property
    def places(self) -> int: ...  # noqa: D102
    @property
    def has_room(self) -> bool: ...  # noqa: D102
    @property
    def running(self) -> int: ...  # noqa: D102

    def begin(self, part: int) -> None:
        """Give a part to a worker."""

    def wait(self) -> list[EndedPart]:
        """Return the parts that ended, after a second at the latest.

        Raises:
            EngineError: if the workers are gone.
        """

    def require_places(self) -> None:
        """Require that a worker can be started.

        Raises:
            EngineError: if none can.
        """

    def close(self) -> None:
        """End every worker."""
