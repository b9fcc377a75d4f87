"""Embed an image collection once with a frozen backbone; search it, probe it, label it from the cached features.

::

    import embedstore as es

    store = es.create("pets.store", backbone="clip")
    store.embed("photos/")
    hits = store.search("a dog on a beach", k=20, where="split = 'val'")
    probe = store.probe("label")

Importing this package imports nothing heavy; torch comes with the first backbone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["EmbedstoreError", "Store", "asking", "counting", "create", "open"]

if TYPE_CHECKING:
    from embedstore.errors import EmbedstoreError
    from embedstore.operations.info import counting
    from embedstore.operations.search import asking
    from embedstore.store import Store, create
    from embedstore.store import open_store as open

_HOME = {
    "Store": ("embedstore.store", "Store"),
    "create": ("embedstore.store", "create"),
    "open": ("embedstore.store", "open_store"),
    "asking": ("embedstore.operations.search", "asking"),  # open, for commands that only search
    "counting": ("embedstore.operations.info", "counting"),  # open, for commands that need no vectors
    "EmbedstoreError": ("embedstore.errors", "EmbedstoreError"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'embedstore' has no attribute {name!r}")
    import importlib

    module, attribute = _HOME[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
