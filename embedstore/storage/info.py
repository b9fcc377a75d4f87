"""Counts and sizes of everything in a store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from embedstore.storage import reading
from embedstore.storage.inbox.state import plan_states
from embedstore.storage.layout import read_marker
from embedstore.storage.queries import computed_columns, counts, heads
from embedstore.storage.spaces import RecipeSpace, SpaceRecord
from embedstore.storage.storage import Storage


@dataclass(frozen=True)
class SpaceInfo:
    """A space as ``info`` shows it.

    Attributes:
        name: the name that a person uses.
        key: the key of the space.
        current: whether it is the default space.
        backbone: the name of the backbone; None for precomputed vectors.
        dim: the length of a vector.
        dtype: ``float16`` or ``float32``, of the vectors on disk.
        unit: whether vectors were scaled to length 1.
        text: whether it takes text queries.
        random: whether the weights of the backbone are random.
        weights: the digest of the weights.
        layer: the layer whose features are taken.
        pool: how features are pooled.
        preprocess: the preprocessing of images; None for other modalities and precomputed vectors.
        overrides: what the user has overridden of it.
        parent: the key of the space from which fine-tuning started, or None.
        same_as_parent: whether fine-tuning changed nothing.
        origin: where the weights came from.
        licence: the license of the weights.
        vectors: how many vectors it has.
    """

    name: str
    key: str
    current: bool
    backbone: str | None
    dim: int
    dtype: str
    unit: bool
    text: bool
    random: bool
    weights: str
    layer: str
    pool: str
    preprocess: dict[str, Any] | None
    overrides: dict[str, Any]
    parent: str | None
    same_as_parent: bool
    origin: str
    licence: str
    vectors: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True)
class HeadInfo:
    """A saved head as ``info`` shows it; :attr:`embedstore.Store.heads` has more.

    Attributes:
        head: its name.
        space: the key of the space that it was trained in.
        label: the column that it predicts.
        kind: how it was made, for example ``logistic``.
    """

    head: str
    space: str
    label: str
    kind: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def info(storage: Storage) -> dict[str, Any]:
    """Return counts and sizes of everything in a store: the fields of ``StoreInfo`` but for what is derived."""
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
        "heads": [HeadInfo(*row[:4]) for row in head_rows],
        "parts": plan_states(storage.layout),
        "computed": states,
        "bytes": reading.folder_size(storage.layout.root),
    }


def _space_info(record: SpaceRecord, spaces: Sequence[SpaceRecord], vectors: int) -> SpaceInfo:
    """Return the facts of one space."""
    space, recipe = record.space, record.recipe if isinstance(record, RecipeSpace) else None
    parent = next((s.space for s in spaces if s.key == space.parent), None)
    return SpaceInfo(
        name=record.name,
        key=record.key,
        current=record.is_default,
        backbone=recipe.backbone if recipe else None,
        dim=space.dim,
        dtype=record.dtype,
        unit=space.unit,
        text=space.text,
        random=space.has_random_weights,
        weights=space.weights,
        layer=space.layer,
        pool=space.pool,
        preprocess=json.loads(space.to_json())["preprocess"],
        overrides=dict(recipe.preprocess) if recipe else {},
        parent=space.parent,
        same_as_parent=parent is not None and space.has_same_vectors(parent),
        origin=space.origin,
        licence=space.licence,
        vectors=vectors,
    )
