"""Any uri of an item to its bytes: a path, a row of a table, a file on a server, a member of an archive, or a part.

This is the only place that decides by the uri how to read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from PIL import Image

from embedstore.errors import ItemError
from embedstore.media.image.crop import Box, join_crop
from embedstore.media.image.decode import NO_SETTINGS, to_rgb_image
from embedstore.sources.archives.member_uri import parse_member_uri
from embedstore.sources.archives.opened import read_archive_member, stat_archive_member
from embedstore.sources.huggingface.arrow_file import parse_arrow_uri, read_arrow_row, stat_arrow_row
from embedstore.sources.local_files import existing_path, read_file, stat_file
from embedstore.sources.parquet.row_uri import parse_row_uri
from embedstore.sources.parquet.rows import read_row, stat_row
from embedstore.sources.parts.extract import PICTURE_BYTES, read_picture
from embedstore.sources.parts.part_uri import PartUri, parse_part_uri
from embedstore.sources.plug_in.registry import item_plug_in, read_item_of, stat_item_of
from embedstore.sources.remote.filesystem import is_remote, read_remote, stat_remote
from embedstore.sources.text_tables.row_uri import parse_text_row_uri
from embedstore.sources.text_tables.table import read_text_row, stat_text_row
from embedstore.storage.sql import decode_path
from embedstore.types import Failure, ImageRef, display_uri

REQUESTS_AT_ONCE = 16

LocationRow = tuple[str, str | None, str | None, str | None]  # path, label, split, group


def read_location(path: str) -> bytes:
    """Return the bytes of an item's file.

    Args:
        path: a path as ``os.fsdecode`` gives it, or a uri.

    Raises:
        ItemError: if it cannot be read; ``reason`` says why.
    """
    part = parse_part_uri(path)
    if part is not None:
        return _read_part(part)
    member = parse_member_uri(path)
    if member is not None:
        return read_archive_member(member)
    row = parse_row_uri(path)
    if row is not None:
        return read_row(row)
    arrow_row = parse_arrow_uri(path)
    if arrow_row is not None:
        return read_arrow_row(arrow_row)
    text_row = parse_text_row_uri(path)
    if text_row is not None:
        return read_text_row(text_row)
    plug_in = item_plug_in(path)
    if plug_in is not None:
        return read_item_of(plug_in, path)
    return read_remote(path) if is_remote(path) else read_file(existing_path(path))


def stat_location(
    path: str, label: str | None = None, split: str | None = None, group: str | None = None
) -> ImageRef | Failure:
    """Return the reference of an item's file as it is now, or why there is none."""
    part = parse_part_uri(path)
    if part is not None:
        return part_reference(stat_location(part.file, label, split, group), part)
    member, row, plug_in = parse_member_uri(path), parse_row_uri(path), item_plug_in(path)
    arrow_row, text_row = parse_arrow_uri(path), parse_text_row_uri(path)
    others = (member, row, arrow_row, text_row, plug_in)
    if all(other is None for other in others) and not is_remote(path):
        return stat_file(path, label, split, group)
    try:
        if member is not None:
            size, version_ns = stat_archive_member(member)
        elif row is not None:
            size, version_ns = stat_row(row)
        elif arrow_row is not None:
            size, version_ns = stat_arrow_row(arrow_row)
        elif text_row is not None:
            size, version_ns = stat_text_row(text_row)
        elif plug_in is not None:
            size, version_ns = stat_item_of(plug_in, path)
        else:
            found = stat_remote(path)
            size, version_ns = found.size, found.version_ns
    except ItemError as e:
        return Failure(path, path, 0, 0, e.reason, e.detail)
    return ImageRef(path, path, size, version_ns, label, split, group)


def is_location(uri: str) -> bool:
    """Return whether a uri names a file on a server, a member of an archive, an item of a plug-in, or a part of one."""
    part = parse_part_uri(uri)
    if part is not None:
        return is_location(part.file)
    return is_remote(uri) or parse_member_uri(uri) is not None or item_plug_in(uri) is not None


def stat_locations(rows: Iterable[LocationRow]) -> Iterator[ImageRef | Failure]:
    """Yield :func:`stat_location` of every row, in order; many requests are sent at once.

    Args:
        rows: path, label, split and group of each file.
    """
    rows = list(rows)
    parts = [parse_part_uri(path) for path, *_ in rows]
    files = dict.fromkeys(path if part is None else part.file for (path, *_), part in zip(rows, parts, strict=True))
    if any(is_remote(path) for path in files):
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            found = dict(zip(files, pool.map(stat_location, files), strict=True))
    else:
        found = {path: stat_location(path) for path in files}
    for (path, *facts), part in zip(rows, parts, strict=True):
        entry = found[path if part is None else part.file]
        if isinstance(entry, ImageRef):
            entry = replace(entry, label=facts[0], split=facts[1], group=facts[2])
        yield entry if part is None else part_reference(entry, part)


def part_reference(file: ImageRef | Failure, part: PartUri) -> ImageRef | Failure:
    """Return the reference of a part of a file, or why there is none."""
    path = str(part)
    entry = replace(file, uri=display_uri(path), path=path)
    if isinstance(part.part, Box) or not isinstance(entry, ImageRef):
        return entry
    version_ns = file.mtime_ns + file.size  # the size of the file, which is not that of the part, counts as a change
    return replace(entry, size=PICTURE_BYTES, mtime_ns=version_ns, group=entry.group or display_uri(part.file))


def _read_part(part: PartUri) -> bytes:
    """Return the bytes that stand for a part of a file."""
    if isinstance(part.part, Box):
        return join_crop(read_location(part.file), part.part)
    return read_picture(part, read_location)


def read_item(uri: str, path_bytes: bytes | None = None) -> bytes:
    """Return the bytes of an item's file.

    Args:
        uri: the item's uri.
        path_bytes: the column ``items.path``: the file's name where it is not valid UTF-8, else None.

    Raises:
        ItemError: if the file cannot be read; ``reason`` says why.
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
