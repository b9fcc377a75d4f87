"""The frame of every HTML page: one self-contained file that loads nothing from elsewhere."""

from __future__ import annotations

import html
from pathlib import Path

from embedstore.storage import durable_files


def html_page(title: str, body: str, *, style: str = "") -> str:
    """Return a complete HTML page.

    Args:
        title: text of the window's title, not yet escaped.
        body: HTML between the body tags.
        style: CSS rules.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title>\n<style>{style}</style></head>\n<body>{body}</body></html>\n"
    )


def write_page(path: Path, page: str) -> None:
    """Write a page to a file. Missing parent folders are created; an existing file is replaced at once.

    Raises:
        OSError: if the disk refuses; an existing file is unchanged.
    """
    durable_files.write_output(path, page.encode())


def paragraph(text: str) -> str:
    """Return a text as a paragraph."""
    return f"<p>{html.escape(text)}</p>"
