"""Pages of a PDF file, drawn by PDFium."""

from __future__ import annotations

from typing import Any, Self

from embedstore.errors import ImageError
from embedstore.media.extraction.pictures import MAX_SIDE, encode_picture
from embedstore.types import FailureReason

MAX_PAGES = 1_000_000
_PASSWORD = "password"  # noqa: S105 - a word in a message of PDFium


class PdfFile:
    """An open PDF file.

    Args:
        path: the path of the file.

    Raises:
        ImageError: if it cannot be opened: it needs a password or is damaged.
    """

    def __init__(self, path: str) -> None:
        import pypdfium2

        try:
            self._document: Any = pypdfium2.PdfDocument(path)
        except pypdfium2.PdfiumError as e:
            if _PASSWORD in str(e).lower():
                detail = "the PDF needs a password; save a copy without one"
                raise ImageError(FailureReason.UNREADABLE, detail) from e
            raise ImageError(FailureReason.CORRUPT, f"the PDF cannot be opened: {e}") from e

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._document.close()

    def pages(self) -> list[int]:
        """Return the numbers of the pages, from 1.

        Raises:
            ImageError: if there are none, or too many.
        """
        count = len(self._document)
        if count == 0:
            raise ImageError(FailureReason.CORRUPT, "the PDF has no pages")
        if count > MAX_PAGES:
            raise ImageError(FailureReason.TOO_LARGE, f"{count:,} pages; the limit is {MAX_PAGES:,}")
        return list(range(1, count + 1))

    def picture(self, number: int) -> bytes:
        """Return a page, upright, as the bytes of a picture.

        Raises:
            ImageError: if there is no such page, or it cannot be drawn.
        """
        import pypdfium2

        if not 1 <= number <= len(self._document):
            raise ImageError(FailureReason.MISSING, f"the PDF has no page {number}")
        try:
            page = self._document[number - 1]
            width, height = page.get_size()
            if not 0 < min(width, height) <= max(width, height) < float("inf"):
                raise ImageError(FailureReason.CORRUPT, f"the page is {width:g} × {height:g} points")
            bitmap = page.render(scale=MAX_SIDE / max(width, height), rev_byteorder=True)
            image = bitmap.to_pil()
            page.close()
        except pypdfium2.PdfiumError as e:
            raise ImageError(FailureReason.CORRUPT, f"the page cannot be drawn: {e}") from e
        return encode_picture(image)
