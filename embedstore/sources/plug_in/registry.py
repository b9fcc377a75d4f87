"""The installed source plug-ins, and which of them a name or a uri belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import TypeVar

from embedstore.errors import ImageError, ItemError, PluginError
from embedstore.plug_ins import load_plug_ins
from embedstore.sources.archives.member_uri import archive_kind
from embedstore.sources.local_files import check_size
from embedstore.sources.plug_in.protocol import SourceItem, SourcePlugIn
from embedstore.sources.remote.filesystem import SCHEMES
from embedstore.sources.tables import table_suffix
from embedstore.sources.uris import FILE_SCHEME, scheme_of
from embedstore.types import FailureReason

T = TypeVar("T")

ENTRY_POINT_GROUP = "embedstore.sources"
_PART = re.compile(r"([^#]+)#[A-Za-z_]+=.*", re.DOTALL)
_OWN_SCHEMES = (*SCHEMES, FILE_SCHEME, "tar", "zip", "hf")


def source_plug_in(name: str) -> SourcePlugIn | None:
    """Return the plug-in that reads what a user named, or None.

    Raises:
        PluginError: if a plug-in cannot be loaded.
    """
    scheme = scheme_of(name)
    if scheme in _OWN_SCHEMES:
        return None
    return next((p for p in plug_ins() if _owns_name(p, scheme, name)), None)


def item_plug_in(uri: str) -> SourcePlugIn | None:
    """Return the plug-in that reads the item with a uri, or None. A path without ``#`` asks no plug-in.

    Raises:
        PluginError: if a plug-in cannot be loaded.
    """
    scheme = scheme_of(uri)
    if scheme in _OWN_SCHEMES or (scheme is None and "#" not in uri):
        return None
    return next((p for p in plug_ins() if owns_item(p, uri)), None)


def owns_item(plug_in: SourcePlugIn, uri: str) -> bool:
    """Return whether the uri of an item says that a plug-in reads it."""
    scheme = scheme_of(uri)
    if scheme is not None:
        return scheme in plug_in.schemes
    match = _PART.fullmatch(uri)
    return match is not None and match[1].lower().endswith(plug_in.suffixes or ("\0",))


@cache
def plug_ins() -> tuple[SourcePlugIn, ...]:
    """Return the installed plug-ins, by the name of their entry point.

    Raises:
        PluginError: if one cannot be loaded, or takes a scheme or suffix that is read already.
    """
    found = load_plug_ins(ENTRY_POINT_GROUP, SourcePlugIn)
    taken: dict[str, str] = {f"{scheme}://": "embedstore itself" for scheme in _OWN_SCHEMES}
    for plug_in in found:
        for name in [*(f"{scheme}://" for scheme in plug_in.schemes), *plug_in.suffixes]:
            is_own = not name.endswith("://") and (archive_kind(f"x{name}") or table_suffix(f"x{name}"))
            owner = "embedstore itself" if is_own else taken.get(name)
            if owner:
                raise PluginError(
                    f"the source plug-in {plug_in.name!r} takes {name}, which {owner} reads; uninstall its package"
                )
            taken[name] = f"the plug-in {plug_in.name!r}"
    return found


def read_item_of(plug_in: SourcePlugIn, uri: str) -> bytes:
    """Return the bytes of an item.

    Raises:
        ImageError: if it cannot be read; ``reason`` says why.
    """
    data = _call(plug_in, lambda: plug_in.read(uri))
    if not isinstance(data, bytes):
        raise ImageError(FailureReason.UNREADABLE, f"the source {plug_in.name} gives {type(data).__name__}, not bytes")
    if not data:
        raise ImageError(FailureReason.EMPTY, "the item has no bytes")
    check_size(len(data))
    return data


def stat_item_of(plug_in: SourcePlugIn, uri: str) -> tuple[int, int]:
    """Return the size and version of an item.

    Raises:
        ImageError: if there is no such item; ``reason`` says why.
    """
    item = _call(plug_in, lambda: plug_in.stat(uri))
    if not isinstance(item, SourceItem):
        detail = f"the source {plug_in.name} gives {type(item).__name__}, not a SourceItem"
        raise ImageError(FailureReason.UNREADABLE, detail)
    return item.size, item.version


def _call(plug_in: SourcePlugIn, call: Callable[[], T]) -> T:
    """Call a function of a plug-in, and raise what it raises as ImageError."""
    try:
        return call()
    except ItemError:
        raise
    except FileNotFoundError as e:
        raise ImageError(FailureReason.MISSING, f"the source {plug_in.name} has no such item") from e
    except (ConnectionError, TimeoutError) as e:
        raise ImageError(FailureReason.UNREACHABLE, _one_line(plug_in, e)) from e
    except Exception as e:  # whatever the code of a plug-in raises
        raise ImageError(FailureReason.UNREADABLE, _one_line(plug_in, e)) from e


def _one_line(plug_in: SourcePlugIn, e: Exception) -> str:
    """Return an error of a plug-in in one line."""
    return f"the source {plug_in.name}: {type(e).__name__}: {' '.join(str(e).split())}"[:300]


def _owns_name(plug_in: SourcePlugIn, scheme: str | None, name: str) -> bool:
    """Return whether a plug-in reads what a user named."""
    if scheme is not None:
        return scheme in plug_in.schemes
    return bool(plug_in.suffixes) and name.lower().endswith(plug_in.suffixes)
