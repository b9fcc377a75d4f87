"""Decoding and resizing on a device, beside the decoders of the CPU.

A thread that finds the device's JPEG decoder free hands it the file; the others decode on the CPU. Either way the
picture is turned, resized and cropped on the device, and only bytes that the network takes stay there. Whatever the
device does not take goes the CPU's way, file by file, with the same reasons for failures.

Tested on the device ``cpu``, with torchvision's CPU decoder in the place of nvJPEG. It has not run on a GPU yet.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from embedstore.media.image import fast_jpeg
from embedstore.space import Preprocess
from embedstore.types import ImageInfo

JpegDecodeFunction = Callable[
    [torch.Tensor], torch.Tensor
]  # the bytes of a file, uint8 (N,), to uint8 (3, H, W) on the device
MAX_CONCURRENT_DECODES = 2  # files in the device's decoder: it has few engines, and CPU decoders take what they leave
MAX_UPLOAD_PIXELS = (
    1 << 22
)  # pixels of a picture that travels to the device: larger ones are resized where they were decoded


class GpuImagePreparer:
    """Prepares files for a network on a device; for many threads.

    Args:
        device: as torch names it. jpeg: its own decoder, or None where the CPU decodes everything.
    """

    def __init__(self, device: str, jpeg: JpegDecodeFunction | None = None) -> None:
        self._device, self._jpeg = torch.device(device), jpeg
        self._free = threading.BoundedSemaphore(MAX_CONCURRENT_DECODES)

    def prepare(self, data: bytes, p: Preprocess) -> tuple[torch.Tensor | NDArray[np.uint8], ImageInfo]:
        """As :func:`embedstore.media.image.fast_jpeg.prepare`, on the device where the picture allows it.

        Raises:
            ImageError: as there.
        """
        pixels, picture = self._decoded(data) or fast_jpeg.decode_to_tensor(data)
        if not fast_jpeg.can_resize_in_torch(picture, p) or (
            picture.width * picture.height > MAX_UPLOAD_PIXELS and pixels.device.type == "cpu"
        ):
            return fast_jpeg.prepare(data, p)
        out = fast_jpeg.center_crop(fast_jpeg.resize_tensor(copy_to_device(pixels, self._device), p), p)
        return out.contiguous(), picture

    def _decoded(self, data: bytes) -> tuple[torch.Tensor, ImageInfo] | None:
        """By the device's decoder, or None where it is busy or the file is not for it."""
        if self._jpeg is None or not self._free.acquire(blocking=False):
            return None
        try:
            header = fast_jpeg.read_jpeg_header(data) if has_end_marker(data) else None
            if header is None:
                return None
            pixels = self._jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            return header.to_upright(pixels) if pixels.shape == (3, header.height, header.width) else None
        except RuntimeError:  # what the decoder does not take, the CPU does, or says why not
            return None
        finally:
            self._free.release()


def has_end_marker(data: bytes) -> bool:
    """A JPEG with its end mark: nvJPEG fills what is missing of another with grey and says nothing."""
    return data.rstrip(b"\0")[-2:] == b"\xff\xd9"


def copy_to_device(pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On the device; from pinned memory, so that the copy runs beside other work."""
    if pixels.device == device or device.type != "cuda":
        return pixels.to(device)
    return pixels.pin_memory().to(device, non_blocking=True)


def torchvision_jpeg_decoder(device: str) -> JpegDecodeFunction | None:
    """Torchvision's decoder, which is there with timm; deprecated since 0.29, torchcodec has it by that name."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return None

    def decode(data: torch.Tensor) -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels: torch.Tensor = decode_jpeg(data, mode=ImageReadMode.RGB, device=device)
        return pixels

    return decode
