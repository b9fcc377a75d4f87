"""FiftyOne's own export (FiftyOneDataset): ``samples.json`` next to the folder ``data``.

Boxes are ``[x, y, width, height]`` as shares of the photo. Classifications are labels of the whole photo, a tag that
names a split is the split, and plain values of a sample are columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from embedstore.errors import BadAnnotations
from embedstore.media.image.crop import Box
from embedstore.sources.annotations.json_stream import objects
from embedstore.sources.annotations.records import (
    UNREADABLE_BOX,
    Photo,
    Record,
    Region,
    four_numbers,
    number,
    scalars,
)
from embedstore.text_form import known_split

KEY = "samples"
PREFERRED_FIELD = "ground_truth"
_LABEL_CLASSES = frozenset({"Classification", "Classifications", "Detection", "Detections"})
_SAMPLE_FIELDS_LEFT_OUT = frozenset({"filepath", "_media_type", "media_type", "_rand", "_dataset_id", "_cls", "_id"})
_LABEL_FIELDS_LEFT_OUT = frozenset({"label", "_cls", "_id", "bounding_box", "mask", "mask_path", "index"})


def read_fiftyone(path: str) -> Iterator[Record]:
    """Yield the photos of a file and their annotations.

    Raises:
        BadAnnotations: if it is not such a file, or it has several fields of labels and none is ``ground_truth``.
        SourceNotFound: if there is no such file.
    """
    field = _field(path)
    for n, sample in enumerate(objects(path, KEY)):
        name = sample.get("filepath")
        if not isinstance(name, str) or not name:
            raise BadAnnotations(f"{path}: sample {n + 1} has no filepath; export the data set again")
        yield _photo(str(n), name, sample)
        if field is not None:
            yield from _regions(str(n), sample.get(field))


def _field(path: str) -> str | None:
    """Return the field whose labels are used; None if no sample has labels."""
    fields = {
        name: None
        for sample in objects(path, KEY)
        for name, value in sample.items()
        if isinstance(value, Mapping) and value.get("_cls") in _LABEL_CLASSES
    }
    if PREFERRED_FIELD in fields:
        return PREFERRED_FIELD
    if len(fields) > 1:
        raise BadAnnotations(
            f"{path} has several fields of labels ({', '.join(fields)}) and none is called {PREFERRED_FIELD}; export a "
            f"view with one of them: `dataset.select_fields({next(iter(fields))!r}).export(...)`"
        )
    return next(iter(fields), None)


def _photo(key: str, name: str, sample: Mapping[str, Any]) -> Photo:
    """Return the photo of one sample."""
    size, tags = sample.get("metadata"), sample.get("tags")
    size = size if isinstance(size, Mapping) else {}
    splits = {split.value for tag in tags if (split := known_split(str(tag)))} if isinstance(tags, list) else set()
    return Photo(
        key,
        name,
        number(size.get("width")),
        number(size.get("height")),
        split=splits.pop() if len(splits) == 1 else None,
        columns=scalars(sample, _SAMPLE_FIELDS_LEFT_OUT),
    )


def _regions(photo: str, value: Any) -> Iterator[Region]:
    """Yield what one field of labels says."""
    if isinstance(value, Mapping):
        inner = value.get("detections", value.get("classifications"))
        labels = inner if isinstance(inner, list) else [value]
        yield from (_region(photo, label) for label in labels if isinstance(label, Mapping))


def _region(photo: str, label: Mapping[str, Any]) -> Region:
    """Return one label."""
    given, name = label.get("bounding_box"), label.get("label")
    shares = four_numbers(given)
    box = _percent_box(shares) if shares else None
    return Region(
        photo,
        box,
        label=name if isinstance(name, str) else None,
        is_crowd=bool(label.get("iscrowd")),
        problem=UNREADABLE_BOX if given is not None and box is None else None,
        columns=scalars(label, _LABEL_FIELDS_LEFT_OUT) if box else {},
    )


def _percent_box(shares: tuple[float, float, float, float]) -> Box:
    """Return a box in percent from one in shares of the photo."""
    x, y, width, height = (100 * share for share in shares)
    return Box(x, y, width, height, is_percent=True)
