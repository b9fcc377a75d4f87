"""The process that decodes unusual files one after another, from standard input to standard output.

A request is two lengths (8 bytes each, little-endian), the preprocessing as JSON, and the file. An answer is two
lengths, a JSON object, and the pixels. Nothing is pickled. The process ends when its input ends; the kernel ends it
when a file takes too long, also if its parent is gone.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from embedstore.errors import ImageError, PluginError
from embedstore.media.image.decode import open_image
from embedstore.media.image.preprocess import resize_and_crop
from embedstore.media.worker_process import serve
from embedstore.space import Preprocess
from embedstore.types import FailureReason


def _answer(settings: bytes, data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return facts and pixels, or the reason why there are none."""
    try:
        preprocess = Preprocess.from_json(json.loads(settings))
        image, image_info = open_image(data, preprocess.decoding_settings)
        pixels = resize_and_crop(image, preprocess)
    except ImageError as e:
        return {"reason": e.reason.value, "detail": e.detail}, b""
    except PluginError as e:
        return {"reason": FailureReason.CRASHED.value, "detail": str(e)}, b""
    facts = {
        "width": image_info.width,
        "height": image_info.height,
        "format": image_info.format,
        "shape": pixels.shape,
    }
    return facts, pixels.tobytes()


main = partial(serve, _answer)  # of the process; its arguments are the limits of one request
