"""The process in which odd files are decoded: one after another, from standard input to standard output.

A request is two lengths (8 bytes each, little-endian), the preprocessing as JSON, and the file. An answer is two
lengths, a JSON object, and the pixels. Nothing is pickled. The process ends when its input ends, and the kernel ends
it when a file takes too long, also when its parent is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import IO, Any

from embedstore.errors import ImageError
from embedstore.media.image import preprocess
from embedstore.media.image.decode import open_image
from embedstore.space import Preprocess
from embedstore.types import FailureReason

GRACE_SECONDS = 5.0  # seconds past the deadline, which the parent holds


def main(timeout_seconds: float, memory_bytes: int) -> None:
    """Serve until the input ends.

    Args:
        deadline: seconds a file may take. memory: bytes of address space; 0 is no limit.
    """
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    _only_ours()
    _limit(memory_bytes)
    while (request := _request(requests)) is not None:
        _alarm(timeout_seconds + GRACE_SECONDS)
        known, pixels = _answer(*request)
        _alarm(0)
        send(answers, json.dumps(known).encode(), pixels)
        del request, pixels


def send(pipe: IO[bytes], text: bytes, data: bytes) -> None:
    """One request or answer."""
    pipe.write(len(text).to_bytes(8, "little") + len(data).to_bytes(8, "little") + text)
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[bytes, bytes] | None:
    """One request or answer; None at the end of the pipe."""
    lengths = pipe.read(16)
    if len(lengths) < 16:
        return None
    text = pipe.read(int.from_bytes(lengths[:8], "little"))
    wanted = int.from_bytes(lengths[8:], "little")
    data = pipe.read(wanted)
    return None if len(data) < wanted else (text, data)


def _request(pipe: IO[bytes]) -> tuple[Preprocess, bytes] | None:
    """The next file and what to make of it."""
    got = receive(pipe)
    return None if got is None else (Preprocess.from_json(json.loads(got[0])), got[1])


def _answer(p: Preprocess, data: bytes) -> tuple[dict[str, Any], bytes]:
    """Pixels, or why not."""
    try:
        image, picture = open_image(data)
        pixels = preprocess.resize_and_crop(image, p)
    except ImageError as e:
        return {"reason": e.reason.value, "detail": e.detail}, b""
    except MemoryError:
        return {"reason": FailureReason.NO_MEMORY.value, "detail": "decoding ran out of memory"}, b""
    facts = {"width": picture.width, "height": picture.height, "format": picture.format, "shape": pixels.shape}
    return facts, pixels.tobytes()


def _only_ours() -> None:
    """Whatever a library prints goes nowhere, and Ctrl-C in the terminal is the parent's matter."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _limit(memory: int) -> None:
    """Cap the address space, and leave no core file."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _alarm(seconds: float) -> None:
    """Let the kernel end this process after so long; 0 takes it back."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
