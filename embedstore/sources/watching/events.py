"""Events of local folders, by watchdog: that something changed, and which files are still open for writing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from embedstore.errors import MissingExtra, SourceError
from embedstore.sources.walk import InodeIdentity, inode_identity

CHECK_SECONDS = 0.5  # between two looks whether a folder was removed or came back


class FolderEvents:
    """The changes below some folders, also after a folder was removed and came back.

    Args:
        folders: absolute.

    Raises:
        MissingExtra: if watchdog is not installed.
        SourceError: if the system has no more watches.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        try:
            from watchdog.observers import Observer
        except ImportError as e:
            raise MissingExtra("watchdog is not installed; run `pip install 'embedstore[watch]'`") from e
        self._folders = tuple(folders)
        self._changed = threading.Event()
        self._last_event = 0.0
        self._open: set[str] = set()
        self._lock = threading.Lock()
        self._observer = Observer()
        self._watches: dict[str, tuple[InodeIdentity, Any]] = {}
        self._observer.start()
        self._follow_folders()

    def close(self) -> None:
        """Stop watching."""
        self._observer.stop()
        self._observer.join()

    def wait(self, seconds: float) -> bool:
        """Return whether something changed since the last call, after at most this time."""
        self._follow_folders()
        changed = self._changed.wait(min(seconds, CHECK_SECONDS))
        self._changed.clear()
        return changed

    def is_quiet(self, seconds: float) -> bool:
        """Return whether nothing changed for this time, and no file is open for writing."""
        with self._lock:
            self._open = {path for path in self._open if os.path.exists(path)}  # noqa: PTH110
            return not self._open and time.monotonic() - self._last_event >= seconds

    def dispatch(self, event: Any) -> None:
        """Take note of an event; watchdog calls it."""
        kind = event.event_type
        if kind in ("opened", "closed_no_write") or (event.is_directory and kind == "modified"):
            return
        with self._lock:
            if kind == "modified":
                self._open.add(os.fsdecode(event.src_path))
            else:  # closed, moved, deleted; a file that was created is written, and then modified
                self._open.discard(os.fsdecode(event.src_path))
            self._last_event = time.monotonic()
        self._changed.set()

    def _follow_folders(self) -> None:
        """Watch folders that came back, and forget those that were removed."""
        for folder in self._folders:
            now = inode_identity(folder)
            known = self._watches.get(folder)
            if known is not None and known[0] != now:
                with suppress(KeyError, OSError):
                    self._observer.unschedule(known[1])
                del self._watches[folder]
                known = None
                self._changed.set()
            if known is None and now is not None:
                self._watches[folder] = (now, self._watch(folder))
                self._changed.set()

    def _watch(self, folder: str) -> Any:
        """Watch a folder and everything below it."""
        try:
            return self._observer.schedule(self, folder, recursive=True)
        except OSError as e:
            raise SourceError(
                f"{folder} cannot be watched: {e.strerror or e}; raise the limit `sysctl fs.inotify.max_user_watches`, "
                "or list it again and again with --poll 30"
            ) from e
