"""Pillow says some things to the terminal about files that it reads well; a run over many files must not.

``warnings.catch_warnings`` changes the whole process and is not safe on threads. Instead one filter is put
before all others, and its category claims a warning only on a thread that is decoding. The user's own use of
Pillow, on other threads or outside a decode, warns as ever.
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
    """How many decodes are under way on this thread."""

    depth = 0


_decoding = _Decoding()


class _OnThisThread(type):
    """A class whose subclasses are all classes, but only on a thread that is decoding."""

    def __subclasscheck__(cls, subclass: type) -> bool:
        return _decoding.depth > 0 if cls is DecodeThreadWarning else super().__subclasscheck__(subclass)


class DecodeThreadWarning(Warning, metaclass=_OnThisThread):
    """The category of any warning raised on a thread that is decoding, and of no other."""


# Python prints records that no handler took; Pillow's loggers then reach stderr from inside a decode.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def _quiet_libtiff() -> None:
    """Take away the handlers with which libtiff writes to file descriptor 2; Pillow raises for what matters."""
    with suppress(OSError, AttributeError):  # linked in such a way that it cannot be reached: then it goes on talking
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = getattr(library, name)
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)


_quiet_libtiff()


@contextmanager
def suppress_warnings() -> Iterator[None]:
    """No warning of this thread is shown, recorded or made an error inside the block."""
    if not warnings.filters or warnings.filters[0][2] is not DecodeThreadWarning:
        warnings.simplefilter("ignore", category=DecodeThreadWarning)
    _decoding.depth += 1
    try:
        yield
    finally:
        _decoding.depth -= 1
