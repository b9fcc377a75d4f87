"""The spaces of a store: the records of the table ``spaces``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from embedstore.errors import BadBackbone
from embedstore.space import Recipe, Space
from embedstore.storage.shard import DTYPES


@dataclass(frozen=True)
class SpaceRecord:
    """One space of a store: a :class:`RecipeSpace` or a :class:`PrecomputedSpace`.

    Attributes:
        name: the name that a person uses.
        space: what the vectors mean.
        dtype: ``float16`` or ``float32``, of the vectors on disk.
        is_default: whether this space is used when none is named.
        created: when the space was registered, UTC.
    """

    name: str
    space: Space
    dtype: str
    is_default: bool
    created: datetime

    @property
    def key(self) -> str:
        """The key of the space."""
        return self.space.key

    @property
    def bytes_per_vector(self) -> int:
        """The bytes of one vector on disk."""
        return self.space.dim * np.dtype(DTYPES[self.dtype]).itemsize

    def require_recipe(self) -> RecipeSpace:
        """Return this space if its backbone can be loaded.

        Raises:
            BadBackbone: if the vectors are precomputed.
        """
        raise BadBackbone(
            f"space {self.name} holds precomputed vectors: it has no backbone; search with a vector or an item id, "
            "or add the space of a backbone with `embedstore embed STORE SOURCE --backbone NAME`"
        )


@dataclass(frozen=True)
class PrecomputedSpace(SpaceRecord):
    """A space of vectors that were computed elsewhere and imported."""


@dataclass(frozen=True)
class RecipeSpace(SpaceRecord):
    """A space whose backbone can be loaded again.

    Attributes:
        recipe: how to load the backbone.
    """

    recipe: Recipe

    def require_recipe(self) -> RecipeSpace:
        """Return this space."""
        return self


def space_record(row: tuple[Any, ...]) -> SpaceRecord:
    """Return the record of a row ``(name, facts, dtype, current, created, recipe)`` of the table ``spaces``."""
    name, facts, dtype, is_default, created, recipe = row
    base = (name, Space.from_json(facts), dtype, is_default, created)
    return RecipeSpace(*base, Recipe.from_json(recipe)) if recipe else PrecomputedSpace(*base)
