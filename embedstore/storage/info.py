"""What a store holds, in numbers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from embedstore.storage.layout import read_small_json
from embedstore.storage.spaces import RecipeSpace
from embedstore.storage.sql import first_row
from embedstore.storage.storage import Storage


def info(storage: Storage) -> dict[str, Any]:
    """Counts and sizes of everything in a store, as plain values."""
    spaces = storage.spaces()
    with storage.catalog.read() as con:
        numbers = con.execute(
            "SELECT (SELECT count(*) FROM items), (SELECT count(*) FROM items WHERE NOT present), "
            "(SELECT count(*) FROM contents), (SELECT count(*) FROM failures), (SELECT count(*) FROM runs)"
        )
        items, missing, contents, failures, runs = first_row(numbers)
        vectors = dict(con.execute('SELECT space, sum("rows")::BIGINT FROM shards GROUP BY space').fetchall())
        labels = con.execute("SELECT label, count(*) FROM items GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 50").fetchall()
        splits = con.execute("SELECT split, count(*) FROM items GROUP BY 1 ORDER BY 1").fetchall()
        heads = con.execute("SELECT head, space, label, kind FROM heads ORDER BY created").fetchall()
        reasons = con.execute("SELECT reason, count(*) FROM failures GROUP BY 1 ORDER BY 2 DESC, 1").fetchall()
    marker = json.loads(read_small_json(storage.layout.marker))
    return {
        "path": str(storage.layout.root),
        "id": marker["id"],
        "format": marker["format"],
        "items": items,
        "missing": missing,
        "contents": contents,
        "failures": failures,
        "failure_reasons": dict(reasons),
        "labels": {str(k): n for k, n in labels if k is not None},
        "splits": {str(k): n for k, n in splits if k is not None},
        "spaces": [
            {
                "name": row.name,
                "key": row.key,
                "current": row.is_default,
                "backbone": row.recipe.backbone if isinstance(row, RecipeSpace) else None,
                "dim": row.space.dim,
                "dtype": row.dtype,
                "unit": row.space.unit,
                "text": row.space.text,
                "random": row.space.has_random_weights,
                "weights": row.space.weights,
                "layer": row.space.layer,
                "pool": row.space.pool,
                "preprocess": json.loads(row.space.to_json())["preprocess"],
                "overrides": row.recipe.preprocess if isinstance(row, RecipeSpace) else {},
                "parent": row.space.parent,
                "same_as_parent": any(
                    p.key == row.space.parent and row.space.has_same_vectors(p.space) for p in spaces
                ),
                "origin": row.space.origin,
                "licence": row.space.licence,
                "vectors": int(vectors.get(row.key, 0)),
            }
            for row in spaces
        ],
        "indexes": [],
        "heads": [{"head": h, "space": s, "label": lb, "kind": k} for h, s, lb, k in heads],
        "runs": runs,
        "bytes": _bytes(storage.layout.root),
    }


def _bytes(root: Path) -> int:
    """Size of every file below a folder."""
    return sum(entry.stat().st_size for folder, _, names in os.walk(root) for entry in (Path(folder, n) for n in names))
