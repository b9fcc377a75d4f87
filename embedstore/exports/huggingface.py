"""A data set of Hugging Face: Parquet files with images and class names, which ``datasets.load_dataset`` reads.

``data/SPLIT-NNNNN-of-NNNNN.parquet`` have ``image`` (bytes and path), ``label`` as a number of a class, the columns of
the items, and the vector. The features are in the metadata of each file, under the key ``huggingface``, as the package
``datasets`` writes them. A split called ``val`` is ``validation`` there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore.exports.arrow_files import VECTOR, vector_column
from embedstore.exports.formats import ExportOptions
from embedstore.exports.images import ImageReader, ItemImage
from embedstore.exports.webdataset import split_file_name
from embedstore.storage.transfer.selection import ArrowItems, ItemBlock, SelectedItems

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE, LABEL = "image", "label"
SOURCE_URI, GROUP = "source_uri", "group"  # a column "uri" would make it a table of paths
ROW_GROUP_BYTES = 32 << 20  # of images; a reader keeps one row group in memory
FILE_BYTES = 400 << 20
_LEFT_OUT = ("item", "uri", "label", "group_id", "content", "size", "mtime_ns", "present", "added")
_ROLES = ("uri", "label", "group_id")
_SPLITS = {"val": "validation"}


def write_huggingface(selected: SelectedItems, folder: Path, options: ExportOptions, images: ImageReader) -> int:
    """Write the items as a data set.

    Returns:
        How many items were written.

    Raises:
        MissingExtra: if pyarrow is not installed.
        OSError: if the disk refuses.
    """
    rows = _Rows(selected, options, images)
    has_splits = bool(selected.values("split"))
    (folder / "data").mkdir()
    with ExitStack() as stack:
        files: dict[str, _SplitFiles] = {}
        for split, table, size in rows:
            name = split_file_name(_SPLITS.get(split or "", split)) if has_splits else "train"
            if name not in files:
                files[name] = stack.enter_context(_SplitFiles(folder / "data", name))
            files[name].add(table, size)
    return rows.count


class _Rows:
    """The rows of the data set, in parts of one split.

    Args:
        selected: the items.
        options: whether vectors are written, and their type.
        images: reads the images.

    Attributes:
        count: how many rows were given.
    """

    def __init__(self, selected: SelectedItems, options: ExportOptions, images: ImageReader) -> None:
        ours = [IMAGE, LABEL, SOURCE_URI, GROUP, *([VECTOR] if options.vectors else [])]
        self._items: ArrowItems = selected.arrow(beside=ours, without=_LEFT_OUT)
        self._roles: ArrowItems = selected.arrow(without=[c for c in selected.columns if c not in _ROLES])
        self._selected, self._options, self._images = selected, options, images
        self._classes = selected.values("label")
        self._numbers = {name: n for n, name in enumerate(self._classes)}
        self.count = 0

    def __iter__(self) -> Iterator[tuple[str | None, pa.Table, int]]:
        """Yield a split, rows of it, and the size of their images in bytes."""
        for block, images in self._images.blocks(self._selected):
            table = self._items.table(block)
            by_split: dict[str | None, list[ItemImage]] = {}
            for image, split in zip(images, _take(table["split"], images), strict=True):
                by_split.setdefault(split, []).append(image)
            for split, members in by_split.items():
                self.count += len(members)
                yield split, self._table(block, table, members), sum(len(image.data) for image in members)

    def _table(self, block: ItemBlock, items: pa.Table, images: Sequence[ItemImage]) -> pa.Table:
        """Return the rows of some images of a block."""
        import pyarrow as pa

        rows = [image.row for image in images]
        roles = self._roles.table(block).take(rows)
        pictures = [
            {"bytes": i.data, "path": f"{uri_name(u)}"} for i, u in zip(images, roles["uri"].to_pylist(), strict=True)
        ]
        columns: dict[str, Any] = {
            IMAGE: pa.array(pictures, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        }
        if self._classes:
            numbers = [self._numbers.get(name) for name in roles["label"].to_pylist()]
            columns[LABEL] = pa.array(numbers, pa.int64())
        columns |= {SOURCE_URI: roles["uri"], GROUP: roles["group_id"]}
        columns |= {name: items[name].take(rows) for name in items.column_names}
        if self._options.vectors:
            columns[VECTOR] = vector_column(block.vectors[rows], self._options.vector_type)
        return pa.table(columns).replace_schema_metadata({"huggingface": self._features()})

    def _features(self) -> str:
        """Return the features that the types of the columns do not say."""
        features: dict[str, Any] = {IMAGE: {"_type": "Image"}}
        if self._classes:
            features[LABEL] = {"names": self._classes, "_type": "ClassLabel"}
        return json.dumps({"info": {"features": features}})


def uri_name(uri: str) -> str:
    """Return the last part of a uri, for people; the path of the image itself would be one of this machine."""
    return uri.split("::", 1)[0].rsplit("/", 1)[-1]


def _take(column: pa.ChunkedArray, images: Sequence[ItemImage]) -> list[Any]:
    """Return the values of a column in the rows of some images."""
    values = column.to_pylist()
    return [values[image.row] for image in images]


@dataclass
class _SplitFiles:
    """The files of one split, which are named once their number is known.

    Attributes:
        folder: where they are.
        split: the name of the split.
    """

    folder: Path
    split: str
    _tables: list[pa.Table] = field(default_factory=list)
    _pending_bytes: int = 0
    _file_bytes: int = 0
    _paths: list[Path] = field(default_factory=list)
    _writer: Any = None

    def __enter__(self) -> _SplitFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._close()
        for number, path in enumerate(self._paths):
            path.rename(self.folder / f"{self.split}-{number:05d}-of-{len(self._paths):05d}.parquet")

    def add(self, table: pa.Table, size: int) -> None:
        """Add rows whose images have ``size`` bytes; they are written once there are enough for a row group."""
        self._tables.append(table)
        self._pending_bytes += size
        if self._pending_bytes >= ROW_GROUP_BYTES:
            self._flush()
        if self._file_bytes >= FILE_BYTES:
            self._close()

    def _flush(self) -> None:
        """Write the pending rows as one row group."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._tables:
            return
        table = pa.concat_tables(self._tables)
        if self._writer is None:
            self._paths.append(self.folder / f"{self.split}.{len(self._paths)}.part")
            self._writer = pq.ParquetWriter(self._paths[-1], table.schema)
        self._writer.write_table(table, row_group_size=max(1, len(table)))
        self._file_bytes += self._pending_bytes
        self._tables, self._pending_bytes = [], 0

    def _close(self) -> None:
        """Complete the current file."""
        if self._writer is not None:
            self._writer.close()
        self._writer, self._file_bytes = None, 0
