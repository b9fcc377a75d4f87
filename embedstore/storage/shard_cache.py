"""The vector files that this process has open, and which of them it has compared with their checksums."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from embedstore.storage.reading import read_errors
from embedstore.storage.shard import Shard

# Files that stay mapped when nobody uses them; the disk keeps what is mapped even after the file was removed.
MAX_MAPPED_FILES = 256
# A file up to this size is verified whole before even one row of it is used: 4 ms at 8 GB/s.
VERIFY_WHOLE_BYTES = 32 << 20

FileIdentity = tuple[str, int, int, int, int]  # path, device, inode, size, mtime


@dataclass(frozen=True)
class OpenShard:
    """A vector file, and which file it was when it was opened."""

    shard: Shard
    identity: FileIdentity


class ShardCache:
    """Opens every vector file once, and compares it with its checksums once."""

    def __init__(self) -> None:
        self._in_use: WeakValueDictionary[FileIdentity, Shard] = WeakValueDictionary()
        self._verified: set[FileIdentity] = set()
        self._verified_blocks: dict[FileIdentity, set[int]] = {}
        self._recent = lru_cache(maxsize=MAX_MAPPED_FILES)(self._load)

    def open(self, file: Path) -> OpenShard:
        """Open a vector file. It never changes, but another store may replace the one that was at this path.

        Raises:
            StoreDamaged: if the file is missing, truncated, or not a vector file.
            StoreUnreadable: if the file cannot be read now.
        """
        with read_errors(file):
            s = file.stat()
        identity = (str(file), s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns)
        return OpenShard(self._recent(file, identity), identity)

    def is_verified(self, opened: OpenShard) -> bool:
        """Return whether the whole file was compared with its checksum."""
        return opened.identity in self._verified

    def verify(self, opened: OpenShard) -> None:
        """Compare the whole file with its checksum.

        Raises:
            StoreDamaged: if a byte is not what was written.
        """
        if not self.is_verified(opened):
            opened.shard.verify()
            self._verified.add(opened.identity)

    def verify_rows(self, opened: OpenShard, rows: NDArray[np.int64]) -> None:
        """Compare the blocks of some rows with their checksums; a small file is compared whole.

        Raises:
            StoreDamaged: if a byte is not what was written.
        """
        if opened.shard.header.file_bytes <= VERIFY_WHOLE_BYTES:
            self.verify(opened)
        elif not self.is_verified(opened):
            verified = self._verified_blocks.setdefault(opened.identity, set())
            blocks = opened.shard.blocks_of(rows) - verified
            opened.shard.verify_blocks(blocks)
            verified |= blocks

    def _load(self, file: Path, identity: FileIdentity) -> Shard:
        """Return the file's shard, which is shared while anybody uses it."""
        shard = self._in_use.get(identity)
        if shard is None:
            shard = self._in_use[identity] = Shard(file)
        return shard


SHARDS = ShardCache()
