"""Frozen networks and their own preprocessing: a recipe in, vectors out.

``load`` turns a :class:`~embedstore.space.Recipe` into a :class:`Backbone`; ``resolve`` and ``table`` answer from
shipped facts. Nothing here imports torch before a network is really wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedstore.backbones.loading import load
from embedstore.backbones.registry import BackboneInfo, list_backbones, resolve_name

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone

__all__ = ["Backbone", "BackboneInfo", "list_backbones", "load", "resolve_name"]


def __getattr__(name: str) -> Any:
    """``Backbone`` on demand: its module imports torch."""
    if name == "Backbone":
        from embedstore.backbones.base import Backbone

        return Backbone
    raise AttributeError(f"module {__name__} has no attribute {name}")
