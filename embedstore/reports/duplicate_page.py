"""Groups of duplicates as one HTML page: files of equal bytes first, then images that look alike, the largest first."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from itertools import groupby

from embedstore.reports.contact_sheet import encode_image, thumbnail
from embedstore.reports.duplicate_text import ONLY_EQUAL_NOTE, duplicate_summary, label_conflict_note
from embedstore.reports.html_page import html_page, paragraph
from embedstore.reports.item_images import ImageReader
from embedstore.search.duplicate_groups import CrossSplitPair, DuplicateGroups, DuplicateItem
from embedstore.wording import counted

MAX_GROUPS = 200  # of each kind
MAX_ITEMS = 12  # of one group
MAX_PAIRS = 200

Group = Sequence[DuplicateItem]


def duplicate_page(found: DuplicateGroups, title: str, read_images: ImageReader, *, across_splits: bool = False) -> str:
    """Return the page, with every thumbnail inside it.

    Args:
        found: the groups.
        title: heading of the page.
        read_images: reads the images of items.
        across_splits: show pairs of items in different splits in place of the groups.
    """
    parts = [f"<h1>{html.escape(title)}</h1>", paragraph(duplicate_summary(found))]
    if found.only_equal:
        parts.append(paragraph(ONLY_EQUAL_NOTE))
    if conflict := label_conflict_note(found):
        parts.append(paragraph(conflict))
    if across_splits:
        parts += [_NEXT_OF_PAIRS, _pairs(found, read_images)]
    else:
        parts.append(_NEXT_OF_GROUPS)
        groups = [list(items) for _, items in groupby(found.items, key=lambda item: item.group)]
        identical = [group for group in groups if all(item.identical for item in group)]
        near = [group for group in groups if not all(item.identical for item in group)]
        parts += [_section("Equal bytes", identical, read_images), _section("Look alike", near, read_images)]
    return html_page(title, "\n".join(parts), style=_STYLE)


def _section(title: str, groups: Sequence[Group], read_images: ImageReader) -> str:
    """Return the groups of one kind, the largest first."""
    groups = sorted(groups, key=lambda group: -len(group))
    more = f", of which the {MAX_GROUPS} largest are shown" if len(groups) > MAX_GROUPS else ""
    shown = "\n".join(_group(group, read_images) for group in groups[:MAX_GROUPS])
    return f'<h2>{title}: {counted(len(groups), "group")}{more}</h2>\n<div class="groups">{shown}</div>'


def _group(group: Group, read_images: ImageReader) -> str:
    """Return one group, the item to keep first."""
    shown = group[:MAX_ITEMS]
    images = read_images([item.item for item in shown])
    figures = "".join(_item(item, data) for item, data in zip(shown, images, strict=True))
    more = f"<p>and {len(group) - MAX_ITEMS:,} more</p>" if len(group) > MAX_ITEMS else ""
    heading = f"group {group[0].group}: {counted(len(group), 'item')}{_warning(item.label for item in group)}"
    return f"<section><h3>{heading}</h3><main>{figures}</main>{more}</section>"


def _item(item: DuplicateItem, data: bytes | None) -> str:
    """Return one item of a group."""
    score = "keep" if item.keep else _scores(item.cosine, item.pixels, equal=item.identical)
    return _figure(data, item.uri, f"<b>{score}</b> {_facts(item.label, item.split)}")


def _pairs(found: DuplicateGroups, read_images: ImageReader) -> str:
    """Return the most similar pairs of items in different splits."""
    shown = found.cross_split_pairs[:MAX_PAIRS]
    images = read_images([item for pair in shown for item in (pair.item, pair.other_item)])
    like_kept = {item.item for item in found.items if item.identical}
    rows = "\n".join(
        _pair(pair, next(images), next(images), equal={pair.item, pair.other_item} <= like_kept) for pair in shown
    )
    more = f", of which the {len(shown)} most similar are shown" if len(shown) < found.cross_split_count else ""
    return f'<h2>Across splits: {counted(found.cross_split_count, "pair")}{more}</h2>\n<div class="groups">{rows}</div>'


def _pair(pair: CrossSplitPair, data: bytes | None, other_data: bytes | None, *, equal: bool) -> str:
    """Return one pair; ``equal`` says that both have the same bytes."""
    first = _figure(data, pair.uri, _facts(pair.label, pair.split))
    second = _figure(other_data, pair.other_uri, _facts(pair.other_label, pair.other_split))
    heading = _scores(pair.score, pair.pixels, equal=equal) + _warning((pair.label, pair.other_label))
    return f"<section><h3>{heading}</h3><main>{first}{second}</main></section>"


def _warning(labels: Iterable[str | None]) -> str:
    """Return that labels differ and which they are, empty where they do not."""
    names = sorted({label for label in labels if label is not None})
    return f' <b class="warn">labels differ: {html.escape(", ".join(names))}</b>' if len(names) > 1 else ""


def _scores(cosine: float, pixels: float | None, *, equal: bool) -> str:
    """Return both scores in words, or that the bytes are equal."""
    if equal:
        return "equal bytes"
    return f"cosine {cosine:.3f}" + (f", pixels {pixels:.3f}" if pixels is not None else "")


def _facts(label: str | None, split: str | None) -> str:
    """Return label and split, escaped."""
    return html.escape(" · ".join(value for value in (label, split) if value is not None))


def _figure(data: bytes | None, uri: str, caption: str) -> str:
    """Return an image with a caption of HTML and its uri."""
    source = base64.b64encode(encode_image(thumbnail(data), "JPEG")).decode()
    name = html.escape(uri)
    return (
        f'<figure><img src="data:image/jpeg;base64,{source}" alt="{name}" loading="lazy">'
        f"<figcaption>{caption}<br><small>{name}</small></figcaption></figure>"
    )


_NEXT_OF_GROUPS = (
    "<p><code>--keep</code> chooses what a group keeps. <code>embedstore duplicates STORE --delete-extra</code>, with "
    "the options of this page, removes the others from the store; <code>--extra --paths</code> lists their files.</p>"
)
_NEXT_OF_PAIRS = (
    "<p><code>embedstore probe STORE LABEL --drop-near-duplicates</code> trains without copies of held-out items. "
    "<code>embedstore duplicates STORE --keep train-first --delete-extra</code> removes all copies from the store, and "
    "of those across the split the held-out ones.</p>"
)
_STYLE = """
html{color-scheme:light dark} html body{margin:24px;font:13px/1.4 system-ui,sans-serif;color:#111;background:#fff}
h1{font-size:20px} h2{font-size:16px;margin-top:28px} h3{font-size:13px;margin:14px 0 4px} .warn{color:#b00020}
.groups{display:flex;flex-wrap:wrap;gap:6px 36px} p{max-width:90ch}
main{display:flex;flex-wrap:wrap;gap:10px} figure{margin:0;width:180px}
figure img{width:180px;height:180px;object-fit:contain;background:#f2f2f2}
figcaption{overflow-wrap:anywhere} small{color:#666}
@media (prefers-color-scheme:dark){html body{color:#eee;background:#181818} small{color:#aaa} .warn{color:#ff8a80}}
"""
