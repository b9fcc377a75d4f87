"""Decoding and resizing on a GPU, in addition to the decoders of the CPU.

A thread that finds the GPU's JPEG decoder free gives it the file; the others decode on the CPU. Either way the image is
resized and cropped on the GPU, and only the network's input stays there. Progressive, truncated and rotated files and
those in CMYK stay on the CPU; so does every file that the GPU cannot handle, with the same reasons for failures.

The GPU's JPEG decoder is never chosen by itself: torchvision's writes into memory that queued work may still read
(torchvision issue 9606). Tested on the device ``cpu``, with torchvision's CPU decoder in place of nvJPEG; it has not
been run on a GPU yet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from embedstore.media.image import fast_jpeg, plain_jpeg
from embedstore.media.image.warnings_filter import suppress_warnings
from embedstore.space import Preprocess
from embedstore.types import ContentInfo

# From the bytes of a file, uint8 (N,), to uint8 (3, H, W) on the device.
JpegDecodeFunction = Callable[[torch.Tensor], torch.Tensor]
MAX_CONCURRENT_DECODES = 2  # in the GPU's decoder: it has few engines, and the CPU decodes the rest
MAX_UPLOAD_PIXELS = 1 << 22  # of an image that is copied to the GPU: a larger one is resized on the CPU


class GpuImagePreparer:
    """Prepares files for a network on a GPU; for many threads.

    Args:
        device: the device, as torch names it.
        jpeg: its JPEG decoder, or None if the CPU decodes everything.
    """

    def __init__(self, device: str, jpeg: JpegDecodeFunction | None = None) -> None:
        self._device, self._jpeg = torch.device(device), jpeg
        self._free = threading.BoundedSemaphore(MAX_CONCURRENT_DECODES)

    def prepare(self, data: bytes, preprocess: Preprocess) -> tuple[torch.Tensor | NDArray[np.uint8], ContentInfo]:
        """Decode, resize and crop one file, on the GPU if the image allows it.

        Args:
            data: the bytes of the file.
            preprocess: how to resize and crop.

        Returns:
            uint8 ``(3, H, W)``, a tensor on the GPU or an array, and facts about the image.

        Raises:
            ImageError: if the image cannot be decoded; ``reason`` says why.
        """
        pixels, image_info = self._decode(data) or fast_jpeg.decode_to_tensor(data)
        if not fast_jpeg.can_resize_in_torch(image_info, preprocess) or (
            image_info.width * image_info.height > MAX_UPLOAD_PIXELS and pixels.device.type == "cpu"
        ):
            return fast_jpeg.prepare(data, preprocess)
        try:
            resized = fast_jpeg.resize_tensor(copy_to_device(pixels, self._device), preprocess)
            return fast_jpeg.center_crop(resized, preprocess).contiguous(), image_info
        except RuntimeError:  # the device lacks memory or a kernel: this image is resized on the CPU
            return fast_jpeg.prepare(data, preprocess)

    def _decode(self, data: bytes) -> tuple[torch.Tensor, ContentInfo] | None:
        """Decode by the GPU's decoder; return None if it is busy or does not support the file."""
        if self._jpeg is None or not self._free.acquire(blocking=False):
            return None
        try:
            header = plain_jpeg.read_jpeg_header(data) if has_end_marker(data) else None
            if header is None or header.progressive or header.orientation != 1:
                return None
            pixels = self._jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            return fast_jpeg.to_upright(pixels, header) if pixels.shape == (3, header.height, header.width) else None
        except RuntimeError:  # the CPU decodes the file, or says why not
            return None
        finally:
            self._free.release()


def has_end_marker(data: bytes) -> bool:
    """Return whether a JPEG has its end marker: nvJPEG fills the missing part of a truncated one with gray silently."""
    return data.rstrip(b"\0")[-2:] == b"\xff\xd9"


def copy_to_device(pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy pixels to the device from pinned memory, so that the copy overlaps with other work."""
    if pixels.device == device or device.type != "cuda":
        return pixels.to(device)
    return pixels.pin_memory().to(device, non_blocking=True)


def torchvision_jpeg_decoder(device: str) -> JpegDecodeFunction | None:
    """Return torchvision's JPEG decoder, or None without torchvision; it is deprecated there since 0.29."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return None

    def decode(data: torch.Tensor) -> torch.Tensor:
        with suppress_warnings():
            pixels: torch.Tensor = decode_jpeg(data, mode=ImageReadMode.RGB, device=device)
        return pixels

    return decode
