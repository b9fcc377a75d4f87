"""Resizing on a GPU: the CPU decodes an image, and the GPU resizes and crops it.

Only the network's input stays on the GPU. An image that the GPU cannot handle is resized on the CPU. Tested on the
device ``cpu`` and on a pretended device; it has not been run on a GPU yet. The decoder of a GPU is in
:mod:`embedstore.media.image.hardware_jpeg`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from embedstore.media.image import fast_jpeg
from embedstore.space import Preprocess
from embedstore.types import ContentInfo

MAX_UPLOAD_PIXELS = 1 << 22  # of an image that is copied to the GPU: a larger one is resized on the CPU


class GpuImagePreparer:
    """Prepares files for a network on a GPU; for many threads.

    Args:
        device: the device, as torch names it.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)

    def prepare(self, data: bytes, preprocess: Preprocess) -> tuple[torch.Tensor | NDArray[np.uint8], ContentInfo]:
        """Decode one file, and resize and crop it on the GPU if the image allows it.

        Args:
            data: the bytes of the file.
            preprocess: how to resize and crop.

        Returns:
            uint8 ``(3, H, W)``, a tensor on the GPU or an array, and facts about the image.

        Raises:
            ImageError: if the image cannot be decoded; ``reason`` says why.
        """
        pixels, image_info = fast_jpeg.decode_to_tensor(data)
        if not fast_jpeg.can_resize_in_torch(image_info, preprocess) or (
            image_info.width * image_info.height > MAX_UPLOAD_PIXELS
        ):
            return fast_jpeg.prepare(data, preprocess)
        try:
            resized = fast_jpeg.resize_tensor(copy_to_device(pixels, self._device), preprocess)
            return fast_jpeg.center_crop(resized, preprocess).contiguous(), image_info
        except RuntimeError:  # the device lacks memory or a kernel: this image is resized on the CPU
            return fast_jpeg.prepare(data, preprocess)


def copy_to_device(pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy pixels to the device from pinned memory, so that the copy overlaps with other work."""
    if pixels.device == device or device.type != "cuda":
        return pixels.to(device)
    return pixels.pin_memory().to(device, non_blocking=True)
