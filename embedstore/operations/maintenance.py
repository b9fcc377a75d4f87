"""Verify, repair, back up, export and import a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from embedstore.errors import BackboneError, ItemError, MissingExtra, NoImages, QueryError, SpaceError
from embedstore.finetuning.checkpoint_manifest import parse_manifest
from embedstore.operations.results import ArchiveCounts, Backup
from embedstore.operations.session import Session
from embedstore.pipeline import run as embedding
from embedstore.reports.progress import Progress, check_progress
from embedstore.resources import available_cores
from embedstore.search.index import build
from embedstore.sources.locations import read_location, stat_location
from embedstore.sources.store_items import StoreItemsSource
from embedstore.storage import disk_errors, lock
from embedstore.storage.integrity import backup as backups
from embedstore.storage.integrity import repair as storage_repair
from embedstore.storage.integrity import take_back
from embedstore.storage.integrity import verify as storage_checks
from embedstore.storage.integrity.report import (
    ChangedImage,
    Checked,
    CheckProgress,
    Damage,
    Finding,
    Verification,
)
from embedstore.storage.integrity.sidecars import SidecarReaders, check_sidecars, quarantine_damaged
from embedstore.storage.queries.items import content_files
from embedstore.storage.sql import decode_path
from embedstore.storage.storage import Storage
from embedstore.storage.transfer import read_archive, write_archive
from embedstore.tables import OneRow, Record, Table
from embedstore.types import Failure, content_digest
from embedstore.wording import counted

IMAGE_READ_BATCH = 1024  # images whose results are held at a time


@dataclass(frozen=True)
class VerificationReport(Verification, Table):
    """The result of a verification; as a table, what is damaged, what could not be read and what has changed."""

    def records(self) -> list[Record]:
        """Return one mapping per file that is damaged or could not be read, and per image that has changed."""
        rows: list[Record] = [{"kind": "damaged", **damage.to_json()} for damage in self.damage]
        rows += [{"kind": "not read", **unread.to_json(), "where": "", "cure": ""} for unread in self.unread]
        what = "edited, moved or removed since it was embedded"
        rows += [{"kind": "changed", "file": uri, "where": "", "what": what, "cure": ""} for uri in self.changed_images]
        return [{name: row[name] for name in ("kind", "file", "where", "what", "cure")} for row in rows]


@dataclass(frozen=True)
class RepairReport(OneRow):
    """The result of a repair, or of one step of it.

    Attributes:
        actions: What was done, one sentence each.
        n_lost_vectors: Vectors that could not be saved.
        n_reembedded: How many of them were embedded again.
        unresolved: Why the others were not, one sentence each.
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


def verify(session: Session, *, check_images: bool, progress: Progress) -> VerificationReport:
    """Check every file of the store; see :meth:`embedstore.Store.verify`."""
    storage = session.storage
    with check_progress(progress) as callback:
        findings = [
            *storage_checks.check_storage(storage, progress=callback),
            *check_sidecars(storage.layout, SIDECAR_READERS),
        ]
        catalog = storage.layout.catalog.name
        if check_images and not any(isinstance(f, Damage) and f.file == catalog for f in findings):
            findings += _check_images(storage, callback)
    return VerificationReport.from_findings(findings, storage.notices)


def repair(path: str | Path, open_session: Callable[[], Session], *, reembed: bool, wait: float) -> RepairReport:
    """Repair a store, also one that cannot be opened; see :func:`embedstore.repair_store`.

    Args:
        path: the folder of the store.
        open_session: opens the store once the storage is repaired.
        reembed: embed lost vectors again if the backbone can be loaded.
        wait: seconds to wait for another writer.
    """
    repaired = storage_repair.repair(path, wait=wait)
    session = open_session()
    storage = session.storage
    disk = disk_errors.disk_errors(f"repair {session.path}", cure="make room and run it again")
    with lock.writer_lock(storage.layout.lock, "repair", wait=wait), disk:
        actions = repaired.actions + quarantine_damaged(storage.layout, SIDECAR_READERS)
        actions += take_back.take_back_heads(storage.layout, storage.catalog, _load_head)
    steps = chain(
        (_reembed(session, space, contents, reembed) for space, contents in repaired.lost_contents.items()),
        [_rebuild_indexes(storage)],
    )
    return sum(steps, RepairReport(actions))


def backup(session: Session, target: str | Path, *, hard_link: bool, progress: Progress) -> Backup:
    """Copy the store to a new folder; see :meth:`embedstore.Store.backup`."""
    with check_progress(progress) as callback:
        return Backup(**backups.backup(session.storage, target, hard_link=hard_link, progress=callback))


def restore(source: str | Path, target: str | Path, *, progress: Progress) -> Backup:
    """Make a store from a backup; see :func:`embedstore.restore`."""
    with check_progress(progress) as callback:
        return Backup(**backups.restore(source, target, progress=callback))


def export_store(session: Session, folder: Path) -> ArchiveCounts:
    """Write the whole store as Parquet files; see :meth:`embedstore.Store.export_store`."""
    return ArchiveCounts.from_counts(write_archive.write_archive(session.storage, folder))


def import_store(path: Path, export_folder: Path) -> ArchiveCounts:
    """Make a store from an export; see :func:`embedstore.import_store`."""
    return ArchiveCounts.from_counts(read_archive.read_archive(export_folder, path))


def _load_head(folder: Path) -> object:
    """Load a head; scikit-learn is imported for stores with heads only."""
    from embedstore.classify.heads import head_files

    return head_files.load(folder)


SIDECAR_READERS = SidecarReaders(parse_manifest, _load_head)


def _reembed(session: Session, space: str, contents: list[str], reembed: bool) -> RepairReport:
    """Embed again what one space lost."""
    storage = session.storage
    row = storage.space(space)
    source = StoreItemsSource(storage, contents)
    lost = len(contents)
    if not reembed or not len(source):
        left = f"space {row.name}: {counted(lost, 'content')}, {counted(len(source), 'item')}; embed their source again"
        return RepairReport(n_lost_vectors=lost, unresolved=[left])
    try:
        options = embedding.EmbedOptions(on_cpu=session.computes_on_cpu)
        report = embedding.embed_source(
            storage, source, lambda: session.backbones_on_devices(row), row, options=options
        )
    except (BackboneError, SpaceError, MissingExtra, NoImages) as e:
        left = f"space {row.name}: {counted(len(source), 'item')} could not be embedded again ({e})"
        return RepairReport(n_lost_vectors=lost, unresolved=[left])
    left = f"space {row.name}: {counted(report.failures, 'file')} cannot be embedded any more: see `failures`"
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
            actions.append(f"space {row.name}: its index was built again ({kind}, {counted(rows, 'row')})")
    return RepairReport(actions, unresolved=unresolved)


def _check_images(storage: Storage, progress: Callable[[CheckProgress], None]) -> Iterator[Finding]:
    """Compare every image with the content that was embedded."""
    rows = content_files(storage)
    with ThreadPoolExecutor(available_cores()) as pool:
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
        if content_digest(read_location(path)) == content:
            return None
    except ItemError:
        return ChangedImage(uri)
    file = stat_location(path)
    if isinstance(file, Failure) or (file.size, file.mtime_ns) != (size, mtime_ns):
        return ChangedImage(uri)
    problem = "its size and time are as before, but its bytes are others"
    return Damage(uri, "", problem, "bring the file back, or embed it as it is now")
