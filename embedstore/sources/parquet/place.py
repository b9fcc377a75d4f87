"""Which names that a user gives stand for Parquet files that hold images, and the splits that those names state."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path

from embedstore.errors import BadManifest, ImageError, SourceError, SourceNotFound
from embedstore.sources.files import is_glob
from embedstore.sources.folder_labels import IMAGE_SUFFIXES, NO_SPLIT, label_and_split
from embedstore.sources.given_names import PART_NUMBER, split_of_file_name
from embedstore.sources.parquet.columns import choose_column, choose_text_column
from embedstore.sources.parquet.row_uri import has_parquet_suffix
from embedstore.sources.parquet.rows import read_file_footer
from embedstore.sources.parquet.source import ParquetFile, ParquetImages
from embedstore.sources.remote.filesystem import is_remote
from embedstore.sources.table_options import TableOptions
from embedstore.storage.column_names import find_column
from embedstore.text_form import resembles_split, split_words

FOLDER_DEPTH = 3  # of data sets of the hub: configuration/split/0000.parquet
SAVED_DATA_SET = ("dataset_dict.json", "state.json")  # what ``datasets.save_to_disk`` writes


def open_parquet(
    names: Sequence[str], options: TableOptions, *, splits: bool, listings: Path | None = None
) -> ParquetImages | None:
    """Return the Parquet files with images that the names stand for; None if they stand for something else.

    Args:
        names: files, globs and folders.
        options: how tables are read.
        splits: take the split from the names of files and folders, where no column states it.
        listings: the folder that keeps what is known of the files; None keeps nothing.

    Raises:
        SourceNotFound: if a glob of Parquet files matches nothing.
        SourceError: if the names of some files state a split and those of others do not, or a name such as
            ``validation2`` seems to.
        BadManifest: if several files are given and they hold no images, or it is not clear which column does.
    """
    for name in names:
        refuse_saved_data_set(name)
    folders = [name for name in names if os.path.isdir(name)]  # noqa: PTH112
    files = dict.fromkeys(path for name in names for path in _parquet_files(name))
    if not files or not all(name in folders or has_parquet_suffix(name) for name in names):
        return None
    column = _image_column(list(files), options)
    if column is None:
        if len(names) == 1 and (folders or not is_glob(names[0])):
            return None
        raise BadManifest(
            f"{next(iter(files))} has no column of images, and several tables are read together only where they hold "
            "images; give a table that names its images alone"
        )
    parts = [_describe(path, names, splits=splits) for path in files]
    _check_splits(parts)
    covers = [os.path.abspath(folder).rstrip("/") + "/" for folder in folders]  # noqa: PTH100
    return ParquetImages(parts, column, options, covers, listings)


def refuse_saved_data_set(name: str) -> None:
    """Raise BadManifest for a file of what ``datasets.save_to_disk`` wrote, or a folder of it next to other sources."""
    folder = os.path.dirname(name) if name.lower().endswith(".arrow") else name  # noqa: PTH120
    if any(os.path.isfile(os.path.join(folder, file)) for file in SAVED_DATA_SET):  # noqa: PTH113, PTH118
        raise BadManifest(
            f"{name} is of a data set that datasets.save_to_disk wrote; embed the whole folder {folder}, and by itself"
        )


def split_of_name(path: str, root: str) -> str | None:
    """Return the split that a file's name states (``train-00000-of-00001.parquet``), or its folders below a root.

    Args:
        path: the path of the file.
        root: the folder that the user named, or that the path as typed begins in.
    """
    if split := split_of_file_name(_stem(path)):
        return split
    return label_and_split(_folders_below(path, root), root=os.path.basename(root))[1]  # noqa: PTH119


def _stem(path: str) -> str:
    """Return the name of a file without its suffix."""
    return os.path.splitext(os.path.basename(path))[0]  # noqa: PTH119, PTH122


def _folders_below(path: str, root: str) -> list[str]:
    """Return the folders of a file below a root, outermost first."""
    folders = os.path.dirname(path).removeprefix(root).strip("/").split("/")  # noqa: PTH120
    return [folder for folder in folders if folder]


def _parquet_files(name: str) -> Iterator[str]:
    """Yield the absolute paths of the Parquet files that a name stands for."""
    if is_remote(name):
        return
    if os.path.isdir(name):  # noqa: PTH112
        yield from _files_in_folder(os.path.abspath(name))  # noqa: PTH100
    elif is_glob(name) and has_parquet_suffix(name):
        found = [os.path.abspath(path) for path in sorted(glob(name, recursive=True))]  # noqa: PTH100, PTH207
        if not found:
            raise SourceNotFound(f"no file matches {name}")
        yield from found
    elif has_parquet_suffix(name):
        yield os.path.abspath(name)  # noqa: PTH100


def _files_in_folder(folder: str) -> list[str]:
    """Return the Parquet files of a folder by name; none if there is an image file among them."""
    found: list[str] = []
    for path in _walk(folder, FOLDER_DEPTH):
        if path.lower().endswith(IMAGE_SUFFIXES):
            return []
        if has_parquet_suffix(path):
            found.append(path)
    return sorted(found)


def _walk(folder: str, depth: int) -> Iterator[str]:
    """Yield the files of a folder and of the folders in it, but for hidden ones and links to folders."""
    below = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                elif not entry.is_dir():
                    yield entry.path
    except OSError:  # the walk that embeds the folder reports it
        return
    for inner in below if depth > 1 else ():
        yield from _walk(inner, depth - 1)


def _image_column(files: Sequence[str], options: TableOptions) -> str | None:
    """Return the column of images of the first file that has one; None if there is none."""
    for path in files:
        with suppress(ImageError):  # a file that cannot be read is a failure of the source
            if options.text_column is not None:
                return choose_text_column(read_file_footer(path), options.text_column, path)
            column = choose_column(read_file_footer(path), options.uri_column, path)
            if column is not None:
                return column
    return None


def _describe(path: str, names: Sequence[str], *, splits: bool) -> ParquetFile:
    """Return a file with the split that its name states."""
    above = [os.path.abspath(name) for name in names if os.path.isdir(name)]  # noqa: PTH100, PTH112
    root = next((folder for folder in above if path.startswith(folder.rstrip("/") + "/")), None)
    if root is None:
        typed = any(not os.path.isabs(name) for name in names)  # noqa: PTH117
        root = os.getcwd() if typed and path.startswith(os.getcwd() + "/") else "/"  # noqa: PTH109
    split = split_of_name(path, root) if splits else None
    words = [os.path.basename(root), *_folders_below(path, root), PART_NUMBER.sub("", _stem(path))]  # noqa: PTH119
    if splits and split is None and any(map(resembles_split, words)) and not _has_split_column(path):
        raise SourceError(f"{path} has a name that is nearly that of a split: {NO_SPLIT}")
    return ParquetFile(path, os.path.dirname(path), split)  # noqa: PTH120


def _check_splits(files: Sequence[ParquetFile]) -> None:
    """Refuse files of which some state a split by their names and others do not: those would be in no split."""
    without = [file for file in files if file.split is None]
    if len(without) < len(files):
        without = [file for file in without if not _has_split_column(file.path)]
    if without and len(without) < len(files):
        raise SourceError(
            f"{without[0].path} states no split by its name, and other files do; rename it to train, val or test (or "
            f"another word for one: {split_words()}), embed the files one by one, or take no splits from names with "
            "--splits-from none"
        )


def _has_split_column(path: str) -> bool:
    """Return whether a file has a column that states splits."""
    with suppress(ImageError):
        return find_column("split", read_file_footer(path).types) is not None
    return False
