"""Contact sheets: the images of hits as one self-contained HTML page or one PNG."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from embedstore.errors import ImageError
from embedstore.media.image import decode
from embedstore.reports.html_page import html_page
from embedstore.reports.item_images import ImageReader
from embedstore.types import Hit

THUMBNAIL_SIZE = 180  # pixels, longer side
_PLACEHOLDER = (225, 225, 225)  # sRGB of the tile of an image that cannot be read
_CAPTION_HEIGHT, _GAP = 34, 8  # pixels of the PNG


def contact_sheet_html(hits: Sequence[Hit], title: str, read_images: ImageReader) -> str:
    """Return a contact sheet as an HTML page with every thumbnail inside it.

    Args:
        hits: in the order to show.
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
        hits: in the order to show.
        read_images: reads the images of items.
        columns: thumbnails per row, at most.
    """
    columns = min(columns, max(len(hits), 1))
    rows = -(-max(len(hits), 1) // columns)
    cell = THUMBNAIL_SIZE + _GAP
    sheet = Image.new("RGB", (columns * cell + _GAP, rows * (cell + _CAPTION_HEIGHT) + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, (hit, image) in enumerate(read_thumbnails(hits, read_images)):
        x, y = _GAP + (i % columns) * cell, _GAP + (i // columns) * (cell + _CAPTION_HEIGHT)
        sheet.paste(image, (x + (THUMBNAIL_SIZE - image.width) // 2, y + (THUMBNAIL_SIZE - image.height) // 2))
        draw.text((x, y + THUMBNAIL_SIZE + 2), f"{hit.rank}  {hit.score:.3f}  {hit.label or ''}"[:26], "black", font)
        draw.text((x, y + THUMBNAIL_SIZE + 17), Path(hit.uri).name[:26], (110, 110, 110), font)
    return encode_image(sheet, "PNG")


def thumbnail(data: bytes | None) -> Image.Image:
    """Return an encoded image at 180 pixels on its longer side, or a gray square where it cannot be decoded."""
    try:
        image, _ = decode.open_image(data or b"")
    except ImageError:
        return Image.new("RGB", (THUMBNAIL_SIZE, THUMBNAIL_SIZE), _PLACEHOLDER)
    return ImageOps.contain(image, (THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.BICUBIC)


def encode_image(image: Image.Image, file_format: str, *, quality: int = 85) -> bytes:
    """Return an image as the bytes of a file.

    Args:
        image: the pixels.
        file_format: ``PNG`` or ``JPEG``.
        quality: of a JPEG, 1 to 95; ignored for PNG.
    """
    data = io.BytesIO()
    image.save(data, file_format, quality=quality)
    return data.getvalue()


def read_thumbnails(hits: Sequence[Hit], read_images: ImageReader) -> Iterator[tuple[Hit, Image.Image]]:
    """Yield each hit with its thumbnail."""
    for hit, data in zip(hits, read_images([hit.item for hit in hits]), strict=True):
        yield hit, thumbnail(data)


def _figures(hits: Sequence[Hit], read_images: ImageReader) -> str:
    """Return one HTML figure per hit."""
    return "\n".join(figure_html(hit, image) for hit, image in read_thumbnails(hits, read_images))


def figure_html(hit: Hit, image: Image.Image, more: str = "") -> str:
    """Return the HTML of one hit.

    Args:
        hit: the item.
        image: its thumbnail.
        more: HTML to add below the name.
    """
    source = "data:image/jpeg;base64," + base64.b64encode(encode_image(image, "JPEG")).decode()
    name = html.escape(Path(hit.uri).name)
    facts = html.escape("  ".join(str(v) for v in (hit.label, hit.split) if v is not None))
    return (
        f'<figure title="{html.escape(hit.uri)}"><img src="{source}" alt="{name}" loading="lazy">'
        f"<figcaption><b>{hit.rank}</b> <code>{hit.score:.3f}</code> {facts}<br><small>{name}</small>{more}"
        "</figcaption></figure>"
    )


PAGE_STYLE = """
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:14px;
font:13px/1.35 system-ui,sans-serif}
body{margin:24px;max-width:1400px} h1{font:600 20px system-ui,sans-serif}
figure{margin:0} figure img{width:100%;height:180px;object-fit:contain;background:#f2f2f2;border-radius:4px}
figcaption{padding:3px 2px;overflow-wrap:anywhere} small{color:#666} code{color:#05c}
@media (prefers-color-scheme:dark){body{background:#181818;color:#eee} figure img{background:#2a2a2a}
code{color:#7bf} small{color:#aaa}}
"""

_FRAGMENT_STYLE = """
.embedstore{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:10px;font-size:12px}
.embedstore figure{margin:0} .embedstore img{width:100%;height:140px;object-fit:contain}
"""
