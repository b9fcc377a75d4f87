"""The findings of a checkup as one HTML page."""

from __future__ import annotations

import html
from typing import Any, Protocol

from embedstore.reports.html_page import html_page
from embedstore.tables import Record


class Checkup(Protocol):
    """What the page shows of a checkup."""

    @property
    def checks(self) -> dict[str, str]:
        """Every check, and what it looked at."""

    def records(self) -> list[Record]:
        """One mapping per finding, the worst first."""


def checkup_page(report: Checkup, title: str) -> str:
    """Return the page: the findings, the worst first, and what was looked at."""
    findings = "\n".join(_finding(record) for record in report.records()) or "<p>nothing was found</p>"
    checks = "".join(f"<li>{html.escape(c)}: {html.escape(extent)}</li>" for c, extent in report.checks.items())
    body = f"<h1>{html.escape(title)}</h1>\n<ol>{findings}</ol>\n<h2>What was looked at</h2>\n<ul>{checks}</ul>"
    return html_page(title, body, style=_STYLE)


def _finding(record: dict[str, Any]) -> str:
    """Return one finding with its command."""
    text, command = (html.escape(str(record[name])) for name in ("text", "command"))
    return f'<li class="s{int(record["severity"])}">{text}<br><code>{command}</code></li>'


_STYLE = """
html{color-scheme:light dark} html body{margin:24px;max-width:900px;font:14px/1.5 system-ui,sans-serif;color:#111;
background:#fff} h1{font-size:20px} h2{font-size:16px} li{margin:8px 0} code{color:#05c;overflow-wrap:anywhere}
.s3{color:#b00020} .s2{color:#8a4b00}
@media (prefers-color-scheme:dark){html body{color:#eee;background:#181818} code{color:#7bf} .s3{color:#ff8a80}
.s2{color:#f0b060}}
"""
