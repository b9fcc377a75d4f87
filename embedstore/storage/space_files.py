"""The file ``space.json`` of a space, from which a lost catalog is rebuilt; it has a checksum of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import duckdb

from embedstore.space import Recipe, Space
from embedstore.storage import durable_files, reading
from embedstore.storage.description_checksum import DESCRIPTION_CHECKSUM_KEY, check_description, dump_description
from embedstore.storage.layout import Layout, read_marker
from embedstore.storage.queries import space_rows
from embedstore.storage.shard import DTYPES
from embedstore.storage.store_files import read_json_object

MISSING = "it is missing"


@dataclass(frozen=True)
class SpaceFile:
    """What the file says, as the columns of the table ``spaces`` have it.

    Attributes:
        name: the name of the space.
        dtype: the type of the vectors on disk.
        facts: what the vectors mean, as JSON.
        recipe: how to load the backbone again, as JSON; None for precomputed vectors.
    """

    name: str
    dtype: str
    facts: str
    recipe: str | None

    def write(self, path: Path) -> None:
        """Replace the file.

        Raises:
            OSError: if the disk is full or fails; the file is as before.
        """
        durable_files.write_synced(path, dump_description(asdict(self), DESCRIPTION_CHECKSUM_KEY))

    @classmethod
    def read(cls, path: Path) -> SpaceFile:
        """Read the file; earlier versions wrote none of the checksums.

        Args:
            path: in the folder of the space.

        Raises:
            StoreUnreadable: if it cannot be read now.
            ValueError: if it does not match its checksum, or means another space than that of its folder.
            KeyError: if something is missing.
            TypeError: if a value is of another type.
            RecursionError: if it is nested too deeply.
        """
        with reading.read_errors(path):
            given = read_json_object(path)
        plain = check_description(given, DESCRIPTION_CHECKSUM_KEY, required=False)
        if unknown := plain.keys() - {f.name for f in fields(cls)}:
            raise ValueError(f"it has the entry {min(unknown)!r:.40}")
        found = cls(**{f.name: plain[f.name] for f in fields(cls)})
        found.require_usable(path.parent.name)
        return found

    @property
    def space(self) -> Space:
        """What the vectors mean."""
        return Space.from_json(self.facts)

    def require_usable(self, key: str) -> None:
        """Require that the values are those of a space with this key.

        Raises:
            ValueError: if they are those of another space, or its name or dtype cannot be one.
            KeyError: if something is missing.
            TypeError: if a value is of another type.
            RecursionError: if one is nested too deeply.
        """
        if not isinstance(self.name, str) or self.dtype not in DTYPES:
            raise ValueError("its name is no text, or its dtype is unknown")
        if self.recipe is not None:
            Recipe.from_json(self.recipe)
        if self.space.key != key:
            raise ValueError("its facts do not give the name of its folder")


def wrong_space_files(con: duckdb.DuckDBPyConnection, at: Layout) -> Iterator[tuple[Path, str]]:
    """Yield the files that are missing, damaged or say something else than the catalog, and what is wrong.

    A store of an earlier version, whose own description has no checksum, may have been made without these files.

    Args:
        con: a connection with the catalog.
        at: the store.

    Raises:
        StoreUnreadable: if a file cannot be read now.
    """
    may_lack_files = DESCRIPTION_CHECKSUM_KEY not in read_marker(at)
    for path, wanted in _wanted_files(con, at):
        problem = _problem(path, wanted)
        if problem and not (problem == MISSING and may_lack_files):
            yield path, problem


def unusable_space_files(at: Layout) -> Iterator[tuple[Path, str]]:
    """Yield the files that a lost catalog could not be rebuilt from, where the catalog itself cannot be read.

    Raises:
        StoreUnreadable: if a file or folder cannot be read now.
    """
    for folder in reading.list_folder(at.root / "spaces"):
        path = at.space_file(folder.name)
        if reading.exists(path) and (problem := _problem(path, None)):
            yield path, problem


def write_space_files(con: duckdb.DuckDBPyConnection, at: Layout) -> list[str]:
    """Write the files that are wrong or out of date as the catalog has them.

    Args:
        con: a connection with the catalog.
        at: the store; the caller holds the writer's lock.

    Returns:
        One sentence per file that was wrong.

    Raises:
        StoreUnreadable: if a file cannot be read now.
        OSError: if the disk is full or fails.
    """
    actions = []
    for path, wanted in _wanted_files(con, at):
        if problem := _problem(path, wanted):
            actions.append(f"{path.relative_to(at.root)}: {problem}; it was written again from the catalog")
        elif SpaceFile.read(path) == wanted:
            continue
        wanted.write(path)
    return actions


def _wanted_files(con: duckdb.DuckDBPyConnection, at: Layout) -> Iterator[tuple[Path, SpaceFile]]:
    """Yield the path of every space's file and what it should say, where the catalog itself is not damaged."""
    for key, name, dtype, facts, recipe in space_rows.space_descriptions(con):
        wanted = SpaceFile(name, dtype, facts, recipe)
        try:
            wanted.require_usable(key)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        yield at.space_file(key), wanted


def _problem(path: Path, wanted: SpaceFile | None) -> str:
    """Return what is wrong with a file, or ""; its name and recipe may be those of before a kill."""
    if not reading.exists(path):
        return MISSING
    try:
        found = SpaceFile.read(path)
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        return f"it cannot be used ({type(e).__name__}: {e})"
    if wanted is not None and (found.dtype, found.space) != (wanted.dtype, wanted.space):
        return "it says something else than the catalog"
    return ""
