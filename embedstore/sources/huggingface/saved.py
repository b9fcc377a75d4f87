"""What ``datasets.save_to_disk`` wrote, read in place: Arrow files, and JSON that names them and the splits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore.errors import BadManifest, ImageError
from embedstore.json_objects import parse_json_object
from embedstore.sources.columns import CollectedColumns
from embedstore.sources.folder_labels import sidecar_split
from embedstore.sources.huggingface.arrow_file import arrow_version, open_arrow
from embedstore.sources.locations import is_location, stat_location
from embedstore.sources.parquet.columns import LIKELY_COLUMNS, require_text_column, stated_columns
from embedstore.sources.parquet.empty_rows import NO_IMAGE, NO_TEXT
from embedstore.sources.parquet.footer import IMAGE_FIELD, PATH_FIELD, class_names, list_element, parse_features
from embedstore.sources.parquet.row_uri import RowUri, column_fragment
from embedstore.sources.source import LocationSource, Scan
from embedstore.storage.column_names import ROLE_COLUMNS, find_column
from embedstore.text_form import clean_name, known_split
from embedstore.types import Failure, ImageRef

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 256  # whose columns are turned into Python's values at once; images are not
_DICT_FILE, _STATE_FILE = "dataset_dict.json", "state.json"


@dataclass(frozen=True)
class _SavedSplit:
    """The files of one split.

    Attributes:
        name: the name of the split; None for a data set without splits.
        files: absolute, in order.
    """

    name: str | None
    files: tuple[str, ...]


def is_saved_data_set(name: str) -> bool:
    """Return whether a name is a folder that ``datasets.save_to_disk`` wrote."""
    return any(os.path.isfile(os.path.join(name, file)) for file in (_DICT_FILE, _STATE_FILE))  # noqa: PTH113, PTH118


class SavedDataSet(LocationSource):
    """The images of a saved data set. Class numbers become their names, and other columns are kept.

    Args:
        folder: the folder.
        column: the column of images; None takes the one that the features, or its name, say.
        splits: take the splits from the names under which they were saved.
        of_texts: ``column`` holds texts, one per item.

    Raises:
        BadManifest: if the JSON is damaged, no column holds images, or a split is not understood.
        MissingExtra: if pyarrow is not installed.
    """

    overrides_metadata = True
    unit = "row"

    def __init__(self, folder: str, column: str | None, *, splits: bool, of_texts: bool = False) -> None:
        self._folder = os.path.abspath(folder)  # noqa: PTH100
        self.description = self._folder
        self._splits = _saved_splits(Path(self._folder))
        self._use_splits, self._of_texts = splits, of_texts
        self._own_columns = self._collected = CollectedColumns()
        self._left_out: dict[str, None] = {}
        self._plan = _plan(self._first_table(), column, self._folder, of_texts=of_texts)
        self.stated_columns = tuple(self._plan.roles.values())
        self.tables = ((f"{self._folder}/", column_fragment(self._plan.image)),)

    @property
    def notices(self) -> Sequence[str]:
        """Which columns were left out."""
        return [f"{self.description}: the column {name!r} holds bytes and was left out" for name in self._left_out]

    def scan(self) -> Scan:
        """Start a pass over the rows; a file that cannot be read is a failure."""
        return Scan(self._entries())

    def _first_table(self) -> pa.Table:
        """Return the first file that can be read; its columns are those of all."""
        problem = "it names no files"
        for path in (path for split in self._splits for path in split.files):
            try:
                return open_arrow(path)
            except ImageError as e:
                problem = f"{path}: {e.detail}"
        raise BadManifest(f"{self._folder} cannot be read as a saved data set: {problem}; save it again")

    def _entries(self) -> Iterator[ImageRef | Failure]:
        """Yield the rows of every split, file by file."""
        for split in self._splits:
            for path in split.files:
                try:
                    table, version_ns = open_arrow(path), arrow_version(path)
                except ImageError as e:
                    yield Failure(path, path, 0, 0, e.reason, e.detail)
                    continue
                for first in range(0, table.num_rows, BATCH_ROWS):
                    yield from self._rows(table.slice(first, BATCH_ROWS), first, path, version_ns, split.name)

    def _rows(
        self, table: pa.Table, first: int, path: str, version_ns: int, split: str | None
    ) -> Iterator[ImageRef | Failure]:
        """Yield the references of some rows."""
        sizes, paths = _sizes_and_paths(table[self._plan.image])
        values = table.select([name for name in self._plan.names if name in table.column_names]).to_pylist()
        for n, (size, written, row) in enumerate(zip(sizes, paths, values, strict=True)):
            uri = str(RowUri(path, self._plan.image, first + n))
            facts = {self._plan.roles.get(name, name): self._plan.value(name, value) for name, value in row.items()}
            label, group = clean_name(facts.pop("label", None)), clean_name(facts.pop("group", None))
            stated = sidecar_split(uri, _text(facts.pop("split", None)))
            chosen = stated or (known_split_name(split) if split and self._use_splits else None)
            if size is None and written:
                local = written if is_location(written) else os.path.join(os.path.dirname(path), written)  # noqa: PTH118, PTH120
                self._collected.add(local, facts)
                yield stat_location(local, label, chosen, group)
            elif size is None:
                yield Failure(uri, uri, 0, version_ns, *(NO_TEXT if self._of_texts else NO_IMAGE))
            else:
                self._collected.add(uri, facts | ({f"{self._plan.image}_path": written} if written else {}))
                yield ImageRef(uri, uri, size, version_ns, label, chosen, group)


@dataclass(frozen=True)
class _ColumnPlan:
    """What becomes of the columns.

    Attributes:
        image: the column of images.
        names: the other columns that are kept.
        roles: which of them are label, split and group.
        features: Hugging Face's description of each column.
    """

    image: str
    names: tuple[str, ...]
    roles: Mapping[str, str]
    features: Mapping[str, Mapping[str, Any]]

    def value(self, name: str, value: Any) -> Any:
        """Return a value with names in place of the numbers of classes."""
        feature = self.features.get(name)
        if isinstance(value, list) and (names := class_names(list_element(feature))):
            return [_class_name(number, names, name) for number in value]
        if value is not None and (names := class_names(feature)):
            return _class_name(value, names, name)
        return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)


def known_split_name(name: str) -> str:
    """Return the split that the name of a saved split means.

    Raises:
        BadManifest: if it means none.
    """
    split = known_split(name)
    if split is None:
        raise BadManifest(
            f"the data set has a split {name!r}, which is not train, val or test; take none with --splits-from none"
        )
    return split.value


def _saved_splits(folder: Path) -> list[_SavedSplit]:
    """Return the splits and their files.

    Raises:
        BadManifest: if the JSON is damaged or names files outside of the folder.
    """
    if (folder / _DICT_FILE).is_file():
        names = _read_json(folder / _DICT_FILE).get("splits")
        if not isinstance(names, list) or not all(_is_plain_name(name) for name in names):
            raise BadManifest(f"{folder / _DICT_FILE} does not name the splits; save the data set again")
        return [_SavedSplit(name, _arrow_files(folder / name)) for name in names]
    split = _read_json(folder / _STATE_FILE).get("_split")
    return [_SavedSplit(split if isinstance(split, str) else None, _arrow_files(folder))]


def _arrow_files(folder: Path) -> tuple[str, ...]:
    """Return the Arrow files of one split."""
    files = _read_json(folder / _STATE_FILE).get("_data_files")
    names = [file.get("filename") for file in files if isinstance(file, dict)] if isinstance(files, list) else [None]
    if not all(_is_plain_name(name) for name in names):
        raise BadManifest(f"{folder / _STATE_FILE} does not name the files; save the data set again")
    return tuple(str(folder / str(name)) for name in names)


def _is_plain_name(name: object) -> bool:
    """Return whether a name stays in its folder."""
    return isinstance(name, str) and name not in ("", ".", "..") and "/" not in name and "\\" not in name


def _read_json(path: Path) -> dict[str, Any]:
    """Return an object of JSON."""
    try:
        return parse_json_object(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError) as e:
        raise BadManifest(f"{path} cannot be read: {' '.join(str(e).split())}; save the data set again") from e


def _plan(table: pa.Table, column: str | None, folder: str, *, of_texts: bool) -> _ColumnPlan:
    """Decide which column holds the images, and what the others are."""
    import pyarrow as pa

    features = parse_features((table.schema.metadata or {}).get(b"huggingface", b""))
    holding = [field.name for field in table.schema if _holds_bytes(field.type)]
    stated = stated_columns(holding, features)
    likely = [name for name in holding if name.lower() in LIKELY_COLUMNS]
    candidates = [column] if column else stated if len(stated) == 1 else holding if len(holding) == 1 else likely
    if of_texts:
        candidates = [_text_column(table, column, folder)]
    elif len(candidates) != 1 or candidates[0] not in holding:
        raise BadManifest(
            f"{folder} has {'no column' if not holding else 'several columns'} of images "
            f"({', '.join(holding) or 'none holds bytes'}); name one with --uri-column"
        )
    names = tuple(f.name for f in table.schema if f.name not in holding)
    roles = {found: role for role in ROLE_COLUMNS[1:] if (found := find_column(role, names))}
    integers = [f.name for f in table.schema if pa.types.is_integer(f.type)]
    classes = [name for name in integers if class_names(features.get(name))]
    if "label" not in roles.values() and len(classes) == 1 and classes[0] not in roles:
        roles[classes[0]] = "label"
    return _ColumnPlan(candidates[0], names, roles, features)


def _text_column(table: pa.Table, column: str | None, folder: str) -> str:
    """Return the column of texts that the user names."""
    import pyarrow as pa

    texts = [f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    return require_text_column(column or "", {f.name: str(f.type) for f in table.schema}, texts, folder)


def _holds_bytes(kind: pa.DataType) -> bool:
    """Return whether a type is bytes, or a structure with a field of bytes."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        index = kind.get_field_index(IMAGE_FIELD)
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _sizes_and_paths(images: pa.ChunkedArray) -> tuple[list[int | None], list[str | None]]:
    """Return the size in bytes and the path of each image, None where there is none; no image is copied."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_struct(images.type):
        return pc.binary_length(images).to_pylist(), [None] * len(images)
    sizes = pc.binary_length(pc.struct_field(images, IMAGE_FIELD)).to_pylist()
    if images.type.get_field_index(PATH_FIELD) < 0:
        return sizes, [None] * len(images)
    return sizes, pc.struct_field(images, PATH_FIELD).to_pylist()


def _class_name(number: object, names: Sequence[str], column: str) -> str | None:
    """Return the name of a class; None for -1, which is no class."""
    if not isinstance(number, int) or number == -1:
        return None
    if not 0 <= number < len(names):
        raise BadManifest(f"the column {column!r} has the number {number}, for which the features name no class")
    return names[number]


def _text(value: object) -> str | None:
    """Return a value as text; None if there is none."""
    return None if value is None else str(value)
