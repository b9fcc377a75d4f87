"""A second S3 server on loopback, rclone's, which checks the signature of every request."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedstore.sources.remote.filesystem import forget_connections

KEYS = ("key", "a-secret-that-is-long-enough")


@contextmanager
def serve_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, *, is_written: bool = False) -> Iterator[Path]:
    """Serve the bucket ``photos``, whose files are in a folder that is yielded; the environment names the server.

    Args:
        folder: for the bucket.
        monkeypatch: sets the environment.
        is_written: files are written by way of the server alone. It then remembers folders: without that, rclone 1.75
            did not answer a request that writes into a new folder.
    """
    pytest.importorskip("s3fs", reason="s3fs is not installed (extra s3)")
    if shutil.which("rclone") is None:
        pytest.skip("rclone is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bucket = folder / "served" / "photos"
    bucket.mkdir(parents=True)
    words = ["rclone", "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", ",".join(KEYS)]
    words += [*([] if is_written else ["--dir-cache-time", "0s"]), str(bucket.parent)]
    env = os.environ | {"RCLONE_CONFIG": str(folder / "rclone.conf")}
    with subprocess.Popen(words, env=env, stderr=subprocess.DEVNULL) as server:
        settings = {
            "AWS_ACCESS_KEY_ID": KEYS[0], "AWS_SECRET_ACCESS_KEY": KEYS[1], "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }  # fmt: skip
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        forget_connections()
        try:
            _wait_for(port)
            yield bucket
        finally:
            server.terminate()
            forget_connections()


def _wait_for(port: int) -> None:
    """Wait until a server listens."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("rclone does not listen")
