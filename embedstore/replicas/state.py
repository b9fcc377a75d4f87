"""What the store knows of its copies: a description and the rows that each holds, in files of the space."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedstore.errors import BadOption, ReplicaError
from embedstore.storage import disk_errors, durable_files, reading
from embedstore.storage.layout import Layout
from embedstore.storage.storage import Storage
from embedstore.storage.store_files import read_json_object

FORMAT = 1
_NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")
_TEXTS = ("name", "kind", "writer", "written")


@dataclass(frozen=True)
class ReplicaState:
    """What is known of a copy.

    Attributes:
        name: its name.
        kind: the vector database: ``pgvector``.
        servers: the settings of the connection to each server, without passwords; a content belongs to one of them.
        columns: the DuckDB type of each column that goes with the vectors, by name.
        writer: the id of this copy of the store, which the servers record.
        rows: how many rows it holds.
        generation: the generation of the store, when it was written.
        written: when, ISO 8601, UTC.
    """

    name: str
    kind: str
    servers: tuple[dict[str, str], ...]
    columns: dict[str, str]
    writer: str
    rows: int
    generation: int
    written: str


@dataclass(frozen=True)
class ReplicaFiles:
    """The files of one copy.

    Attributes:
        folder: the folder of the copies of a space.
        name: the name of the copy.
    """

    folder: Path
    name: str

    @property
    def state(self) -> Path:
        """The description."""
        return self.folder / f"{self.name}.json"

    @property
    def held(self) -> Path:
        """The items that the copy holds, with their contents."""
        return self.folder / f"{self.name}.parquet"


@dataclass(frozen=True)
class ReplicaInfo:
    """A copy of a space in a vector database as ``info`` shows it.

    Attributes:
        name: its name.
        space: the name of the space.
        kind: the vector database.
        servers: how many servers hold a part of it.
        rows: how many rows it holds.
        behind: how many changes of the store it lacks.
        written: when it was written, ISO 8601, UTC.
    """

    name: str
    space: str
    kind: str
    servers: int
    rows: int
    behind: int
    written: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def require_name(name: str) -> str:
    """Return a name of a copy, which is also that of a table.

    Raises:
        BadOption: if it cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise BadOption(f"{name!r:.60} cannot be the name of a replica: use up to 50 of a-z, 0-9 and _, a letter first")
    return name


def forget_held_rows(storage: Storage) -> list[str]:
    """Remove the lists of what copies hold, which name contents; the descriptions stay.

    Returns:
        Which copies still hold rows, one sentence each.

    Raises:
        StoreIOError: if the disk fails.
    """
    notices = []
    for space in storage.spaces():
        folder = storage.layout.replicas_folder(space.key)
        for path in reading.list_folder(folder, "*.parquet*"):
            with disk_errors.disk_errors(f"remove {path}"):
                path.unlink()
        notices += [
            f"replica {state.name} still holds what was purged, until `embedstore replicate STORE --name {state.name}`"
            for state in list_states(storage.layout, space.key)
        ]
    return notices


def read_state(layout: Layout, space: str, name: str) -> tuple[ReplicaState, ReplicaFiles]:
    """Return what is known of a copy, whose file may be anybody's.

    Raises:
        BadOption: if the name cannot be one.
        ReplicaError: if there is no such copy, or its description cannot be used.
        StoreUnreadable: if a file cannot be read now.
    """
    files = ReplicaFiles(layout.replicas_folder(space), require_name(name))
    if not reading.exists(files.state):
        known = [path.stem for path in reading.list_folder(files.folder, "*.json")]
        raise ReplicaError(
            f"there is no replica {name} of this space ({', '.join(known) or 'none'} is known here); make it with "
            "`embedstore replicate STORE ADDRESS --name NAME`"
        )
    try:
        with reading.read_errors(files.state):
            values = read_json_object(files.state)
        return _parse(values), files
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ReplicaError(
            f"{files.state} cannot be used ({type(e).__name__}); run `embedstore replicate STORE ADDRESS --name NAME`"
        ) from e


def write_state(files: ReplicaFiles, state: ReplicaState) -> None:
    """Replace the description of a copy.

    Raises:
        StoreIOError: if the disk is full or fails.
    """
    with disk_errors.disk_errors(f"write {files.state}"):
        files.folder.mkdir(parents=True, exist_ok=True)
        durable_files.write_synced(files.state, json.dumps({"format": FORMAT} | asdict(state), indent=1).encode())


def list_replicas(storage: Storage) -> list[ReplicaInfo]:
    """Return facts on every copy of every space."""
    now = storage.catalog.commit_count()
    return [
        ReplicaInfo(
            name=state.name,
            space=space.name,
            kind=state.kind,
            servers=len(state.servers),
            rows=state.rows,
            behind=now - state.generation,
            written=state.written,
        )
        for space in storage.spaces()
        for state in list_states(storage.layout, space.key)
    ]


def list_states(layout: Layout, space: str) -> list[ReplicaState]:
    """Return every copy of a space that can be used, by name."""
    states = []
    for path in reading.list_folder(layout.replicas_folder(space), "*.json"):
        try:
            states.append(_parse(read_json_object(path)))
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            continue  # `search --replica` says what is wrong with it
    return sorted(states, key=lambda state: state.name)


def _parse(values: dict[str, Any]) -> ReplicaState:
    """Return a state; raise ValueError, KeyError or TypeError if a value is not one that embedstore writes."""
    if values["format"] != FORMAT or not values["servers"]:
        raise ValueError("another format")
    texts = [values[name] for name in _TEXTS]
    settings = [text for server in values["servers"] for pair in server.items() for text in pair]
    columns = [text for pair in values["columns"].items() for text in pair]
    if not all(isinstance(text, str) for text in (*texts, *settings, *columns)):
        raise TypeError("a text is missing")
    if any(type(values[name]) is not int for name in ("rows", "generation")):
        raise TypeError("a number is missing")
    return ReplicaState(
        values["name"],
        values["kind"],
        tuple(dict(server) for server in values["servers"]),
        dict(values["columns"]),
        values["writer"],
        values["rows"],
        values["generation"],
        values["written"],
    )
