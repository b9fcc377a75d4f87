"""The process that encodes images of any format again as small WebP files: see :mod:`.isolation_worker`."""

from __future__ import annotations

import io
import json
from functools import partial
from typing import Any

from PIL import Image, ImageOps

from embedstore.errors import ImageError, PluginError
from embedstore.media.image.decode import open_image
from embedstore.media.worker_process import serve
from embedstore.types import FailureReason

_QUALITY = 80  # of WebP, Pillow's default
MAX_WHOLE_PIXELS = 50_000_000  # 150 MB; what cameras of telephones make
_METHOD = 2  # effort of the encoder; 0 is the fastest, 6 the smallest


def _answer(settings: bytes, data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return a file, or the reason why there is none."""
    try:
        image, _ = open_image(data)
        size = json.loads(settings)["size"]
        return {}, encode_whole(image) if size is None else encode_small(image, int(size))
    except ImageError as e:
        return {"reason": e.reason.value, "detail": e.detail}, b""
    except PluginError as e:
        return {"reason": FailureReason.CRASHED.value, "detail": str(e)}, b""


main = partial(serve, _answer)  # of the process; its arguments are the limits of one request


def encode_whole(image: Image.Image) -> bytes:
    """Return the very pixels of an image, as BMP: written and read in no time, by a decoder that does little.

    Raises:
        ImageError: if the image has more pixels than another process shall hold.
    """
    if image.width * image.height > MAX_WHOLE_PIXELS:
        size = f"{image.width} x {image.height} pixels are more than {MAX_WHOLE_PIXELS:,}"
        raise ImageError(FailureReason.TOO_LARGE, f"{size}; send a smaller image")
    data = io.BytesIO()
    image.save(data, "BMP")
    return data.getvalue()


def encode_small(image: Image.Image, size: int) -> bytes:
    """Return an image as WebP; its longer side has at most ``size`` pixels, and nothing is enlarged."""
    if max(image.size) > size:
        image = ImageOps.contain(image, (size, size), Image.Resampling.BICUBIC)
    data = io.BytesIO()
    image.save(data, "WEBP", quality=_QUALITY, method=_METHOD)
    return data.getvalue()
