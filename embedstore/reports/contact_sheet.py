"""Contact sheets: the images of hits as one self-contained HTML page or one PNG."""

from __future__ import annotations

import base64
import html
import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from embedstore.errors import ImageError, TextError
from embedstore.media.image import decode
from embedstore.media.text.decode import decode_text
from embedstore.reports.html_page import html_page
from embedstore.reports.item_images import ImageReader
from embedstore.types import Hit

THUMBNAIL_SIZE = 180  # pixels, longer side
_PLACEHOLDER = (225, 225, 225)  # sRGB of the tile of an image that cannot be read
SHOWN_CHARACTERS = 300  # of a text
_READ_BYTES = 1 << 12  # of a text
_TILE_COLUMNS, _TILE_ROWS = 26, 11  # characters and lines of a text on a tile
_PLAYED_BYTES = 1 << 20  # of a sound that is put into a page
_CAPTION_HEIGHT, _GAP = 34, 8  # pixels of the PNG


def contact_sheet_html(hits: Sequence[Hit], title: str, read_images: ImageReader) -> str:
    """Return a contact sheet as an HTML page with every thumbnail inside it.

    Args:
        hits: the hits in the order to show.
        title: heading of the page, e.g. the query.
        read_images: reads the images of items.
    """
    body = f"<h1>{html.escape(title)}</h1>\n<main>\n{_figures(hits, read_images)}\n</main>"
    return html_page(title, body, style=PAGE_STYLE)


def contact_sheet_fragment(hits: Sequence[Hit], read_images: ImageReader) -> str:
    """Return a contact sheet as an HTML fragment for notebooks."""
    return f'<style>{_FRAGMENT_STYLE}</style><div class="embedstore">{_figures(hits, read_images)}</div>'


def contact_sheet_png(hits: Sequence[Hit], read_images: ImageReader, *, columns: int = 5) -> bytes:
    """Return a contact sheet as PNG, with rank, score, label and file name below each thumbnail.

    Args:
        hits: the hits in the order to show.
        read_images: reads the images of items.
        columns: thumbnails per row, at most.
    """
    columns = min(columns, max(len(hits), 1))
    rows = -(-max(len(hits), 1) // columns)
    cell = THUMBNAIL_SIZE + _GAP
    sheet = Image.new("RGB", (columns * cell + _GAP, rows * (cell + _CAPTION_HEIGHT) + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, (hit, data) in enumerate(with_files(hits, read_images)):
        image = thumbnail(data)
        x, y = _GAP + (i % columns) * cell, _GAP + (i // columns) * (cell + _CAPTION_HEIGHT)
        sheet.paste(image, (x + (THUMBNAIL_SIZE - image.width) // 2, y + (THUMBNAIL_SIZE - image.height) // 2))
        caption = "  ".join(part for part in (str(hit.rank), _score_text(hit), hit.label) if part)
        draw.text((x, y + THUMBNAIL_SIZE + 2), caption[:26], "black", font)
        draw.text((x, y + THUMBNAIL_SIZE + 17), Path(hit.uri).name[:26], (110, 110, 110), font)
    return encode_image(sheet, "PNG")


def thumbnail(data: bytes | None) -> Image.Image:
    """Return an encoded image at 180 pixels on its longer side, the begin of a text, or a gray square for neither."""
    try:
        image, _ = decode.open_image(data or b"")
    except ImageError:
        return _text_tile(text_of(data) or "")
    return ImageOps.contain(image, (THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.BICUBIC)


def text_of(data: bytes | None) -> str | None:
    """Return the begin of a text on one line; None for what is no text."""
    try:
        text = " ".join(decode_text(_whole_characters(data or b"")).split())
    except TextError:
        return None
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _whole_characters(data: bytes) -> bytes:
    """Return the begin of a text in UTF-8 without a character that is cut at its end."""
    if len(data) <= _READ_BYTES:
        return data
    end = next((n for n in range(_READ_BYTES, _READ_BYTES - 4, -1) if data[n] & 0xC0 != 0x80), _READ_BYTES)
    return data[:end]


def _text_tile(text: str) -> Image.Image:
    """Return a gray square with the begin of a text."""
    tile = Image.new("RGB", (THUMBNAIL_SIZE, THUMBNAIL_SIZE), _PLACEHOLDER)
    lines = textwrap.wrap(text, _TILE_COLUMNS)[:_TILE_ROWS]
    ImageDraw.Draw(tile).multiline_text((6, 4), "\n".join(lines), "black", ImageFont.load_default(12))
    return tile


def encode_image(image: Image.Image, file_format: str, *, quality: int = 85) -> bytes:
    """Return an image as the bytes of a file.

    Args:
        image: the pixels.
        file_format: ``PNG`` or ``JPEG``.
        quality: the quality of a JPEG, 1 to 95; ignored for PNG.
    """
    data = io.BytesIO()
    image.save(data, file_format, quality=quality)
    return data.getvalue()


def with_files(hits: Sequence[Hit], read_images: ImageReader) -> Iterator[tuple[Hit, bytes | None]]:
    """Yield each hit with the bytes of its file."""
    yield from zip(hits, read_images([hit.item for hit in hits]), strict=True)


def _figures(hits: Sequence[Hit], read_images: ImageReader) -> str:
    """Return one HTML figure per hit."""
    return "\n".join(figure_html(hit, data) for hit, data in with_files(hits, read_images))


def _score_text(hit: Hit) -> str:
    """Return the score, empty where it is NaN: an item that was not scored."""
    return "" if math.isnan(hit.score) else f"{hit.score:.3f}"


def figure_html(hit: Hit, data: bytes | None, more: str = "") -> str:
    """Return the HTML of one hit.

    Args:
        hit: the item; a score of NaN is not shown.
        data: the bytes of its file.
        more: HTML to add below the name.
    """
    name = html.escape(Path(hit.uri).name)
    facts = html.escape("  ".join(str(v) for v in (hit.label, hit.split) if v is not None))
    score = f"<code>{text}</code> " if (text := _score_text(hit)) else ""
    return (
        f'<figure title="{html.escape(hit.uri)}">{item_html(data, name)}'
        f"<figcaption><b>{hit.rank}</b> {score}{facts}<br><small>{name}</small>{more}"
        "</figcaption></figure>"
    )


def item_html(data: bytes | None, name: str) -> str:
    """Return the HTML of an item itself: a text, a player of sound, or an image.

    Args:
        data: the bytes of its file.
        name: its name, as HTML.
    """
    if (text := text_of(data)) is not None:
        return f"<blockquote>{html.escape(text)}</blockquote>"
    kind = _sound_type(data or b"")
    if kind and len(data or b"") <= _PLAYED_BYTES:
        source = f"data:{kind};base64,{base64.b64encode(data or b'').decode()}"
        return f'<audio controls preload="none" src="{source}"></audio>'
    source = "data:image/jpeg;base64," + base64.b64encode(encode_image(thumbnail(data), "JPEG")).decode()
    return f'<img src="{source}" alt="{name}" loading="lazy">'


def _sound_type(data: bytes) -> str:
    """Return the media type of a sound that browsers play, or ""."""
    if data.startswith(b"RIFF") and data[8:12] == b"WAVE":
        return "audio/wav"
    kinds = {b"fLaC": "audio/flac", b"OggS": "audio/ogg", b"ID3": "audio/mpeg", b"\xff\xfb": "audio/mpeg"}
    return next((kind for start, kind in kinds.items() if data.startswith(start)), "")


PAGE_STYLE = """
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:14px;
font:13px/1.35 system-ui,sans-serif}
body{margin:24px;max-width:1400px} h1{font:600 20px system-ui,sans-serif}
figure{margin:0} figure img{width:100%;height:180px;object-fit:contain;background:#f2f2f2;border-radius:4px}
figcaption{padding:3px 2px;overflow-wrap:anywhere} small{color:#666} code{color:#05c}
figure audio{width:100%} blockquote{margin:0;padding:8px;background:#f2f2f2;border-radius:4px;overflow-wrap:anywhere}
@media (prefers-color-scheme:dark){body{background:#181818;color:#eee} figure img,blockquote{background:#2a2a2a}
code{color:#7bf} small{color:#aaa}}
"""

_FRAGMENT_STYLE = """
.embedstore{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:10px;font-size:12px}
.embedstore figure,.embedstore blockquote{margin:0} .embedstore img{width:100%;height:140px;object-fit:contain}
"""
