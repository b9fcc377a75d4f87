"""Annotations in a private DuckDB: photos and regions come in any order, and leave as one row per photo or per box.

Memory is bounded; what does not fit spills to a temporary folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from embedstore.errors import BadAnnotations
from embedstore.media.image.crop import Box
from embedstore.sources.annotations.records import Photo, Record
from embedstore.sources.columns import CollectedColumns
from embedstore.sources.parts.part_uri import PartUri
from embedstore.sources.tables import ROW_COLUMN, InputTable
from embedstore.storage.quoting import quote_literal
from embedstore.storage.sql import fetch_value, object_array
from embedstore.temporary import temporary_folder
from embedstore.wording import counted

FLUSH_ROWS = 4096
CATEGORIES, CAPTIONS = "categories", "captions"  # columns: lists of text
_SCHEMA = """
    CREATE TABLE photos (n BIGINT, file BIGINT, key VARCHAR, uri VARCHAR, width DOUBLE, height DOUBLE, split VARCHAR);
    CREATE TABLE regions (n BIGINT, file BIGINT, key VARCHAR, x DOUBLE, y DOUBLE, width DOUBLE, height DOUBLE,
                          percent BOOLEAN, is_box BOOLEAN, label VARCHAR, caption VARCHAR, problem VARCHAR);
"""
# Of each region of a listed photo: the box as it lies in the photo, and why it is no crop.
_PLACED = """
    CREATE TABLE placed AS
    WITH sizes AS (SELECT uri, max(width) AS width, max(height) AS height FROM photos GROUP BY uri),
    keys AS (SELECT DISTINCT file, key, uri FROM photos),
    joined AS (
        SELECT r.*, keys.uri, CASE WHEN percent THEN 100 ELSE sizes.width END AS across,
               CASE WHEN percent THEN 100 ELSE sizes.height END AS down
        FROM regions r JOIN keys USING (file, key) JOIN sizes ON sizes.uri = keys.uri)
    SELECT *, CASE WHEN problem IS NOT NULL THEN problem
                   WHEN NOT is_box THEN NULL
                   WHEN round(width, 6) <= 0 OR round(height, 6) <= 0 THEN 'empty box'
                   WHEN x >= across OR y >= down OR x + width <= 0 OR y + height <= 0 THEN 'box outside its photo'
                   END AS reason,
           greatest(x, 0) AS x0, greatest(y, 0) AS y0,
           least(x + width, coalesce(across, 'inf')) AS x1, least(y + height, coalesce(down, 'inf')) AS y1
    FROM joined
"""
_CROWD = "crowd region"


class AnnotationTables:
    """Collects photos and regions, and makes the table of the items.

    Args:
        name: the name of the annotations, in messages.
    """

    def __init__(self, name: str) -> None:
        self.table = InputTable(name)
        self.skipped: Counter[str] = Counter()
        self._con = self.table.con
        self._con.execute(_SCHEMA)
        self._photos: list[tuple[Any, ...]] = []
        self._regions: list[tuple[Any, ...]] = []
        self._photo_columns, self._region_columns = CollectedColumns(), CollectedColumns()
        self._count = 0

    def add(self, file: int, records: Iterable[Record], path_of: Any) -> None:
        """Add what one file of annotations says.

        Args:
            file: its number.
            records: its photos and regions.
            path_of: returns the uri of a photo from its name.
        """
        for record in records:
            self._count += 1
            if isinstance(record, Photo):
                uri = path_of(record.name)
                self._photos.append((self._count, file, record.key, uri, record.width, record.height, record.split))
                self._photo_columns.add(uri, _renamed(record.columns))
            else:
                box = record.box or Box(0, 0, 0, 0)
                is_box = record.box is not None
                problem = record.problem or (_CROWD if is_box and record.is_crowd else None)
                self._regions.append((
                    self._count, file, record.photo, box.x, box.y, box.width, box.height, box.is_percent, is_box,
                    record.label, record.caption, problem,
                ))  # fmt: skip
                self._region_columns.add(str(self._count), _renamed(record.columns))
            if len(self._photos) + len(self._regions) >= FLUSH_ROWS:
                self._flush()

    def build(self, *, crops: bool) -> InputTable:
        """Create the table of the items, ``given``, and count what is none of them.

        Raises:
            BadAnnotations: if a key stands for two photos, or a photo is in two splits.
        """
        self._flush()
        self._check()
        self._con.execute(_PLACED)
        self._count_orphans(crops=crops)
        self._create_crops() if crops else self._create_photos()
        for name in (CATEGORIES, CAPTIONS):
            if not fetch_value(self._con, f"SELECT coalesce(bool_or(len({name}) > 0), false) FROM given"):
                self._con.execute(f"ALTER TABLE given DROP COLUMN {name}")
        return self.table

    def _flush(self) -> None:
        """Insert what was collected."""
        for table, rows in (("photos", self._photos), ("regions", self._regions)):
            if rows:
                chunk = {f"c{i}": object_array(values) for i, values in enumerate(zip(*rows, strict=True))}  # noqa: F841 - read by SQL
                self._con.execute(f"INSERT INTO {table} SELECT * FROM chunk")
                rows.clear()

    def _check(self) -> None:
        """Refuse what cannot be assigned."""
        double = self._con.execute(
            "SELECT key, list(DISTINCT uri ORDER BY uri)[:2] FROM photos GROUP BY file, key "
            "HAVING count(DISTINCT uri) > 1 ORDER BY min(n) LIMIT 1"
        ).fetchone()
        if double:
            raise BadAnnotations(
                f"{self.table.name}: the photos {' and '.join(double[1])} have the same id {double[0]}, so that boxes "
                "cannot be assigned; give each photo its own id"
            )
        mixed = self._con.execute(
            "SELECT uri, list(DISTINCT split ORDER BY split) FROM photos GROUP BY uri "
            "HAVING count(DISTINCT split) > 1 ORDER BY min(n) LIMIT 1"
        ).fetchone()
        if mixed:
            raise BadAnnotations(
                f"{self.table.name}: {mixed[0]} is in the splits {' and '.join(mixed[1])}; leave it in one of them, or "
                "take no splits with --splits-from none"
            )

    def _count_orphans(self, *, crops: bool) -> None:
        """Count the regions of photos that are not listed; they are found, and no items, only where boxes are."""
        what = "is_box OR problem IS NOT NULL" if crops else "true"
        orphans = fetch_value(
            self._con, f"SELECT count(*) FROM regions r ANTI JOIN photos p USING (file, key) WHERE {what}"
        )
        if orphans and crops:
            self.skipped["box of a photo that is not listed"] = orphans
        elif orphans:
            annotations = counted(orphans, "annotation is of a photo", "annotations are of photos")
            self.table.notices.append(f"{self.table.name}: {annotations} that it does not list")

    def _create_photos(self) -> None:
        """Create one row per photo."""
        several = fetch_value(
            self._con,
            "SELECT count(*) FROM (SELECT uri FROM placed WHERE label IS NOT NULL "
            "GROUP BY uri HAVING count(DISTINCT label) > 1)",
        )
        if several:
            self.table.notices.append(
                f"{self.table.name}: {counted(several, 'photo shows', 'photos show')} objects of several classes, so "
                f"that photos have no label; their classes are in the column {CATEGORIES}"
            )
        self._create_given(
            "SELECT uri, min(n) AS n, NULL AS photo, max(split) AS split FROM photos GROUP BY uri",
            "SELECT uri, label, caption, n FROM placed",
            self._photo_columns,
            column_key="p.uri",
            label="NULL" if several else "min(r.label)",
        )

    def _create_crops(self) -> None:
        """Create one row per different box."""
        self.skipped.update(
            dict(
                self._con.execute("SELECT reason, count(*) FROM placed WHERE reason IS NOT NULL GROUP BY 1").fetchall()
            )
        )
        self._con.execute("CREATE TABLE crops (uri VARCHAR, photo VARCHAR, n BIGINT, label VARCHAR)")
        con = self._con.cursor()
        found = con.execute(
            "SELECT uri, n, label, x0, y0, x1 - x0, y1 - y0, percent FROM placed "
            "WHERE is_box AND reason IS NULL ORDER BY n"
        )
        boxes = 0
        while rows := found.fetchmany(FLUSH_ROWS):
            boxes += len(rows)
            uris = [str(PartUri(uri, Box(x, y, w, h, percent))) for uri, _, _, x, y, w, h, percent in rows]
            chunk = {  # noqa: F841 - read by SQL
                "uri": object_array(uris),
                "photo": object_array([row[0] for row in rows]),
                "n": np.array([row[1] for row in rows], dtype=np.int64),
                "label": object_array([row[2] for row in rows]),
            }
            self._con.execute("INSERT INTO crops SELECT uri::VARCHAR, photo::VARCHAR, n, label::VARCHAR FROM chunk")
        repeated = boxes - fetch_value(self._con, "SELECT count(DISTINCT uri) FROM crops")
        if repeated:
            self.skipped["repeated box"] = repeated
        self._create_given(
            "SELECT c.uri, min(c.n) AS n, any_value(c.photo) AS photo, max(photos.split) AS split "
            "FROM crops c JOIN photos ON photos.uri = c.photo GROUP BY c.uri",
            "SELECT uri, label, NULL AS caption, n FROM crops",
            self._region_columns,
            column_key="p.n::VARCHAR",
            label="CASE WHEN count(DISTINCT r.label) = 1 THEN min(r.label) END",
        )

    def _create_given(self, items: str, said: str, columns: CollectedColumns, *, column_key: str, label: str) -> None:
        """Create ``given`` from the items, their annotations, and their other columns."""
        with temporary_folder() as folder:
            other = ""
            join = ""
            if columns.columns:
                columns.write_columns(folder / "columns.parquet")
                other = ", c.* EXCLUDE (uri)"
                join = f"LEFT JOIN read_parquet({quote_literal(folder / 'columns.parquet')}) c ON c.uri = {column_key}"
            self._con.execute(f"""
                CREATE TABLE given AS
                WITH p AS ({items}), s AS ({said}),
                r AS (SELECT p.uri, {label} AS label,
                             list(DISTINCT r.label ORDER BY r.label) FILTER (r.label IS NOT NULL) AS {CATEGORIES},
                             list(r.caption ORDER BY r.n) FILTER (r.caption IS NOT NULL) AS {CAPTIONS}
                      FROM p LEFT JOIN s r ON r.uri = p.uri GROUP BY p.uri)
                SELECT row_number() OVER (ORDER BY p.n) - 1 AS {ROW_COLUMN}, p.uri, r.label, p.split,
                       p.photo::VARCHAR AS "group", coalesce(r.{CATEGORIES}, []::VARCHAR[]) AS {CATEGORIES},
                       r.{CAPTIONS}{other}
                FROM p JOIN r ON r.uri = p.uri {join}
            """)


def _renamed(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns under names that differ from those of the lists."""
    return {f"meta_{name}" if name.lower() in (CATEGORIES, CAPTIONS) else name: v for name, v in columns.items()}
