"""Pages of PDF files and frames of videos, wherever the file is; one that is not local is copied for a while."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedstore.errors import ImageError
from embedstore.media.extraction.kinds import PDF, VIDEO, ExtractionKind
from embedstore.media.extraction.pictures import MAX_BYTES
from embedstore.media.extraction.pool import extraction_pool
from embedstore.sources.archives.member_uri import parse_member_uri
from embedstore.sources.local_files import existing_path, file_failure, read_file
from embedstore.sources.parquet.row_uri import parse_row_uri
from embedstore.sources.parts.part_uri import Moment, Page, PartUri
from embedstore.sources.remote.filesystem import is_remote
from embedstore.temporary import new_folder, remove
from embedstore.types import FailureReason

MAX_COPIES = 4  # of files that are not local, at once
PICTURE_BYTES = MAX_BYTES  # what a page or frame counts as, whatever its file has

_lock = threading.Lock()
_copies: OrderedDict[str, Path] = OrderedDict()


def kind_of_file(path: str) -> ExtractionKind | None:
    """Return the kind of a file that pages or frames are taken from, by its suffix; None for any other."""
    member = parse_member_uri(path)
    lowered = (path if member is None else member.name).lower()
    return next((kind for kind in (PDF, VIDEO) if lowered.endswith(kind.suffixes)), None)


def read_picture(uri: PartUri, read: Callable[[str], bytes]) -> bytes:
    """Return a page or frame as the bytes of a picture.

    Args:
        uri: the uri of the page or frame.
        read: returns the bytes of a file that is not local.

    Raises:
        ImageError: if the file or the part of it cannot be read.
    """
    is_page = isinstance(uri.part, Page)
    part = uri.part.number if isinstance(uri.part, Page) else uri.part.seconds if isinstance(uri.part, Moment) else 0
    return _ask(PDF if is_page else VIDEO, uri.file, read, part=part)[1]


def list_parts(
    kind: ExtractionKind, file: str, read: Callable[[str], bytes], *, every: float | None, key_frames: bool
) -> list[Page] | list[Moment]:
    """Return the pages of a PDF file, or the moments of a video whose frames are embedded.

    Raises:
        ImageError: if the file cannot be read.
    """
    wanted = {} if kind is PDF else {"every": every, "key_frames": key_frames}
    found = _ask(kind, file, read, **wanted)[0]["parts"]
    return [Page(n) for n in found] if kind is PDF else [Moment(t) for t in found]


def _ask(kind: ExtractionKind, file: str, read: Callable[[str], bytes], **request: Any) -> tuple[dict[str, Any], bytes]:
    """Ask a process about a file."""
    kind.require()
    path = existing_path(file)
    if is_remote(file) or parse_member_uri(file) is not None or parse_row_uri(file) is not None:
        path = str(_copy(file, read))
    else:
        _require_content(path)
    return extraction_pool().ask(kind, path, **request)


def _require_content(path: str) -> None:
    """Raise ImageError for what is no file, cannot be opened or is empty, without reading a large file."""
    try:
        size = os.stat(path).st_size if os.path.isfile(path) else 0  # noqa: PTH113, PTH116
        if size:
            with open(path, "rb"):  # noqa: PTH123 - the path may hold surrogates
                return
    except OSError as e:
        raise file_failure(e) from e
    read_file(path)  # says why


def _copy(file: str, read: Callable[[str], bytes]) -> Path:
    """Return a local copy of a file, which is kept for the next request."""
    with _lock:
        if file in _copies and _copies[file].exists():
            _copies.move_to_end(file)
            return _copies[file]
        folder = new_folder("part-")
        copy = folder / "file"
        try:
            copy.write_bytes(read(file))
        except OSError as e:
            remove(folder)
            raise ImageError(FailureReason.UNREADABLE, f"a temporary copy cannot be written: {e.strerror}") from e
        except ImageError:
            remove(folder)
            raise
        _copies[file] = copy
        while len(_copies) > MAX_COPIES:
            remove(_copies.popitem(last=False)[1].parent)
        return copy


def _leave_parent() -> None:
    """Get a new lock in a forked child; the copies are the parent's."""
    global _lock  # noqa: PLW0603 - the copies are of the whole process
    _lock = threading.Lock()
    _copies.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_parent)
