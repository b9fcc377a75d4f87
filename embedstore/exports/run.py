"""One export: select the items, write them in a format, report what was left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedstore.exports.arrow_files import write_lance, write_parquet_vectors
from embedstore.exports.csv_file import write_csv
from embedstore.exports.fiftyone import write_fiftyone
from embedstore.exports.formats import ExportFormat, ExportOptions, VectorType, has_arrow
from embedstore.exports.huggingface import write_huggingface
from embedstore.exports.images import ImageReader, LeftOut, open_image_reader
from embedstore.exports.webdataset import write_shards, write_tar
from embedstore.storage import layout
from embedstore.storage.disk_errors import output_errors
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.storage.transfer.export import write_numbers
from embedstore.storage.transfer.selection import SelectedItems, select_items
from embedstore.tables import OneRow
from embedstore.wording import counted

FolderWriter = Callable[[SelectedItems, Path, ExportOptions, ImageReader], int]
_FOLDER_WRITERS: dict[ExportFormat, FolderWriter] = {
    ExportFormat.WEBDATASET: write_shards,
    ExportFormat.HUGGINGFACE: write_huggingface,
    ExportFormat.FIFTYONE: write_fiftyone,
}


@dataclass(frozen=True)
class ExportReport(OneRow):
    """What an export wrote.

    Attributes:
        path: the file or folder.
        format: the format.
        rows: how many items were written.
        left_out: how many items were not, by reason: their images cannot be read, or have changed.
        first_left_out: the first of them, and why; "" if there is none.
    """

    path: str
    format: str
    rows: int
    left_out: dict[str, int]
    first_left_out: str = ""

    def summary(self) -> str:
        """Return one line for a person."""
        text = f"wrote {counted(self.rows, 'row')} to {self.path}"
        if not self.left_out:
            return text
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.left_out.items()))
        return f"{text}; {sum(self.left_out.values()):,} left out ({reasons}), first {self.first_left_out}"


def export_items(
    storage: Storage, space: SpaceRecord, path: Path, options: ExportOptions, *, where: str | None
) -> ExportReport:
    """Write the present items that have a vector and match, ordered by item, in memory that does not grow.

    Args:
        storage: the store.
        space: the space of the vectors.
        path: the file to write, or a new folder.
        options: the format, and what it holds.
        where: a filter, as in search; None exports every item.

    Raises:
        QueryError: if no item matches, or none of their images can be read.
        BadFilter: if the filter is not valid SQL.
        UnknownColumn: if the filter names a column that does not exist.
        MissingExtra: if the format needs a package that is not installed.
        StoreExists: if the folder exists and is not empty, or is inside the store.
        StoreIOError: if the disk refuses a folder; nothing is left of it.
        OutputError: if a file cannot be written; one that was there is unchanged.
    """
    left_out = LeftOut()
    writes_folder = options.format in _FOLDER_WRITERS and path.suffix.lower() != ".tar"
    with select_items(storage, space, where) as selected, open_image_reader(left_out) as images:
        if writes_folder:
            layout.require_outside(path.absolute(), storage.layout)
            with layout.new_folder(path, f"export to {path}") as folder:
                rows = _FOLDER_WRITERS[options.format](selected, folder, options, images)
                images.require_rows(rows)
        else:
            with output_errors(path):
                rows = _write_file(selected, path, options, images)
    return ExportReport(str(path), options.format.value, rows, dict(left_out.reasons), left_out.first)


def _write_file(selected: SelectedItems, path: Path, options: ExportOptions, images: ImageReader) -> int:
    """Write a format that is one file, or the folder of one table; return how many items were written."""
    if options.format is ExportFormat.CSV:
        return write_csv(selected, path)
    if options.format is ExportFormat.LANCE:
        return write_lance(selected, path, options)
    if options.format is ExportFormat.WEBDATASET:
        return write_tar(selected, path, options, images)
    is_parquet = options.format is ExportFormat.PARQUET
    if is_parquet and options.vectors and (has_arrow() or options.vector_type is VectorType.FLOAT16):
        return write_parquet_vectors(selected, path, options)
    write_numbers(selected, path, with_vectors=options.vectors)
    return len(selected)
