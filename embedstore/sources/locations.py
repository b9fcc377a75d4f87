"""Any uri of an item to its bytes: a path, a row of a Parquet file, a file on a server, or a member of an archive.

This is the only place that decides by the uri how to read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from embedstore.errors import ImageError
from embedstore.media.image.decode import NO_SETTINGS, to_rgb_image
from embedstore.sources.archives.member_uri import parse_member_uri
from embedstore.sources.archives.opened import read_archive_member, stat_archive_member
from embedstore.sources.local_files import read_file, stat_file
from embedstore.sources.parquet.row_uri import parse_row_uri
from embedstore.sources.parquet.rows import read_row, stat_row
from embedstore.sources.plug_in.registry import item_plug_in, read_item_of, stat_item_of
from embedstore.sources.remote.filesystem import is_remote, read_remote, stat_remote
from embedstore.storage.sql import decode_path
from embedstore.types import Failure, ImageRef, existing_path

REQUESTS_AT_ONCE = 16

LocationRow = tuple[str, str | None, str | None, str | None]  # path, label, split, group


def read_location(path: str) -> bytes:
    """Return the bytes of an item's file.

    Args:
        path: a path as ``os.fsdecode`` gives it, or a uri.

    Raises:
        ImageError: if it cannot be read; ``reason`` says why.
    """
    member = parse_member_uri(path)
    if member is not None:
        return read_archive_member(member)
    row = parse_row_uri(path)
    if row is not None:
        return read_row(row)
    plug_in = item_plug_in(path)
    if plug_in is not None:
        return read_item_of(plug_in, path)
    return read_remote(path) if is_remote(path) else read_file(existing_path(path))


def stat_location(
    path: str, label: str | None = None, split: str | None = None, group: str | None = None
) -> ImageRef | Failure:
    """Return the reference of an item's file as it is now, or why there is none."""
    member, row, plug_in = parse_member_uri(path), parse_row_uri(path), item_plug_in(path)
    if member is None and row is None and plug_in is None and not is_remote(path):
        return stat_file(path, label, split, group)
    try:
        if member is not None:
            size, version_ns = stat_archive_member(member)
        elif row is not None:
            size, version_ns = stat_row(row)
        elif plug_in is not None:
            size, version_ns = stat_item_of(plug_in, path)
        else:
            found = stat_remote(path)
            size, version_ns = found.size, found.version_ns
    except ImageError as e:
        return Failure(path, path, 0, 0, e.reason, e.detail)
    return ImageRef(path, path, size, version_ns, label, split, group)


def is_location(uri: str) -> bool:
    """Return whether a uri names a file on a server, a member of an archive or an item of a plug-in, and not a path."""
    return is_remote(uri) or parse_member_uri(uri) is not None or item_plug_in(uri) is not None


def stat_locations(rows: Iterable[LocationRow]) -> Iterator[ImageRef | Failure]:
    """Yield :func:`stat_location` of every row, in order; many requests are sent at once.

    Args:
        rows: path, label, split and group of each file.
    """
    rows = list(rows)
    if any(is_remote(path) for path, *_ in rows):
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            yield from pool.map(lambda row: stat_location(*row), rows)
    else:
        yield from (stat_location(*row) for row in rows)


def read_item(uri: str, path_bytes: bytes | None = None) -> bytes:
    """Return the bytes of an item's file.

    Args:
        uri: the item's uri.
        path_bytes: the column ``items.path``: the file's name where it is not valid UTF-8, else None.

    Raises:
        ImageError: if the file cannot be read; ``reason`` says why.
    """
    return read_location(decode_path(uri, path_bytes))


def load_image(image: bytes | str | Path | Image.Image, decoding: Mapping[str, str] = NO_SETTINGS) -> Image.Image:
    """Return an image that a user gave in any form as RGB, upright, with transparency over white.

    Args:
        image: the bytes of a file, its path or uri, or an image opened by Pillow.
        decoding: the settings of decoders that a space records.

    Raises:
        ImageError: if the file cannot be read or the image cannot be decoded.
    """
    data = read_location(os.fspath(image)) if isinstance(image, str | os.PathLike) else image
    return to_rgb_image(data, decoding)
