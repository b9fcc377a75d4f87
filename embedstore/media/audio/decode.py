"""WAV, FLAC, OGG, MP3 and others of libsndfile to samples of one channel at the rate of a network."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import AudioError
from embedstore.media.audio.containers import chain_links, other_container
from embedstore.resources import memory_share
from embedstore.types import ContentInfo, FailureReason

BLOCK_FRAMES = 1 << 16  # that are decoded at once: a header may claim any number
MAX_SECONDS = 4 * 3600.0  # of one sound
MAX_BYTES = 2 << 30  # of its samples
COMPLETE = 0.98  # of the frames that a header states: encoders count their own delay differently
SIZES_WITHOUT_MEANING = (0, 0xFFFFFFFF)  # a program that writes to a pipe does not know the size

LOUDEST = float(1 << 31)  # of the samples of a file of floats: some programs write them in the range of integers

_EXTRA = "sound needs the packages soundfile and soxr; run `pip install 'embedstore[audio]'` and embed again"


def decode_sound(data: bytes, sample_rate: int) -> tuple[NDArray[np.float32], ContentInfo]:
    """Return the samples of a sound, the mean of its channels, and facts about the content.

    Args:
        data: the bytes of the file.
        sample_rate: samples per second of the result.

    Returns:
        float32 ``(S,)``, and facts.

    Raises:
        AudioError: if it cannot be decoded, is empty, silent, too long or cut off, or a package is missing.
    """
    if not data:
        raise AudioError(FailureReason.EMPTY, "the file has no bytes")
    if (container := other_container(data)) is not None:
        raise AudioError(
            FailureReason.NOT_A_SOUND, f"{container}; write its sound as FLAC first: ffmpeg -i FILE sound.flac"
        )
    try:
        import soundfile
        import soxr
    except (ImportError, OSError) as e:
        raise AudioError(FailureReason.MISSING_EXTRA, _EXTRA) from e
    _check_size(data)
    parts, read, seconds, name = list[NDArray[np.float32]](), 0, 0.0, ""
    try:
        for link in chain_links(data):
            with soundfile.SoundFile(io.BytesIO(link)) as file:
                samples, rate, name = _read(file, sample_rate, seconds), int(file.samplerate), str(file.format)
            read, seconds = read + len(samples), seconds + len(samples) / rate
            parts.append(samples if rate == sample_rate else soxr.resample(samples, rate, sample_rate))
    except soundfile.LibsndfileError as e:
        reason = FailureReason.CORRUPT if _has_known_begin(data) else FailureReason.NOT_A_SOUND
        raise AudioError(reason, " ".join(e.error_string.split())[:200]) from e
    if not read:
        raise AudioError(FailureReason.EMPTY, "the sound has no samples")
    samples = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if min(read, len(samples)) < 2:
        raise AudioError(FailureReason.TOO_SHORT, f"{read:,} samples at {rate:,} per second are no sound")
    _check(samples)
    return np.ascontiguousarray(samples, dtype=np.float32), ContentInfo(0, 0, name)


def _read(file: Any, sample_rate: int, seconds: float) -> NDArray[np.float32]:
    """Return the mean of the channels, block by block.

    Args:
        file: the open file.
        sample_rate: samples per second of the result.
        seconds: of the parts of the file that were read before.
    """
    most = _most_frames(file.samplerate, sample_rate, seconds)
    blocks, count = list[NDArray[np.float32]](), 0
    while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        count += len(block)
        if count > most:
            longest = seconds + most / file.samplerate
            detail = f"longer than {longest / 60:.0f} minutes; cut it into several files"
            raise AudioError(FailureReason.TOO_LARGE, detail)
        with np.errstate(over="ignore"):  # infinite samples are refused later
            blocks.append(block.mean(axis=1))
    if count < COMPLETE * file.frames:
        raise AudioError(FailureReason.TRUNCATED, f"it ends after {count:,} of {file.frames:,} frames")
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32)


def _most_frames(rate: int, sample_rate: int, seconds: float) -> int:
    """Return how many frames are read of a sound: by its seconds, and by the memory before and after resampling.

    A header may claim one frame per second, of which resampling would make many.
    """
    in_memory = memory_share(MAX_BYTES, 8) // 4
    most = min(MAX_SECONDS * rate, in_memory, in_memory * rate / sample_rate)
    return max(0, int(most - seconds * rate))


def _check(samples: NDArray[np.float32]) -> None:
    """Refuse samples that say nothing."""
    if not np.isfinite(samples).all():
        raise AudioError(FailureReason.CORRUPT, "it has samples that are not numbers")
    low, high = float(samples.min()), float(samples.max())
    if max(-low, high) > LOUDEST:
        raise AudioError(FailureReason.CORRUPT, f"it has samples of {max(-low, high):.1e}; full scale is 1")
    if low == high:
        raise AudioError(FailureReason.SILENT, "all samples are equal")


def _check_size(data: bytes) -> None:
    """Refuse a WAV, AIFF, AU or Wave64 file that is shorter than its header says; the library reads what is there."""
    stated = _stated_size(data)
    if stated is not None and stated > len(data) + 1:  # some writers forget the last pad byte
        raise AudioError(FailureReason.TRUNCATED, f"it has {len(data):,} of {stated:,} bytes")


def _stated_size(data: bytes) -> int | None:
    """Return how many bytes a header says that the file has; None where it says nothing."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        size = int.from_bytes(data[4:8], "little")
        return None if size in SIZES_WITHOUT_MEANING else size + 8
    if data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        size = int.from_bytes(data[4:8], "big")
        return None if size in SIZES_WITHOUT_MEANING else size + 8
    if data[:4] == b".snd":
        start, size = (int.from_bytes(data[at : at + 4], "big") for at in (4, 8))
        return None if size in SIZES_WITHOUT_MEANING else start + size
    if data[:4] == b"riff" and len(data) >= 24:  # Wave64: its size includes the header
        return int.from_bytes(data[16:24], "little")
    return None


def _has_known_begin(data: bytes) -> bool:
    """Return whether a file begins as a sound does."""
    return data.startswith((b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3", b"FORM", b".snd", b"caff")) or (
        len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0
    )
