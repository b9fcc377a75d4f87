"""Frames of MPEG sound (ISO/IEC 11172-3 and 13818-3): where a sound ends, and a header that states its frames.

An MP3 has no length. Encoders put it, as a number of frames, into a first frame without sound: the header, marked Xing,
Info or VBRI. The decoder believes it, estimates the length where there is none, and reads no further. So it would leave
out other sounds behind the first one, and the ends of sounds with a variable bit rate and no header.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

_SYNC = re.compile(rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff][\x10-\xef]", re.DOTALL)  # layers 1 to 3 with a stated bit rate
_KILOBITS = {  # by the index of the bit rate; for version 1 or not, and the layer
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HERTZ = (44100, 48000, 32000)  # of version 1
_HALVINGS = {3: 0, 2: 1, 0: 2}  # of the sample rate, by the bits of the version: 1, 2 and 2.5
_MONO = 3  # the bits of the channel mode
_FRAMES_IN_A_ROW = 3  # that are a sound and no accident
_TAIL = 1 << 14  # bytes of a file that hold so many frames of any kind, and the tags behind them
_HAS_COUNT = 1  # flag of a header: the number of frames follows
_LONG_FRAME = 8  # index of a bit rate whose frames are long enough for a header at every sample rate
_VBRI, _VBRI_COUNT = 36, 14  # where that mark is in a frame, and the number of frames behind it
_ID3 = 10  # bytes of a tag before its content
_MOST_TAGS = 16  # one behind the other


@dataclass(frozen=True)
class Frame:
    """What the first four bytes of a frame say.

    Attributes:
        format: version, layer, sample rate and whether it is mono: alike in all frames of a sound.
        layer: 1 to 3.
        length: bytes of the frame.
        mark: where a header has its mark, from the begin of the frame.
    """

    format: tuple[int, int, int, bool]
    layer: int
    length: int
    mark: int


def skip_tags(data: bytes, at: int) -> int:
    """Return where the ID3 tags at ``at`` end; ``at`` if there are none.

    Args:
        data: the bytes of a file.
        at: where tags may begin.
    """
    for _ in range(_MOST_TAGS):
        head = data[at : at + _ID3]
        if len(head) < _ID3 or head[:3] != b"ID3" or max(head[6:]) > 0x7F:
            break
        at += _ID3 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
    return at


def begins_at(data: bytes, at: int) -> bool:
    """Return whether frames follow each other at ``at``, behind any tags.

    Args:
        data: the bytes of a file.
        at: where the sound may begin.
    """
    return _are_frames(data, skip_tags(data, at), len(data))


def sound_end(data: bytes, begin: int, limit: int) -> int:
    """Return where a sound ends: before the tags and frames of another format, or before another header.

    Args:
        data: the bytes of a file.
        begin: where its tags or its first frame begin.
        limit: where it ends at the latest.
    """
    kind = None
    for behind, at, frame in _frames(data, begin, limit):
        if kind is not None and (frame.format != kind or _has_header(data, at, frame)):
            return behind
        kind = frame.format
    return limit


def find_frames(data: bytes, begin: int, limit: int) -> int:
    """Return where frames begin behind a compressed sound that states no length; the limit if none do.

    The bytes before the limit are looked at first: nearly all files hold one sound, and are not searched.

    Args:
        data: the bytes of a file.
        begin: where the search begins.
        limit: where the frames end at the latest.
    """
    if _next_frames(data, max(begin, limit - _TAIL), limit, _FRAMES_IN_A_ROW) == limit:
        return limit
    return _next_frames(data, begin, limit, _FRAMES_IN_A_ROW)


def state_frames(data: bytes) -> bytes:
    """Return a sound with a header that states all its frames, so that it is decoded to its end.

    A header that states more frames than there are remains: the file was cut off.

    Args:
        data: the bytes of one sound.
    """
    frames = _frames(data, 0, len(data))
    _, first, frame = next(frames, (0, 0, None))
    if frame is None or frame.layer != 3:
        return data
    others = sum(1 for _ in frames)
    if not _has_header(data, first, frame):
        return data[:first] + _header(data[first : first + 4], others + 1) + data[first:]
    count = _count_place(data, first, frame)
    if count is None:
        return data[:first] + _header(data[first : first + 4], others) + data[first + frame.length :]
    if int.from_bytes(data[count : count + 4], "big") >= others:
        return data
    return data[:count] + others.to_bytes(4, "big") + data[count + 4 :]


def read_frame(data: bytes, at: int) -> Frame | None:
    """Return what the frame at ``at`` says; None if there is none, or its bit rate is not stated.

    Args:
        data: the bytes of a file.
        at: where the frame begins.
    """
    return _parse(data[at : at + 4])


@functools.lru_cache(maxsize=4096)
def _parse(head: bytes) -> Frame | None:
    """Return what the four bytes of a frame's header say."""
    if len(head) < 4 or _SYNC.match(head) is None:
        return None
    version, layer, rate, is_mono = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3), head[2] >> 2 & 3, head[3] >> 6 == _MONO
    if rate == len(_HERTZ):
        return None
    is_first = version == 3
    hertz, bits = _HERTZ[rate] >> _HALVINGS[version], _KILOBITS[is_first, layer][head[2] >> 4] * 1000
    padding = head[2] >> 1 & 1
    if layer == 1:
        length = (12 * bits // hertz + padding) * 4
    else:
        length = (144 if layer == 2 or is_first else 72) * bits // hertz + padding
    side = (17 if is_mono else 32) if is_first else (9 if is_mono else 17)
    return Frame((version, layer, rate, is_mono), layer, length, 4 + side)


def _frames(data: bytes, begin: int, limit: int) -> Iterator[tuple[int, int, Frame]]:
    """Yield where the frame before ends, where a frame begins, and what it says; other bytes are skipped."""
    behind, kind = begin, None
    while True:
        at, frame = behind, read_frame(data, behind) if behind + 4 <= limit else None
        if frame is None or frame.format != kind:
            at = _next_frames(data, skip_tags(data, behind), limit)
            frame = read_frame(data, at) if at < limit else None
        if frame is None or at + frame.length > limit:
            return
        yield behind, at, frame
        behind, kind = at + frame.length, frame.format


def _next_frames(data: bytes, at: int, limit: int, least: int = 1) -> int:
    """Return where frames follow each other next, at least some; the limit if they do not."""
    while (found := _SYNC.search(data, at, limit)) is not None:
        if _are_frames(data, found.start(), limit, least):
            return found.start()
        at = found.start() + 1
    return limit


def _are_frames(data: bytes, at: int, limit: int, least: int = 1) -> bool:
    """Return whether some frames of one format follow each other, or all until the limit, if they are ``least``."""
    first = frame = read_frame(data, at)
    for count in range(1, _FRAMES_IN_A_ROW + 1):
        if frame is None or first is None or frame.format != first.format:
            return False
        at += frame.length
        if at >= limit:
            return at == limit and count >= least
        frame = read_frame(data, at)
    return True


def _has_header(data: bytes, at: int, frame: Frame) -> bool:
    """Return whether a frame is the header of a sound."""
    is_xing = data[at + frame.mark : at + frame.mark + 4] in (b"Xing", b"Info")
    return frame.layer == 3 and (is_xing or data[at + _VBRI : at + _VBRI + 4] == b"VBRI")


def _count_place(data: bytes, at: int, frame: Frame) -> int | None:
    """Return where a header states the number of frames; None if it does not."""
    if data[at + _VBRI : at + _VBRI + 4] == b"VBRI":
        return at + _VBRI + _VBRI_COUNT
    flags = int.from_bytes(data[at + frame.mark + 4 : at + frame.mark + 8], "big")
    return at + frame.mark + 8 if flags & _HAS_COUNT else None


def _header(head: bytes, frames: int) -> bytes:
    """Return a header for frames that begin with ``head``."""
    begin = bytes((head[0], head[1] | 1, _LONG_FRAME << 4 | head[2] & 0x0C, head[3]))  # no checksum, no padding
    frame = _parse(begin)
    if frame is None:
        raise ValueError(f"the bytes {head.hex()} begin no frame")
    content = b"Xing" + _HAS_COUNT.to_bytes(4, "big") + frames.to_bytes(4, "big")
    return (begin.ljust(frame.mark, b"\0") + content).ljust(frame.length, b"\0")
