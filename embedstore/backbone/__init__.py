"""Frozen networks and their own preprocessing: a recipe in, vectors out.

``load`` turns a :class:`~embedstore.space.Recipe` into a :class:`Backbone`; ``resolve`` and ``table`` answer from
shipped facts. Nothing here imports torch before a network is really wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedstore.backbone.facts import Fact, resolve, table
from embedstore.backbone.loading import load

if TYPE_CHECKING:
    from embedstore.backbone.base import Backbone

__all__ = ["Backbone", "Fact", "load", "resolve", "table"]


def __getattr__(name: str) -> Any:
    """``Backbone`` on demand: its module imports torch."""
    if name == "Backbone":
        from embedstore.backbone.base import Backbone

        return Backbone
    raise AttributeError(f"module {__name__} has no attribute {name}")
