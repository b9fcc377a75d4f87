"""Start the server of one store, and end it with Ctrl-C."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from embedstore.errors import BadOption, ServerError
from embedstore.operations.session import Session
from embedstore.server.app import MISSING_PAGE, create_app, has_page
from embedstore.server.context import ServerContext
from embedstore.server.replica import served_replica
from embedstore.server.security import MIN_TOKEN_LENGTH, Access, is_loopback, new_token

if TYPE_CHECKING:
    from embedstore.store import Store

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8642
TOKEN_VARIABLE = "EMBEDSTORE_TOKEN"  # noqa: S105 - a name
_BACKLOG = 128  # connections that wait
_SHUTDOWN_SECONDS = 3  # that requests have to end after Ctrl-C
_KEEP_ALIVE_SECONDS = 30


@dataclass(frozen=True)
class ServerOptions:
    """How a store is served.

    Attributes:
        host: the address to listen at; any but a loopback address needs a token.
        port: 0 takes a free one.
        token: the secret that clients show; None makes one.
        read_only: whether requests that change the store are refused.
        open_browser: whether to open the page.
        replica: the name of the copy that searches go by; None searches the store itself.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    token: str | None = None
    read_only: bool = False
    open_browser: bool = True
    replica: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise BadOption(f"port is a number from 0 to 65535, not {self.port}; 0 takes a free one")
        if self.token is None and not is_loopback(self.host):
            raise BadOption(
                f"--host {self.host} lets other machines connect, which needs a token of your own: set the environment "
                f"variable {TOKEN_VARIABLE} to the output of `openssl rand -hex 32`, or leave --host out"
            )
        if self.token is not None and (len(self.token) < MIN_TOKEN_LENGTH or not self.token.isascii()):
            raise BadOption(
                f"a token has at least {MIN_TOKEN_LENGTH} letters and digits; `openssl rand -hex 32` makes one"
            )


def serve(
    store: Store, session: Session, options: ServerOptions, announce: Callable[[str], None] | None = None
) -> None:
    """Serve a store until the process is interrupted.

    Args:
        store: the verbs.
        session: the open store behind them.
        options: address, token, rights.
        announce: called with each line for the user; by default they are written to stdout.

    Raises:
        ServerError: if the server cannot listen at the address.
        BadOption: if the name of the replica cannot be one.
        ReplicaError: if no space has such a replica, or its description cannot be used.
    """
    say = announce or _write_line
    replica = served_replica(session, options.replica)
    with listen(options.host, options.port) as listener:
        port = listener.getsockname()[1]
        access = Access(options.host, port, options.token or new_token(), read_only=options.read_only)
        address = page_address(access)
        say(f"serving {session.path} at {address}")
        say("Ctrl-C ends it")
        if not has_page():
            say(MISSING_PAGE)
        elif options.open_browser:
            webbrowser.open(address)
        _run(new_server(ServerContext(store, session, access, replica)), listener)


def new_server(context: ServerContext) -> uvicorn.Server:
    """Return the server of an application, ready to run."""
    config = uvicorn.Config(
        create_app(context),
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        lifespan="on",
    )
    return uvicorn.Server(config)


def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Run a server until it is interrupted; in a thread of its own where this one has an event loop (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with suppress(KeyboardInterrupt):  # uvicorn raises the signal again after it has shut down
            server.run(sockets=[listener])
        return
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        server.should_exit = True
        thread.join()


def _write_line(line: str) -> None:
    """Write a line to stdout, now."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def page_address(access: Access) -> str:
    """Return the address of the page with its token. What follows ``#`` is never sent, so it is in no log."""
    host = socket.gethostname() if access.host in ("0.0.0.0", "::") else access.host  # noqa: S104 - compared only
    return f"http://{f'[{host}]' if ':' in host else host}:{access.port}/#token={access.token}"


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address.

    Raises:
        ServerError: if another program does, or this machine does not have the address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as e:
        raise ServerError(f"there is no address {host!r}: {e.strerror}; leave --host out to use this machine") from e
    try:
        if os.name != "nt":  # on Windows it would let two programs listen at once
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as e:
        listener.close()
        raise _listen_error(e, host, port) from e
    return listener


def _listen_error(error: OSError, host: str, port: int) -> ServerError:
    """Return the error for an address that cannot be listened at."""
    if error.errno == errno.EADDRINUSE:
        return ServerError(
            f"port {port} of {host} is in use by another program; choose another with --port, or --port 0"
        )
    what = error.strerror or str(error)
    return ServerError(
        f"cannot listen at {shlex.quote(host)} port {port}: {what}; choose others with --host and --port"
    )
