"""A folder of a bucket: objects by name, each read whole and written with one request.

fsspec reads the schemes; the package of a scheme is an extra, as for sources. An object that is being written is not
there until its last byte is, so there are no temporary names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from embedstore.errors import BadOption, EmbedstoreError, MissingExtra, StoreIOError

SCHEMES = {"s3": "s3", "gs": "gs"}  # scheme -> extra that reads it
DELETE_NAMES = 500  # of one request
LEAST_CHUNK = 5 << 20  # s3fs sends less than two chunks with one request


def is_bucket(address: str) -> bool:
    """Return whether an address names a folder of a bucket."""
    return address.split("://", 1)[0] in SCHEMES and "://" in address


@dataclass(frozen=True)
class Bucket:
    """A folder of a bucket.

    Attributes:
        url: the address with its scheme and without a slash at its end.
    """

    url: str

    @classmethod
    def parse(cls, address: str) -> Bucket:
        """Return the folder that a user named.

        Raises:
            BadOption: if it is none.
        """
        if not is_bucket(address) or not address.split("://", 1)[1].strip("/"):
            raise BadOption(f"{address!r:.200} is no folder of a bucket; write it as s3://BUCKET/FOLDER or gs://…")
        return cls(address.rstrip("/"))

    def folder(self, name: str) -> Bucket:
        """Return a folder in this one."""
        return Bucket(f"{self.url}/{name}")

    def read(self, name: str, most: int) -> bytes | None:
        """Return the bytes of an object, None if there is none.

        Raises:
            StoreIOError: if the server refuses or does not answer, or the object has more than ``most`` bytes.
        """
        url = f"{self.url}/{name}"
        with _errors("read", url):
            try:
                if self._files.info(url)["size"] > most:
                    raise StoreIOError(f"{url} has more than {most:,} bytes; it is not one that embedstore wrote")
                data: bytes = self._files.cat_file(url)
            except FileNotFoundError:
                return None
            return data

    def write(self, name: str, data: bytes) -> None:
        """Write an object with one request; one of that name is replaced.

        Raises:
            StoreIOError: if the server refuses or does not answer.
        """
        url = f"{self.url}/{name}"
        with _errors("write", url):
            self._files.pipe_file(url, data, chunksize=max(LEAST_CHUNK, len(data)))

    def download(self, name: str, target: Path) -> None:
        """Write an object into a file.

        Raises:
            StoreIOError: if the server refuses, does not answer or has no such object, or the disk is full.
        """
        url = f"{self.url}/{name}"
        with _errors("read", url):
            self._files.get_file(url, str(target))

    def upload(self, name: str, source: Path) -> None:
        """Write a file into an object.

        Raises:
            StoreIOError: if the server refuses or does not answer.
        """
        url = f"{self.url}/{name}"
        with _errors("write", url):
            self._files.put_file(str(source), url)

    def names(self, folder: str, prefix: str = "") -> list[str]:
        """Return the names of the objects of a folder that begin with a prefix, ascending; none if there is no folder.

        Raises:
            StoreIOError: if the server refuses or does not answer.
        """
        url = f"{self.url}/{folder}".rstrip("/")
        with _errors("list", url):
            try:
                # what begins with the prefix, and not the whole folder, is asked for where the package can
                found = self._list(url, prefix)
            except FileNotFoundError:
                return []
        names = [str(entry["name"]).rsplit("/", 1)[-1] for entry in found if entry.get("type") == "file"]
        return sorted(name for name in names if name.startswith(prefix))

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects, those that there are.

        Raises:
            StoreIOError: if the server refuses or does not answer.
        """
        with _errors("delete files of", self.url):
            for first in range(0, len(names), DELETE_NAMES):
                urls = [f"{self.url}/{name}" for name in names[first : first + DELETE_NAMES]]
                try:
                    self._files.rm(urls)
                except FileNotFoundError:
                    continue

    def _list(self, url: str, prefix: str) -> list[dict[str, Any]]:
        """Return the entries of a folder."""
        if prefix:
            found: dict[str, dict[str, Any]] = self._files.find(url, maxdepth=1, prefix=prefix, detail=True)
            return list(found.values())
        return list(self._files.ls(url, detail=True, refresh=True))

    @cached_property
    def _files(self) -> Any:
        """The file system; it is made again in every process, since its event loop does not survive a fork."""
        import fsspec

        scheme = self.url.split("://", 1)[0]
        try:
            return fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as e:
            raise MissingExtra(
                f"{scheme}:// needs a package that is not installed; run `pip install 'embedstore[{SCHEMES[scheme]}]'`"
            ) from e


@contextmanager
def _errors(action: str, url: str) -> Iterator[None]:
    """Report what the packages of buckets raise, which has no common class, as one line."""
    try:
        yield
    except (EmbedstoreError, FileNotFoundError) as e:
        if isinstance(e, EmbedstoreError):
            raise
        raise StoreIOError(f"cannot {action} {url}: there is no such file or bucket; check the address") from e
    except Exception as e:  # fsspec's packages raise errors of every type
        text = f"{type(e).__name__}: {' '.join(str(e).split())}"[:300]
        raise StoreIOError(
            f"cannot {action} {url}: {text}; check the address, the credentials and the server, and run it again"
        ) from e
