"""What a source plug-in gives: which names are its own, the items below a name, and the bytes of one item.

The entry point, in the group ``embedstore.sources``, names an object of :class:`SourcePlugIn`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One item that a plug-in found.

    Attributes:
        uri: how to read it again, years later. It begins with one of the plug-in's schemes and ``://``, or it is the
            absolute path of a file with one of its suffixes and ``#name=value``, which names the item in that file.
        size: the size of its bytes; 0 if it is not known.
        version: a whole number that changes when the bytes may have changed, such as a modification time in
            nanoseconds. An item with the same size and version is not read again.
        label: its label, or None.
        split: its split, a word for train, val or test, or None.
        group: its group, or None; items of one group stay in one split.
        columns: other values by name: numbers, text, booleans; lists and objects become JSON.
    """

    uri: str
    size: int
    version: int
    label: str | None = None
    split: str | None = None
    group: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SourcePlugIn:
    """A kind of source. Its functions are called on many threads at once.

    They raise ``FileNotFoundError`` for what does not exist, and ``ConnectionError`` or ``TimeoutError`` for what may
    work later, which is tried again in every run. Any other exception of ``read`` is a failure of the item, and of
    ``scan`` the end of the run, which marks nothing as missing.

    Attributes:
        name: the name of the source, for messages.
        scan: yields the items below a name that the user gives, in the same order every time, without their bytes. A
            name is a uri with one of the schemes, or the absolute path of a file with one of the suffixes.
        read: returns the bytes of the item with a uri.
        stat: returns the item with a uri as it is now; only its size and version are used.
        schemes: what the plug-in's uris begin with, in lower case, without ``://``.
        suffixes: the suffixes of the files that it reads, in lower case, each with its dot.
    """

    name: str
    scan: Callable[[str], Iterable[SourceItem]]
    read: Callable[[str], bytes]
    stat: Callable[[str], SourceItem]
    schemes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
