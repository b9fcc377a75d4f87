"""Containers of sound and video that libsndfile does not open."""

from __future__ import annotations

from embedstore.media.audio import ogg

MATROSKA = b"\x1aE\xdf\xa3"
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")  # the GUID of its header object
MPEG_TS_PACKET = 188  # bytes, each packet begins with 0x47 (ISO/IEC 13818-1)
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"pnot")
_SMALL_BOXES = (b"wide", b"free", b"skip")  # words of a text too, which does not begin with the byte 0 of a small size
_OTHERS = (  # what a file begins with
    (MATROSKA, "a Matroska or WebM file"),
    (ASF, "a WMA or WMV file"),
    (b"FLV", "a Flash video"),
    (b"\0\0\x01\xba", "an MPEG video"),
    (b"\0\0\x01\xb3", "an MPEG video"),
    (b"#!AMR", "an AMR file"),
    (b"\x0bw", "an AC-3 file"),
)


def other_container(data: bytes) -> str | None:
    """Return what a file is that holds sound or video and that ffmpeg opens; None if it may be another.

    Args:
        data: the bytes of the file.
    """
    if data[4:8] in _MP4_BOXES or (data[:1] == b"\0" and data[4:8] in _SMALL_BOXES):
        return "a video or an MP4 file"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "an AVI video"
    if data[: 3 * MPEG_TS_PACKET : MPEG_TS_PACKET] == b"GGG":
        return "an MPEG video"
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0:  # ADTS: the layer is 0, which MP3 never has
        return "an AAC file"
    if data[:4] == ogg.CAPTURE and b"\x80theora" in data[:4096]:
        return "an Ogg video"
    return next((what for begin, what in _OTHERS if data.startswith(begin)), None)
