"""The process that decodes sounds one after another, from standard input to standard output.

A request is the rate of the samples as JSON, and the file; an answer is facts as JSON, and the samples. What libraries
print is discarded. See :mod:`embedstore.media.worker_process`.
"""

from __future__ import annotations

import json
from typing import Any

from embedstore.errors import AudioError
from embedstore.media.audio.decode import decode_sound
from embedstore.media.worker_process import serve


def main(timeout_seconds: float, memory_bytes: int) -> None:
    """Answer requests until the input ends.

    Args:
        timeout_seconds: seconds that one file may take.
        memory_bytes: bytes of address space that the process may add to what it has now; 0 is no limit.
    """
    serve(_answer, timeout_seconds, memory_bytes)


def _answer(settings: bytes, data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return facts and samples, or the reason why there are none."""
    try:
        samples, info = decode_sound(data, json.loads(settings))
    except AudioError as e:
        return {"reason": e.reason.value, "detail": e.detail}, b""
    return {"format": info.format}, samples.tobytes()
