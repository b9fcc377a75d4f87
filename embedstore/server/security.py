"""Who may talk to the server: the names it answers to, the origin of requests, the token, and the size of bodies.

The protections are those of notebook servers. The address that a browser sends (``Host``) must be one of the server's
own, so that a foreign name that was pointed at this machine (DNS rebinding) is refused. A request that another page
makes (``Origin``) is refused. The API needs the token, either as ``Authorization: Bearer`` or as a cookie that scripts
cannot read and other sites cannot send.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

API = "/api/v1"
LOGIN = f"{API}/session"
TOKEN_BYTES = 32
MIN_TOKEN_LENGTH = 32  # characters of a token that a user chose
MAX_BODY_BYTES = 4 << 20  # of a JSON body; 100,000 ids take 2 MB at most
MAX_UPLOAD_BYTES = 32 << 20  # of an image that is searched for
UPLOADS = (f"{API}/search/image", f"{API}/encode/image", f"{API}/classify/image")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")

HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "worker-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True)
class Access:
    """What the server demands of a request.

    Attributes:
        host: the address that the server listens at.
        port: its port.
        token: the secret that a client shows.
        cookie: the secret of the cookie, which a client gets for the token.
        read_only: whether requests that change the store are refused.
    """

    host: str
    port: int
    token: str
    read_only: bool = False
    cookie: str = field(default_factory=lambda: secrets.token_urlsafe(TOKEN_BYTES))

    @property
    def cookie_name(self) -> str:
        """The name of the cookie. It has the port: cookies of two servers of one machine would replace each other."""
        return f"embedstore-{self.port}"

    def knows_host(self, host: str) -> bool:
        """Return whether the header ``Host`` names this server.

        A server that listens at every address answers to its own names and to any number: only a name can be pointed at
        another machine.
        """
        name, _, port = host.rpartition(":")
        if port != str(self.port) and not (self.port == 80 and host in self._names()):
            return False
        name = (name if port == str(self.port) else host).lower()
        return name in self._names() or (not is_loopback(self.host) and _is_number(name))

    def knows_origin(self, origin: str, host: str) -> bool:
        """Return whether a request comes from a page of this server."""
        return origin == f"http://{host}"

    def accepts_token(self, token: str) -> bool:
        """Return whether a token is the server's."""
        return hmac.compare_digest(token.encode(), self.token.encode())

    def accepts(self, headers: Headers) -> bool:
        """Return whether a request has the token or the cookie."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.accepts_token(token.strip())
        return hmac.compare_digest(self._cookie_of(headers).encode(), self.cookie.encode())

    def _cookie_of(self, headers: Headers) -> str:
        """Return the cookie of a request, an empty text if there is none."""
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self.cookie_name)
        except CookieError:
            return ""
        return "" if morsel is None else morsel.value

    def _names(self) -> Iterable[str]:
        """Return the names that the server answers to."""
        own = f"[{self.host}]" if ":" in self.host else self.host
        if is_loopback(self.host):
            return {*_LOOPBACK_NAMES, own}
        return {*_LOOPBACK_NAMES, own.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}


def new_token() -> str:
    """Return a new token of 32 random bytes."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_number(name: str) -> bool:
    """Return whether a host is an address in numbers."""
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


class SecurityMiddleware:
    """Refuses requests before any route sees them, and adds the protecting headers to every answer.

    Args:
        app: the application behind it.
        access: what is demanded.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self._refusal(scope, Headers(scope=scope))
        if refusal is not None:
            await _send_error(with_headers(send), *refusal)
            return
        limit = MAX_UPLOAD_BYTES if scope["path"] in UPLOADS else MAX_BODY_BYTES
        await self._app(scope, _BoundedBody(receive, limit).receive, with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str, str] | None:
        """Return status, error and cure for a request that is refused."""
        access, host, path = self._access, headers.get("host", ""), scope["path"]
        if not access.knows_host(host):
            return 403, f"this server does not answer to the name {host!r}", "open the address that `serve` printed"
        origin = headers.get("origin")
        foreign = origin is not None and not access.knows_origin(origin, host)
        foreign = foreign or headers.get("sec-fetch-site") == "cross-site"
        if foreign and (scope["method"] not in _SAFE_METHODS or path.startswith(API)):
            return 403, f"a page of {origin or 'another site'} may not use this server", "open its own page"
        if not path.startswith(API):
            return None
        if path != LOGIN and not access.accepts(headers):
            return 401, "the token is missing or wrong", "open the address that `serve` printed, with its token"
        return None


def with_headers(send: Send) -> Send:
    """Return a sender that adds the protecting headers to an answer."""

    async def send_protected(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return send_protected


class _TooLarge(HTTPException):
    """A body is larger than its limit. Routes pass it on, and it is answered like every other error."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            413, f"the body of the request has more than {limit >> 20} MiB; send less", {"connection": "close"}
        )


@dataclass
class _BoundedBody:
    """The body of a request, which is refused as soon as it is too large; what follows is not kept.

    Attributes:
        inner_receive: gives the messages of the server.
        limit: bytes.
    """

    inner_receive: Receive
    limit: int
    received: int = 0

    async def receive(self) -> Message:
        """Return the next message of the request."""
        message = await self.inner_receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            if self.received > self.limit:
                raise _TooLarge(self.limit)
        return message


async def _send_error(send: Send, status: int, error: str, cure: str) -> None:
    """Send an error as JSON, and close the connection."""
    body = json.dumps({"error": error, "cure": cure, "kind": "Refused", "position": None}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
