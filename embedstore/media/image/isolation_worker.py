"""The process that decodes unusual files one after another, from standard input to standard output.

A request is two lengths (8 bytes each, little-endian), the preprocessing as JSON, and the file. An answer is two
lengths, a JSON object, and the pixels. Nothing is pickled. The process ends when its input ends; the kernel ends it
when a file takes too long, also if its parent is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import IO, Any

from embedstore.errors import ImageError, PluginError
from embedstore.media.image.decode import open_image
from embedstore.media.image.preprocess import resize_and_crop
from embedstore.space import Preprocess
from embedstore.types import FailureReason

GRACE_SECONDS = 5.0  # after the timeout, which the parent enforces


def main(timeout_seconds: float, memory_bytes: int) -> None:
    """Answer requests until the input ends.

    Args:
        timeout_seconds: seconds that one file may take.
        memory_bytes: bytes of address space that the process may add to what it has now; 0 is no limit.
    """
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    _silence_output()
    _limit_memory(memory_bytes)
    _prefer_as_victim()
    while (request := _receive_request(requests)) is not None:
        _set_alarm(timeout_seconds + GRACE_SECONDS)
        facts, pixels = _answer(*request)
        _set_alarm(0)
        send(answers, json.dumps(facts).encode(), pixels)
        del request, pixels


def send(pipe: IO[bytes], text: bytes, data: bytes) -> None:
    """Write one request or answer."""
    pipe.write(len(text).to_bytes(8, "little") + len(data).to_bytes(8, "little") + text)
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[bytes, bytes] | None:
    """Read one request or answer; return None at the end of the pipe."""
    lengths = pipe.read(16)
    if len(lengths) < 16:
        return None
    text = pipe.read(int.from_bytes(lengths[:8], "little"))
    length = int.from_bytes(lengths[8:], "little")
    data = pipe.read(length)
    return None if len(data) < length else (text, data)


def _receive_request(pipe: IO[bytes]) -> tuple[Preprocess, bytes] | None:
    """Read the next file and its preprocessing; return None at the end."""
    request = receive(pipe)
    return None if request is None else (Preprocess.from_json(json.loads(request[0])), request[1])


def _answer(preprocess: Preprocess, data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return facts and pixels, or the reason why there are none."""
    try:
        image, image_info = open_image(data, preprocess.decoding_settings)
        pixels = resize_and_crop(image, preprocess)
    except ImageError as e:
        return {"reason": e.reason.value, "detail": e.detail}, b""
    except PluginError as e:
        return {"reason": FailureReason.CRASHED.value, "detail": str(e)}, b""
    except MemoryError:
        return {"reason": FailureReason.NO_MEMORY.value, "detail": "decoding ran out of memory"}, b""
    facts = {
        "width": image_info.width,
        "height": image_info.height,
        "format": image_info.format,
        "shape": pixels.shape,
    }
    return facts, pixels.tobytes()


def _silence_output() -> None:
    """Discard what libraries print, and leave Ctrl-C in the terminal to the parent."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _limit_memory(memory_bytes: int) -> None:
    """Limit what the process may add to its address space, and write no core file."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if memory_bytes:
            most = _address_space() + memory_bytes
            resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _address_space() -> int:
    """Return the bytes of address space that this process has; 0 where that is unknown."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def _prefer_as_victim() -> None:
    """Let the kernel end this process before the run, where memory runs out in a container."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _set_alarm(seconds: float) -> None:
    """Let the kernel end this process after so many seconds; 0 cancels it."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
