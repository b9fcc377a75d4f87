"""Counts and sizes of everything in a store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from embedstore.storage import reading
from embedstore.storage.inbox.state import inbox_states
from embedstore.storage.layout import read_marker
from embedstore.storage.queries import computed_columns, counts, heads
from embedstore.storage.spaces import RecipeSpace, SpaceRecord
from embedstore.storage.storage import Storage


def info(storage: Storage) -> dict[str, Any]:
    """Return counts and sizes of everything in a store, as JSON values."""
    spaces = storage.spaces()
    with storage.catalog.read() as con:
        rows = counts.table_counts(con)
        vectors = counts.vectors_by_space(con)
        head_rows = heads.head_rows(con)
        states = computed_columns.column_states(con)
    marker = read_marker(storage.layout)
    return {
        "path": str(storage.layout.root),
        "id": marker["id"],
        "format": marker["format"],
        **rows,
        "spaces": [_space_info(record, spaces, vectors.get(record.key, 0)) for record in spaces],
        "indexes": [],
        "heads": [{"head": h, "space": s, "label": lb, "kind": k} for h, s, lb, k, *_ in head_rows],
        "parts": inbox_states(storage.layout),
        "computed": [state.to_json() for state in states],
        "bytes": reading.folder_size(storage.layout.root),
    }


def _space_info(record: SpaceRecord, spaces: Sequence[SpaceRecord], vectors: int) -> dict[str, Any]:
    """Return the facts of one space."""
    space, recipe = record.space, record.recipe if isinstance(record, RecipeSpace) else None
    parent = next((s.space for s in spaces if s.key == space.parent), None)
    return {
        "name": record.name,
        "key": record.key,
        "current": record.is_default,
        "backbone": recipe.backbone if recipe else None,
        "dim": space.dim,
        "dtype": record.dtype,
        "unit": space.unit,
        "text": space.text,
        "random": space.has_random_weights,
        "weights": space.weights,
        "layer": space.layer,
        "pool": space.pool,
        "preprocess": json.loads(space.to_json())["preprocess"],
        "overrides": recipe.preprocess if recipe else {},
        "parent": space.parent,
        "same_as_parent": parent is not None and space.has_same_vectors(parent),
        "origin": space.origin,
        "licence": space.licence,
        "vectors": vectors,
    }
