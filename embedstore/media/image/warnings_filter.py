"""Suppression of the warnings that Pillow prints about files that it decodes well.

``warnings.catch_warnings`` changes the whole process and is not safe with threads. Instead one filter is inserted
before all others, whose category matches a warning only on a thread that is decoding. The user's own use of Pillow, on
other threads or outside a decode, warns as before.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from PIL import _imaging


class _Decoding(threading.local):
    """The number of decodes in progress on this thread."""

    depth = 0


_decoding = _Decoding()


class _OnThisThread(type):
    """The metaclass of a class that every class is a subclass of, but only on a thread that is decoding."""

    def __subclasscheck__(cls, subclass: type) -> bool:
        return _decoding.depth > 0 if cls is DecodeThreadWarning else super().__subclasscheck__(subclass)


class DecodeThreadWarning(Warning, metaclass=_OnThisThread):
    """The category of every warning raised on a thread that is decoding, and of no other."""


# Python prints log records that no handler takes, so Pillow's would reach stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def _silence_libtiff() -> None:
    """Remove the handlers with which libtiff writes to file descriptor 2; Pillow raises what matters."""
    with suppress(OSError, AttributeError):  # linked so that it cannot be reached: then its messages stay
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = getattr(library, name)
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)


_silence_libtiff()


@contextmanager
def suppress_warnings() -> Iterator[None]:
    """Ignore every warning of this thread inside the block, also where the user turns warnings into errors."""
    if not warnings.filters or warnings.filters[0][2] is not DecodeThreadWarning:
        warnings.simplefilter("ignore", category=DecodeThreadWarning)
    _decoding.depth += 1
    try:
        yield
    finally:
        _decoding.depth -= 1
