"""Decode some JPEG files at once with the decoder of a GPU, and resize them there.

Progressive, truncated and rotated files and those in CMYK stay on the CPU, as does every file that the GPU cannot
handle; so the reasons for failures are the same. The decoder is never chosen by itself, and its vectors are compared
while the network is at work. Tested on the device ``cpu`` with torchvision's CPU decoder in place of nvJPEG, and on a
pretended device with streams; it has not been run on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from embedstore.media.image import fast_jpeg, plain_jpeg
from embedstore.media.image.decode_stream import DecodeStream
from embedstore.media.image.plain_jpeg import JpegHeader
from embedstore.media.image.warnings_filter import suppress_warnings
from embedstore.space import Preprocess
from embedstore.types import ContentInfo

MAX_TOGETHER_PIXELS = 1 << 26  # of the images that are decoded at once: 192 MiB as RGB, and four times that as floats
# From the bytes of some files, uint8 (N,) each, to uint8 (3, H, W) each on the device.
JpegDecodeFunction = Callable[[list[torch.Tensor]], Sequence[torch.Tensor]]


class HardwareJpegs:
    """Prepares JPEG files for a network on a GPU; for many threads, of which one at a time has the decoder.

    Args:
        device: the device, as torch names it.
        jpeg: its JPEG decoder.
    """

    def __init__(self, device: str, jpeg: JpegDecodeFunction) -> None:
        self._jpeg = jpeg
        self._stream = DecodeStream(torch.device(device))

    def prepare_together(
        self, files: Sequence[bytes], preprocess: Preprocess
    ) -> Mapping[int, tuple[torch.Tensor, ContentInfo]]:
        """Decode, resize and crop those of some files that the decoder supports.

        Args:
            files: the bytes of the files.
            preprocess: how to resize and crop.

        Returns:
            By place among the files: uint8 ``(3, H, W)`` on the device, and facts about the image. A file that is
            missing is for the CPU: all of them if the decoder is busy or refuses one.
        """
        headers = _together({n: h for n, data in enumerate(files) if (h := supported_header(data, preprocess))})
        if not headers:
            return {}
        places: list[int] = []

        def work() -> list[torch.Tensor]:
            images = self._jpeg([torch.frombuffer(bytearray(files[n]), dtype=torch.uint8) for n in headers])
            whole = [(n, image) for n, image in zip(headers, images, strict=True) if _fits(image, headers[n])]
            places.extend(n for n, _ in whole)
            return [_resized(image, preprocess) for _, image in whole]

        try:
            prepared = self._stream.run_if_free(work)
        except RuntimeError:  # of the decoder, or the device lacks memory or a kernel: the CPU decodes, or says why not
            return {}
        facts = {n: ContentInfo(headers[n].width, headers[n].height, "JPEG") for n in places}
        return {n: (pixels, facts[n]) for n, pixels in zip(places, prepared or (), strict=True)}


def _together(headers: dict[int, JpegHeader]) -> dict[int, JpegHeader]:
    """Return the first of the files whose images fit into the memory for them together."""
    pixels, chosen = 0, {}
    for n, header in headers.items():
        pixels += header.width * header.height
        if pixels > MAX_TOGETHER_PIXELS:
            break
        chosen[n] = header
    return chosen


def supported_header(data: bytes, preprocess: Preprocess) -> JpegHeader | None:
    """Return the header of a file that a GPU's decoder may get, and that torch can resize; None for every other."""
    header = plain_jpeg.read_jpeg_header(data) if has_end_marker(data) else None
    if header is None or header.progressive or header.orientation != 1:
        return None
    facts = ContentInfo(header.width, header.height, "JPEG")
    return header if fast_jpeg.can_resize_in_torch(facts, preprocess) else None


def has_end_marker(data: bytes) -> bool:
    """Return whether a JPEG has its end marker: nvJPEG fills the missing part of a truncated one with gray silently."""
    return data.rstrip(b"\0")[-2:] == b"\xff\xd9"


def _fits(image: torch.Tensor, header: JpegHeader) -> bool:
    """Return whether a decoded image has the size of its header."""
    return image.shape == (3, header.height, header.width)


def _resized(image: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """Return the network's input for an image on the device."""
    return fast_jpeg.center_crop(fast_jpeg.resize_tensor(image, preprocess), preprocess).contiguous()


def torchvision_jpeg_decoder(device: str) -> JpegDecodeFunction | None:
    """Return torchvision's JPEG decoder, or None without torchvision; it is deprecated there since 0.29."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return None

    def decode(data: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        with suppress_warnings():
            images: Sequence[torch.Tensor] = decode_jpeg(data, mode=ImageReadMode.RGB, device=device)
        return images

    return decode
