"""The address of a Ray cluster: whether one answers there, and whether it still does while a run goes on.

Ray itself tries for minutes where something else answers, and ends the process a minute after the cluster is gone.
"""

from __future__ import annotations

import os
import socket
import time

from embedstore.errors import EngineError

CONNECT_SECONDS = 10.0
CHECK_SECONDS = 5.0  # between two checks while a run goes on
GONE_SECONDS = 25.0  # without an answer; Ray ends the process after 60
# What an HTTP/2 client sends first (RFC 9113, section 3.4), with an empty SETTINGS frame; Ray speaks gRPC.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_FRAME_HEADER_BYTES, _SETTINGS_FRAME = 9, 4


def require_cluster(address: str) -> None:
    """Require that an address can be one of a Ray cluster, and that something like it answers there.

    Raises:
        EngineError: if the address is written in another way, or nothing like a Ray cluster answers.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise EngineError(f"{address!r} is not the address of a Ray cluster; write it as HOST:PORT, or as auto")
    try:
        _ask(host.strip("[]"), int(port))
    except (OSError, OverflowError) as e:
        raise EngineError(
            f"no Ray cluster answers at {address} ({e}); `ray start --head` prints the address of a new one"
        ) from e


class ClusterWatch:
    """Notices while a run goes on that the head node of its cluster is gone.

    Args:
        address: the address of the cluster, ``HOST:PORT``.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._checked = self._answered = time.monotonic()

    def check(self) -> None:
        """Ask the cluster, if the last time was some seconds ago.

        Raises:
            EngineError: if it has not answered for too long.
        """
        if time.monotonic() - self._checked < CHECK_SECONDS:
            return
        host, _, port = self._address.rpartition(":")
        try:
            _ask(host.strip("[]"), int(port))
            self._answered = time.monotonic()
        except OSError as e:
            self._require_recent(e)
        self._checked = time.monotonic()

    def _require_recent(self, error: OSError) -> None:
        """Require that the last answer is not too old."""
        if time.monotonic() - self._answered > GONE_SECONDS:
            raise EngineError(
                f"the Ray cluster at {self._address} does not answer any more ({error}); what was embedded is kept; "
                "start a cluster, and run the command again for the rest"
            ) from error


def _ask(host: str, port: int) -> None:
    """Connect, and expect the answer of an HTTP/2 server; with TLS, connect only.

    Raises:
        OSError: if nothing answers, or something else.
        OverflowError: if there is no such port.
    """
    with socket.create_connection((host, port), CONNECT_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() not in ("0", "false", ""):
            return
        connection.sendall(_PREFACE)
        answer = connection.recv(_FRAME_HEADER_BYTES, socket.MSG_WAITALL)
    if len(answer) < _FRAME_HEADER_BYTES or answer[3] != _SETTINGS_FRAME:
        raise OSError("something else answers there")
