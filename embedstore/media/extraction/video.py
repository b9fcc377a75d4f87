"""Frames of a video, decoded by FFmpeg through PyAV.

The time of a frame counts from the begin of the video. At every time the frame is the one that is shown then: the last
that begins at or before it, whatever the rate, also a variable one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from PIL import Image

from embedstore.errors import ImageError
from embedstore.media.extraction.pictures import encode_picture
from embedstore.types import FailureReason

MAX_FRAMES = 1_000_000  # of one video
_MICROSECONDS = 1_000_000  # of a second, in which PyAV gives the duration of a file
_TOLERANCE = 5e-4  # seconds: times in uris have three decimals
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


class VideoFile:
    """An open video.

    Args:
        path: the path of the file.

    Raises:
        ImageError: if it cannot be opened or has no video.
    """

    def __init__(self, path: str) -> None:
        import av

        try:
            self._container: Any = av.open(path, **_open_options(av.__version__))
        except (av.FFmpegError, ValueError, OSError) as e:
            raise ImageError(FailureReason.CORRUPT, f"the video cannot be opened: {_message(e)}") from e
        streams = [s for s in self._container.streams.video if "attached_pic" not in _disposition(s)]
        if not streams:
            self._container.close()
            raise ImageError(FailureReason.NOT_AN_IMAGE, "the file has no video, only sound")
        self._stream: Any = streams[0]
        self._stream.thread_type = "AUTO"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def moments(self, every: float | None, *, key_frames: bool) -> list[float]:
        """Return the times of frames, in seconds.

        Args:
            every: seconds between two; None for none of these.
            key_frames: the frames that are stored whole.

        Raises:
            ImageError: if there are none, or too many.
        """
        times: set[float] = set()
        keys, duration = self._packets(needs_keys=key_frames)
        if every is not None:
            if duration / every > MAX_FRAMES:
                raise ImageError(FailureReason.TOO_LARGE, f"more than {MAX_FRAMES:,} frames; take fewer with --every")
            count = max(1, int((duration - _TOLERANCE) / every) + 1)
            times.update(round(n * every, 3) for n in range(count))
        times.update(keys)
        if len(times) > MAX_FRAMES:
            raise ImageError(FailureReason.TOO_LARGE, f"more than {MAX_FRAMES:,} frames; take fewer with --every")
        return sorted(times)

    def picture(self, seconds: float) -> bytes:
        """Return the frame that is shown at a time, upright, as the bytes of a picture.

        Raises:
            ImageError: if there is none, or it cannot be decoded.
        """
        import av

        shown = None
        try:
            for frame in self._frames_around(seconds):
                if shown is not None and self._time(frame) > seconds + _TOLERANCE:
                    break
                shown = frame
        except av.FFmpegError as e:
            if shown is None:
                raise ImageError(FailureReason.CORRUPT, f"the frame cannot be decoded: {_message(e)}") from e
        if shown is None:
            raise ImageError(FailureReason.TRUNCATED, "the video has no frame there")
        return encode_picture(_upright(shown))

    def _packets(self, *, needs_keys: bool) -> tuple[list[float], float]:
        """Return the times of the key frames if they are needed, and how many seconds the video lasts."""
        import av

        stated = self._stated_duration()
        if stated is not None and not needs_keys:
            return [], stated
        keys, end, count = [], 0.0, 0
        try:
            self._container.seek(self._stream.start_time or 0, stream=self._stream, backward=True)
            for packet in self._container.demux(self._stream):
                if packet.pts is not None:
                    count += 1
                    end = max(end, self._time(packet) + float((packet.duration or 0) * self._stream.time_base))
                    if packet.is_keyframe and needs_keys:
                        keys.append(round(max(0.0, self._time(packet)), 3))
        except av.FFmpegError as e:
            if not count:
                raise ImageError(FailureReason.CORRUPT, f"the video cannot be read: {_message(e)}") from e
        if not count:
            raise ImageError(FailureReason.TRUNCATED, "the video has no frames")
        return keys, stated or end

    def _stated_duration(self) -> float | None:
        """Return how many seconds the video lasts as it is stated; None if it is not."""
        if self._stream.duration:
            return float(self._stream.duration * self._stream.time_base)
        duration = self._container.duration
        return duration / _MICROSECONDS if duration else None

    def _frames_around(self, seconds: float) -> Iterator[Any]:
        """Yield the frames from the last key frame before a time on."""
        start = self._stream.start_time or 0
        target = start + int(seconds / self._stream.time_base)
        self._container.seek(max(target, start), stream=self._stream, backward=True)
        yield from self._container.decode(self._stream)

    def _time(self, timed: Any) -> float:
        """Return when a frame or packet is shown, in seconds from the begin."""
        pts = timed.pts if timed.pts is not None else timed.dts or 0
        return float((pts - (self._stream.start_time or 0)) * self._stream.time_base)


def _open_options(version: str) -> dict[str, str]:
    """Return the options with which PyAV reads files whose metadata are no UTF-8; from version 19 on it always does."""
    return {"metadata_errors": "replace"} if int(version.partition(".")[0]) < 19 else {}


def _upright(frame: Any) -> Image.Image:
    """Return a frame with square pixels, turned as the video says."""
    image: Image.Image = frame.to_image()
    ratio = getattr(frame, "sample_aspect_ratio", None)
    if ratio and ratio != 1 and 0.1 < ratio < 10:
        image = image.resize((max(1, round(image.width * float(ratio))), image.height), Image.Resampling.BICUBIC)
    turn = _TURNS.get(int(getattr(frame, "rotation", 0)) % 360)
    return image if turn is None else image.transpose(turn)


def _disposition(stream: Any) -> str:
    """Return the flags of a stream as text."""
    return str(getattr(stream, "disposition", "")).lower()


def _message(e: Exception) -> str:
    """Return what FFmpeg reports, without the path."""
    return str(getattr(e, "strerror", None) or type(e).__name__)
