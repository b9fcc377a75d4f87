"""``export.json``: the files that belong to an archive, and the size and checksum of each."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from embedstore.errors import NotAStore, StoreDamaged, StoreError, StoreNotFound, StoreTooNew
from embedstore.json_objects import parse_json_object
from embedstore.storage import durable_files, reading
from embedstore.storage.catalog import ARCHIVED_TABLES, LATER_TABLES
from embedstore.storage.layout import COPIED_FOLDERS
from embedstore.storage.store_files import MAX_HEAD_BYTES, read_bounded, require_regular_entries

ARCHIVE_FORMAT_VERSION = 1
MANIFEST_FILE = "export.json"
MAX_MANIFEST_BYTES = 64 << 20  # enough for a hundred thousand files
_HEAD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_VECTOR_FILE = re.compile(r"vectors/[0-9a-f]{16}/[0-9]{6,}\.parquet")  # DuckDB would expand * and [ in a name


@dataclass(frozen=True)
class ArchiveFile:
    """One file of an archive.

    Attributes:
        name: path relative to the archive, with ``/``.
        bytes: size.
        xxh3: XXH3-128, 32 hexadecimal digits.
        rows: rows of a Parquet file.
        space: key of the space, for a file of vectors.
        text_columns: columns written as text because Parquet does not know their type: DuckDB's type by name.
    """

    name: str
    bytes: int
    xxh3: str
    rows: int = 0
    space: str = ""
    text_columns: dict[str, str] = field(default_factory=dict)

    @classmethod
    def describe(
        cls, folder: Path, name: str, *, rows: int = 0, space: str = "", text_columns: dict[str, str] | None = None
    ) -> ArchiveFile:
        """Describe a file that was written."""
        path = folder / name
        return cls(name, path.stat().st_size, durable_files.file_xxh3(path), rows, space, text_columns or {})

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> ArchiveFile:
        """Read what :meth:`to_json` returned.

        Raises:
            ValueError: if the name leaves the archive.
            TypeError: if a value has another type.
            KeyError: if a value is missing.
        """
        file = cls(*(facts[k] for k in ("name", "bytes", "xxh3", "rows", "space", "text")))
        parts = file.name.split("/")
        if not PurePosixPath(file.name).parts or "\\" in file.name or {"", ".", ".."} & set(parts):
            raise ValueError(f"it names {file.name!r}")
        if not all(isinstance(n, int) and n >= 0 for n in (file.bytes, file.rows)):
            raise TypeError(f"impossible size of {file.name}")
        if not isinstance(file.text_columns, dict):
            raise TypeError(f"impossible columns of {file.name}")
        return file

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "name": self.name, "bytes": self.bytes, "xxh3": self.xxh3, "rows": self.rows, "space": self.space,
            "text": self.text_columns,
        }  # fmt: skip

    def verify(self, folder: Path) -> Path:
        """Compare the size and checksum of the file with the manifest, and return its path.

        Raises:
            StoreDamaged: if the file is missing, is not a regular file, or has another size or checksum.
            StoreUnreadable: if the file cannot be read now.
        """
        path = folder / self.name
        if reading.is_link(path) or not reading.is_file(path):
            raise StoreDamaged(f"{path} belongs to the export and is missing; export the store again")
        with reading.read_errors(path):
            if path.stat().st_size != self.bytes or durable_files.file_xxh3(path) != self.xxh3:
                raise StoreDamaged(f"{path} has another size or checksum than at export; export the store again")
        return path


@dataclass(frozen=True)
class ArchiveManifest:
    """The content of ``export.json``.

    Attributes:
        store_id: id of the store that was exported.
        created: time of the export, ISO 8601, UTC.
        tables: one Parquet file per table, by its name.
        vectors: Parquet files of vectors, in the order of their rows.
        files: files of heads and checkpoints, copied as they are.
    """

    store_id: str
    created: str
    tables: dict[str, ArchiveFile]
    vectors: list[ArchiveFile]
    files: list[ArchiveFile]

    @property
    def all_files(self) -> list[ArchiveFile]:
        """Every file of the archive but ``export.json``."""
        return [*self.tables.values(), *self.vectors, *self.files]

    @property
    def row_counts(self) -> dict[str, int]:
        """Rows per table, and the number of ``vectors``."""
        counts = {name: file.rows for name, file in self.tables.items() if name != "counters"}
        return counts | {"vectors": sum(file.rows for file in self.vectors)}

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "format": ARCHIVE_FORMAT_VERSION,
            "store": self.store_id,
            "made": self.created,
            "tables": {name: file.to_json() for name, file in self.tables.items()},
            "vectors": [file.to_json() for file in self.vectors],
            "files": [file.to_json() for file in self.files],
        }

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> ArchiveManifest:
        """Read what :meth:`to_json` returned.

        Raises:
            ValueError: if a table is missing, or a file is in a folder where none belongs.
            TypeError: if a value has another type.
            KeyError: if a value is missing.
        """
        tables = {str(name): ArchiveFile.from_json(file) for name, file in facts["tables"].items()}
        vectors, files = ([ArchiveFile.from_json(file) for file in facts[k]] for k in ("vectors", "files"))
        if set(ARCHIVED_TABLES) - LATER_TABLES - tables.keys() or tables.keys() - set(ARCHIVED_TABLES):
            raise ValueError(f"its tables are {', '.join(tables)}")
        if any(file.name != f"{name}.parquet" for name, file in tables.items()):
            raise ValueError("a table has another file")
        if any(not _VECTOR_FILE.fullmatch(file.name) for file in vectors):
            raise ValueError("it names a file of vectors in another folder")
        if any(file.name.split("/")[0] not in COPIED_FOLDERS for file in files):
            raise ValueError("it names a file that belongs neither to a head nor to a checkpoint")
        return cls(str(facts["store"]), str(facts["made"]), tables, vectors, files)


def read_manifest(folder: Path) -> ArchiveManifest:
    """Read the manifest of an archive.

    Args:
        folder: the archive.

    Raises:
        StoreNotFound: if there is nothing at ``folder``.
        NotAStore: if the folder has no ``export.json``.
        StoreTooNew: if a later version wrote it.
        StoreDamaged: if it is not what an export holds.
        StoreUnreadable: if it cannot be read now.
        UnsafeStore: if the archive holds links, named pipes, sockets or devices.
    """
    path = folder / MANIFEST_FILE
    if not reading.exists(folder):
        raise StoreNotFound(f"there is no export at {folder}; make one with `embedstore export STORE FOLDER`")
    if not reading.is_link(path) and not reading.is_file(path):
        raise NotAStore(
            f"{folder} is no export: it has no {MANIFEST_FILE}; `embedstore export STORE FOLDER` writes one, and "
            "`embedstore embed STORE --vectors FILE.npy --table FILE` adds other vectors"
        )
    require_regular_entries(folder, ("",), cure="export the store again")
    try:
        with reading.read_errors(path):
            data = read_bounded(path, MAX_MANIFEST_BYTES)
        facts = parse_json_object(data)
        if not isinstance(facts["format"], int) or facts["format"] > ARCHIVE_FORMAT_VERSION:
            raise StoreTooNew(
                f"{folder} has export format {facts['format']}, this embedstore reads up to {ARCHIVE_FORMAT_VERSION}; "
                "run `pip install -U embedstore`"
            )
        return ArchiveManifest.from_json(facts)
    except StoreError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise StoreDamaged(f"{path} is damaged ({type(e).__name__}: {e}); export the store again") from e


def changed_heads(root: Path, heads: list[tuple[str, str]]) -> list[str]:
    """Return the heads whose files in a folder are missing or others than the catalog says.

    Args:
        root: folder of the archive or store.
        heads: name and facts of each head, as in the table ``heads``.

    Raises:
        StoreDamaged: if a name is not that of a folder, or the facts are not those of a head.
    """
    return [name for name, facts in heads if _is_changed(root, name, facts)]


def _is_changed(root: Path, name: str, facts: str) -> bool:
    """Return whether the files of a head are missing or others than its facts say."""
    try:
        if not _HEAD_NAME.fullmatch(name):
            raise ValueError("it is not the name of a folder")
        digest = parse_json_object(facts)["digest"]
    except (ValueError, TypeError, KeyError) as e:
        raise StoreDamaged(f"{root} does not describe head {name!r:.80} ({e}); export the store again") from e
    path = root / "heads" / name / "head.json"
    if not reading.is_file(path) or path.stat().st_size > MAX_HEAD_BYTES:
        return True
    return bool(durable_files.file_sha256(path) != digest)
