"""The format of annotations, from the names and the content of files."""

from __future__ import annotations

import os
from contextlib import suppress
from enum import StrEnum

from embedstore.errors import BadAnnotations, SourceNotFound
from embedstore.sources.annotations import coco, fiftyone, voc, yolo
from embedstore.sources.annotations.json_stream import first_key
from embedstore.sources.tables import table_suffix


class AnnotationFormat(StrEnum):
    """What annotations are written as."""

    COCO = "COCO"
    FIFTYONE = "FiftyOne"
    YOLO = "YOLO"
    VOC = "Pascal VOC"
    METADATA = "a table with the column file_name"


METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_SAMPLES_FILE = "samples.json"
_ROBOFLOW_FILE = "_annotations.coco.json"
_YAML_SUFFIXES = (".yaml", ".yml")


def find_annotations(path: str) -> tuple[AnnotationFormat, str]:
    """Return the format of a file or folder of annotations, and the file or folder to read.

    Raises:
        SourceNotFound: if there is nothing of that name.
        BadAnnotations: if the format is not known.
    """
    if not os.path.lexists(path):
        raise SourceNotFound(f"{path} does not exist; --annotations names a file or folder of annotations")
    found = _in_folder(path) if os.path.isdir(path) else _of_file(path)  # noqa: PTH112
    if found is None:
        raise BadAnnotations(
            f"{path} holds no annotations that are known; name a JSON file of COCO, the samples.json of FiftyOne, the "
            "data.yaml of YOLO or its folder with images and labels, a folder of Pascal VOC with Annotations, or "
            "metadata.csv or metadata.jsonl with a column file_name"
        )
    return found


def json_format(path: str) -> AnnotationFormat | None:
    """Return the format of a JSON file of annotations; None for any other file."""
    key = first_key(path, coco.KEYS | {fiftyone.KEY})
    if key is None:
        return None
    return AnnotationFormat.FIFTYONE if key == fiftyone.KEY else AnnotationFormat.COCO


def is_annotation_file(path: str) -> bool:
    """Return whether a file that a user names as a source is one of annotations, and not a table or an image."""
    name = path.lower()
    if not os.path.isfile(path):  # noqa: PTH113
        return False
    return name.endswith(_YAML_SUFFIXES) or (name.endswith(".json") and json_format(path) is not None)


def annotation_hint(folder: str) -> str | None:
    """Return which option reads the annotations in a folder of photos; None if no names of files look like any."""
    with suppress(OSError):
        found = _in_folder(folder) if os.path.isdir(folder) else None  # noqa: PTH112
        if found is not None:
            kind, path = found
            return f"{path} looks like annotations ({kind}), which --annotations {path} reads"
    return None


def _of_file(path: str) -> tuple[AnnotationFormat, str] | None:
    """Return the format of a file."""
    name = path.lower()
    if name.endswith(".json") and (found := json_format(path)):
        return found, path
    if name.endswith(_YAML_SUFFIXES):
        return AnnotationFormat.YOLO, path
    if name.endswith(".xml"):
        return AnnotationFormat.VOC, path
    return (AnnotationFormat.METADATA, path) if table_suffix(path) not in (None, ".json") else None


def _in_folder(folder: str) -> tuple[AnnotationFormat, str] | None:
    """Return the format of the annotations in a folder."""
    names = sorted(os.listdir(folder))  # noqa: PTH208
    files = [
        *((AnnotationFormat.YOLO, name) for name in yolo.DATA_FILES),
        (AnnotationFormat.FIFTYONE, _SAMPLES_FILE),
        (AnnotationFormat.COCO, _ROBOFLOW_FILE),
        *((AnnotationFormat.METADATA, name) for name in METADATA_FILES),
    ]
    for kind, name in files:
        if name in names:
            return kind, os.path.join(folder, name)  # noqa: PTH118
    if voc.ANNOTATIONS in names or any(name.lower().endswith(".xml") for name in names):
        return AnnotationFormat.VOC, folder
    return (AnnotationFormat.YOLO, folder) if {"images", "labels"} <= set(names) else None
