"""The text that bytes are: UTF-8, with or without a byte-order mark, or UTF-16 and UTF-32 with one."""

from __future__ import annotations

import codecs

from embedstore.errors import TextError
from embedstore.modality import TEXT_FORMAT
from embedstore.types import ContentInfo, FailureReason

TEXT_INFO = ContentInfo(0, 0, TEXT_FORMAT)
BYTE_ORDER_MARKS = (  # longer marks first: that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
PDF_MAGIC = b"%PDF-"


def decode_text(data: bytes) -> str:
    """Return the text without a byte-order mark; its white space stays.

    Args:
        data: the bytes of one text.

    Raises:
        TextError: if there is none, only white space, or the bytes are no text.
    """
    if not data:
        raise TextError(FailureReason.EMPTY, "the text has no bytes")
    if data.startswith(PDF_MAGIC):
        detail = "a PDF file; write the text to a .txt file first: pdftotext FILE.pdf"
        raise TextError(FailureReason.NOT_A_TEXT, detail)
    mark, encoding = next((m for m in BYTE_ORDER_MARKS if data.startswith(m[0])), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as e:
        where = f"byte 0x{e.object[e.start]:02x} at {e.start + len(mark):,}"
        detail = f"not {encoding.upper()} text ({where}); save it as UTF-8, or name the encoding of its table"
        raise TextError(FailureReason.NOT_A_TEXT, detail) from e
    if "\0" in text:
        raise TextError(FailureReason.NOT_A_TEXT, "it has characters 0, which no text has; save it as UTF-8")
    if not text.strip():
        raise TextError(FailureReason.BLANK, "the text is only white space")
    return text
