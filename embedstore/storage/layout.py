"""The paths in a store's folder, and how a folder becomes a store: completely or not at all."""

from __future__ import annotations

import os
import re
import shlex
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embedstore.errors import (
    BadOption,
    NotAStore,
    StoreDamaged,
    StoreError,
    StoreExists,
    StoreIOError,
    StoreNotFound,
    StoreTooNew,
    UnsafeStore,
)
from embedstore.storage import durable_files, reading
from embedstore.storage.description_checksum import DESCRIPTION_CHECKSUM_KEY, check_description, dump_description
from embedstore.storage.durable_files import copy_synced, sync_folder, write_synced
from embedstore.storage.store_files import read_json_object, require_regular_entries
from embedstore.types import display_uri

FORMAT_VERSION = 1  # of the folder; the tables of the catalog have migrations
MARKER = "embedstore.json"
COMMIT_COUNTER = "COMMITTED"  # how many commits were acknowledged
GUARD = "checkpoint.guard"
DERIVED_LOCK = "LOCK"  # in a folder that is derived from a space (index, towers, replicas): held by who writes there
COPIED_FOLDERS = ("heads", "checkpoints")  # a backup and an archive copy them; indexes are derived and rebuilt
COMPLETE = "COMPLETE"  # in the guard folder: the copy is complete, and the catalog may be partly rewritten
# How the entries of a store's folder begin, in lower case; temporary names have a suffix. Others are never opened.
OWN_ENTRIES = (
    MARKER, "lock", COMMIT_COUNTER.lower(), "catalog.duckdb", GUARD, "quarantine", "spaces", *COPIED_FOLDERS
)  # fmt: skip
_MAX_MARKER_BYTES = 1 << 16
_SCHEMES = ("s3:", "gs:", "gcs:", "http:", "https:")  # a path of an address has them as a folder
_SPACE_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Layout:
    """The paths of one store.

    Args:
        root: the store's folder, absolute.
    """

    root: Path

    @property
    def marker(self) -> Path:
        """The file with format version and store id."""
        return self.root / MARKER

    @property
    def lock(self) -> Path:
        """The file that the only writer locks."""
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
    def listings(self) -> Path:
        """The folder that keeps the listings of archives; they are derived and made again."""
        return self.root / "listings"

    @property
    def cache(self) -> Path:
        """The folder of what page and hybrid searches derive: it may be deleted at any time, and no backup has it."""
        return self.root / "cache"

    @property
    def thumbnails(self) -> Path:
        """The folder of re-encoded images."""
        return self.cache / "thumbnails"

    @property
    def words(self) -> Path:
        """The folder of lexical indexes, one file per column."""
        return self.cache / "words"

    @property
    def guard(self) -> Path:
        """The folder with the copy of catalog and log from which a checkpoint can be undone."""
        return self.root / GUARD

    @property
    def quarantine(self) -> Path:
        """The folder of files that could not be used and were not deleted."""
        return self.root / "quarantine"

    def space_folder(self, space: str) -> Path:
        """Return the folder of a space.

        Raises:
            UnsafeStore: if the key is not one that embedstore makes: it may name a folder outside of the store.
        """
        return self.root / "spaces" / self._folder_name(space)

    def checkpoint_folder(self, space: str) -> Path:
        """Return the folder of the fine-tuned network of a space.

        Raises:
            UnsafeStore: if the key is not one that embedstore makes.
        """
        return self.root / "checkpoints" / self._folder_name(space)

    def shards_folder(self, space: str) -> Path:
        """Return the folder of a space's vector files."""
        return self.space_folder(space) / "shards"

    def space_file(self, space: str) -> Path:
        """Return the file that says what a space means; a lost catalog is rebuilt from it."""
        return self.space_folder(space) / "space.json"

    def shard_file(self, space: str, number: int) -> Path:
        """Return the path of a vector file."""
        return self.shards_folder(space) / f"{number:09d}.vec"

    def index_folder(self, space: str) -> Path:
        """Return the folder of a space's indexes."""
        return self.space_folder(space) / "index"

    def towers_folder(self, space: str) -> Path:
        """Return the folder of a space's exported networks."""
        return self.space_folder(space) / "towers"

    def replicas_folder(self, space: str) -> Path:
        """Return the folder that says what copies of a space in vector databases hold."""
        return self.space_folder(space) / "replicas"

    def inbox_folder(self, space: str) -> Path:
        """Return the folder of a plan of parts of a space, and of the results of its workers."""
        return self.space_folder(space) / "inbox"

    def _folder_name(self, space: str) -> str:
        """Return the key of a space, which the catalog or a description names."""
        if not isinstance(space, str) or not _SPACE_KEY.fullmatch(space):
            raise UnsafeStore(
                f"{self.root} names a space {space!r}, which is not a key of 16 hexadecimal digits; "
                "restore it from a backup, or ask for an export of the store"
            )
        return space


@contextmanager
def new_folder(path: Path, action: str) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` when the block ends, or is removed when the block fails.

    Args:
        path: folder to create; an empty folder may exist there.
        action: what is done, for the error message, such as ``create STORE``.

    Yields:
        The temporary folder.

    Raises:
        StoreExists: if ``path`` exists and is not an empty folder.
        StoreIOError: if the disk refuses; nothing is left at ``path``.
    """
    try:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise StoreExists(f"{path} exists already and is not an empty folder; choose another one")
        with durable_files.atomic_folder(path) as temporary:
            yield temporary
    except OSError as e:
        if isinstance(e, StoreError):
            raise
        raise StoreIOError(f"cannot {action}: {e.strerror or e}; nothing is left of it") from e


def require_outside(path: Path, at: Layout) -> None:
    """Refuse a folder inside a store.

    Args:
        path: folder to create, absolute.
        at: the store.

    Raises:
        StoreExists: if ``path`` is inside the store.
    """
    if path.is_relative_to(at.root):
        raise StoreExists(f"{path} is inside {at.root}; choose a folder outside of it")


def create_folder(path: Path, fill: Callable[[Layout], None]) -> Layout:
    """Create a store's folder: the whole store or nothing.

    Args:
        path: folder to create; an empty folder may exist there.
        fill: writes the store's content into the layout of the temporary folder.

    Returns:
        The layout of the store at ``path``.

    Raises:
        BadOption: if DuckDB cannot open files below ``path``.
        StoreExists: if ``path`` exists and is not an empty folder.
        StoreIOError: if the disk refuses; nothing is left at ``path``.
    """
    _refuse_address(path)
    path = path.absolute()
    _require_usable_path(path)
    with new_folder(path, f"create {path}") as temporary:
        layout = Layout(temporary)
        (temporary / "spaces").mkdir()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        marker = {"format": FORMAT_VERSION, "id": str(uuid.uuid4()), "created": now}
        layout.marker.write_bytes(dump_description(marker, DESCRIPTION_CHECKSUM_KEY))
        layout.lock.touch()
        fill(layout)
    return Layout(path)


def find_store(path: Path) -> Layout:
    """Return the layout of an existing store.

    Raises:
        StoreNotFound: if nothing is at ``path``.
        NotAStore: if the folder is not a store.
        UnsafeStore: if it holds links, named pipes, sockets or devices.
        StoreTooNew: if a later version of embedstore wrote the store.
        StoreDamaged: if the marker file is damaged.
        StoreUnreadable: if the marker file or a folder cannot be read now.
    """
    layout = locate_store(path)
    cure = "`embedstore verify STORE --untrusted` lists everything; put the file or folder itself in its place"
    require_regular_entries(layout.root, OWN_ENTRIES, cure=cure)
    version = read_marker(layout)["format"]
    if version > FORMAT_VERSION:
        raise StoreTooNew(
            f"{layout.root} has format {version}, this embedstore reads up to {FORMAT_VERSION}; "
            "run `pip install -U embedstore`"
        )
    return layout


def locate_store(path: Path) -> Layout:
    """Return the layout of a folder that has a marker file, without looking at anything else.

    Raises:
        BadOption: if DuckDB cannot open files below ``path``, or it is an address.
        StoreNotFound: if nothing is at ``path``.
        NotAStore: if the folder is not a store.
        StoreUnreadable: if the folder cannot be read now.
    """
    _refuse_address(path)
    given, layout = path, Layout(path.absolute())
    _require_usable_path(layout.root)
    if not reading.exists(layout.root):
        raise StoreNotFound(f"no store at {layout.root}; create one with `embedstore create {shlex.quote(str(given))}`")
    with reading.read_errors(layout.marker):
        has_marker = reading.is_link(layout.marker) or (reading.exists(layout.marker) and not layout.marker.is_dir())
    if not has_marker:
        raise NotAStore(f"{layout.root} is not a store: it has no {MARKER}; create one with `embedstore create FOLDER`")
    return layout


def _refuse_address(path: Path) -> None:
    """Raise BadOption for an address of another machine, as a user wrote it: a folder may be called ``s3:``."""
    if path.parts and path.parts[0] in _SCHEMES:
        raise BadOption(
            f"a store is a folder of this machine, since its catalog needs a local disk, and {path.parts[0]}// is none;"
            " images may be there, and the inbox of workers: `embedstore plan-parts STORE SOURCE --inbox "
            "s3://BUCKET/FOLDER`; docs/scale.md shows how its vector files can be there"
        )


def _require_usable_path(path: Path) -> None:
    """Check that DuckDB can open files below a folder: it parses ``?`` and backslashes, and wants UTF-8.

    Raises:
        BadOption: if it cannot.
    """
    problem = next((f"has {c!r} in it" for c in ("?", "\\") if c in str(path) and c not in (os.sep, os.altsep)), None)
    if display_uri(str(path)) != str(path):
        problem = "is not UTF-8"
    if problem:
        raise BadOption(f"{display_uri(str(path))} cannot be the folder of a store: its path {problem}; choose another")


def read_marker(layout: Layout) -> dict[str, Any]:
    """Return the content of the marker file: ``format``, a number, and ``id`` and ``created``, texts.

    Raises:
        UnsafeStore: if it is not a regular file.
        StoreDamaged: if it is damaged.
        StoreUnreadable: if it cannot be read now.
    """
    try:
        with reading.read_errors(layout.marker):
            marker = read_json_object(layout.marker, _MAX_MARKER_BYTES)
        if type(marker["format"]) is not int or not isinstance(marker["id"], str):
            raise TypeError("it has values of other types")
    except (UnsafeStore, StoreDamaged):
        raise
    except (ValueError, KeyError, TypeError) as e:
        raise StoreDamaged(f"{layout.marker} is damaged ({type(e).__name__}); restore it from a backup") from e
    return marker


def marker_problem(layout: Layout) -> str:
    """Return what is wrong with a marker file that can be read, or ""; earlier versions wrote no checksum.

    Raises:
        UnsafeStore: see :func:`read_marker`; so are the others.
        StoreDamaged: if it cannot be used.
        StoreUnreadable: if it cannot be read now.
    """
    marker = read_marker(layout)
    try:
        plain = check_description(marker, DESCRIPTION_CHECKSUM_KEY, required=False)
    except ValueError as e:
        return str(e)
    return "" if plain.keys() == {"format", "id", "created"} else "it has other entries than those of a store"


def rewrite_marker(layout: Layout) -> None:
    """Write the marker file again with a checksum, with what can be read of it.

    Raises:
        StoreDamaged: if it cannot be used.
        OSError: if the disk is full or fails.
    """
    marker = read_marker(layout)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    kept = {"format": FORMAT_VERSION, "id": marker["id"], "created": str(marker.get("created", now))}
    write_synced(layout.marker, dump_description(kept, DESCRIPTION_CHECKSUM_KEY))


def quarantine_file(layout: Layout, path: Path, name: str, *, copy: bool = False, link: bool = False) -> Path:
    """Move or copy a file that cannot be used into the quarantine folder.

    Args:
        layout: the paths of the store.
        path: the file.
        name: its name there; a number follows it if the name is taken.
        copy: leave the file where it is.
        link: leave the file where it is, under a second name: for files that are never written to again.

    Returns:
        The path in the quarantine folder.

    Raises:
        OSError: if the disk is full or fails.
    """
    layout.quarantine.mkdir(exist_ok=True)
    sync_folder(layout.root)
    target, n = layout.quarantine / name, 1
    while reading.exists(target):
        n += 1
        target = layout.quarantine / f"{name}.{n}"
    if link:
        _link_or_copy(path, target)
    elif copy:
        copy_synced(path, target)
    else:
        path.replace(target)
        sync_folder(path.parent)
    sync_folder(layout.quarantine)
    return target


def _link_or_copy(path: Path, target: Path) -> None:
    """Give a file a second name, which needs no room; copy it where the file system has no links."""
    try:
        os.link(path, target)
    except OSError:
        copy_synced(path, target)
