"""The process that decodes sounds one after another, from standard input to standard output.

A request is the rate of the samples as JSON, and the file; an answer is facts as JSON, and the samples. What libraries
print is discarded. See :mod:`embedstore.media.worker_process`.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from embedstore.errors import AudioError
from embedstore.media.audio.decode import decode_sound
from embedstore.media.worker_process import serve


def _answer(settings: bytes, data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return facts and samples, or the reason why there are none."""
    try:
        samples, info = decode_sound(data, json.loads(settings))
    except AudioError as e:
        return {"reason": e.reason.value, "detail": e.detail}, b""
    return {"format": info.format}, samples.tobytes()


main = partial(serve, _answer)  # of the process; its arguments are the limits of one request
