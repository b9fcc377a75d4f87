"""Temporary folders of this process: private, in one folder that other processes know to be in use.

A process that is killed cannot remove its temporary files. Each process therefore keeps all of them below one folder,
next to a file that it holds locked while it lives. The next process that needs a temporary folder removes those whose
lock is free: their owners ended. Only folders of the same user are looked at, and links are not followed.
"""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PREFIX = "embedstore-run-"  # of the folder of a process
LOCK = "OWNER"  # the file that a process holds locked


@dataclass(frozen=True)
class _RunFolder:
    """The folder of one process, and the descriptor that keeps its lock; None where the system has no such locks."""

    path: Path
    lock: int | None


_runs: dict[int, _RunFolder] = {}  # by user: a process that gives up its privileges cannot use its first one any more


def new_folder(name: str = "") -> Path:
    """Create an empty folder that only this user can enter.

    Args:
        name: how its name begins.

    Raises:
        OSError: if the folder for temporary files cannot be written to.
    """
    return Path(tempfile.mkdtemp(prefix=name, dir=_run_folder()))


def remove(folder: Path) -> None:
    """Remove a folder of this process; in a forked child, leave a folder of the parent alone."""
    if any(run.path in folder.parents for run in _runs.values()):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Create an empty folder that only this user can enter, and remove it at the end.

    Raises:
        OSError: if the folder for temporary files cannot be written to.
    """
    folder = new_folder()
    try:
        yield folder
    finally:
        remove(folder)


def _run_folder() -> Path:
    """Return the folder of this process; create it, and remove those of ended processes, when it is needed first."""
    run = _runs.get(_user())
    if run is None or not run.path.is_dir():
        place = Path(tempfile.gettempdir())
        with suppress(OSError):
            _sweep(place)
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        run = _runs[_user()] = _RunFolder(path, _lock_new(path))
        atexit.register(remove_all)
    return run.path


def _user() -> int:
    """Return the number of the user that this process acts for now."""
    return os.geteuid() if hasattr(os, "geteuid") else 0


def remove_all() -> None:
    """Remove the folders of this process; they are created again when they are needed."""
    for run in _runs.values():
        shutil.rmtree(run.path, ignore_errors=True)
    _leave()


def _leave() -> None:
    """Forget the folders. In a forked child they stay the parent's: the parent's descriptor keeps the lock."""
    for run in _runs.values():
        if run.lock is not None:
            os.close(run.lock)
    _runs.clear()


def _lock_new(folder: Path) -> int | None:
    """Create the lock file, locked before it has its name: nobody takes its owner for ended."""
    draft = folder / f"{LOCK}.tmp"
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    if not _try_lock(descriptor):
        os.close(descriptor)
        draft.unlink()
        return None
    draft.rename(folder / LOCK)
    return descriptor


def _sweep(place: Path) -> None:
    """Remove the folders of ended processes of this user."""
    for name in os.listdir(place):  # noqa: PTH208 - names alone: the folder is shared, and may be large
        if name.startswith(PREFIX) and _is_own_folder(place / name):
            with suppress(OSError):
                _remove_if_ended(place / name)


def _is_own_folder(path: Path) -> bool:
    """Return whether a path is a folder of this user, and no link."""
    try:
        s = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(s.st_mode) and hasattr(os, "geteuid") and s.st_uid == os.geteuid()


def _remove_if_ended(folder: Path) -> None:
    """Remove a folder whose lock is free. One without a lock file is left: its process may be starting."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        if _try_lock(descriptor):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Lock an open file; False if another process holds the lock, or there are no such locks."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave)
