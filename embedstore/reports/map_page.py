"""A map of a collection as a picture and as a page: points coloured by label, with the images themselves."""

from __future__ import annotations

import base64
import colorsys
import html
import io
import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from embedstore.reports import contact_sheet
from embedstore.search.projection import Projection

MAX_LEGEND_LABELS = 24  # labels with a colour of their own; the rarer ones share grey
WIDTH, HEIGHT, MARGIN, LEGEND_WIDTH = 1400, 1000, 50, 220  # of the PNG, and of its legend
THUMBNAIL_SIZE = 44  # pixels of an image on the map
GREY, OTHER_LABEL = (150, 150, 150), "rarer, or none"


@dataclass(frozen=True)
class EmbeddingMap:
    """A map of a collection.

    Attributes:
        projection: where the items stand. colour: the column they are coloured by.
        space: the name of the space. seconds: what the projection cost.
    """

    projection: Projection
    colour: str
    space: str
    seconds: float

    @property
    def title(self) -> str:
        """What is shown, in words."""
        p = self.projection
        shown = f"{len(p.items)} of {p.matching_count}" if len(p.items) < p.matching_count else str(len(p.items))
        return f"{shown} items in space {self.space}, coloured by {self.colour}"

    @cached_property
    def palette(self) -> dict[str, tuple[int, int, int]]:
        """Label to sRGB, most frequent first; hues in golden-ratio steps, so that neighbours in the list differ."""
        frequent = [
            n for n, _ in Counter(v for v in self.projection.labels if v is not None).most_common(MAX_LEGEND_LABELS)
        ]
        hues = {name: (0.03 + 0.618034 * n) % 1 for n, name in enumerate(frequent)}
        out = {}
        for n, (name, hue) in enumerate(hues.items()):
            r, g, b = colorsys.hls_to_rgb(hue, (0.45, 0.58, 0.36)[n % 3], 0.7)
            out[name] = (int(r * 255), int(g * 255), int(b * 255))
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain values: one object a point, ``x`` and ``y`` in the unit square, y down."""
        p = self.projection
        points = [
            {"item": int(i), "uri": u, "label": label, "x": round(float(x), 4), "y": round(float(y), 4)}
            for i, u, label, (x, y) in zip(p.items, p.uris, p.labels, p.xy, strict=True)
        ]
        return {"space": self.space, "colour": self.colour, "seconds": round(self.seconds, 3), "points": points}

    def png(self, path: str | Path) -> None:
        """The map as a PNG file: a dot for every item, images where there is room, a legend."""
        sheet = Image.new("RGB", (WIDTH, HEIGHT), "white")
        pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
        places = [
            (MARGIN + x * (WIDTH - LEGEND_WIDTH - 2 * MARGIN), MARGIN + y * (HEIGHT - 2 * MARGIN))
            for x, y in self._xy()
        ]
        tones = [self._tone(label) for label in self.projection.labels]
        for (x, y), tone in zip(places, tones, strict=True):
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=tone)
        self._images(sheet, places, tones)
        pen.text((MARGIN, 6), self.title, "black", font)
        for n, (name, tone) in enumerate([*self.palette.items(), (OTHER_LABEL, GREY)]):
            y = MARGIN + 22 * n
            pen.rectangle((WIDTH - LEGEND_WIDTH + 10, y, WIDTH - LEGEND_WIDTH + 24, y + 14), fill=tone)
            pen.text((WIDTH - LEGEND_WIDTH + 32, y - 1), name[:24], "black", font)
        sheet.save(path)

    def html(self) -> str:
        """The map as one self-contained page: move over a point to see its image and label."""
        p = self.projection
        points = [
            [round(float(x), 4), round(float(y), 4), self._hex(label), label or "", Path(uri).name, _tiny(uri)]
            for (x, y), label, uri in zip(p.xy, p.labels, p.uris, strict=True)
        ]
        legend = "".join(
            f'<li><i style="background:{self._hex(name)}"></i>{html.escape(name or OTHER_LABEL)}</li>'
            for name in (*self.palette, None)
        )
        data = json.dumps(points, ensure_ascii=True).replace("<", "\\u003c")
        return _PAGE.format(title=html.escape(self.title), legend=legend, data=data)

    def _xy(self) -> list[tuple[float, float]]:
        return [(float(x), float(y)) for x, y in self.projection.xy]

    def _tone(self, label: str | None) -> tuple[int, int, int]:
        return self.palette.get(label or "", GREY)

    def _hex(self, label: str | None) -> str:
        return "#{:02x}{:02x}{:02x}".format(*self._tone(label))

    def _images(self, sheet: Image.Image, places: list[tuple[float, float]], tones: list[tuple[int, int, int]]) -> None:
        """Images on the map, each where no other lies already."""
        taken: set[tuple[int, int]] = set()
        for (x, y), tone, uri in zip(places, tones, self.projection.uris, strict=True):
            cell = (int(x // (THUMBNAIL_SIZE + 6)), max(1, int(y // (THUMBNAIL_SIZE + 6))))
            if cell in taken:
                continue
            taken.add(cell)
            picture = ImageOps.expand(_small(uri), 2, tone)
            at = (round(cell[0] * (THUMBNAIL_SIZE + 6) + 3), round(cell[1] * (THUMBNAIL_SIZE + 6) + 3))
            sheet.paste(picture, at)


def _small(uri: str) -> Image.Image:
    """The image in a square of the map."""
    return ImageOps.fit(contact_sheet.thumbnail(uri), (THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.BICUBIC)


def _tiny(uri: str) -> str:
    """The same as a JPEG in a data URI's base64."""
    data = io.BytesIO()
    _small(uri).save(data, "JPEG", quality=70)
    return base64.b64encode(data.getvalue()).decode()


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body{{margin:16px;font:14px/1.4 system-ui,sans-serif}} h1{{font-size:17px;font-weight:600}}
main{{display:flex;gap:16px;align-items:flex-start}} canvas{{border:1px solid #8884;border-radius:6px}}
ul{{list-style:none;margin:0;padding:0;font-size:13px}} li i{{display:inline-block;width:12px;height:12px;
border-radius:3px;margin-right:7px;vertical-align:-1px}}
#tip{{position:fixed;display:none;pointer-events:none;background:#fff;color:#111;padding:6px;border-radius:6px;
box-shadow:0 2px 12px #0006;font-size:12px;max-width:180px;overflow-wrap:anywhere}}
#tip img{{width:132px;display:block}}
@media (prefers-color-scheme:dark){{body{{background:#181818;color:#eee}}}}
</style></head><body><h1>{title}</h1><main><canvas id="map" width="1000" height="760"></canvas><ul>{legend}</ul></main>
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
</script></body></html>
"""
