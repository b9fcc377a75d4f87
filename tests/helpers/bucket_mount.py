"""Folders of a store in a bucket of a real S3 server on loopback, mounted by rclone with a local cache."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers.rclone_server import KEYS, serve_folder

CONFIG = """[bucket]
type = s3
provider = Rclone
access_key_id = {}
secret_access_key = {}
region = us-east-1
endpoint = {}
"""
MOUNT_SECONDS = 60


class MountedBucket:
    """A bucket whose folders are mounted one by one.

    Args:
        folder: for the settings and the cache.
        bucket: the files of the bucket, as its server keeps them.

    Attributes:
        objects: the files of the bucket, as its server keeps them.
    """

    def __init__(self, folder: Path, bucket: Path) -> None:
        self.objects, self._folder = bucket, folder
        self._mounted: dict[Path, subprocess.Popen[bytes]] = {}
        self._config = folder / "mount.conf"
        self._config.write_text(CONFIG.format(*KEYS, os.environ["AWS_ENDPOINT_URL"]))
        tools = os.pathsep.join(
            [os.environ["PATH"], str(ROOT / "tests" / "helpers")]
        )  # a fusermount3 of the system first
        self._env = os.environ | {"PATH": tools}

    def move(self, folder: Path) -> None:
        """Move a folder into the bucket, and mount it in its place."""
        self._rclone("move", str(folder), f"bucket:photos/{folder.name}")
        shutil.rmtree(folder)
        folder.mkdir()
        self.mount(folder)

    def mount(self, folder: Path, *, write_back: str = "1s") -> None:
        """Mount a folder of the bucket, with the cache of the last mount.

        Args:
            folder: where; its name is that of the folder in the bucket.
            write_back: how long after a file is closed its upload begins. With 0s rclone 1.75 loses files of a
                folder that is renamed while they are uploaded.
        """
        words = ["rclone", "--config", str(self._config), "mount", f"bucket:photos/{folder.name}", str(folder)]
        words += [
            "--vfs-cache-mode",
            "full",
            "--cache-dir",
            str(self._folder / "cache"),
            "--vfs-write-back",
            write_back,
        ]
        words += ["--retries", "1", "--low-level-retries", "1", "--contimeout", "2s", "--timeout", "5s"]
        log = (self._folder / "mount.log").open("ab")
        process = subprocess.Popen(words, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._mounted[folder] = process
        deadline = time.monotonic() + MOUNT_SECONDS
        while not folder.is_mount():
            if process.poll() is not None:
                pytest.skip(
                    f"this machine mounts no FUSE file system: {(self._folder / 'mount.log').read_text()[-200:]}"
                )
            assert time.monotonic() < deadline, "rclone does not mount"
            time.sleep(0.05)

    def unmount(self, folder: Path) -> None:
        """Unmount a folder, after everything was uploaded."""
        process = self._mounted.pop(folder)
        process.send_signal(signal.SIGTERM)
        process.wait(MOUNT_SECONDS)

    def kill(self, folder: Path) -> None:
        """Kill the program that serves a mounted folder; what is not uploaded stays in its cache."""
        process = self._mounted.pop(folder)
        process.kill()
        process.wait()
        subprocess.run(["fusermount3", "-u", str(folder)], env=self._env, check=True)

    def forget_cache(self) -> None:
        """Remove the cache of the local disk; nothing is mounted."""
        shutil.rmtree(self._folder / "cache", ignore_errors=True)

    def wait_for_uploads(self, seconds: float = 30) -> None:
        """Wait until the cache holds nothing that has to be uploaded."""
        deadline = time.monotonic() + seconds
        while self._dirty():
            assert time.monotonic() < deadline, "files are not uploaded"
            time.sleep(0.1)

    def close(self) -> None:
        """Unmount everything."""
        for folder in list(self._mounted):
            with suppress(subprocess.SubprocessError, OSError):
                self.kill(folder)

    def _dirty(self) -> bool:
        """Return whether a file of the cache has to be uploaded."""
        notes = (self._folder / "cache" / "vfsMeta").rglob("*")
        return any(b'"Dirty":true' in path.read_bytes().replace(b" ", b"") for path in notes if path.is_file())

    def _rclone(self, *words: str) -> None:
        """Run a command of rclone."""
        subprocess.run(["rclone", "--config", str(self._config), *words], env=self._env, check=True)


@contextmanager
def mounted_bucket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MountedBucket]:
    """Serve a bucket, and yield what mounts its folders; skip the test where nothing can be mounted.

    Args:
        folder: for the bucket, the settings and the cache.
        monkeypatch: sets the environment.
    """
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or (shutil.which("fusermount3") is None and os.geteuid() != 0):
        pytest.skip("a FUSE file system is mounted by fusermount3, or by the administrator")
    with serve_folder(folder, monkeypatch, is_written=True) as bucket:
        mounts = MountedBucket(folder, bucket)
        try:
            yield mounts
        finally:
            mounts.close()
