"""``export.json``: which files belong to an export, and what each must be."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from embedstore.errors import NotAStore, StoreDamaged, StoreNotFound, StoreTooNew
from embedstore.storage import durable_files, layout
from embedstore.storage.catalog import ARCHIVED_TABLES

ARCHIVE_FORMAT_VERSION = 1
MANIFEST_FILE = "export.json"
MAX_MANIFEST_BYTES = 64 << 20  # bytes of it: a hundred thousand files


@dataclass(frozen=True)
class ArchiveFile:
    """One file.

    Attributes:
        name: relative to the folder, with ``/``. bytes, xxh3: of it.
        rows: of a Parquet file. space: of vectors.
        text: columns that are text because Parquet does not know their type: DuckDB's type by name.
    """

    name: str
    bytes: int
    xxh3: str
    rows: int = 0
    space: str = ""
    text: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ArchiveManifest:
    """What an export holds.

    Attributes:
        store: id of the store it was made of. made: when, and with which version.
        tables: by name. vectors: in the order of their rows. files: what is copied as it is.
    """

    store: str
    made: str
    tables: dict[str, ArchiveFile]
    vectors: list[ArchiveFile]
    files: list[ArchiveFile]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"format": ARCHIVE_FORMAT_VERSION, **asdict(self)}


def describe_file(folder: Path, name: str, **facts: Any) -> ArchiveFile:
    """A file as it stands."""
    path = folder / name
    return ArchiveFile(name, path.stat().st_size, durable_files.file_xxh3(path), **facts)


def read_manifest(folder: Path) -> ArchiveManifest:
    """What an export says of itself.

    Raises:
        StoreNotFound: nothing is there. NotAStore: it is no export. StoreTooNew: of a later version.
        StoreDamaged: it cannot be read.
    """
    if not folder.exists():
        raise StoreNotFound(f"there is no export at {folder}; make one with `embedstore export STORE FOLDER`")
    if not (folder / MANIFEST_FILE).is_file():
        raise NotAStore(
            f"{folder} is no export: it has no {MANIFEST_FILE}; `embedstore export STORE FOLDER` makes one, and "
            "`embedstore embed STORE --vectors FILE.npy --table FILE` brings other vectors"
        )
    try:
        with (folder / MANIFEST_FILE).open("rb") as f:
            found = json.loads(f.read(MAX_MANIFEST_BYTES))
        if not isinstance(found["format"], int) or found["format"] > ARCHIVE_FORMAT_VERSION:
            raise StoreTooNew(
                f"{folder} has export format {found['format']}, this embedstore reads up to {ARCHIVE_FORMAT_VERSION}; "
                "run `pip install -U embedstore`"
            )
        tables = {str(k): ArchiveFile(**v) for k, v in found["tables"].items()}
        note = ArchiveManifest(
            str(found["store"]), str(found["made"]), tables,
            [ArchiveFile(**v) for v in found["vectors"]], [ArchiveFile(**v) for v in found["files"]],
        )  # fmt: skip
        _check(note)
    except OSError as e:
        raise StoreDamaged(f"cannot read {folder / MANIFEST_FILE}: {e.strerror}") from e
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        if isinstance(e, StoreTooNew):
            raise
        raise StoreDamaged(
            f"{folder / MANIFEST_FILE} is damaged ({type(e).__name__}: {e}); export the store again"
        ) from e
    return note


def verified_path(folder: Path, p: ArchiveFile) -> Path:
    """The path of a file that is what it was when it was exported.

    Raises:
        StoreDamaged: it is missing, no regular file, or another.
    """
    path = folder / p.name
    try:
        if path.is_symlink() or not path.is_file():
            raise StoreDamaged(f"{path} belongs to the export and is missing; export the store again")
        if path.stat().st_size != p.bytes or durable_files.file_xxh3(path) != p.xxh3:
            raise StoreDamaged(f"{path} is not what was exported: its checksum differs; export the store again")
    except OSError as e:
        if isinstance(e, StoreDamaged):
            raise
        raise StoreDamaged(f"cannot read {path}: {e.strerror}") from e
    return path


def _check(note: ArchiveManifest) -> None:
    """Names stay inside the folder, and numbers are numbers.

    Raises:
        ValueError, TypeError: they do not.
    """
    if sorted(note.tables) != sorted(ARCHIVED_TABLES):
        raise ValueError(f"its tables are {', '.join(note.tables)}")
    for p in [*note.tables.values(), *note.vectors, *note.files]:
        parts = PurePosixPath(p.name).parts
        if not parts or p.name.startswith("/") or "\\" in p.name or {"..", "."} & set(p.name.split("/")):
            raise ValueError(f"it names {p.name!r}")
        if not all(isinstance(n, int) and n >= 0 for n in (p.bytes, p.rows)) or not isinstance(p.text, dict):
            raise TypeError(f"impossible facts of {p.name}")
    if any(PurePosixPath(p.name).parts[0] not in layout.COPIED_FOLDERS for p in note.files):
        raise ValueError("it names a file that is neither a head's nor a checkpoint's")
