"""FAISS, loaded when it is first needed; its type stubs lack half of what is used, so it is Any."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any


@cache
def faiss() -> Any:
    """The module."""
    return importlib.import_module("faiss")
