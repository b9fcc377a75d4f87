"""Text files as people have them: UTF-8 with or without a byte-order mark, UTF-16 and UTF-32 with one, or as named."""

from __future__ import annotations

import codecs
import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from embedstore.errors import BadEncoding, BadOption, MissingExtra, SourceNotFound
from embedstore.media.text.decode import BYTE_ORDER_MARKS
from embedstore.text_form import clean_text

CHUNK_BYTES = 1 << 20
_BYTE_ORDER_MARK = "\ufeff"


def read_lines(path: str, *, encoding: str | None = None) -> list[str]:
    """Return the lines of a text file in the form in which names are compared, without the blank ones.

    Args:
        path: the file.
        encoding: as Python names it; by default the file's byte-order mark decides, else it is UTF-8.

    Raises:
        SourceNotFound: if there is no such file.
        BadEncoding: if the bytes are not text in that encoding.
        BadOption: if there is no such encoding.
    """
    text = "".join(decoded_chunks(path, encoding=encoding))
    return [line for line in map(clean_text, text.splitlines()) if line]


def write_utf8_copy(path: str, target: Path, *, encoding: str | None = None) -> None:
    """Write a text file, decompressed, as UTF-8 without a byte-order mark; see :func:`read_lines`."""
    with target.open("wb") as file:
        for text in decoded_chunks(path, encoding=encoding):
            file.write(text.encode())


def decoded_chunks(path: str, *, encoding: str | None = None) -> Iterator[str]:
    """Yield the text of a file piece by piece, without a byte-order mark; see :func:`read_lines`."""
    with _open_binary(path) as file:
        head = file.read(CHUNK_BYTES)
        name = _encoding(head, encoding)
        if name == "utf-8" and b"\0" in head:
            raise BadEncoding(f"{path} is not UTF-8 text (it has bytes 0); {_utf16_cure(head)}")
        decoder = codecs.getincrementaldecoder(name)()
        lines, data, first = 1, head, True
        while True:
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeError as e:
                raise BadEncoding(_refusal(path, name, e, lines, head)) from e
            lines += text.count("\n")
            yield text.removeprefix(_BYTE_ORDER_MARK) if first else text
            if not data:
                return
            first, data = first and not text, file.read(CHUNK_BYTES)


def _encoding(head: bytes, encoding: str | None) -> str:
    """Return the name of the encoding: the given one, or by the byte-order mark, or UTF-8."""
    marked = next((name for mark, name in BYTE_ORDER_MARKS if head.startswith(mark)), "utf-8")
    if encoding is None:
        return marked
    try:
        info = codecs.lookup(encoding)
    except (LookupError, ValueError) as e:
        raise BadOption(f"there is no encoding {encoding!r}; common ones are utf-8, utf-16, cp1252 and latin-1") from e
    if not getattr(info, "_is_text_encoding", True):  # base64, hex and others, which make bytes of bytes
        raise BadOption(f"{encoding!r} is not an encoding of text; common ones are utf-8, utf-16, cp1252 and latin-1")
    return info.name


def _refusal(path: str, name: str, error: UnicodeError, lines: int, head: bytes) -> str:
    """Say where the bytes are not text, and what to try."""
    where = f"line {lines} or later"
    if isinstance(error, UnicodeDecodeError):
        lines += error.object[: error.start].count(b"\n")
        where = f"byte 0x{error.object[error.start]:02x} in line {lines}"
    cure = "name its encoding, for example --encoding cp1252 (Windows) or --encoding latin-1"
    if b"\0" in head:
        cure = _utf16_cure(head)
    return f"{path} is not {name.upper()} text ({where}); {cure}"


def _utf16_cure(head: bytes) -> str:
    """Say which encoding has bytes 0 where these are."""
    order = "be" if head[:1] == b"\0" else "le"
    return f"it looks like UTF-16 without a byte-order mark: --encoding utf-16-{order}"


@contextmanager
def _open_binary(path: str) -> Iterator[IO[bytes]]:
    """Open a file, decompressed according to its suffix.

    Raises:
        SourceNotFound: if it cannot be opened.
        BadEncoding: if its compressed data is damaged.
        MissingExtra: if it is compressed by Zstandard and pyarrow is not installed.
    """
    try:
        with _opener(path) as file:
            yield file
    except (gzip.BadGzipFile, EOFError) as e:
        raise BadEncoding(f"{path} is not a complete gzip file: {e}") from e
    except OSError as e:
        raise SourceNotFound(f"{path} cannot be read: {e.strerror or e}") from e


def _opener(path: str) -> IO[bytes]:
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 - the path may hold what Path would normalize
    if suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if suffix != ".zst":
        return open(path, "rb")  # noqa: PTH123
    try:
        import pyarrow as pa
    except ImportError as e:
        raise MissingExtra(f"{path} needs pyarrow to be decompressed; run `pip install embedstore[frames]`") from e
    return cast("IO[bytes]", pa.input_stream(path, compression="zstd"))
