"""Take back from the quarantine what proves whole: vectors that items lack, and heads that the catalog still names.

A file may be there although nothing is wrong with it, for example because an older version could not read it for a
moment. Whatever is taken back is copied; the quarantine keeps its files.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError, StoreDamaged, StoreUnreadable
from embedstore.storage import durable_files, reading, shard
from embedstore.storage.catalog import Catalog
from embedstore.storage.layout import Layout
from embedstore.storage.queries import heads, shards, space_rows
from embedstore.storage.shard import Shard
from embedstore.storage.store_files import MAX_HEAD_BYTES, read_bounded
from embedstore.storage.writer import Writer
from embedstore.wording import counted

_VECTOR_FILE = re.compile(r"(?P<space>.+)-\d{9}\.vec(\.\d+)?")
_HEAD = re.compile(r"heads-(?P<name>[A-Za-z0-9_-]+)(\.\d+)?")


@dataclass(frozen=True)
class WholeShard:
    """A whole vector file in the quarantine that has vectors which items lack.

    Attributes:
        file: the file.
        rows: int64 ``(n,)``, the rows of those vectors.
    """

    file: Shard
    rows: NDArray[np.int64]


def find_whole_shards(layout: Layout, catalog: Catalog) -> Iterator[WholeShard]:
    """Yield the vector files in the quarantine that prove whole and have vectors which items lack.

    Raises:
        StoreUnreadable: if the folder or a file in it cannot be read now.
    """
    for path in reading.list_folder(layout.quarantine):
        if not (named := _VECTOR_FILE.fullmatch(path.name)):
            continue
        try:
            file = Shard(path, in_memory=True)
            header = file.header
            with catalog.read() as con:
                fits = space_rows.stored_form(con, header.space) == (header.dim, header.dtype)
                needed = shards.contents_without_vector(con, header.space, file.contents, of_items=True)
            if needed and fits and header.space == named["space"]:
                file.verify()
                yield WholeShard(file, np.flatnonzero([c in needed for c in file.contents]))
        except StoreDamaged:
            continue  # it is in the quarantine because of that


def take_back_vectors(writer: Writer) -> list[str]:
    """Register the vectors of whole files in the quarantine that items lack.

    Returns:
        What was done, one sentence each.

    Raises:
        StoreUnreadable: if the folder or a file in it cannot be read now.
        StoreIOError: if the disk is full or fails.
    """
    actions = []
    for found in find_whole_shards(writer.layout, writer.catalog):
        contents = shard.hex_digests(found.file.digests[found.rows])
        writer.replace_shards(found.file.header.space, [], found.file.vectors[found.rows], contents)
        actions.append(
            f"{counted(len(contents), 'vector was', 'vectors were')} taken back from {found.file.path}, which is whole"
        )
    return actions


def take_back_heads(layout: Layout, catalog: Catalog, load_head: Callable[[Path], object]) -> list[str]:
    """Put back the heads that the catalog names, whose files are missing, and that are whole in the quarantine.

    Args:
        layout: the paths of the store; the caller holds the writer's lock.
        catalog: its catalog.
        load_head: loads the head in a folder and raises an EmbedstoreError where it is damaged.

    Returns:
        What was done, one sentence each.

    Raises:
        StoreUnreadable: if a file cannot be read now.
        OSError: if the disk is full or fails.
    """
    with catalog.read() as con:
        digests = {name: facts.get("digest") for name, _, _, _, facts, *_ in heads.head_rows(con)}
    actions = []
    for path in reading.list_folder(layout.quarantine):
        named = _HEAD.fullmatch(path.name)
        target = layout.root / "heads" / named["name"] if named else None
        if target is None or target.name not in digests or reading.exists(target):
            continue
        if _is_head(path, digests[target.name], load_head):
            with durable_files.atomic_folder(target) as temporary:
                shutil.copytree(path, temporary, dirs_exist_ok=True)
            actions.append(f"head {target.name} was taken back from {path}, which is whole")
    return actions


def _is_head(folder: Path, digest: str | None, load_head: Callable[[Path], object]) -> bool:
    """Return whether a folder holds the head of a digest, whole."""
    description = folder / "head.json"
    try:
        with reading.read_errors(description):
            if hashlib.sha256(read_bounded(description, MAX_HEAD_BYTES)).hexdigest() != digest:
                return False
        load_head(folder)
    except StoreUnreadable:
        raise
    except (EmbedstoreError, ValueError):  # also a description that is larger than any of ours
        return False
    return True
