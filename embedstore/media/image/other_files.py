"""What a file is that no decoder takes for an image, and what to do about it."""

from __future__ import annotations

import re

_PLUG_IN = "needs a plug-in; docs/how-to/plug-ins.md shows one for it"
_BY_START = (  # offset, bytes, what it is and what to do
    (0, b"\xff\x0a", f"JPEG XL {_PLUG_IN}"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", f"JPEG XL {_PLUG_IN}"),
    (128, b"DICM", f"DICOM {_PLUG_IN}"),
    (0, b"%!PS", "PostScript is a program, not pixels; convert it to PNG"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript is a program, not pixels; convert it to PNG"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR has pixels of any brightness; convert it to PNG"),
    (0, b"#?RADIANCE", "Radiance HDR has pixels of any brightness; convert it to PNG"),
    (0, b"%PDF-", "a PDF file; name it with the suffix .pdf and embed it with --pages"),
    (0, b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS, not the file; run `git lfs pull`"),
    (0, b"/annex/objects/", "a pointer of git-annex, not the file; run `git annex get`"),
    (0, b"SQLite format 3\0", "a database of SQLite, not an image"),
    (0, b"PK\x03\x04", "a zip archive; name it with the suffix .zip to embed what is in it"),
    (257, b"ustar", "a tar archive; name it with the suffix .tar to embed what is in it"),
)
_BY_TEXT = (
    (re.compile(rb"\s*(<!doctype html|<html)", re.IGNORECASE), "a web page, not an image; download the image again"),
    (re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*|<!DOCTYPE svg[^>]*>\s*)*<svg", re.IGNORECASE | re.DOTALL),
     "SVG is a drawing, not pixels; convert it to PNG"),
    (re.compile(rb".{4}ftyp(isom|iso[2-9]|mp4[12]|qt  |M4[VA] |3g[p2]|avc1|dash)", re.DOTALL),
     "a video; name it with its suffix, such as .mp4, and embed it with --every"),
    (re.compile(rb"\s*(<\?xml[^>]*>\s*)?<Error>"), "an error of a server, not an image; download the image again"),
)  # fmt: skip
_TEXT_BYTES = 2048  # that are looked at


def describe_file(data: bytes) -> str | None:
    """Return what a file is by its first bytes, and what to do about it; None if that is not known."""
    for offset, magic, what in _BY_START:
        if data.startswith(magic, offset):
            return what
    start = data[:_TEXT_BYTES].removeprefix(b"\xef\xbb\xbf")
    return next((what for pattern, what in _BY_TEXT if pattern.match(start)), None)
