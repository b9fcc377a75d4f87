"""The versions of installed libraries."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version


def package_version(package: str) -> str:
    """Return the version of a package without importing it, or "" if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def library_version(module: str) -> str:
    """Return the version of a library that is installed, by its package or else by its module.

    Builds for other devices, such as ``onnxruntime-gpu``, have the module and a package of another name.
    """
    return package_version(module) or str(importlib.import_module(module).__version__)
