"""Embed a source again whenever it has changed and is quiet."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from embedstore.errors import BadOption, EmbedstoreError, NoImages, SourceError, StoreBusy
from embedstore.pipeline.report import EmbedReport
from embedstore.pipeline.signals import StopSignal, catch_stop_signals
from embedstore.sources.frames import is_frame
from embedstore.sources.source import Source
from embedstore.sources.watching.events import FolderEvents
from embedstore.sources.watching.fingerprint import fingerprint
from embedstore.sources.watching.places import local_folders, network_file_system

QUIET_SECONDS = 2.0  # without a change, before what changed is embedded
MAX_WAIT_SECONDS = 60.0  # for a folder that is never quiet
POLL_SECONDS = 30.0  # between two listings where the system reports no changes
STEP_SECONDS = 0.5  # between two looks at signals

Watcher = Callable[[EmbedReport | str], object]


@dataclass(frozen=True)
class WatchedSource:
    """What is watched.

    Attributes:
        name: what the user named.
        open: opens the source.
        embed: embeds it.
        poll: seconds between two listings; None takes events of the file system where there are any.
    """

    name: Any
    open: Callable[[], Source]
    embed: Callable[[], EmbedReport]
    poll: float | None


def watch(watched: WatchedSource, notify: Watcher) -> EmbedReport:
    """Embed a source now, and again whenever it has changed and is quiet, until a signal or ``notify`` ends it.

    A source that cannot be listed, has no images yet or is gone is waited for, and marks nothing as missing. A file
    that is still being written is waited for, for at most :data:`MAX_WAIT_SECONDS` after the first change.

    Args:
        watched: the source.
        notify: called with every report, and with one line where a run could not be made; it ends the watch by
            returning True for a report.

    Returns:
        The last report.

    Raises:
        BadOption: if the source is a table in memory, or ``poll`` is not a positive number.
        MissingExtra: if watchdog is not installed.
        SourceError: if the source cannot be listed when the watch begins.
        KeyboardInterrupt: if SIGINT ended the watch.
        SystemExit: if SIGTERM ended the watch.
    """
    if is_frame(watched.name):
        raise BadOption("a table in memory does not change; watch a folder, files or a prefix of a bucket")
    if watched.poll is not None and not watched.poll > 0:
        raise BadOption(f"poll is a number of seconds above 0, not {watched.poll}")
    loop = _Loop(watched, notify)
    with catch_stop_signals() as stop, _changes(watched, notify) as changes:
        while (report := loop.run_if_changed()) is None:
            if loop.must_retry:
                _sleep(QUIET_SECONDS, stop)
            else:
                changes.wait_for_quiet(stop)
    return report


class _Loop:
    """The runs of one watch.

    Args:
        watched: the source.
        notify: called with every report.

    Attributes:
        must_retry: whether the store was busy, so that the same change is tried again.
    """

    def __init__(self, watched: WatchedSource, notify: Watcher) -> None:
        self._watched, self._notify = watched, notify
        self._embedded: str | None = None  # the fingerprint of what was embedded last
        self._problem = ""
        self._is_started = False
        self.must_retry = False

    def run_if_changed(self) -> EmbedReport | None:
        """Embed what changed; return the report with which the watch shall end, or None."""
        try:
            now = fingerprint(self._watched.open())
            if now == self._embedded:
                self._problem = ""
                return None
            report = self._watched.embed()
        except (SourceError, StoreBusy) as e:
            self.must_retry = isinstance(e, StoreBusy)
            if not self._is_started and not isinstance(e, NoImages | StoreBusy):
                raise
            self._is_started = True
            self._note(e)
            return None
        self._is_started, self.must_retry = True, False
        self._embedded, self._problem = now, ""
        return report if self._notify(report) is True else None

    def _note(self, e: EmbedstoreError) -> None:
        """Tell once why there was no run."""
        text = "no images yet" if isinstance(e, NoImages) else str(e)
        if text != self._problem:
            self._notify(f"{text}; watching on")
        self._problem = text


class _Polling:
    """Lists a source again after some time.

    Args:
        seconds: between two listings.
        open_source: opens the source.
    """

    def __init__(self, seconds: float, open_source: Callable[[], Source]) -> None:
        self._seconds, self._open = seconds, open_source

    def wait_for_quiet(self, stop: StopSignal) -> None:
        """Return when the source is to be looked at, and two listings in a row were equal."""
        _sleep(self._seconds, stop)
        deadline, before = time.monotonic() + MAX_WAIT_SECONDS, self._fingerprint()
        while time.monotonic() < deadline:
            _sleep(min(QUIET_SECONDS, self._seconds), stop)
            now = self._fingerprint()
            if now == before:
                return
            before = now

    def _fingerprint(self) -> str:
        """Return what the source looks like; "" if it cannot be listed."""
        try:
            return fingerprint(self._open())
        except SourceError:
            return ""


class _Events:
    """Waits for events of the file system.

    Args:
        events: the events of the folders.
    """

    def __init__(self, events: FolderEvents) -> None:
        self._events = events

    def wait_for_quiet(self, stop: StopSignal) -> None:
        """Return when something changed, and nothing changes any more."""
        while not self._events.wait(STEP_SECONDS):
            stop.raise_if_requested()
        deadline = time.monotonic() + MAX_WAIT_SECONDS
        while time.monotonic() < deadline and not self._events.is_quiet(QUIET_SECONDS):
            stop.raise_if_requested()
            self._events.wait(STEP_SECONDS)


@contextmanager
def _changes(watched: WatchedSource, notify: Watcher) -> Iterator[_Polling | _Events]:
    """Yield what waits for changes of a source."""
    names = [watched.name] if isinstance(watched.name, str | os.PathLike) else watched.name
    folders = None if watched.poll is not None else local_folders([os.fspath(name) for name in names])
    network = next((kind for folder in folders or () if (kind := network_file_system(folder))), None)
    if folders is None or network is not None:
        seconds = watched.poll or POLL_SECONDS
        if network is not None:
            notify(f"a network disk ({network}) reports no changes; it is listed every {seconds:.0f} s")
        yield _Polling(seconds, watched.open)
        return
    events = FolderEvents(folders)
    try:
        yield _Events(events)
    finally:
        events.close()


def _sleep(seconds: float, stop: StopSignal) -> None:
    """Sleep; end as a signal would have.

    Raises:
        KeyboardInterrupt: if SIGINT was caught.
        SystemExit: if another signal was caught.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        stop.raise_if_requested()
        time.sleep(min(left, STEP_SECONDS))
    stop.raise_if_requested()
