"""PDF files and videos made for tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

Color = tuple[int, int, int]
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def write_pdf(path: Path, colors: Sequence[Color], size: tuple[int, int] = (200, 100)) -> Path:
    """Write a PDF file with one page per color."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pages = [Image.new("RGB", size, color) for color in colors]
    pages[0].save(path, "PDF", save_all=True, append_images=pages[1:])
    return path


def write_video(
    path: Path,
    frames: Sequence[tuple[int, Color]],
    *,
    size: tuple[int, int] = (64, 48),
    key_every: int = 12,
    codec: str = "mpeg4",
) -> Path:
    """Write a video.

    Args:
        path: of the file; its suffix is the container.
        frames: when each frame is shown, in hundredths of a second, and its color.
        size: of a frame.
        key_every: frames from one key frame to the next.
        codec: FFmpeg's name of the encoder.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=100)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = key_every
        for shown, color in frames:
            pixels = np.zeros((size[1], size[0], 3), np.uint8)
            pixels[:] = color
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts = shown
            frame.time_base = Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """Write a file with sound only."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        for n in range(20):
            frame.pts = n * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turn_video(path: Path) -> None:
    """Let an MP4 file say that it is shown turned by a quarter clockwise (ISO 14496-12, matrix of the track header)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    one = 0x10000
    for n, value in enumerate((0, one, 0, -one, 0, 0, 0, 0, 1 << 30)):
        data[at + 4 * n : at + 4 * n + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(bytes(data))
