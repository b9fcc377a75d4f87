"""Load what installed packages add by entry points; a plug-in that cannot be used is one clear error that names it."""

from __future__ import annotations

import importlib.metadata
import threading
from collections import Counter
from typing import Any, TypeVar

from embedstore.errors import PluginError

T = TypeVar("T")

IMPORT_SECONDS = 30.0  # PyTorch takes 4 s to import; a plug-in that takes longer than this waits for something


def load_plug_ins(group: str, kind: type[T]) -> tuple[T, ...]:
    """Return the objects that entry points of a group name, by the names of the entry points.

    Args:
        group: the group of the entry points.
        kind: the class of the objects.

    Raises:
        PluginError: if two have one name, or one cannot be loaded, takes too long, or is of another class.
    """
    points = sorted(importlib.metadata.entry_points(group=group), key=lambda point: point.name)
    doubles = [name for name, count in Counter(point.name for point in points).items() if count > 1]
    if doubles:
        packages = " and ".join(sorted(_package(p) for p in points if p.name == doubles[0]))
        raise PluginError(f"two plug-ins of {group} have the name {doubles[0]!r}: {packages}; uninstall one of them")
    return tuple(_load(point, kind) for point in points)


def _load(point: importlib.metadata.EntryPoint, kind: type[T]) -> T:
    """Load one plug-in."""
    where = f"the plug-in {point.name!r} of {point.group} ({point.value}, from {_package(point)})"
    found = _import(point, where)
    if not isinstance(found, kind):
        raise PluginError(f"{where} has the type {type(found).__name__}, not {kind.__name__}; repair or uninstall it")
    return found


def _import(point: importlib.metadata.EntryPoint, where: str) -> Any:
    """Return the object of an entry point; it is imported in a thread, which is left behind where it never ends."""
    found: list[Any] = []
    raised: list[BaseException] = []

    def load() -> None:
        try:
            found.append(point.load())
        except BaseException as e:
            raised.append(e)

    thread = threading.Thread(target=load, name=f"import of {point.name}", daemon=True)
    thread.start()
    thread.join(IMPORT_SECONDS)
    if raised:
        text = " ".join(f"{type(raised[0]).__name__}: {raised[0]}".split())
        raise PluginError(f"{where} cannot be loaded: {text}; repair or uninstall its package") from raised[0]
    if not found:
        raise PluginError(
            f"{where} takes longer than {IMPORT_SECONDS:.0f} s to import; repair or uninstall its package"
        )
    return found[0]


def _package(point: importlib.metadata.EntryPoint) -> str:
    """Return the package that an entry point belongs to."""
    return point.dist.name if point.dist is not None else "an unknown package"
