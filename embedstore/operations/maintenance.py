"""Verify, repair, back up, export and import a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from embedstore.errors import BackboneError, ImageError, MissingExtra, NoImages, QueryError, SpaceError
from embedstore.finetuning.checkpoint_manifest import parse_manifest
from embedstore.operations.session import Face
from embedstore.pipeline import run as embedding
from embedstore.search.index import build
from embedstore.sources.local_files import read_file, stat_file
from embedstore.sources.store_items import StoreItemsSource
from embedstore.storage import lock
from embedstore.storage.integrity import backup as backups
from embedstore.storage.integrity import repair as storage_repair
from embedstore.storage.integrity import verify as storage_checks
from embedstore.storage.integrity.report import (
    ChangedImage,
    Checked,
    CheckProgress,
    Damage,
    Finding,
    VerificationReport,
)
from embedstore.storage.integrity.sidecars import SidecarReaders, check_sidecars, quarantine_damaged
from embedstore.storage.sql import content_hex, decode_path
from embedstore.storage.storage import Storage
from embedstore.storage.transfer import read_archive, write_archive
from embedstore.types import Failure, content_digest

IMAGE_READ_BATCH = 1024  # images whose results are held at a time


@dataclass(frozen=True)
class RepairReport:
    """The result of a repair, or of one step of it.

    Attributes:
        actions: what was done, one sentence each.
        n_lost_vectors: vectors that could not be saved.
        n_reembedded: how many of them were embedded again.
        unresolved: why the others were not, one sentence each.
    """

    actions: list[str] = field(default_factory=list)
    n_lost_vectors: int = 0
    n_reembedded: int = 0
    unresolved: list[str] = field(default_factory=list)

    def __add__(self, other: RepairReport) -> RepairReport:
        return RepairReport(
            self.actions + other.actions,
            self.n_lost_vectors + other.n_lost_vectors,
            self.n_reembedded + other.n_reembedded,
            self.unresolved + other.unresolved,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "done": self.actions,
            "lost": self.n_lost_vectors,
            "embedded": self.n_reembedded,
            "left": self.unresolved,
        }


class Caring(Face):
    """Verbs that keep a store whole."""

    def verify(
        self, *, check_images: bool = False, progress: Callable[[CheckProgress], None] = lambda _: None
    ) -> VerificationReport:
        """Read every byte that matters and compare it with its checksum.

        Args:
            check_images: read every image again too, and compare it with the content that was embedded.
            progress: called after every vector file and every batch of images.

        Returns:
            The report; ``report.ok`` is False where anything is damaged.
        """
        return verify(self._storage, check_images=check_images, progress=progress)

    def repair(self, *, reembed: bool = True, wait: float = 0.0) -> RepairReport:
        """Repair what :meth:`verify` names; see :func:`repair_store`.

        Args:
            reembed: embed lost vectors again where the backbone can be loaded.
            wait: seconds to wait for another writer.

        Returns:
            What was done.

        Raises:
            StoreBusy: if another process is still writing after ``wait`` seconds.
            StoreDamaged: if the store cannot be repaired; restore it from a backup.
        """
        return repair_store(self.path, reembed=reembed, wait=wait, open_session=lambda: self)

    def backup(
        self, target: str | Path, *, hard_link: bool = False, progress: Callable[[CheckProgress], None] = lambda _: None
    ) -> dict[str, int]:
        """Copy the store consistently to a new folder, also while another process embeds.

        Args:
            target: a new folder outside of the store.
            hard_link: make hard links to the vector files instead of copies: instant, but on the same disk.
            progress: called after every vector file.

        Returns:
            ``{"shards", "bytes"}``: the number of vector files and their size.

        Raises:
            StoreExists: if ``target`` exists and is not an empty folder, or is inside the store.
            StoreDamaged: if a vector file is not what was written.
            StoreIOError: if the disk refuses; nothing is left at ``target``.
        """
        return backups.backup(self._storage, target, hard_link=hard_link, progress=progress)

    def export_store(self, folder: str | Path) -> dict[str, int]:
        """Write one generation of the store as Parquet files to a new folder, also while another process writes.

        The folder holds every table, every vector of every space bit for bit, heads and checkpoints;
        :func:`import_store` makes a store from it. It does not hold indexes, which are built again, nor the quarantine.

        Args:
            folder: a new folder outside of the store.

        Returns:
            The number of rows per table, and ``vectors``, ``files`` and ``bytes``.

        Raises:
            StoreExists: if ``folder`` exists and is not an empty folder, or is inside the store.
            StoreDamaged: if a vector or a head is not what was written.
            QueryError: if a column has a type that Parquet cannot hold.
            StoreIOError: if the disk refuses; nothing is left at ``folder``.
        """
        return write_archive.write_archive(self._storage, Path(folder))


def verify(storage: Storage, *, check_images: bool, progress: Callable[[CheckProgress], None]) -> VerificationReport:
    """Check a store's own files, the files of its indexes, checkpoints and heads, and if requested its images."""
    findings = [*storage_checks.check_storage(storage, progress=progress), *check_sidecars(storage.layout, _READERS)]
    catalog = storage.layout.catalog.name
    if check_images and not any(isinstance(f, Damage) and f.file == catalog for f in findings):
        findings += _check_images(storage, progress)
    return VerificationReport.from_findings(findings, storage.notices)


def repair_store(
    path: str | Path, *, reembed: bool = True, wait: float = 0.0, open_session: Callable[[], Face]
) -> RepairReport:
    """Repair a store, also one that cannot be opened.

    Args:
        path: its folder.
        reembed: embed lost vectors again where the backbone can be loaded.
        wait: seconds to wait for another writer.
        open_session: opens the store once the storage is repaired.

    Returns:
        What was done.

    Raises:
        StoreBusy: if another process is still writing after ``wait`` seconds.
        StoreDamaged: if the store cannot be repaired; restore it from a backup.
        StoreIOError: if the disk refuses.
    """
    repaired = storage_repair.repair(path, wait=wait)
    session = open_session()
    storage = session._storage
    with lock.writer_lock(storage.layout.lock, "repair", wait=wait):
        actions = repaired.actions + quarantine_damaged(storage.layout, _READERS)
    steps = chain(
        (_reembed(session, space, contents, reembed) for space, contents in repaired.lost_contents.items()),
        [_rebuild_indexes(storage)],
    )
    return sum(steps, RepairReport(actions))


def restore(
    source: str | Path, target: str | Path, *, progress: Callable[[CheckProgress], None] = lambda _: None
) -> dict[str, int]:
    """Make a store from a backup; see :func:`embedstore.storage.integrity.backup.restore`."""
    return backups.restore(source, target, progress=progress)


def import_store(path: str | Path, export_folder: str | Path) -> dict[str, int]:
    """Make a store from an export of :meth:`Caring.export_store`: the whole store or nothing.

    Args:
        path: a new folder.
        export_folder: the export.

    Returns:
        The number of rows per table, and ``vectors``.

    Raises:
        StoreExists: if ``path`` exists and is not an empty folder.
        StoreNotFound: if there is nothing at ``export_folder``.
        NotAStore: if the folder is no export.
        StoreTooNew: if a later version wrote the export.
        StoreDamaged: if a file of the export is missing, changed, or contradicts another.
        StoreIOError: if the disk refuses; nothing is left at ``path``.
    """
    return read_archive.read_archive(Path(export_folder), Path(path))


def _load_head(folder: Path) -> object:
    """Load a head; scikit-learn is imported for stores with heads only."""
    from embedstore.classify.heads import head_files

    return head_files.load(folder)


_READERS = SidecarReaders(parse_manifest, _load_head)


def _reembed(session: Face, space: str, contents: list[str], reembed: bool) -> RepairReport:
    """Embed again what one space lost."""
    storage = session._storage
    source = StoreItemsSource(storage, contents)
    row = storage.space(space)
    lost = len(contents)
    if not reembed or not len(source):
        left = f"space {row.name}: {lost} contents, {len(source)} items; embed their source again"
        return RepairReport(n_lost_vectors=lost, unresolved=[left])
    try:
        report = embedding.embed_source(storage, source, lambda: session._everywhere(row), row)
    except (BackboneError, SpaceError, MissingExtra, NoImages) as e:
        left = f"space {row.name}: {len(source)} items could not be embedded again ({e})"
        return RepairReport(n_lost_vectors=lost, unresolved=[left])
    left = f"space {row.name}: {report.failures} files cannot be embedded any more: see `failures`"
    return RepairReport(n_lost_vectors=lost, n_reembedded=report.embedded, unresolved=[left] if report.failures else [])


def _rebuild_indexes(storage: Storage) -> RepairReport:
    """Build every index again that no search can use any more."""
    actions, unresolved = [], []
    for row in storage.spaces():
        try:
            built = build.repair_index(storage, row)
        except QueryError as e:
            unresolved.append(f"space {row.name} has no index any more: {e}")
            continue
        if built is not None:
            kind, rows = built.sidecar.kind, built.sidecar.rows
            actions.append(f"space {row.name}: its index was built again ({kind}, {rows:,} rows)")
    return RepairReport(actions, unresolved=unresolved)


_IMAGES = """
SELECT i.uri, i.path, i.content::VARCHAR, i.size, i.mtime_ns FROM items i JOIN contents c USING (content)
WHERE i.present AND c.bytes IS DISTINCT FROM 0 ORDER BY i.item
"""


def _check_images(storage: Storage, progress: Callable[[CheckProgress], None]) -> Iterator[Finding]:
    """Compare every image with the content that was embedded."""
    _, rows = storage.sql(_IMAGES)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for begin in range(0, len(rows), IMAGE_READ_BATCH):
            batch = rows[begin : begin + IMAGE_READ_BATCH]
            yield from filter(None, pool.map(_check_image, batch))
            yield Checked(images=len(batch))
            progress(CheckProgress("images", begin + len(batch), len(rows)))


def _check_image(row: tuple[str, bytes | None, str, int, int]) -> Damage | ChangedImage | None:
    """Compare one image: other bytes in a file of the same size and time are damage, else it was edited or removed."""
    uri, raw, content, size, mtime_ns = row
    path = decode_path(uri, raw)
    try:
        if content_digest(read_file(path)) == content_hex(content):
            return None
    except ImageError:
        return ChangedImage(uri)
    file = stat_file(path)
    if isinstance(file, Failure) or (file.size, file.mtime_ns) != (size, mtime_ns):
        return ChangedImage(uri)
    problem = "its size and time are as before, but its bytes are others"
    return Damage(uri, "", problem, "bring the file back, or embed it as it is now")
