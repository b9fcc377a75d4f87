"""Sounds of items as a browser plays them: decoded here, so that no file of a stranger reaches its decoders."""

from __future__ import annotations

import io
import re
import wave
from collections.abc import Callable, Mapping

import numpy as np
from fastapi import Response

from embedstore.arrays import FloatArray
from embedstore.media.audio.isolation import SoundDecoder
from embedstore.operations.bounded_cache import BoundedCache

PLAYED_RATE = 32_000  # samples per second: up to 16 kHz are heard
PLAYED_SECONDS = 600
MAX_CACHE_BYTES = 64 << 20
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})")


class Sounds:
    """Decodes the sounds of one store; what was played last is kept. Threads may share it."""

    def __init__(self) -> None:
        self._decoder = SoundDecoder(PLAYED_RATE)
        self._cache: BoundedCache[str, bytes] = BoundedCache(MAX_CACHE_BYTES, len)

    def get(self, content: str, read: Callable[[], bytes]) -> bytes:
        """Return a sound as a WAV file of 16 bits and one channel, of its first ten minutes.

        Args:
            content: the digest of the content.
            read: reads the file.

        Raises:
            ItemError: if the file cannot be read.
            AudioError: if it is no sound that can be decoded, or a package is missing.
        """
        data = self._cache.get(content)
        if data is None:
            samples, _ = self._decoder.decode(read())
            data = wave_file(samples[: PLAYED_SECONDS * PLAYED_RATE], PLAYED_RATE)
            self._cache.put(content, data)
        return data

    def close(self) -> None:
        """End the processes that decode."""
        self._decoder.close()


def wave_file(samples: FloatArray, sample_rate: int) -> bytes:
    """Return samples of one channel as a WAV file of 16 bits.

    Args:
        samples: float ``(S,)``; what is beyond -1 to 1 is cut off.
        sample_rate: samples per second.
    """
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def ranged_response(data: bytes, wanted: str, headers: Mapping[str, str]) -> Response:
    """Return a WAV file, or the part of it that a player asks for: without parts it could not move within the sound.

    Args:
        data: the bytes of the file.
        wanted: the header ``Range`` of the request (RFC 9110, section 14); of other forms than one range from a
            position on, the whole file is the answer.
        headers: the headers of the answer.
    """
    headers = {**headers, "accept-ranges": "bytes"}
    found = _RANGE.fullmatch(wanted.strip())
    if found is None:
        return Response(data, media_type="audio/wav", headers=headers)
    start, end = int(found[1]), min(int(found[2] or len(data) - 1), len(data) - 1)
    if start > end:
        return Response(status_code=416, headers={**headers, "content-range": f"bytes */{len(data)}"})
    headers["content-range"] = f"bytes {start}-{end}/{len(data)}"
    return Response(data[start : end + 1], 206, headers, "audio/wav")
