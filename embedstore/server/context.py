"""What the routes of one server share."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import numpy as np
from fastapi import Depends, Request
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError
from embedstore.operations.browse import Browser, ListOrder
from embedstore.operations.fitting import Fitting
from embedstore.operations.point_map import PointMaps
from embedstore.operations.queues import Queues
from embedstore.operations.session import Session
from embedstore.server.encoders import Encoders
from embedstore.server.replica import ServedReplica
from embedstore.server.reports import Reports
from embedstore.server.security import Access
from embedstore.server.selections import Selections
from embedstore.server.sounds import Sounds
from embedstore.server.thumbnails import Thumbnails

if TYPE_CHECKING:
    from embedstore.store import Store


@dataclass
class ServerContext:
    """What the routes of one server share. Threads use it together.

    Attributes:
        store: the verbs.
        session: the open store behind them.
        access: what a request must show.
        replica: what searches go by that name no replica; None searches the store itself.
        browser: pages of items.
        selections: sets of items, by handle.
        thumbnails: re-encoded images.
        sounds: sounds as a browser plays them.
        maps: the places of all items, by space.
        reports: the last reports.
        encoders: words and images to vectors.
        queues: what a person should look at.
        fitting: from which score on an item fits a text.
    """

    store: Store
    session: Session
    access: Access
    replica: ServedReplica | None = None
    browser: Browser = field(init=False)
    selections: Selections = field(init=False)
    thumbnails: Thumbnails = field(init=False)
    sounds: Sounds = field(init=False)
    maps: PointMaps = field(init=False)
    reports: Reports = field(init=False)
    encoders: Encoders = field(init=False)
    queues: Queues = field(init=False)
    fitting: Fitting = field(init=False)

    def __post_init__(self) -> None:
        self.browser = Browser(self.session)
        self.selections = Selections()
        self.thumbnails = Thumbnails(self.session.storage.layout)
        self.sounds = Sounds()
        self.maps = PointMaps(self.session)
        self.reports = Reports()
        self.encoders = Encoders(self.store)
        self.queues = Queues(self.session)
        self.fitting = Fitting(self.session)

    def selected(self, handle: str | None) -> NDArray[np.int64] | None:
        """Return the ids of a selection, None for no selection.

        Raises:
            ItemNotFound: if there is no such selection.
        """
        return None if handle is None else self.selections.items(handle)

    def warm(self) -> None:
        """Look up what the page shows first, while the browser starts; an error is left to the first request."""
        with suppress(EmbedstoreError):
            self.browser.overview()
            self.browser.ordered(ListOrder())

    def close(self) -> None:
        """End the processes and threads of the server."""
        self.maps.close()
        self.thumbnails.close()
        self.sounds.close()
        self.encoders.close()


async def context_of(request: Request) -> ServerContext:
    """Return the context of the server that got a request."""
    context: ServerContext = request.app.state.context
    return context


Context = Annotated[ServerContext, Depends(context_of)]
