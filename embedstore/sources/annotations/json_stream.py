"""Arrays of objects in a large JSON file, one object in memory at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import IO, Any

import ijson

from embedstore.errors import BadAnnotations, SourceNotFound

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MAX_TOP_EVENTS = 200_000  # that are read for the first names of a file


def objects(path: str, key: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of the array that is under a name of the outermost object; other values are left out.

    Raises:
        BadAnnotations: if the file is not JSON.
        SourceNotFound: if it cannot be opened.
    """
    with _open(path) as file:
        for value in ijson.items(file, f"{key}.item", use_float=True):
            if isinstance(value, dict):
                yield value


def first_key(path: str, wanted: Collection[str]) -> str | None:
    """Return the first name of the outermost object that is one of the wanted; None if the file begins otherwise.

    Raises:
        SourceNotFound: if the file cannot be opened.
    """
    try:
        with _open(path) as file:
            for count, (prefix, event, value) in enumerate(ijson.parse(file, use_float=True)):
                if (count == 0 and event != "start_map") or count > _MAX_TOP_EVENTS:
                    return None
                if prefix == "" and event == "map_key" and value in wanted:
                    return str(value)
    except BadAnnotations:
        return None
    return None


@contextmanager
def _open(path: str) -> Iterator[IO[bytes]]:
    """Open a JSON file behind its byte-order mark; what is wrong with its text is raised as an error of ours."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - the path may hold surrogates
            if file.read(len(_BYTE_ORDER_MARK)) != _BYTE_ORDER_MARK:
                file.seek(0)
            yield file
    except OSError as e:
        raise SourceNotFound(f"{path} cannot be read: {e.strerror or e}") from e
    except (ijson.JSONError, UnicodeError, RecursionError) as e:
        message = " ".join(str(e).split())[:200]
        raise BadAnnotations(f"{path} is not valid JSON ({message}); write it again with the program it is from") from e
