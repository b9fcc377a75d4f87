"""The process that opens PDF files and videos; the last one stays open for the next request."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from embedstore.errors import ImageError
from embedstore.media.extraction.pdf import PdfFile
from embedstore.media.extraction.video import VideoFile
from embedstore.media.worker_process import Answer, serve
from embedstore.types import FailureReason


@dataclass
class _Opened:
    """The file that is open.

    Attributes:
        key: its kind, path and state; None if none is open.
        file: the open file.
    """

    key: tuple[Any, ...] | None = None
    file: PdfFile | VideoFile | None = None
    stack: ExitStack = field(default_factory=ExitStack)

    def get(self, kind: str, path: str) -> PdfFile | VideoFile:
        """Return an open file, opened again if it changed."""
        status = os.stat(path)  # noqa: PTH116 - the path may hold surrogates
        key = (kind, path, status.st_size, status.st_mtime_ns)
        if self.file is not None and self.key == key:
            return self.file
        self.stack.close()
        self.key = None
        file = PdfFile(path) if kind == "pdf" else VideoFile(path)
        self.stack.enter_context(file)
        self.file, self.key = file, key
        return file


_opened = _Opened()


def _answer(request: bytes, _: bytes) -> Answer:
    """Return a list of parts, or a picture, or the reason why there is none."""
    try:
        return _do(json.loads(request))
    except ImageError as e:
        return {"reason": e.reason.value, "detail": e.detail}, b""
    except ImportError as e:
        return {"reason": FailureReason.MISSING_EXTRA.value, "detail": f"{e}"}, b""
    except OSError as e:
        return {"reason": FailureReason.UNREADABLE.value, "detail": e.strerror or str(e)}, b""
    except MemoryError:
        return {"reason": FailureReason.NO_MEMORY.value, "detail": "there was not enough memory"}, b""
    except Exception as e:  # whatever the libraries raise about a damaged file
        detail = " ".join(str(e).split())[:200]
        return {"reason": FailureReason.CORRUPT.value, "detail": f"{type(e).__name__}: {detail}"}, b""


main = partial(serve, _answer)  # of the process; its arguments are the limits of one request


def _do(request: dict[str, Any]) -> Answer:
    """Do what a request says."""
    file = _opened.get(request["kind"], os.fsdecode(bytes.fromhex(request["path"])))
    if "part" in request:
        return {}, file.picture(request["part"])
    if isinstance(file, VideoFile):
        return {"parts": file.moments(request["every"], key_frames=request["key_frames"])}, b""
    return {"parts": file.pages()}, b""
