"""Which items belong together by what is declared or equal: their groups, and what linked them."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.copy_groups import DisjointSets


@dataclass(frozen=True)
class ItemGroups:
    """The groups of items.

    Attributes:
        groups: int64 ``(N,)``, the connected components of "same content" and "same declared group".
        units: int64 ``(N,)``, the declared group of each item, else its content; components are made of units.
        links: int64 ``(L, 2)``, rows of different units that share a content or a group, the earlier one first.
    """

    groups: NDArray[np.int64]
    units: NDArray[np.int64]
    links: NDArray[np.int64]


def item_groups(
    contents: Sequence[str], groups: Sequence[str | None], own_groups: Sequence[str | None] | None = None
) -> ItemGroups:
    """Return the groups of items.

    The numbers are hashes of names, so they do not depend on the other items or on the order. A component has the
    lowest number of its units.

    Args:
        contents: the content of each item.
        groups: the group of each item; None without one.
        own_groups: the same as declared, without the group that a photo gets from its crops; by default ``groups``.
    """
    declared = groups if own_groups is None else own_groups
    names = [content if group is None else f"group {group}" for content, group in zip(contents, declared, strict=True)]
    numbers = {name: _number(name) for name in set(names)}
    units = np.array([numbers[name] for name in names], dtype=np.int64)
    links = np.array([*_links(contents, names), *_links(groups, names)], np.int64).reshape(-1, 2)
    return ItemGroups(_components(units, links), units, links)


def _number(name: str) -> int:
    """Return a number for a name, at least 0."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def _links(keys: Sequence[Hashable | None], units: Sequence[str]) -> list[tuple[int, int]]:
    """Return each row with the row before it that has the same key, where their units differ."""
    last: dict[Hashable, int] = {}
    links = []
    for row, key in enumerate(keys):
        if key is None:
            continue
        if key in last and units[last[key]] != units[row]:
            links.append((last[key], row))
        last[key] = row
    return links


def _components(units: NDArray[np.int64], links: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the lowest unit of the component of each row, int64 ``(N,)``."""
    names, code = np.unique(units, return_inverse=True)
    sets = DisjointSets(len(names))  # a set is named after its lowest number, and the names ascend
    for a, b in code[links].tolist():
        sets.join(a, b)
    return np.asarray(names[sets.roots()][code], dtype=np.int64)
