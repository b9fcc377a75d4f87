"""WAV, FLAC, OGG, MP3 and others of libsndfile to samples of one channel at the rate of a network."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import AudioError
from embedstore.media.audio import mpeg, ogg
from embedstore.media.audio.channels import ChannelLevels
from embedstore.media.audio.containers import other_container
from embedstore.media.audio.joined import split_sounds
from embedstore.media.audio.sizes import check_size, complete_header, without_rest
from embedstore.resources import memory_share
from embedstore.types import ContentInfo, FailureReason

BLOCK_FRAMES = 1 << 16  # that are decoded at once: a header may claim any number
MAX_SECONDS = 4 * 3600.0  # of one sound
MAX_BYTES = 2 << 30  # of its samples
COMPLETE = 0.98  # of the frames that a header states: encoders count their own delay differently

UNKNOWN_FRAMES = (1 << 63) - 1  # what the decoder says of a header that was written before the sound
LOUDEST = float(1 << 31)  # of the samples of a file of floats: some programs write them in the range of integers

_EXTRA = "sound needs the packages soundfile and soxr; run `pip install 'embedstore[audio]'` and embed again"


def decode_sound(data: bytes, sample_rate: int) -> tuple[NDArray[np.float32], ContentInfo]:
    """Return the samples of a sound, the mean of its channels, and facts about the content.

    A file of several sounds one after the other is read to its end. Where channels cancel each other out, the loudest
    one is read.

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
    parts, read, seconds, name = list[NDArray[np.float32]](), 0, 0.0, ""
    try:
        for sound in split_sounds(data):
            samples, rate, name = _read_sound(sound, sample_rate, seconds)
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


def _read_sound(data: bytes, sample_rate: int, seconds: float) -> tuple[NDArray[np.float32], int, str]:
    """Return the samples of one sound, their rate and the name of the format.

    Args:
        data: the bytes of the sound.
        sample_rate: samples per second of the result.
        seconds: the total duration of the sounds of the file that were read before.
    """
    import soundfile

    check_size(data)
    ready = mpeg.state_frames(complete_header(without_rest(data)))
    with soundfile.SoundFile(io.BytesIO(ready)) as file:
        samples, channel = _read(file, sample_rate, seconds)
    if channel is not None:
        with soundfile.SoundFile(io.BytesIO(ready)) as file:
            samples, _ = _read(file, sample_rate, seconds, channel=channel)
    if file.format == "OGG" and ogg.is_cut_off(data):
        raise AudioError(FailureReason.TRUNCATED, f"it ends inside a page of Ogg, after {len(samples):,} frames")
    return samples, int(file.samplerate), str(file.format)


def _read(
    file: Any, sample_rate: int, seconds: float, *, channel: int | None = None
) -> tuple[NDArray[np.float32], int | None]:
    """Return the mean of the channels, block by block, and the channel to read instead if they cancel each other out.

    Args:
        file: the open file.
        sample_rate: samples per second of the result.
        seconds: the total duration of the sounds of the file that were read before.
        channel: the one to read; None is the mean of all.
    """
    file.seekable = _never  # soundfile would seek after each block, which fails at the end of a FLAC of unknown length
    most = _most_frames(file.samplerate, sample_rate, seconds)
    blocks, count, levels = list[NDArray[np.float32]](), 0, ChannelLevels(file.channels)
    while len(block := file.read(min(BLOCK_FRAMES, file.frames - count), dtype="float32", always_2d=True)):
        count += len(block)
        if count > most:
            longest = seconds + most / file.samplerate
            detail = f"longer than {longest / 60:.0f} minutes; cut it into several files"
            raise AudioError(FailureReason.TOO_LARGE, detail)
        with np.errstate(over="ignore"):  # infinite samples are refused later
            blocks.append(block.mean(axis=1) if channel is None else block[:, channel].copy())
        if channel is None:
            levels.add(block, blocks[-1])
    if file.frames != UNKNOWN_FRAMES and count < COMPLETE * file.frames:
        raise AudioError(FailureReason.TRUNCATED, f"it ends after {count:,} of {file.frames:,} frames")
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32), levels.replacement()


def _never() -> bool:
    return False


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


def _has_known_begin(data: bytes) -> bool:
    """Return whether a file begins as a sound does."""
    return data.startswith(
        (b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3", b"FORM", b".snd", b"dns.", b"caff", b"riff")
    ) or (len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0)
