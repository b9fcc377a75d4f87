"""Sounds decoded in processes of their own, as unusual images are: a file that crashes a decoder costs only itself.

The decoders of compressed sounds are C libraries that read the bytes of strangers. A WAV file of plain samples has no
decoder, and a thread reads it.
"""

from __future__ import annotations

import json
import threading

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import AudioError, ImageError
from embedstore.media.audio.decode import decode_sound
from embedstore.media.audio.sizes import stated_size
from embedstore.media.image.isolation import WorkerPool
from embedstore.types import ContentInfo

TIMEOUT_SECONDS = 120.0  # for one file; hours of sound are resampled too
_PLAIN_SAMPLES = (1, 3)  # the format tags of integers and of floats (RFC 2361)

WORKER_CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from embedstore.media.audio import isolation_worker; isolation_worker.main({}, {})"
)


class SoundWorkerPool(WorkerPool):
    """A pool of processes that decode sounds."""

    def _code(self) -> str:
        return WORKER_CODE

    def decode(self, data: bytes, sample_rate: int) -> tuple[NDArray[np.float32], ContentInfo]:
        """Return samples ``(S,)`` and facts, as :func:`decode_sound` does.

        Raises:
            AudioError: if the sound cannot be decoded, that takes too long, or the process crashes twice.
        """
        try:
            facts, samples = self._ask(json.dumps(sample_rate).encode(), data)
        except ImageError as e:  # of the process: its reasons are those of any file
            raise AudioError(e.reason, e.detail) from e
        return np.frombuffer(samples, np.float32), ContentInfo(0, 0, facts["format"])


class SoundDecoder:
    """Decodes sounds for many threads: plain WAV files here, all others in processes that start when they are needed.

    Args:
        sample_rate: samples per second of the results.
        timeout_seconds: seconds that one file may take in a process.
    """

    def __init__(self, sample_rate: int, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._rate, self._timeout = sample_rate, timeout_seconds
        self._pool: SoundWorkerPool | None = None
        self._lock = threading.Lock()

    def decode(self, data: bytes) -> tuple[NDArray[np.float32], ContentInfo]:
        """Return the samples of a sound ``(S,)``, and facts about the content.

        Raises:
            AudioError: if it cannot be decoded, is empty, silent, too long or cut off, or a package is missing.
        """
        if not data or is_plain_wave(data):
            return decode_sound(data, self._rate)
        with self._lock:
            if self._pool is None:
                self._pool = SoundWorkerPool(timeout_seconds=self._timeout)
            pool = self._pool
        return pool.decode(data, self._rate)

    def close(self) -> None:
        """End the processes, also those that are decoding; a later call of :meth:`decode` starts others."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def __del__(self) -> None:
        self.close()


def is_plain_wave(data: bytes) -> bool:
    """Return whether a file is a WAV file of plain samples, and nothing else follows it."""
    is_wave = data[:4] == b"RIFF" and data[8:16] == b"WAVEfmt "
    is_all = len(data) <= (stated_size(data) or 0) + 1  # with the last pad byte
    return is_wave and is_all and int.from_bytes(data[20:22], "little") in _PLAIN_SAMPLES
