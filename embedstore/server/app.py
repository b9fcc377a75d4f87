"""The application: the routes of the API, the page's files, and what protects both."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from embedstore import __version__
from embedstore.server.context import ServerContext
from embedstore.server.errors import RESPONSES, add_error_handlers
from embedstore.server.routes import (
    encoding,
    events,
    items,
    judging,
    labelling,
    login,
    mapping,
    queues,
    searching,
    selecting,
    stores,
)
from embedstore.server.security import API, SecurityMiddleware
from embedstore.storage.query_limits import limited_filters

FILTER_SECONDS = 10.0  # a filter of the page holds up other requests that need the catalog
STATIC = Path(__file__).parent / "static"
MISSING_PAGE = (
    "the page is not part of this installation: install a wheel of embedstore, or run `npm ci && npm run build` in "
    "web/ of its sources; the API at /api/v1 works"
)
_ROUTERS = tuple(
    module.router
    for module in (login, stores, items, searching, selecting, labelling, mapping, judging, queues, events, encoding)
)


def create_app(context: ServerContext) -> FastAPI:
    """Return the application of one store.

    Args:
        context: what its routes share; closed when the application ends.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=context.warm, name="embedstore-warm", daemon=True).start()
        yield
        context.close()

    app = FastAPI(
        title="embedstore",
        version=__version__,
        description="Search, label and judge one embedstore. Errors are JSON: error, cure, kind, position.",
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # it loads scripts from another site
        redoc_url=None,
        lifespan=lifespan,
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
        generate_unique_id_function=_operation_id,
        responses=dict(RESPONSES),
    )
    app.state.context = context
    for router in _ROUTERS:
        app.include_router(router, prefix=API)
    add_error_handlers(app)
    _mount_page(app)
    app.add_middleware(_FilterLimits)
    app.add_middleware(SecurityMiddleware, access=context.access)
    return app


def has_page() -> bool:
    """Return whether the files of the page are installed."""
    return (STATIC / "index.html").is_file()


def _operation_id(route: APIRoute) -> str:
    """Return the name of a route in the description of the API."""
    return route.name


def _mount_page(app: FastAPI) -> None:
    """Serve the files of the page, or one line that says that they are missing."""
    if has_page():
        app.mount("/", StaticFiles(directory=STATIC, html=True), name="page")
        return

    @app.get("/", include_in_schema=False)
    def missing_page() -> Response:
        return PlainTextResponse(MISSING_PAGE + "\n", status_code=503)


class _FilterLimits:
    """Limits the time of the filters of every request.

    Args:
        app: the application behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        with limited_filters(FILTER_SECONDS):
            await self._app(scope, receive, send)
