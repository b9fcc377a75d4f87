"""The tables of format 1."""

from __future__ import annotations

import duckdb

_TABLES = """
CREATE TABLE cat."schema" (migration INTEGER, name VARCHAR, applied TIMESTAMP);
CREATE TABLE cat.spaces (
    space VARCHAR, name VARCHAR, current BOOLEAN, dim INTEGER, dtype VARCHAR, recipe JSON, facts JSON,
    created TIMESTAMP);
CREATE TABLE cat.contents (content UUID, bytes BIGINT, width INTEGER, height INTEGER, format VARCHAR);
CREATE TABLE cat.items (
    item BIGINT, uri VARCHAR, content UUID, label VARCHAR, split VARCHAR, group_id VARCHAR,
    size BIGINT, mtime_ns BIGINT, present BOOLEAN, added TIMESTAMP, path BLOB);
CREATE TABLE cat.vectors (space VARCHAR, content UUID, shard BIGINT, "row" INTEGER);
CREATE TABLE cat.shards (
    space VARCHAR, shard BIGINT, "rows" BIGINT, bytes BIGINT, checksum VARCHAR, written TIMESTAMP);
CREATE TABLE cat.failures (
    uri VARCHAR, reason VARCHAR, detail VARCHAR, size BIGINT, mtime_ns BIGINT, decoder VARCHAR, space VARCHAR,
    failed TIMESTAMP, path BLOB);
CREATE TABLE cat.heads (head VARCHAR, space VARCHAR, label VARCHAR, kind VARCHAR, facts JSON, created TIMESTAMP);
CREATE TABLE cat.predictions (head VARCHAR, item BIGINT, label VARCHAR, score DOUBLE);
CREATE TABLE cat.runs (
    run BIGINT, verb VARCHAR, space VARCHAR, settings JSON, result JSON, started TIMESTAMP, seconds DOUBLE);
CREATE TABLE cat.counters (next_item BIGINT, next_shard BIGINT, next_run BIGINT);
INSERT INTO cat.counters VALUES (1, 1, 1);
"""

# Uniqueness (of a uri, of a vector's space and content) is the single writer's duty: an index over a billion rows
# costs more than every other part of a commit, and DuckDB rebuilds it at each open.


def up(con: duckdb.DuckDBPyConnection) -> None:
    """Create the tables."""
    con.execute(_TABLES)
