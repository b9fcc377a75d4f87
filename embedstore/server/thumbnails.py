"""Re-encoded images of items: from the cache of the store, or made by a few processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from embedstore.media.image.thumbnails import ThumbnailPool
from embedstore.operations.browse import Browser
from embedstore.resources import available_cores
from embedstore.sources.locations import read_item
from embedstore.storage.layout import Layout
from embedstore.storage.thumbnail_cache import ThumbnailCache

THUMBNAIL_SIZES = (64, 128, 256, 512)  # pixels of the longer side
IMAGE_SIZE = 2048  # pixels of the longer side of an image that is looked at
MAX_THREADS = 4  # that read and decode at once

Result = TypeVar("Result")


class Thumbnails:
    """Makes and caches the images of one store, in threads of its own: a full grid holds up no other request.

    Args:
        layout: the paths of the store.
    """

    def __init__(self, layout: Layout) -> None:
        threads = max(2, min(MAX_THREADS, available_cores()))
        self._cache = ThumbnailCache(layout.thumbnails)
        self._pool = ThumbnailPool(max_workers=threads)
        self._threads = ThreadPoolExecutor(threads, "embedstore-thumbnails")

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do some work in the threads of the images."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def get(self, content: str, size: int, read: Callable[[], bytes]) -> bytes:
        """Return an image as WebP.

        Args:
            content: the digest of the content.
            size: the most pixels of the longer side.
            read: reads the file.

        Raises:
            ImageError: if the file cannot be read or decoded.
        """
        data = self._cache.get(content, size)
        if data is None:
            data = self._pool.shrink(read(), size)
            self._cache.put(content, size, data)
        return data

    def read(self, browser: Browser, item: int, size: int) -> bytes:
        """Return the image of an item as WebP.

        Args:
            browser: looks the item up.
            item: its id.
            size: the most pixels of the longer side.

        Raises:
            ItemNotFound: if there is no such item.
            ImageError: if the file cannot be read or decoded.
        """
        content, uri, path = browser.content(item)
        return self.get(content, size, lambda: read_item(uri, path))

    def close(self) -> None:
        """End the processes and threads."""
        self._pool.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def decode(self, data: bytes) -> bytes:
        """Return the pixels of an image that was sent as a BMP file; it is decoded in a process of its own.

        Raises:
            ImageError: if the image cannot be decoded, or has too many pixels.
        """
        return self._pool.decode(data)


def content_etag(content: str, size: int) -> str:
    """Return the tag of an image for the cache of a browser."""
    return f'"{content}-{size}"'
