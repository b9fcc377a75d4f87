"""A map of a collection as a PNG or an HTML page: points colored by a column, with their images."""

from __future__ import annotations

import base64
import colorsys
import html
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from embedstore.reports import contact_sheet
from embedstore.reports.html_page import html_page
from embedstore.reports.item_images import ImageReader
from embedstore.search.projection import Projection
from embedstore.storage import durable_files
from embedstore.tables import Record, Table
from embedstore.wording import counted

MAX_LEGEND_LABELS = 24  # labels with their own color; the rarer ones share gray
WIDTH, HEIGHT, MARGIN, LEGEND_WIDTH = 1400, 1000, 50, 220  # pixels of the PNG and of its legend
THUMBNAIL_SIZE = 44  # pixels of an image on the map
GRAY, OTHER_LABEL = (150, 150, 150), "rarer, or none"

Color = tuple[int, int, int]


@dataclass(frozen=True)
class EmbeddingMap(Table):
    """A map of a collection.

    Attributes:
        projection: the positions of the items.
        color: the column that the points are colored by.
        space: the name of the space.
        seconds: wall time of the projection.
        read_images: reads the images of items.
    """

    projection: Projection
    color: str
    space: str
    seconds: float
    read_images: ImageReader = field(repr=False, compare=False)

    @property
    def title(self) -> str:
        """A sentence that says what the map shows."""
        shown, matching = len(self.projection.items), self.projection.matching_count
        part = f"{shown:,} of " if shown < matching else ""
        return f"{part}{counted(matching, 'item')} in space {self.space}, colored by {self.color}"

    @cached_property
    def palette(self) -> dict[str, Color]:
        """The sRGB color of each label, most frequent first. Hues advance in golden-ratio steps to stay distinct."""
        counts = Counter(label for label in self.projection.labels if label is not None)
        palette = {}
        for n, (label, _) in enumerate(counts.most_common(MAX_LEGEND_LABELS)):
            r, g, b = colorsys.hls_to_rgb((0.03 + 0.618034 * n) % 1, (0.45, 0.58, 0.36)[n % 3], 0.7)
            palette[label] = (int(r * 255), int(g * 255), int(b * 255))
        return palette

    def records(self) -> list[Record]:
        """Return one mapping per point; ``x`` and ``y`` are in the unit square, y down."""
        p = self.projection
        return [
            {"item": int(item), "uri": uri, "label": label, "x": round(float(x), 4), "y": round(float(y), 4)}
            for item, uri, label, (x, y) in zip(p.items, p.uris, p.labels, p.xy, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain values, with one object per point."""
        return {
            "space": self.space,
            "colour": self.color,
            "seconds": round(self.seconds, 3),
            "points": self.records(),
        }

    def png(self, path: str | Path) -> None:
        """Write the map as a PNG file: a dot per item, images where there is room, and a legend."""
        sheet = Image.new("RGB", (WIDTH, HEIGHT), "white")
        draw = ImageDraw.Draw(sheet)
        places = [
            (MARGIN + float(x) * (WIDTH - LEGEND_WIDTH - 2 * MARGIN), MARGIN + float(y) * (HEIGHT - 2 * MARGIN))
            for x, y in self.projection.xy
        ]
        for (x, y), label in zip(places, self.projection.labels, strict=True):
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=self._color_of(label))
        self._paste_images(sheet, places)
        self._draw_legend(draw)
        durable_files.write_output(Path(path), contact_sheet.encode_image(sheet, "PNG"))

    def html(self) -> str:
        """Return the map as one self-contained page that shows image and label of the point under the pointer."""
        p, images = self.projection, self.read_images(self.projection.items.tolist())
        points = [
            [
                round(float(x), 4),
                round(float(y), 4),
                _css(self._color_of(label)),
                label or "",
                Path(uri).name,
                _jpeg(data),
            ]
            for (x, y), label, uri, data in zip(p.xy, p.labels, p.uris, images, strict=True)
        ]
        legend = "".join(
            f'<li><i style="background:{_css(self._color_of(label))}"></i>{html.escape(label or OTHER_LABEL)}</li>'
            for label in (*self.palette, None)
        )
        data = json.dumps(points, ensure_ascii=True).replace("<", "\\u003c")  # a label cannot end the script
        return html_page(
            self.title, _BODY.format(title=html.escape(self.title), legend=legend, data=data), style=_STYLE
        )

    def _color_of(self, label: str | None) -> Color:
        """Return the color of a label, gray for rare labels and None."""
        return self.palette.get(label or "", GRAY)

    def _paste_images(self, sheet: Image.Image, places: Sequence[tuple[float, float]]) -> None:
        """Draw the image of the first item in each cell of a grid, so that images do not overlap."""
        size = THUMBNAIL_SIZE + 6
        first_in_cell: dict[tuple[int, int], int] = {}
        for n, (x, y) in enumerate(places):
            first_in_cell.setdefault((int(x // size), max(1, int(y // size))), n)
        images = self.read_images([int(self.projection.items[n]) for n in first_in_cell.values()])
        for ((column, row), n), data in zip(first_in_cell.items(), images, strict=True):
            framed = ImageOps.expand(_square(data), 2, self._color_of(self.projection.labels[n]))
            sheet.paste(framed, (column * size + 3, row * size + 3))

    def _draw_legend(self, draw: ImageDraw.ImageDraw) -> None:
        """Draw the title and the color of each label."""
        font = ImageFont.load_default(14)
        draw.text((MARGIN, 6), self.title, "black", font)
        for n, (label, color) in enumerate([*self.palette.items(), (OTHER_LABEL, GRAY)]):
            y = MARGIN + 22 * n
            draw.rectangle((WIDTH - LEGEND_WIDTH + 10, y, WIDTH - LEGEND_WIDTH + 24, y + 14), fill=color)
            draw.text((WIDTH - LEGEND_WIDTH + 32, y - 1), label[:24], "black", font)


def _css(color: Color) -> str:
    """Return a color as CSS writes it."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def _square(data: bytes | None) -> Image.Image:
    """Return an encoded image as a square of the map."""
    return ImageOps.fit(contact_sheet.thumbnail(data), (THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.BICUBIC)


def _jpeg(data: bytes | None) -> str:
    """Return an encoded image as the base64 text of a small JPEG."""
    return base64.b64encode(contact_sheet.encode_image(_square(data), "JPEG", quality=70)).decode()


_STYLE = """
body{margin:16px;font:14px/1.4 system-ui,sans-serif} h1{font-size:17px;font-weight:600}
main{display:flex;gap:16px;align-items:flex-start} canvas{border:1px solid #8884;border-radius:6px}
ul{list-style:none;margin:0;padding:0;font-size:13px} li i{display:inline-block;width:12px;height:12px;
border-radius:3px;margin-right:7px;vertical-align:-1px}
#tip{position:fixed;display:none;pointer-events:none;background:#fff;color:#111;padding:6px;border-radius:6px;
box-shadow:0 2px 12px #0006;font-size:12px;max-width:180px;overflow-wrap:anywhere}
#tip img{width:132px;display:block}
@media (prefers-color-scheme:dark){body{background:#181818;color:#eee}}
"""

_BODY = """<h1>{title}</h1><main><canvas id="map" width="1000" height="760"></canvas><ul>{legend}</ul></main>
<div id="tip"></div><script>
const points = {data};
const map = document.getElementById("map"), tip = document.getElementById("tip"), ink = map.getContext("2d");
const at = p => [20 + p[0] * (map.width - 40), 20 + p[1] * (map.height - 40)];
for (const p of points) {{
  const [x, y] = at(p);
  ink.fillStyle = p[2]; ink.globalAlpha = 0.8; ink.beginPath(); ink.arc(x, y, 4, 0, 7); ink.fill();
}}
map.onmousemove = e => {{
  let best = null, nearest = 100;
  for (const p of points) {{
    const [x, y] = at(p), d = (x - e.offsetX) ** 2 + (y - e.offsetY) ** 2;
    if (d < nearest) {{ nearest = d; best = p; }}
  }}
  tip.style.display = best ? "block" : "none";
  if (!best) return;
  const image = new Image();
  image.src = "data:image/jpeg;base64," + best[5];
  tip.replaceChildren(image, best[3], document.createElement("br"), best[4]);
  tip.style.left = Math.min(e.clientX + 14, innerWidth - 200) + "px";
  tip.style.top = Math.min(e.clientY + 14, innerHeight - 200) + "px";
}};
map.onmouseleave = () => {{ tip.style.display = "none"; }};
</script>"""
