"""FAISS, imported at first use. Its type stubs lack half of what is used here, so its type is Any."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any


@cache
def faiss() -> Any:
    """Return the module."""
    return importlib.import_module("faiss")
