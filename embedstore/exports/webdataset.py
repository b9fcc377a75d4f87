"""WebDataset: tar files in which the members of one key belong to one item.

``000000017.jpg`` is the image, ``.cls`` the number of its label, ``.json`` the label and every other column, ``.npy``
the vector. A folder also has ``classes.txt``, the label of each number. The layout is that of the library
``webdataset``, whose decoder takes ``.cls`` for a number.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedstore.exports.formats import ExportOptions
from embedstore.exports.images import ImageReader, ItemImage
from embedstore.storage.durable_files import atomic_write
from embedstore.storage.transfer.selection import ItemBlock, Record, SelectedItems
from embedstore.tables import to_json_value
from embedstore.text_form import UNASSIGNED

SHARD_BYTES = 512 << 20  # a shard is closed once it has more
CLASSES_FILE = "classes.txt"
_KEY_DIGITS = 9
_NOT_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9_]+")
_STORE_COLUMNS = ("item", "content", "size", "mtime_ns", "present", "added")  # of no use outside of the store


def write_tar(selected: SelectedItems, path: Path, options: ExportOptions, images: ImageReader) -> int:
    """Write all items to one tar file.

    Returns:
        How many items were written.

    Raises:
        QueryError: if none of the images can be read.
        OSError: if the disk refuses; a file that was at ``path`` is unchanged.
    """
    samples = _Samples(selected, options, images)
    with atomic_write(path) as file, tarfile.open(fileobj=file, mode="w") as tar:
        for _, members in samples:
            _add(tar, members)
        images.require_rows(samples.count)
    return samples.count


def write_shards(selected: SelectedItems, folder: Path, options: ExportOptions, images: ImageReader) -> int:
    """Write the items to tar files of at most about :data:`SHARD_BYTES` in a folder, by split.

    Returns:
        How many items were written.

    Raises:
        OSError: if the disk refuses.
    """
    samples = _Samples(selected, options, images)
    has_splits = bool(selected.values("split"))
    with ExitStack() as stack:
        shards: dict[str, _Shards] = {}
        for split, members in samples:
            prefix = f"{split_file_name(split)}-" if has_splits else ""
            if prefix not in shards:
                shards[prefix] = stack.enter_context(_open_shards(folder, prefix))
            shards[prefix].add(members)
    lines = "".join(f"{json.dumps(name, ensure_ascii=False)[1:-1]}\n" for name in samples.classes)
    (folder / CLASSES_FILE).write_text(lines, encoding="utf-8")
    return samples.count


def split_file_name(split: str | None) -> str:
    """Return a split as part of the name of a file; ``unassigned`` if there is none."""
    return _NOT_IN_FILE_NAMES.sub("_", split) if split else UNASSIGNED


Members = list[tuple[str, bytes]]  # name and bytes


class _Samples:
    """The members of each item, in order.

    Args:
        selected: the items.
        options: whether vectors are written, and their type.
        images: reads the images.

    Attributes:
        classes: the labels; the number of a class is its place.
        count: how many items were given.
    """

    def __init__(self, selected: SelectedItems, options: ExportOptions, images: ImageReader) -> None:
        self._selected, self._options, self._images = selected, options, images
        self.classes = selected.values("label")
        self._numbers = {name: n for n, name in enumerate(self.classes)}
        self.count = 0

    def __iter__(self) -> Iterator[tuple[str | None, Members]]:
        """Yield the split and the members of every item whose image can be read."""
        for block, images in self._images.blocks(self._selected):
            records = self._selected.records(block, without=("path",))
            for image in images:
                record = records[image.row]
                self.count += 1
                yield record["split"], self._members(block, image, record)

    def _members(self, block: ItemBlock, image: ItemImage, record: Record) -> Members:
        """Return the members of one item."""
        key = f"{record['item']:0{_KEY_DIGITS}d}"
        described = {name: value for name, value in record.items() if name not in _STORE_COLUMNS and value is not None}
        described["group"] = described.pop("group_id", None)
        text = json.dumps(to_json_value(described), ensure_ascii=False)
        members = [(f"{key}.{image.suffix}", image.data)]
        if record["label"] is not None:
            members.append((f"{key}.cls", str(self._numbers[record["label"]]).encode()))
        members.append((f"{key}.json", text.encode()))
        if self._options.vectors:
            members.append((f"{key}.npy", _npy(block.vectors[image.row].astype(self._options.vector_type.value))))
        return members


class _Shards:
    """Tar files that are filled one after the other.

    Args:
        folder: where they are.
        prefix: the prefix of their names.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder, self._prefix = folder, prefix
        self._number = 0
        self._tar = self._open()

    def add(self, members: Members) -> None:
        """Add the members of one item; they are never in two shards."""
        if self._tar.offset > SHARD_BYTES:
            self.close()
            self._number += 1
            self._tar = self._open()
        _add(self._tar, members)

    def close(self) -> None:
        """Complete the current file."""
        self._tar.close()

    def _open(self) -> tarfile.TarFile:
        """Start a file."""
        return tarfile.open(self._folder / f"{self._prefix}{self._number:06d}.tar", "w")


@contextmanager
def _open_shards(folder: Path, prefix: str) -> Iterator[_Shards]:
    """Yield shards that are complete when the block ends."""
    shards = _Shards(folder, prefix)
    try:
        yield shards
    finally:
        shards.close()


def _add(tar: tarfile.TarFile, members: Members) -> None:
    """Add members with the time 0, so that the same items give the same file."""
    for name, data in members:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def _npy(vector: NDArray[np.floating]) -> bytes:
    """Return a vector as a .npy file."""
    out = io.BytesIO()
    np.save(out, vector, allow_pickle=False)
    return out.getvalue()
