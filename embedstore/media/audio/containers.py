"""What holds a sound: containers that libsndfile does not open, and Ogg files of several sounds one after the other."""

from __future__ import annotations

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
_OGG, _HEADER, _FIRST_PAGE = b"OggS", 27, 2  # capture pattern, bytes of a page's header, flag of a stream's first page


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
    if data[:4] == _OGG and b"\x80theora" in data[:4096]:
        return "an Ogg video"
    return next((what for begin, what in _OTHERS if data.startswith(begin)), None)


def chain_links(data: bytes) -> list[bytes]:
    """Return the sounds of an Ogg file that holds several, one after the other; any other file is returned whole.

    Internet radio and `cat` write such files (RFC 3533, section 4), of which libsndfile reads the first sound only.

    Args:
        data: the bytes of the file.
    """
    if data[:4] != _OGG:
        return [data]
    starts = [0, *_link_starts(data)[1:]]
    return [data[first:end] for first, end in zip(starts, [*starts[1:], len(data)], strict=True)]


def _link_starts(data: bytes) -> list[int]:
    """Return where a stream begins after pages of another; streams that begin together are one sound."""
    starts, at, is_in_header = list[int](), 0, False
    while (at := data.find(_OGG, at)) >= 0 and at + _HEADER <= len(data):
        is_first = bool(data[at + 5] & _FIRST_PAGE)
        if is_first and not is_in_header:
            starts.append(at)
        is_in_header = is_first
        segments = data[at + _HEADER - 1]
        table = data[at + _HEADER : at + _HEADER + segments]
        at += _HEADER + segments + sum(table)
    return starts
