"""Files that hold several sounds one after the other, as `cat` and internet radio write them.

The decoder reads the first one only. So a file is split first, and each sound is decoded by itself; they may differ in
rate, channels and format.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from embedstore.media.audio import mpeg, ogg
from embedstore.media.audio.sizes import stated_size

_FLAC = b"fLaC"
_CAF = b"caff"
_CAF_HEADER, _CAF_CHUNK = 8, 12  # bytes of the header of the file, and of each of its chunks
_AU = (b".snd", b"dns.")  # numbers of 4 bytes follow, in big and in little order
_AU_NUMBERS = 6  # with the mark: begin of the samples, bytes of them, encoding, rate, channels
_STATE_A_SIZE = (b"RIFF", b"RF64", b"FORM", b"riff", _CAF, *_AU)
_HEADER = 64  # bytes, in which they state it
_SHORTEST_HEADER = 12  # bytes, within which no other sound begins
_BEGINS = (  # of sounds: bytes to look for, where they are, and what has to be behind them; 8 to 16 bytes in all
    (b"WAVE", 8, b"RIFF", b""),
    (b"WAVE", 8, b"RF64", b""),
    (b"AIFF", 8, b"FORM", b""),
    (b"AIFC", 8, b"FORM", b""),
    (_FLAC, 0, b"", b"\0\0\0\x22"),  # the first block of 34 bytes, or the only one
    (_FLAC, 0, b"", b"\x80\0\0\x22"),
    (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0", 0, b"", b""),
    (b"caff\0\1\0\0desc", 0, b"", b""),
    (ogg.FIRST, 0, b"", b""),
)


@dataclass(frozen=True)
class _Begins:
    """Where sounds may begin in a file, in ascending order.

    Attributes:
        sounds: the begins of WAV, AIFF, FLAC, Wave64, CAF, AU and Ogg.
        tags: ID3 tags before frames of MPEG.
        end: where the file ends.
    """

    sounds: list[int]
    tags: list[int]
    end: int

    def next_sound(self, at: int) -> int:
        """Return the first begin without a tag from ``at`` on; the end of the file if there is none."""
        return _first_from(self.sounds, at, self.end)

    def next_any(self, at: int) -> int:
        """Return the first begin from ``at`` on; the end of the file if there is none."""
        return min(self.next_sound(at), _first_from(self.tags, at, self.end))


def split_sounds(data: bytes) -> Iterator[bytes]:
    """Yield the sounds of a file; one that holds a single sound, or none, is yielded whole.

    Args:
        data: the bytes of the file.
    """
    begins, begin = _find_begins(data), 0
    while begin < len(data):
        end = _sound_end(data, begin, begins)
        yield data[begin:end]
        begin = end


def _sound_end(data: bytes, begin: int, begins: _Begins) -> int:
    """Return where the sound that begins at ``begin`` ends: where the next one begins, or the file ends."""
    at = mpeg.skip_tags(data, begin)
    if mpeg.read_frame(data, at) is not None:
        return mpeg.sound_end(data, begin, begins.next_sound(at + 1))
    if data.startswith(_FLAC, at):
        frames = _flac_frames(data, at)
        return mpeg.find_frames(data, frames, begins.next_any(frames))
    if data.startswith(ogg.CAPTURE, at):
        end = ogg.sound_end(data, at)
        return end if end > at and mpeg.begins_at(data, end) else begins.next_any(max(end, at + 1))
    if not data.startswith(_STATE_A_SIZE, at):
        return len(data)
    limit = begins.next_any(at + _SHORTEST_HEADER)
    if data.startswith(_CAF, at):
        return _caf_end(data, at, limit)
    end = at + (stated_size(data[at : at + _HEADER]) or 0)
    ends = (end, end + end % 2)  # some are padded to an even size
    return next((end for end in ends if at < end < limit and mpeg.begins_at(data, end)), limit)


def _find_begins(data: bytes) -> _Begins:
    """Find where sounds may begin."""
    sounds = set[int]()
    for mark, before, first, behind in _BEGINS:
        for found in _occurrences(data, mark):
            begin = found - before
            if begin >= 0 and data.startswith(first, begin) and data.startswith(behind, found + len(mark)):
                sounds.add(begin)
    sounds.update(at for mark in _AU for at in _occurrences(data, mark) if _is_au(data, at))
    tags = [at for at in _occurrences(data, b"ID3") if mpeg.skip_tags(data, at) > at and mpeg.begins_at(data, at)]
    return _Begins(sorted(sounds), tags, len(data))


def _occurrences(data: bytes, mark: bytes) -> list[int]:
    """Return where bytes occur."""
    found, at = list[int](), data.find(mark)
    while at >= 0:
        found.append(at)
        at = data.find(mark, at + 1)
    return found


def _first_from(places: list[int], at: int, end: int) -> int:
    """Return the first place from ``at`` on; ``end`` if there is none."""
    index = bisect.bisect_left(places, at)
    return places[index] if index < len(places) else end


def _is_au(data: bytes, at: int) -> bool:
    """Return whether an AU file begins at a mark: its mark alone is too short to say so."""
    order: Literal["big", "little"] = "big" if data.startswith(_AU[0], at) else "little"
    ends = range(at + 4, at + 4 * _AU_NUMBERS, 4)
    begin, _, encoding, _, channels = (int.from_bytes(data[end : end + 4], order) for end in ends)
    return 4 * _AU_NUMBERS <= begin < 1 << 16 and 0 < encoding < 1 << 8 and 0 < channels < 1 << 8


def _flac_frames(data: bytes, at: int) -> int:
    """Return where the blocks before the frames of a FLAC file end: they may hold the header of a WAV file."""
    block, is_last = at + len(_FLAC), False
    while not is_last and block + 4 <= len(data):
        is_last = data[block] >= 0x80
        block += 4 + int.from_bytes(data[block + 1 : block + 4], "big")
    return min(block, len(data))


def _caf_end(data: bytes, at: int, limit: int) -> int:
    """Return where the chunks of a CAF file end: before frames of MPEG, else at the limit."""
    chunk = at + _CAF_HEADER
    while chunk < limit:
        if mpeg.begins_at(data, chunk):
            return chunk
        chunk += _CAF_CHUNK + int.from_bytes(data[chunk + 4 : chunk + _CAF_CHUNK], "big")
    return limit
