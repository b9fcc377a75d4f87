"""The findings of a checkup as one HTML page."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Protocol

from embedstore.reports.contact_sheet import item_html
from embedstore.reports.html_page import html_page
from embedstore.reports.item_images import ImageReader

SHOWN_ITEMS = 8  # of a finding, as pictures


class CheckupFinding(Protocol):
    """What the page shows of one finding."""

    @property
    def severity(self) -> int:
        """From 3, what breaks results, to 1."""

    @property
    def text(self) -> str:
        """One sentence."""

    @property
    def command(self) -> str:
        """What shows it."""

    @property
    def cure(self) -> str:
        """What corrects it, or empty."""

    @property
    def items(self) -> tuple[int, ...]:
        """Ids of some of the items."""


class Checkup(Protocol):
    """What the page shows of a checkup."""

    @property
    def checks(self) -> dict[str, str]:
        """Every check, and what it looked at."""

    @property
    def findings(self) -> Sequence[CheckupFinding]:
        """The findings, the worst first."""


def checkup_page(report: Checkup, title: str, uris: Mapping[int, str], read_images: ImageReader) -> str:
    """Return the page: the findings, the worst first, with some of their items, and what was looked at.

    Args:
        report: the findings.
        title: heading of the page.
        uris: the names of the first items of each finding.
        read_images: reads the images of items.
    """
    findings = "\n".join(_finding(f, uris, read_images) for f in report.findings) or "<p>nothing was found</p>"
    checks = "".join(f"<li>{html.escape(c)}: {html.escape(extent)}</li>" for c, extent in report.checks.items())
    body = f"<h1>{html.escape(title)}</h1>\n<ol>{findings}</ol>\n<h2>What was looked at</h2>\n<ul>{checks}</ul>"
    return html_page(title, body, style=_STYLE)


def _finding(finding: CheckupFinding, uris: Mapping[int, str], read_images: ImageReader) -> str:
    """Return one finding with its commands and some of its items."""
    cure = f"<br>then, if it is so: <code>{html.escape(finding.cure)}</code>" if finding.cure else ""
    text, command = html.escape(finding.text), html.escape(finding.command)
    pictures = _items(finding.items, uris, read_images)
    return f'<li class="s{int(finding.severity)}">{text}<br><code>{command}</code>{cure}{pictures}</li>'


def _items(items: Sequence[int], uris: Mapping[int, str], read_images: ImageReader) -> str:
    """Return the first items as pictures, texts or sounds with their names."""
    shown = items[:SHOWN_ITEMS]
    if not shown:
        return ""
    figures = []
    for item, data in zip(shown, read_images(shown), strict=True):
        uri = uris.get(item, "")
        name = html.escape(PurePosixPath(uri).name)
        caption = f"<figcaption>{item}: {name}</figcaption>"
        figures.append(f'<figure title="{html.escape(uri)}">{item_html(data, name)}{caption}</figure>')
    return f"<main>{''.join(figures)}</main>"


_STYLE = """
html{color-scheme:light dark} html body{margin:24px;max-width:1200px;font:14px/1.5 system-ui,sans-serif;color:#111;
background:#fff} h1{font-size:20px} h2{font-size:16px} li{margin:14px 0} code{color:#05c;overflow-wrap:anywhere}
.s3{color:#b00020} .s2{color:#8a4b00}
main{display:flex;flex-wrap:wrap;gap:8px;margin-top:6px} figure{margin:0;width:124px}
figure img{width:124px;height:92px;object-fit:contain;background:#f2f2f2} figure audio{width:100%}
figcaption{font-size:11px;line-height:1.3;color:#666;overflow-wrap:anywhere}
blockquote{margin:0;padding:6px;font-size:11px;background:#f2f2f2;color:#111;overflow-wrap:anywhere}
@media (prefers-color-scheme:dark){html body{color:#eee;background:#181818} code{color:#7bf} .s3{color:#ff8a80}
.s2{color:#f0b060} figcaption{color:#aaa} figure img{background:#2a2a2a}}
"""
