"""Bring a copy up to date: what the servers hold is compared with the store, and the difference is written."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadOption, ReplicaError
from embedstore.replicas.replica import Replica, ReplicaRows, ReplicaTable
from embedstore.replicas.servers import open_server, parse_server, place_of_server
from embedstore.replicas.state import ReplicaFiles, ReplicaState, read_state, require_name, write_state
from embedstore.storage import disk_errors, durable_files, lock
from embedstore.storage.layout import DERIVED_LOCK, read_marker
from embedstore.storage.queries import counters, replicas
from embedstore.storage.queries.search import item_columns, require_item_column
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.storage.vectors import VectorReader
from embedstore.tables import OneRow

SAMPLE_ROWS = 1000  # that a check compares
MIN_COSINE = 0.999  # of a vector and its copy in half precision


@dataclass(frozen=True)
class ReplicateOptions:
    """Where and what to copy.

    Attributes:
        addresses: the addresses of the servers, of which each holds a part of the contents. Empty means those of last
            time.
        name: the name of the copy.
        columns: the columns to copy with the vectors; None means those of the last call.
        check: compare in place of writing.
    """

    addresses: tuple[str, ...] = ()
    name: str = "embedstore"
    columns: tuple[str, ...] | None = None
    check: bool = False


@dataclass(frozen=True)
class ReplicaReport(OneRow):
    """What a copy holds, and what was written.

    Attributes:
        name: the name of the copy.
        space: the name of the space.
        servers: the addresses, without passwords.
        rows: rows that the copy has to hold.
        written: rows that were inserted or replaced.
        deleted: rows that were deleted.
        generation: the generation of the store.
        checked: rows whose vectors were compared.
        problems: what a check found, one sentence each.
    """

    name: str
    space: str
    servers: list[str]
    rows: int
    written: int = 0
    deleted: int = 0
    generation: int = 0
    checked: int = 0
    problems: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Return one line for a person."""
        where = f"replica {self.name} of space {self.space} at {', '.join(self.servers)}"
        if self.problems:
            return f"{where}: {'; '.join(self.problems)}"
        if self.checked:
            return f"{where}: {self.rows:,} rows, {self.checked:,} vectors compared, no difference"
        return f"{where}: {self.rows:,} rows, {self.written:,} written, {self.deleted:,} deleted"


def replicate(
    storage: Storage,
    space: SpaceRecord,
    options: ReplicateOptions,
    progress: Callable[[str], None] = lambda _: None,
    *,
    wait: float,
) -> ReplicaReport:
    """Bring a copy up to date, or compare it with the store.

    Each batch is one transaction of the server. A run that ends early goes on where it was: the next one compares what
    the servers hold.

    Args:
        storage: the store.
        space: the space.
        options: where and what.
        progress: called with one line per step.
        wait: seconds to wait for another process that is writing a copy of this space.

    Raises:
        StoreBusy: if another process is still writing a copy of this space after ``wait`` seconds.
        ReplicaError: if a server cannot be used, or its table belongs to something else.
        UnknownColumn: if the items lack a column.
        BadOption: if no address was ever given, or the name cannot be one.
        MissingExtra: if the client of the database is not installed.
    """
    folder = storage.layout.replicas_folder(space.key)
    with disk_errors.disk_errors(f"write {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    with lock.writer_lock(folder / DERIVED_LOCK, f"replicate {options.name}", wait=wait), ExitStack() as stack:
        target = _Target.open(storage, space, options, stack)
        with storage.catalog.read() as con:
            rows = replicas.stage_space(con, space.key, list(target.table.columns))
            generation = counters.read_commit_count(con)
            vectors = storage.vector_reader_in(con, space.space).map_shards()
        stack.callback(replicas.drop_staged, storage.catalog.scratch)
        run = _ReplicaRun(storage, target, vectors, progress)
        report = replace(target.report(space), rows=rows, generation=generation)
        return run.check(report) if options.check else run.write(report)


@dataclass(frozen=True)
class _Target:
    """The servers of a copy, connected."""

    table: ReplicaTable
    servers: tuple[dict[str, str], ...]
    connections: tuple[Replica, ...]
    files: ReplicaFiles

    @classmethod
    def open(cls, storage: Storage, space: SpaceRecord, options: ReplicateOptions, stack: ExitStack) -> _Target:
        """Connect to every server."""
        files = ReplicaFiles(storage.layout.replicas_folder(space.key), require_name(options.name))
        known = _known_state(storage, space, options)
        given = [parse_server(address) for address in options.addresses]
        servers = tuple(settings for settings, _ in given) or (known.servers if known else ())
        if not servers:
            raise BadOption("name the address of a vector database, such as postgresql://USER@HOST/DATABASE")
        passwords = [password for _, password in given] or [None] * len(servers)
        table = ReplicaTable(
            options.name,
            read_marker(storage.layout)["id"],
            space.key,
            space.space.dim,
            _columns(storage, options, known),
            known.writer if known else uuid.uuid4().hex,
        )
        connections = []
        for settings, password in zip(servers, passwords, strict=True):
            connection = open_server(settings, table, password)
            stack.callback(connection.close)
            connection.require(table) if options.check else connection.ensure(table)
            connections.append(connection)
        return cls(table, servers, tuple(connections), files)

    def report(self, space: SpaceRecord) -> ReplicaReport:
        """Return an empty report."""
        return ReplicaReport(self.table.name, space.name, [place_of_server(s) for s in self.servers], 0)


def _known_state(storage: Storage, space: SpaceRecord, options: ReplicateOptions) -> ReplicaState | None:
    """Return what is known of the copy from last time, or None."""
    try:
        return read_state(storage.layout, space.key, options.name)[0]
    except ReplicaError:
        return None


def _columns(storage: Storage, options: ReplicateOptions, known: ReplicaState | None) -> dict[str, str]:
    """Return the columns that go with the vectors, with their DuckDB types."""
    if options.columns is None:
        return known.columns if known else {}
    with storage.catalog.read() as con:
        types = item_columns(con)
    names = [require_item_column(name, types) for name in options.columns]
    taken = {"item", "content", "print", "embedding"} & {name.lower() for name in names}
    if taken:
        raise BadOption(f"the table of a replica has a column {sorted(taken)[0]} of its own; leave it out of --columns")
    return {name: types[name] for name in dict.fromkeys(names)}


@dataclass(frozen=True)
class _ReplicaRun:
    """One run: the staged space, and the servers."""

    storage: Storage
    target: _Target
    vectors: VectorReader
    progress: Callable[[str], None]

    def write(self, report: ReplicaReport) -> ReplicaReport:
        """Write what is different to every server."""
        con, count = self.storage.catalog.scratch, len(self.target.connections)
        written = deleted = 0
        for n, server in enumerate(self.target.connections):
            held = server.rows()
            replicas.stage_server(con, n, held.items, held.contents, held.prints)
            surplus = replicas.surplus_items(con, n, count)
            for first in range(0, len(surplus), replicas.CHUNK_ROWS):
                server.drop(surplus[first : first + replicas.CHUNK_ROWS])
            deleted += len(surplus)
            for changed in replicas.changed_rows(con, n, count, len(self.target.table.columns)):
                rows = ReplicaRows(changed.items, changed.contents, changed.prints)
                server.put(rows, self._unit_vectors(changed.shards, changed.rows), changed.columns)
                written += len(changed.items)
                self.progress(f"{server.place}: {written:,} rows written")
            self.progress(f"{server.place}: building what makes searches fast")
            if note := server.build_note():
                self.progress(f"{server.place}: {note}")
            server.finish()
        self._remember(report)
        return replace(report, written=written, deleted=deleted)

    def check(self, report: ReplicaReport) -> ReplicaReport:
        """Compare counts and sampled vectors."""
        problems = []
        found = sum(server.count() for server in self.target.connections)
        if found != report.rows:
            problems.append(f"it has {found:,} rows, the store {report.rows:,}")
        sample = replicas.sample_held(self.storage.catalog.scratch, SAMPLE_ROWS)
        copies: dict[int, NDArray[np.float32]] = {}
        for server in self.target.connections:
            copies |= server.vectors(sample.items)
        vectors = self._unit_vectors(sample.shards, sample.rows)
        missing = [item for item in sample.items.tolist() if item not in copies]
        pairs = zip(sample.items.tolist(), vectors, strict=True)
        wrong = [item for item, v in pairs if item in copies and float(copies[item] @ v) < MIN_COSINE]
        if missing:
            problems.append(
                f"{len(missing):,} of {len(sample.items):,} sampled items are missing, such as {missing[0]}"
            )
        if wrong:
            problems.append(f"{len(wrong):,} of {len(sample.items):,} sampled vectors differ, such as item {wrong[0]}")
        return replace(report, checked=len(sample.items), problems=problems)

    def _unit_vectors(self, shards: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return vectors, scaled to length 1: float32 ``(n, dim)``."""
        vectors = self.vectors.read_float32(self.vectors.positions(shards, rows))
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        unit: NDArray[np.float32] = (vectors / lengths).astype(np.float32)
        return unit

    def _remember(self, report: ReplicaReport) -> None:
        """Write down what the servers hold now."""
        files, table = self.target.files, self.target.table
        with disk_errors.disk_errors(f"write {files.held}"), durable_files.atomic_path(files.held) as path:
            replicas.write_held(self.storage.catalog.scratch, path)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_state(
            files,
            ReplicaState(
                table.name,
                self.target.servers[0]["kind"],
                self.target.servers,
                table.columns,
                table.writer,
                report.rows,
                report.generation,
                now,
            ),
        )


def connect(state: ReplicaState, table: ReplicaTable) -> Sequence[Replica]:
    """Connect to every server of a copy, and require that its table is the one that was written.

    Raises:
        ReplicaError: if a server cannot be used, or its table is another one.
        MissingExtra: if the client of the database is not installed.
    """
    connections: list[Replica] = []
    try:
        for settings in state.servers:
            connections.append(open_server(settings, table))
            connections[-1].require(table)
    except BaseException:
        for connection in connections:
            connection.close()
        raise
    return connections
