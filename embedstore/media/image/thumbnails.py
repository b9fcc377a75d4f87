"""Images of any format as small WebP files, made in processes of their own."""

from __future__ import annotations

import json

from embedstore.media.image.isolation import WorkerPool

_WORKER_CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from embedstore.media.image import thumbnail_worker; thumbnail_worker.main({}, {})"
)


class ThumbnailPool(WorkerPool):
    """A pool of processes that decode an image and encode it again, small; for many threads."""

    def shrink(self, data: bytes, size: int) -> bytes:
        """Return an image as WebP.

        Args:
            data: the bytes of a file of any format.
            size: the most pixels of the longer side; nothing is enlarged.

        Raises:
            ImageError: if the image cannot be decoded, that takes too long, or the process crashes twice.
        """
        return self._ask(json.dumps({"size": size}).encode(), data)[1]

    def decode(self, data: bytes) -> bytes:
        """Return the pixels of an image as a BMP file, upright and RGB.

        Args:
            data: the bytes of a file of any format.

        Raises:
            ImageError: if the image cannot be decoded, has too many pixels, takes too long, or the process crashes
                twice.
        """
        return self._ask(json.dumps({"size": None}).encode(), data)[1]

    def _code(self) -> str:
        """Return the program of a process."""
        return _WORKER_CODE
