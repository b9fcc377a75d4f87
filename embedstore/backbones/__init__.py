"""Frozen networks and their own preprocessing: a recipe in, vectors out.

``load`` turns a :class:`~embedstore.space.Recipe` into a :class:`Backbone`; ``resolve`` and ``table`` answer from
shipped facts. Nothing here imports torch before a network is really wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedstore.backbones.loading import load
from embedstore.backbones.registry import Fact, resolve, table

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone

__all__ = ["Backbone", "Fact", "load", "resolve", "table"]


def __getattr__(name: str) -> Any:
    """``Backbone`` on demand: its module imports torch."""
    if name == "Backbone":
        from embedstore.backbones.base import Backbone

        return Backbone
    raise AttributeError(f"module {__name__} has no attribute {name}")
