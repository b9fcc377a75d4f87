"""A copy of a space in PostgreSQL with pgvector: half-precision vectors, an HNSW index, exact where few rows match."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import MissingExtra, ReplicaError
from embedstore.replicas.pgvector_condition import condition_sql
from embedstore.replicas.replica import ReplicaRows, ReplicaTable
from embedstore.storage.portable_filter import Condition
from embedstore.storage.quoting import quote_identifier as quote

CONNECT_SECONDS = 10
META = "embedstore_replicas"
MAX_INDEX_DIM = 4000  # of halfvec in an HNSW index of pgvector 0.8
_LINK_BYTES = 700  # of a row in an HNSW graph that is being built, besides its vector: 32 links of 16 bytes, and facts
MAX_EF_SEARCH = 1000
MAX_SCAN_TUPLES = 1_000_000
LIST_ITEMS = 20_000  # items of an allow-list in a query; more go through a temporary table
_KEPT = ("host", "port", "dbname", "user", "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout")
_TYPES = {
    "VARCHAR": "text", "BIGINT": "bigint", "INTEGER": "bigint", "SMALLINT": "bigint", "TINYINT": "bigint",
    "DOUBLE": "double precision", "FLOAT": "double precision", "BOOLEAN": "boolean", "DATE": "date",
    "TIMESTAMP": "timestamp",
}  # fmt: skip
# a machine that vanishes is noticed after a minute; the system's own limits are hours
_SIGNS_OF_LIFE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
_WRITES = ("prepare", "write to", "index")
_CURES = (
    ("password|authentication|no pg_hba", "set $PGPASSWORD or ~/.pgpass for this user"),
    ('role ".*" does not exist', "check the user in the address"),
    ('database ".*" does not exist', "check the database in the address, or create it"),
    ("permission denied", "let its administrator grant this user the right to create and change tables"),
    (
        "vector type not found|extension .*vector|type .*(vector|halfvec).* does not exist",
        "install pgvector on the server, or let its administrator run CREATE EXTENSION vector",
    ),
)
_COPY_TYPES = {"bigint": "int8", "double precision": "float8", "boolean": "bool"}


def import_psycopg() -> Any:
    """Return the package psycopg, with pgvector's types.

    Raises:
        MissingExtra: if one of them is not installed.
    """
    try:
        import pgvector.psycopg  # noqa: F401 - it is used where rows are sent
        import psycopg
    except ImportError as e:
        raise MissingExtra("psycopg and pgvector are not installed; run `pip install 'embedstore[pgvector]'`") from e
    return psycopg


def parse_address(address: str) -> tuple[dict[str, Any], str | None]:
    """Return the settings of an address that may be stored, and its password.

    Raises:
        ReplicaError: if it is no address of PostgreSQL.
        MissingExtra: if psycopg is not installed.
    """
    psycopg = import_psycopg()
    try:
        given = psycopg.conninfo.conninfo_to_dict(address)
    except psycopg.Error:
        raise ReplicaError(
            "the address is no URL of PostgreSQL; write it as postgresql://USER@HOST:PORT/DATABASE, with the password "
            "in $PGPASSWORD or ~/.pgpass"
        ) from None  # the message of the parser may hold the password
    return {name: str(given[name]) for name in _KEPT if name in given}, given.get("password")


def place_of(settings: dict[str, Any]) -> str:
    """Return the address of stored settings, without a password."""
    host, port = settings.get("host", ""), settings.get("port")
    user = f"{settings['user']}@" if settings.get("user") else ""
    name = settings.get("dbname", "")
    if host.startswith("/"):
        return f"postgresql://{user}/{name}?host={host}"
    return f"postgresql://{user}{host}{f':{port}' if port else ''}/{name}"


class PgvectorReplica:
    """One server.

    Args:
        settings: the settings of the connection, without a password.
        table: the copy.
        password: None takes it from $PGPASSWORD or ~/.pgpass.

    Raises:
        ReplicaError: if the server cannot be reached, refuses, or lacks pgvector.
        MissingExtra: if psycopg is not installed.
    """

    def __init__(self, settings: dict[str, Any], table: ReplicaTable, password: str | None = None) -> None:
        self.place = place_of(settings)
        self._psycopg = import_psycopg()
        self._table = table
        self._types = [_TYPES.get(kind.split("(")[0], "text") for kind in table.columns.values()]
        settings = {name: settings[name] for name in _KEPT if name in settings}  # whatever a store names
        secret = {} if password is None else {"password": password}
        with self._errors("connect to"):
            # a server that a store names never gets a password in clear text
            limits = {"connect_timeout": CONNECT_SECONDS} | _SIGNS_OF_LIFE
            options = limits | settings | {"require_auth": "!password"} | secret
            self._con = self._psycopg.connect(**options, autocommit=True)

    def ensure(self, table: ReplicaTable) -> None:
        """Make the table, if there is none; see :class:`~embedstore.replicas.replica.Replica`."""
        with self._errors("prepare"):
            self._con.execute("CREATE EXTENSION IF NOT EXISTS vector")
            self._con.execute(
                f"CREATE TABLE IF NOT EXISTS {META} (name text PRIMARY KEY, store text, space text, dim int, "
                "columns text, writer text)"
            )
            self._register()
            found = self._described()
            if found is None and self._con.execute("SELECT to_regclass(%s)", [quote(table.name)]).fetchone() != (None,):
                raise self._other("is not one that embedstore made", table)
            columns = list(table.columns)
            if found is None:
                own = "".join(f", {quote(n)} {kind}" for n, kind in zip(columns, self._types, strict=True))
                with self._con.transaction():
                    self._con.execute(
                        f"CREATE TABLE {quote(table.name)} (item bigint PRIMARY KEY, content text NOT NULL, print "
                        f"bigint, embedding halfvec({table.dim}) NOT NULL{own})"
                    )
                    self._con.execute(f"DELETE FROM {META} WHERE name = %s", [table.name])  # of a table that is gone
                    self._con.execute(
                        f"INSERT INTO {META} VALUES (%s, %s, %s, %s, %s, %s)",
                        [table.name, table.store, table.space, table.dim, "\n".join(columns), table.writer],
                    )
                return
            self._require_same(found, table)
            if found[3] != "\n".join(columns):
                raise self._other(f"has the columns {found[3].split()}, not {columns}", table)
            self._con.execute(f"UPDATE {META} SET writer = %s WHERE name = %s", [table.writer, table.name])

    def require(self, table: ReplicaTable) -> None:
        """Require that the table is the one that was written."""
        with self._errors("read"):
            found = self._described()
            if found is None:
                raise ReplicaError(
                    f"{self.place} has no table {table.name} any more; run `embedstore replicate STORE ADDRESS --name "
                    f"{table.name}`"
                )
            self._require_same(found, table)
            if found[4] != table.writer:
                raise self._other(
                    "was written from another copy of the store since", table, "run it again to replace it"
                )
            self._register()

    def rows(self) -> ReplicaRows:
        """Return what the table holds."""
        items, contents, prints = [], [], []
        with self._errors("read"), self._con.transaction(), self._con.cursor(name="rows") as cursor:
            cursor.itersize = 50_000
            cursor.execute(f"SELECT item, content, print FROM {self._name}")
            for item, content, fingerprint in cursor:
                items.append(item)
                contents.append(content)
                prints.append(fingerprint)
        return ReplicaRows(np.array(items, np.int64), contents, np.array(prints, np.int64))

    def put(self, rows: ReplicaRows, vectors: NDArray[np.float32], columns: Sequence[Sequence[Any]]) -> None:
        """Insert rows, or replace those of the same items, in one transaction."""
        from pgvector import HalfVector

        names = "".join(f", {quote(n)}" for n in self._table.columns)
        types = ["int8", "text", "int8", "halfvec", *(_COPY_TYPES.get(t, t) for t in self._types)]
        with self._errors("write to"), self._con.transaction(), self._con.cursor() as cursor:
            cursor.execute(f"DELETE FROM {self._name} WHERE item = ANY(%s)", [rows.items.tolist()])
            statement = f"COPY {self._name} (item, content, print, embedding{names}) FROM STDIN WITH (FORMAT BINARY)"
            with cursor.copy(statement) as copy:
                copy.set_types(types)
                for n, item in enumerate(rows.items.tolist()):
                    own = [_plain(value, t) for value, t in zip(columns[n], self._types, strict=True)]
                    copy.write_row((item, rows.contents[n], int(rows.prints[n]), HalfVector(vectors[n]), *own))

    def drop(self, items: NDArray[np.int64]) -> None:
        """Delete rows."""
        with self._errors("write to"):
            self._con.execute(f"DELETE FROM {self._name} WHERE item = ANY(%s)", [items.tolist()])

    def finish(self) -> None:
        """Build the HNSW index if it is missing, and let the server count."""
        with self._errors("index"):
            if self._table.dim <= MAX_INDEX_DIM:
                self._con.execute(
                    f"CREATE INDEX IF NOT EXISTS {quote(self._table.name + '_hnsw')} ON {self._name} "
                    "USING hnsw (embedding halfvec_cosine_ops)"
                )
            self._con.execute(f"ANALYZE {self._name}")

    def build_note(self) -> str:
        """Return that the index is larger than the memory that the server builds it in; "" if it is not."""
        with self._errors("read"):
            is_built, memory = self._con.execute(
                "SELECT to_regclass(%s) IS NOT NULL, pg_size_bytes(current_setting('maintenance_work_mem'))",
                [quote(self._table.name + "_hnsw")],
            ).fetchone()
        rows = self.count()
        needed = rows * (2 * self._table.dim + _LINK_BYTES)
        if is_built or needed <= memory or self._table.dim > MAX_INDEX_DIM:
            return ""
        return (
            f"the index of {rows:,} rows takes about {-(-needed >> 20):,} MB, and the server has "
            f"{memory / (1 << 20):.3g} MB for building it (maintenance_work_mem), which takes much longer; "
            f'PGOPTIONS="-c maintenance_work_mem={1 + (needed >> 20)}MB" sets it for one run'
        )

    def count(self) -> int:
        """Return how many rows there are."""
        with self._errors("read"):
            return int(self._con.execute(f"SELECT count(*) FROM {self._name}").fetchone()[0])

    def vectors(self, items: NDArray[np.int64]) -> dict[int, NDArray[np.float32]]:
        """Return the vectors of some items, those that there are."""
        with self._errors("read"):
            found = self._con.execute(
                f"SELECT item, embedding FROM {self._name} WHERE item = ANY(%s)", [items.tolist()]
            ).fetchall()
        return {item: np.asarray(vector.to_numpy(), np.float32) for item, vector in found}

    def nearest(
        self, query: NDArray[np.float32], count: int, condition: Condition | None = None
    ) -> list[tuple[float, int]]:
        """Return ``(distance, item)`` of the nearest rows by the index, nearest first."""
        from pgvector import HalfVector

        where, values = condition_sql(condition, quote) if condition else ("true", [])
        with self._errors("search"), self._con.transaction():
            self._con.execute(f"SET LOCAL hnsw.ef_search = {max(40, min(count, MAX_EF_SEARCH))}")
            self._con.execute("SET LOCAL hnsw.iterative_scan = strict_order")  # else at most ef_search rows come back
            self._con.execute(f"SET LOCAL hnsw.max_scan_tuples = {MAX_SCAN_TUPLES}")
            vector = HalfVector(query)
            found = self._con.execute(
                f"SELECT embedding <=> %s AS d, item FROM {self._name} WHERE {where} "
                "ORDER BY embedding <=> %s LIMIT %s",
                [vector, *values, vector, count],
            ).fetchall()
        return [(float(d), int(item)) for d, item in found]

    def nearest_among(
        self, query: NDArray[np.float32], count: int, items: NDArray[np.int64]
    ) -> list[tuple[float, int]]:
        """Return ``(distance, item)`` of the nearest rows among some items, exactly."""
        from pgvector import HalfVector

        # an expression in place of the distance: no index answers it
        order = "ORDER BY (embedding <=> %s) + 0, item LIMIT %s"
        vector = HalfVector(query)
        with self._errors("search"), self._con.transaction():
            if len(items) <= LIST_ITEMS:
                found = self._con.execute(
                    f"SELECT embedding <=> %s, item FROM {self._name} WHERE item = ANY(%s) {order}",
                    [vector, items.tolist(), vector, count],
                ).fetchall()
            else:
                self._con.execute("CREATE TEMP TABLE wanted (item bigint PRIMARY KEY) ON COMMIT DROP")
                with self._con.cursor() as cursor, cursor.copy("COPY wanted FROM STDIN WITH (FORMAT BINARY)") as copy:
                    copy.set_types(["int8"])
                    for item in items.tolist():
                        copy.write_row((item,))
                found = self._con.execute(
                    f"SELECT embedding <=> %s, item FROM {self._name} JOIN wanted USING (item) {order}",
                    [vector, vector, count],
                ).fetchall()
        return [(float(d), int(item)) for d, item in found]

    def close(self) -> None:
        """Close the connection."""
        self._con.close()

    @property
    def _name(self) -> str:
        """The table, quoted."""
        return quote(self._table.name)

    def _register(self) -> None:
        """Teach the connection pgvector's types."""
        from pgvector.psycopg import register_vector

        register_vector(self._con)

    def _described(self) -> tuple[str, str, int, str, str] | None:
        """Return store, space, dim, columns and writer of the table, as the server records them, if it is there."""
        tables = [META, self._name]
        if None in self._con.execute("SELECT to_regclass(%s), to_regclass(%s)", tables).fetchone():
            return None
        row = self._con.execute(
            f"SELECT store, space, dim, columns, writer FROM {META} WHERE name = %s", [self._table.name]
        ).fetchone()
        return None if row is None else tuple(row)

    def _require_same(self, found: tuple[str, str, int, str, str], table: ReplicaTable) -> None:
        """Require that a table belongs to the store and space."""
        if found[0] != table.store:
            raise self._other("belongs to another store", table)
        if found[1] != table.space or found[2] != table.dim:
            raise self._other(f"holds another space, of dimension {found[2]} (this one has {table.dim})", table)

    def _other(self, problem: str, table: ReplicaTable, cure: str = "choose another --name") -> ReplicaError:
        """Return the error for a table that is not ours."""
        return ReplicaError(f"table {table.name} at {self.place} {problem}; {cure}")

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        """Report what the server or the driver says as one line."""
        try:
            yield
        except self._psycopg.Error as e:
            text = " ".join((e.diag.message_primary or str(e)).split()) or type(e).__name__
            raise ReplicaError(f"cannot {action} {self.place}: {text[:300]}; {_cure(text, action)}") from None


def _cure(message: str, action: str) -> str:
    """Return what a person can do about a message of the server."""
    for pattern, cure in _CURES:
        if re.search(pattern, message, re.IGNORECASE):
            return cure
    kept = ": what was written is kept" if action in _WRITES else ""
    return f"check the server, and run it again{kept}"


def _plain(value: Any, kind: str) -> Any:
    """Return a value as the type of its column takes it."""
    if value is None:
        return None
    if kind == "text":
        return str(value).replace("\x00", "")  # which PostgreSQL has no text for
    return int(value) if kind == "bigint" else float(value) if kind == "double precision" else value
