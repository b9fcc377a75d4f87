"""A FiftyOne data set in its JSON layout: ``metadata.json`` and ``samples.json``; ``data/`` has what is no local file.

It is the layout without a version, which ``fiftyone.Dataset.from_dir(dataset_type=fiftyone.types.FiftyOneDataset)``
reads and which needs no ids of a database. A vector is the bytes that ``numpy.save`` writes, compressed by zlib, as
FiftyOne stores its ``VectorField``.
"""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.exports.formats import ExportOptions
from embedstore.exports.images import BLOCK_IMAGES, ImageReader
from embedstore.sources.local_files import is_local_file
from embedstore.storage.transfer.selection import ItemBlock, Record, SelectedItems
from embedstore.tables import to_json_value

LABEL, EMBEDDING = "label", "embedding"
_FIELDS = "fiftyone.core.fields."
_CLASSIFICATION = f"{_FIELDS}EmbeddedDocumentField(fiftyone.core.labels.Classification)"
_PLAIN_FIELDS = {
    "VARCHAR": "StringField", "BOOLEAN": "BooleanField", "TINYINT": "IntField", "SMALLINT": "IntField",
    "INTEGER": "IntField", "BIGINT": "IntField", "UTINYINT": "IntField", "USMALLINT": "IntField",
    "UINTEGER": "IntField", "FLOAT": "FloatField", "DOUBLE": "FloatField",
}  # fmt: skip
_LEFT_OUT = ("label", "split", "content", "size", "mtime_ns", "present", "added")
_TAKEN = frozenset(
    {"id", "filepath", "tags", "metadata", "media_type", "created_at", "last_modified_at", LABEL, EMBEDDING}
)
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_]+")


def write_fiftyone(selected: SelectedItems, folder: Path, options: ExportOptions, images: ImageReader) -> int:
    """Write the items as samples. A local file is named and not copied; any other image is written to ``data/``.

    Returns:
        How many items were written.

    Raises:
        OSError: if the disk refuses.
    """
    fields = _fields(selected)
    schema = {
        "filepath": f"{_FIELDS}StringField",
        "tags": f"{_FIELDS}ListField({_FIELDS}StringField)",
        LABEL: _CLASSIFICATION,
        **({EMBEDDING: f"{_FIELDS}VectorField"} if options.vectors else {}),
        **{field.name: f"{_FIELDS}{field.kind}" for field in fields.values()},
    }
    metadata = {"media_type": "image", "sample_fields": schema, "info": {}}
    (folder / "metadata.json").write_text(json.dumps(metadata, ensure_ascii=False), encoding="utf-8")
    count = 0
    with (folder / "samples.json").open("w", encoding="utf-8") as file:
        file.write('{"samples": [')
        for count, sample in enumerate(_samples(selected, folder, options, images, fields), 1):
            file.write((",\n" if count > 1 else "\n") + json.dumps(sample, ensure_ascii=False))
        file.write("\n]}\n")
    return count


@dataclass(frozen=True)
class _Field:
    """A field of the samples: its name, and the class of FiftyOne that describes it."""

    name: str
    kind: str

    def value(self, value: Any) -> Any:
        """Return a value as JSON; a type that FiftyOne does not have is text."""
        plain = to_json_value(value)
        if value is None or self.kind != "StringField" or isinstance(plain, str):
            return plain
        return json.dumps(plain, ensure_ascii=False)


def _fields(selected: SelectedItems) -> dict[str, _Field]:
    """Return the field of each column; names that FiftyOne does not allow or uses itself get the prefix ``meta_``."""
    fields: dict[str, _Field] = {}
    taken = set(_TAKEN)
    for column, kind in selected.types().items():
        if column in _LEFT_OUT:
            continue
        name = _NOT_IN_NAMES.sub("_", column)
        if name in taken or not name[:1].isalpha():
            name = f"meta_{name}"
        while name in taken:
            name += "_"
        taken.add(name)
        fields[column] = _Field(name, _PLAIN_FIELDS.get(kind, "StringField"))
    return fields


def _samples(
    selected: SelectedItems,
    folder: Path,
    options: ExportOptions,
    images: ImageReader,
    fields: Mapping[str, _Field],
) -> Iterator[dict[str, Any]]:
    """Yield the sample of every item whose image exists."""
    for block in selected.blocks(BLOCK_IMAGES):
        records = selected.records(block)
        paths = _paths(selected, block, folder, images)
        for row, (record, path) in enumerate(zip(records, paths, strict=True)):
            if path is None:
                continue
            sample: dict[str, Any] = {"filepath": path, "tags": [record["split"]] if record["split"] else []}
            sample |= {field.name: field.value(record[column]) for column, field in fields.items()}
            sample[LABEL] = _classification(record)
            if options.vectors:
                sample[EMBEDDING] = _vector(block.vectors[row].astype(options.vector_type.value))
            yield sample


def _paths(selected: SelectedItems, block: ItemBlock, folder: Path, images: ImageReader) -> list[str | None]:
    """Return where each image of a block is: its file, or the one that is written; None if it cannot be read."""
    files = selected.files(block)
    paths: list[str | None] = [f.path if f.path == f.uri and is_local_file(f.path) else None for f in files]
    others = [row for row, path in enumerate(paths) if path is None]
    for image in images.read([files[row] for row in others]):
        row = others[image.row]
        name = f"data/{block.first + row:09d}.{image.suffix}"
        (folder / "data").mkdir(exist_ok=True)
        (folder / name).write_bytes(image.data)
        paths[row] = name
    return paths


def _classification(record: Record) -> dict[str, Any] | None:
    """Return the label of an item as FiftyOne stores it."""
    return None if record["label"] is None else {"_cls": "Classification", "label": record["label"], "tags": []}


def _vector(vector: NDArray[np.floating]) -> dict[str, Any]:
    """Return a vector as FiftyOne stores it, in MongoDB's extended JSON."""
    out = io.BytesIO()
    np.save(out, vector, allow_pickle=False)
    return {"$binary": {"base64": base64.b64encode(zlib.compress(out.getvalue())).decode(), "subType": "00"}}
