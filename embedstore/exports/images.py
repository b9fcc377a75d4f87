"""The images of the items to export: read again, and compared with what was embedded."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from embedstore.errors import ItemError, QueryError
from embedstore.media.image.crop import split_crop
from embedstore.media.image.decode import to_rgb_image
from embedstore.sources.locations import read_location
from embedstore.sources.parts.part_uri import parse_part_uri
from embedstore.storage.transfer.selection import ItemBlock, ItemFile, SelectedItems
from embedstore.types import content_digest

BLOCK_IMAGES = 64  # images in memory at once
READERS = 16
CHANGED = "changed"  # the reason of an image that is not the one that was embedded
_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "AVIF": "avif"}
_URI_SUFFIX = re.compile(r"\.([A-Za-z0-9]{1,5})$")


@dataclass
class LeftOut:
    """Items that an export left out.

    Attributes:
        reasons: how many, by reason.
        first: the first one, as text; "" if there is none.
    """

    reasons: Counter[str] = field(default_factory=Counter)
    first: str = ""

    def add(self, uri: str, reason: str, detail: str) -> None:
        """Count one item."""
        self.reasons[reason] += 1
        self.first = self.first or f"{uri}: {detail}"


@dataclass(frozen=True, slots=True)
class ItemImage:
    """The image of an item.

    Attributes:
        row: the number of the item within its block.
        data: the bytes of the file.
        suffix: the usual suffix of its format, without a dot.
    """

    row: int
    data: bytes
    suffix: str


@contextmanager
def open_image_reader(left_out: LeftOut) -> Iterator[ImageReader]:
    """Yield a reader of images that has threads of its own.

    Args:
        left_out: counts the images that cannot be read.
    """
    with ThreadPoolExecutor(READERS, thread_name_prefix="export") as pool:
        yield ImageReader(pool, left_out)


class ImageReader:
    """Reads the images of blocks of items.

    Args:
        pool: its threads.
        left_out: counts the images that cannot be read.
    """

    def __init__(self, pool: ThreadPoolExecutor, left_out: LeftOut) -> None:
        self._pool, self._left_out = pool, left_out

    def blocks(self, selected: SelectedItems) -> Iterator[tuple[ItemBlock, list[ItemImage]]]:
        """Yield every block of items with its images that can be read, in order."""
        for block in selected.blocks(BLOCK_IMAGES):
            yield block, self.read(selected.files(block))

    def require_rows(self, count: int) -> None:
        """Refuse an export of nothing.

        Args:
            count: how many items were written.

        Raises:
            QueryError: if it is 0: none of the images can be read.
        """
        if not count:
            raise QueryError(f"nothing to export: none of the images can be read, first {self._left_out.first}")

    def read(self, files: Sequence[ItemFile]) -> list[ItemImage]:
        """Return the images that can be read; the number of a row is the place in ``files``."""
        images = []
        for row, (file, data) in enumerate(zip(files, self._pool.map(_read_file, files), strict=True)):
            if isinstance(data, bytes):
                images.append(ItemImage(row, data, image_suffix(file)))
            else:
                self._left_out.add(file.uri, *data)
        return images


def _read_file(file: ItemFile) -> bytes | tuple[str, str]:
    """Return the bytes of an image, or the reason and detail why it is left out."""
    try:
        data = read_location(file.path)
    except ItemError as e:
        return e.reason.value, e.detail
    if file.content is not None and content_digest(data) != file.content:
        return CHANGED, "the file changed since it was embedded; embed its source again"
    return _crop_as_png(data)


def _crop_as_png(data: bytes) -> bytes | tuple[str, str]:
    """Return the bytes of an image; a box of a photo becomes an image of its own."""
    box, _ = split_crop(data)
    if box is None:
        return data
    out = io.BytesIO()
    try:
        to_rgb_image(data).save(out, "PNG")
    except ItemError as e:
        return e.reason.value, e.detail
    return out.getvalue()


def image_suffix(file: ItemFile) -> str:
    """Return the usual suffix of an image's format, without a dot; that of its uri where the format has several."""
    if parse_part_uri(file.uri) is not None:
        return "png"
    if file.format in _SUFFIXES:
        return _SUFFIXES[file.format]
    match = _URI_SUFFIX.search(file.uri)
    return match[1].lower() if match else "bin"
