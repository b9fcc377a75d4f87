"""The Python face: one object a store, composed of every room below.

Names are fetched when they are asked for: a command that only counts imports only what counting needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedstore.api.judging import ZeroShot
    from embedstore.api.recipes import BackboneOptions
    from embedstore.api.store import Store, create, open_store

__all__ = ["BackboneOptions", "Store", "ZeroShot", "create", "open_store"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from embedstore.api import store

    return getattr(store, name)
