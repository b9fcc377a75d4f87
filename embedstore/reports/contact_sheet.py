"""Pictures of answers: contact sheets as one self-contained HTML page or one PNG."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from embedstore.errors import ImageError
from embedstore.media.image import decode
from embedstore.sources.local_files import read_item
from embedstore.types import Hit

THUMBNAIL_SIZE = 180  # pixels, longer side
_GREY = (225, 225, 225)


def contact_sheet_html(hits: Sequence[Hit], title: str) -> str:
    """A contact sheet as HTML that needs nothing else: every thumbnail is inside it.

    Args:
        hits: in the order to show.
        title: shown above, e.g. the query.
    """
    cells = "\n".join(_cell(h) for h in hits)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n<main>\n{cells}\n</main></body></html>\n"
    )


def contact_sheet_fragment(hits: Sequence[Hit]) -> str:
    """The same as a piece of a page, for notebooks."""
    return f'<style>{_SCOPED}</style><div class="embedstore">{"".join(_cell(h) for h in hits)}</div>'


def contact_sheet_png(hits: Sequence[Hit], path: Path, *, columns: int = 5) -> None:
    """A contact sheet as a PNG file, with rank, score and label below each thumbnail."""
    caption, gap = 34, 8
    columns = min(columns, max(len(hits), 1))
    rows = -(-max(len(hits), 1) // columns)
    cell = THUMBNAIL_SIZE + gap
    sheet = Image.new("RGB", (columns * cell + gap, rows * (cell + caption) + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, hit in enumerate(hits):
        x, y = gap + (i % columns) * cell, gap + (i // columns) * (cell + caption)
        picture = thumbnail(hit.uri)
        sheet.paste(picture, (x + (THUMBNAIL_SIZE - picture.width) // 2, y + (THUMBNAIL_SIZE - picture.height) // 2))
        draw.text((x, y + THUMBNAIL_SIZE + 2), f"{hit.rank}  {hit.score:.3f}  {hit.label or ''}"[:26], "black", font)
        draw.text((x, y + THUMBNAIL_SIZE + 17), Path(hit.uri).name[:26], (110, 110, 110), font)
    sheet.save(path)


def thumbnail(uri: str) -> Image.Image:
    """The image at a path, 180 pixels on its longer side; a grey square where it cannot be read."""
    try:
        picture, _ = decode.open_image(read_item(uri))
    except ImageError:
        return Image.new("RGB", (THUMBNAIL_SIZE, THUMBNAIL_SIZE), _GREY)
    return ImageOps.contain(picture, (THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.BICUBIC)


def _cell(hit: Hit) -> str:
    """One hit."""
    data = io.BytesIO()
    thumbnail(hit.uri).save(data, "JPEG", quality=85)
    source = "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
    name = html.escape(Path(hit.uri).name)
    facts = html.escape("  ".join(str(v) for v in (hit.label, hit.split) if v is not None))
    return (
        f'<figure title="{html.escape(hit.uri)}"><img src="{source}" alt="{name}" loading="lazy">'
        f"<figcaption><b>{hit.rank}</b> <code>{hit.score:.3f}</code> {facts}<br><small>{name}</small></figcaption>"
        "</figure>"
    )


_STYLE = """
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:14px;
font:13px/1.35 system-ui,sans-serif}
body{margin:24px;max-width:1400px} h1{font:600 20px system-ui,sans-serif}
figure{margin:0} figure img{width:100%;height:180px;object-fit:contain;background:#f2f2f2;border-radius:4px}
figcaption{padding:3px 2px;overflow-wrap:anywhere} small{color:#666} code{color:#05c}
@media (prefers-color-scheme:dark){body{background:#181818;color:#eee} figure img{background:#2a2a2a}
code{color:#7bf} small{color:#aaa}}
"""

_SCOPED = """
.embedstore{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:10px;font-size:12px}
.embedstore figure{margin:0} .embedstore img{width:100%;height:140px;object-fit:contain}
"""
