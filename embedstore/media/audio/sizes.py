"""The length that the header of a sound states: sounds that were cut off, and headers that were never completed."""

from __future__ import annotations

from embedstore.errors import AudioError
from embedstore.types import FailureReason

_WITHOUT_MEANING = (0, 0xFFFFFFFF)  # a program that writes to a pipe does not know the size


def stated_size(data: bytes) -> int | None:
    """Return how many bytes a header says that a sound has; None where it says nothing.

    Args:
        data: the begin of the sound.
    """
    match data[:4], data[8:12]:
        case b"RIFF", b"WAVE":
            return _known(int.from_bytes(data[4:8], "little"), 8)
        case b"FORM", b"AIFF" | b"AIFC":
            return _known(int.from_bytes(data[4:8], "big"), 8)
        case b"RF64", b"WAVE" if data[12:16] == b"ds64":
            return int.from_bytes(data[20:28], "little") + 8
        case b".snd", _:
            return _known(int.from_bytes(data[8:12], "big"), int.from_bytes(data[4:8], "big"))
        case b"dns.", _:
            return _known(int.from_bytes(data[8:12], "little"), int.from_bytes(data[4:8], "little"))
        case b"riff", _ if len(data) >= 24:  # Wave64: its size includes the header
            return int.from_bytes(data[16:24], "little")
    return None


def check_size(data: bytes) -> None:
    """Refuse a sound that is shorter than its header says: the decoder would read what is there.

    Args:
        data: the bytes of one sound.

    Raises:
        AudioError: if it was cut off.
    """
    stated = stated_size(data)
    if stated is not None and stated > len(data) + 1:  # some writers forget the last pad byte
        raise AudioError(FailureReason.TRUNCATED, f"it has {len(data):,} of {stated:,} bytes")


def without_rest(data: bytes) -> bytes:
    """Return a WAV or Wave64 file without what is behind its end, such as tags: the decoder may read that as samples.

    Args:
        data: the bytes of one sound.
    """
    end = stated_size(data)
    if end is None or data[:4] not in (b"RIFF", b"riff"):
        return data
    samples = _samples_chunk(data) if data[:4] == b"RIFF" else None
    if samples is not None:  # some writers state less for the file than for its samples
        end = max(end, samples + 8 + int.from_bytes(data[samples + 4 : samples + 8], "little"))
    return data[: end + end % 2]


def complete_header(data: bytes) -> bytes:
    """Return a sound whose header says, as the decoder understands it, that its length is not known.

    A program that writes to a pipe, or a recorder that loses its power, leaves the size of the samples of a WAV file at
    0, and the decoder would find none.

    Args:
        data: the bytes of one sound.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return data
    samples = _samples_chunk(data)
    if samples is None or any(data[samples + 4 : samples + 8]) or samples + 8 >= len(data):
        return data
    return data[: samples + 4] + b"\xff" * 4 + data[samples + 8 :]


def _known(size: int, header: int) -> int | None:
    """Return the size of a file; None where a program could not know it."""
    return None if size in _WITHOUT_MEANING else size + header


def _samples_chunk(data: bytes) -> int | None:
    """Return where the chunk of samples of a WAV file begins; None if there is none."""
    at = 12
    while at + 8 <= len(data):
        if data[at : at + 4] == b"data":
            return at
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    return None
