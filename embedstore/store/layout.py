"""Where everything in a store's folder is, and how a folder becomes a store: whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from embedstore.errors import NotAStore, StoreDamaged, StoreExists, StoreNotFound, StoreTooNew

FORMAT = 1  # of the folder; the catalog's tables have migrations of their own
MARKER = "embedstore.json"


@dataclass(frozen=True)
class Layout:
    """The paths of one store.

    Args:
        root: the store's folder, absolute.
    """

    root: Path

    @property
    def marker(self) -> Path:
        """Format version and store id."""
        return self.root / MARKER

    @property
    def lock(self) -> Path:
        """One writer at a time."""
        return self.root / "LOCK"

    @property
    def catalog(self) -> Path:
        """The DuckDB database."""
        return self.root / "catalog.duckdb"

    @property
    def wal(self) -> Path:
        """DuckDB's write-ahead log."""
        return self.root / "catalog.duckdb.wal"

    @property
    def guard(self) -> Path:
        """The copy of catalog and log that a checkpoint can be undone from."""
        return self.root / "checkpoint.guard"

    @property
    def quarantine(self) -> Path:
        """What could not be used and was not deleted."""
        return self.root / "quarantine"

    def shards(self, space: str) -> Path:
        """The folder of a space's vector files."""
        return self.root / "spaces" / space / "shards"

    def shard(self, space: str, number: int) -> Path:
        """One vector file."""
        return self.shards(space) / f"{number:09d}.vec"

    def index(self, space: str) -> Path:
        """The folder of a space's indexes."""
        return self.root / "spaces" / space / "index"


def create(path: Path, fill: Callable[[Layout], None]) -> Layout:
    """Make a store in a temporary folder beside ``path``, fill it, fsync it and rename it into place.

    Raises:
        StoreExists: something is at ``path`` already (an empty folder may be).
    """
    path = path.absolute()
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise StoreExists(f"{path} exists already; open it, or choose another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.creating")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        layout = Layout(temporary)
        (temporary / "spaces").mkdir()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        marker = {"format": FORMAT, "id": str(uuid.uuid4()), "created": now}
        layout.marker.write_text(json.dumps(marker) + "\n")
        layout.lock.touch()
        fill(layout)
        sync_tree(temporary)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)
    return Layout(path)


def find(path: Path) -> Layout:
    """The layout of an existing store.

    Raises:
        StoreNotFound, NotAStore, StoreTooNew, StoreDamaged: as their names say.
    """
    path = path.absolute()
    if not path.exists():
        raise StoreNotFound(f"no store at {path}; make one with `embedstore create {path.name}`")
    layout = Layout(path)
    if not layout.marker.is_file():
        raise NotAStore(f"{path} is no embedstore: it has no {MARKER}; make one with `embedstore create FOLDER`")
    try:
        found = json.loads(layout.marker.read_bytes())["format"]
    except (ValueError, KeyError, TypeError) as e:
        raise StoreDamaged(f"{layout.marker} is damaged ({type(e).__name__}); restore it from a backup") from e
    if not isinstance(found, int) or found > FORMAT:
        raise StoreTooNew(
            f"{path} has format {found}, this embedstore reads up to {FORMAT}; run `pip install -U embedstore`"
        )
    return layout


def sync_file(path: Path) -> None:
    """Force a file's bytes to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(path: Path) -> None:
    """Force a folder's entries to the disk (a rename is not durable before this). A no-op on Windows."""
    if os.name != "nt":
        sync_file(path)


def sync_tree(root: Path) -> None:
    """Force everything below a folder to the disk."""
    for folder, _, names in os.walk(root):
        for name in names:
            sync_file(Path(folder, name))
        sync_folder(Path(folder))


def copy_synced(source: Path, target: Path) -> None:
    """Copy a file and force the copy to the disk."""
    shutil.copyfile(source, target)
    sync_file(target)
