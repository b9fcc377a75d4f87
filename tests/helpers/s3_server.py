"""A real S3 server on loopback (moto's), with one bucket, that counts requests and refuses when it is told to."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
REFUSED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"

_bucket_numbers = itertools.count(1)  # the buckets of all servers of this process are one name space


class Bucket:
    """A bucket, and the server that has it.

    Attributes:
        name: of the bucket.
        gets: the keys whose bytes were requested.
        writes: method and key of each request that writes or deletes.
        refuses: whether the server answers every request with 403.
        files_until_expiry: how many more files the server gives before it says that the token has expired; None is all.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client, self.name = client, name
        self.gets: list[str] = []
        self.writes: list[tuple[str, str]] = []
        self.refuses = False
        self.files_until_expiry: int | None = None

    @property
    def url(self) -> str:
        """``s3://`` and the name."""
        return f"s3://{self.name}"

    @property
    def web_url(self) -> str:
        """The bucket as a folder of a web server."""
        return f"{self._client.meta.endpoint_url}/{self.name}"

    def make_public(self) -> None:
        """Let everybody read the files that are stored."""
        self._client.put_bucket_acl(Bucket=self.name, ACL="public-read")

    def put(self, files: Mapping[str, bytes]) -> None:
        """Store files by key."""
        for key, data in files.items():
            self._client.put_object(Bucket=self.name, Key=key, Body=data)

    def list_keys(self) -> list[str]:
        """Return the keys of all files."""
        return [found["Key"] for found in self._client.list_objects_v2(Bucket=self.name).get("Contents", [])]

    def read(self, key: str) -> bytes:
        """Return the bytes of a file."""
        return bytes(self._client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def delete(self, key: str) -> None:
        """Delete a file."""
        self._client.delete_object(Bucket=self.name, Key=key)

    def answer(
        self, app: Callable[..., Iterable[bytes]], environ: dict[str, Any], start: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request, as the application of the server does or by refusing."""
        key = environ["PATH_INFO"].removeprefix(f"/{self.name}").strip("/")
        if self.refuses:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))  # else the next request finds it
            start("403 Forbidden", [("Content-Type", "application/xml")])
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [REFUSED]
        if environ["REQUEST_METHOD"] in ("PUT", "POST", "DELETE"):
            self.writes.append((environ["REQUEST_METHOD"], key))
        if environ["REQUEST_METHOD"] == "GET" and key:
            self.gets.append(key)
            if self.files_until_expiry is not None:
                self.files_until_expiry -= 1
                if self.files_until_expiry < 0:
                    start("400 Bad Request", [("Content-Type", "application/xml")])
                    return [EXPIRED]
        return app(environ, start)


@contextmanager
def serve_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Start a server with one bucket; the environment names it while the block runs."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed (extra s3)")
    import boto3

    from embedstore.sources.remote.filesystem import forget_connections

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for key, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(key, value)
    for key in ("AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(key, raising=False)
    forget_connections()
    try:
        client = boto3.client("s3")
        bucket = Bucket(client, f"photos-{next(_bucket_numbers)}")
        client.create_bucket(Bucket=bucket.name)
        app = server._server.app  # the only way to see the requests
        server._server.app = lambda environ, start: bucket.answer(app, environ, start)
        yield bucket
    finally:
        server.stop()
        forget_connections()
