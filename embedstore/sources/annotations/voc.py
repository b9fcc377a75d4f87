"""Pascal VOC: one XML file per photo in ``Annotations``, the photos in ``JPEGImages``, splits in ``ImageSets/Main``.

A box is ``xmin, ymin, xmax, ymax`` in pixels counted from 1, both ends included (VOC2012 development kit, section 3.2).
XML with a document type or entities is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from embedstore.errors import ImageError
from embedstore.media.image.crop import Box
from embedstore.sources.annotations.image_files import ImageFiles
from embedstore.sources.annotations.records import UNREADABLE_BOX, Photo, Record, Region
from embedstore.sources.local_files import read_file
from embedstore.types import Failure, FailureReason, display_uri

ANNOTATIONS, IMAGES, SPLIT_LISTS = "Annotations", "JPEGImages", os.path.join("ImageSets", "Main")  # noqa: PTH118
SPLITS = ("train", "val", "test")
MAX_XML_BYTES = 16 << 20
_FLAGS = ("difficult", "truncated", "occluded")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(path: str, images: ImageFiles) -> Iterator[Record]:
    """Yield the photos of a data set and their boxes; a file that cannot be read is a failure.

    Args:
        path: the path of the data set, of its folder of XML files, or of one XML file.
        images: finds the files of images.
    """
    files = _xml_files(path)
    folder = _data_set_folder(path)
    photos = _photo_folder(images.root or folder) or images.root or os.path.join(folder, IMAGES)  # noqa: PTH118
    splits = _splits(folder)
    for file in files:
        stem = os.path.splitext(os.path.basename(file))[0]  # noqa: PTH119, PTH122
        try:
            tree = _parse(file)
        except ImageError as e:
            images.failures.append(Failure(display_uri(file), file, 0, 0, e.reason, e.detail))
            continue
        name = _image_file(tree.findtext("filename"), stem, (photos, os.path.dirname(file)))  # noqa: PTH120
        yield Photo(file, name, _number(tree, "size/width"), _number(tree, "size/height"), splits.get(stem))
        for element in tree.iter("object"):
            yield _region(file, element)
    if os.path.isdir(path) and os.path.isdir(photos):  # noqa: PTH112
        for image in images.list(photos):
            yield Photo(image, image, split=splits.get(os.path.splitext(os.path.basename(image))[0]))  # noqa: PTH119, PTH122


def _xml_files(path: str) -> list[str]:
    """Return the XML files of a data set, by name."""
    if not os.path.isdir(path):  # noqa: PTH112
        return [os.path.abspath(path)]  # noqa: PTH100
    inner = os.path.join(path, ANNOTATIONS)  # noqa: PTH118
    folder = os.path.abspath(inner if os.path.isdir(inner) else path)  # noqa: PTH100, PTH112
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(".xml"))  # noqa: PTH208
    return [os.path.join(folder, name) for name in names]  # noqa: PTH118


def _data_set_folder(path: str) -> str:
    """Return the folder that has ``Annotations``."""
    folder = os.path.abspath(path if os.path.isdir(path) else os.path.dirname(path) or ".")  # noqa: PTH100, PTH112, PTH120
    return os.path.dirname(folder) if os.path.basename(folder) == ANNOTATIONS else folder  # noqa: PTH119, PTH120


def _photo_folder(folder: str) -> str | None:
    """Return the folder of the photos in that of a data set, None if there is none."""
    photos = os.path.join(folder, IMAGES)  # noqa: PTH118
    return photos if os.path.isdir(photos) else None  # noqa: PTH112


def _splits(folder: str) -> dict[str, str]:
    """Return the split of each photo that a list of the data set names, by its name without suffix."""
    splits: dict[str, str] = {}
    for split in SPLITS:
        path = os.path.join(folder, SPLIT_LISTS, f"{split}.txt")  # noqa: PTH118
        if os.path.isfile(path):  # noqa: PTH113
            with open(path, encoding="utf-8", errors="replace") as lines:  # noqa: PTH123
                splits |= {line.split()[0]: split for line in lines if line.strip()}
    return splits


def _parse(file: str) -> Element:
    """Return the root of an XML file.

    Raises:
        ImageError: if it cannot be read, is too large, is not XML, or has a document type.
    """
    data = read_file(file)
    if len(data) > MAX_XML_BYTES:
        raise ImageError(FailureReason.TOO_LARGE, f"the file has more than {MAX_XML_BYTES:,} bytes")
    try:
        root: Element = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as e:
        raise ImageError(FailureReason.CORRUPT, "XML with a document type or entities is not read") from e
    except (ParseError, ValueError, LookupError, RecursionError) as e:
        raise ImageError(FailureReason.CORRUPT, f"not readable XML: {e}") from e
    return root


def _image_file(name: str | None, stem: str, folders: tuple[str, ...]) -> str:
    """Return the photo that an XML file describes: its own name for it, else the file with its stem."""
    written = os.path.basename((name or "").strip().replace("\\", "/"))  # noqa: PTH119
    for folder in folders:
        for candidate in (written, f"{stem}.jpg", f"{stem}.jpeg", f"{stem}.png"):
            if candidate and os.path.lexists(os.path.join(folder, candidate)):  # noqa: PTH118
                return os.path.join(folder, candidate)  # noqa: PTH118
    return os.path.join(folders[0], written or f"{stem}.jpg")  # noqa: PTH118


def _region(photo: str, element: Element) -> Region:
    """Return one object."""
    corners = [_number(element, f"bndbox/{corner}") for corner in _CORNERS]
    known = [corner for corner in corners if corner is not None]
    flags = {flag: text.strip() == "1" for flag in _FLAGS if (text := element.findtext(flag)) is not None}
    pose = (element.findtext("pose") or "").strip()
    columns = flags | ({"pose": pose} if pose and pose != "Unspecified" else {})
    label = element.findtext("name")
    if len(known) < len(corners):
        return Region(photo, label=label, problem=UNREADABLE_BOX, columns=columns)
    left, upper, right, lower = known
    return Region(photo, Box(left - 1, upper - 1, right - left + 1, lower - upper + 1), label=label, columns=columns)


def _number(element: Element, path: str) -> float | None:
    """Return a number below an element, or None."""
    try:
        return float(element.findtext(path) or "")
    except ValueError:
        return None
