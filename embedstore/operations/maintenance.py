"""Caring: check every byte, mend what is damaged, keep a copy elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from embedstore.errors import BackboneError, EmbedstoreError, ImageError, MissingExtra, NoImages, QueryError, SpaceError
from embedstore.finetuning.checkpoint_manifest import parse_manifest
from embedstore.operations.session import Face
from embedstore.pipeline import run as embedding
from embedstore.search.index import build
from embedstore.sources.local_files import item_path, read_file, stat_file
from embedstore.sources.missing_vectors import MissingVectorsSource
from embedstore.storage import layout, lock
from embedstore.storage.integrity import backup as copying
from embedstore.storage.integrity import repair, verify
from embedstore.storage.integrity.verify import CheckProgress, Damage, VerificationReport
from embedstore.storage.layout import Layout
from embedstore.storage.transfer import read_archive as reading
from embedstore.storage.transfer import write_archive as writing
from embedstore.types import Failure, content_digest

IMAGES = 1024  # read at a time


@dataclass
class Repaired:
    """What a repair did.

    Attributes:
        done: one sentence each.
        lost: vectors that could not be saved. embedded: of them, made again. left: why the others were not.
    """

    done: list[str] = field(default_factory=list)
    lost: int = 0
    embedded: int = 0
    left: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def verify(
    session: Session,
    *, images: bool = False, progress: Callable[[CheckProgress], None] = lambda _: None
) -> VerificationReport:
    """Read every byte that matters and compare it with its checksum.

    Args:
        images: read every image again too, and compare it with the content that was embedded.
        progress: called as it goes on.
    """
    report = verify.verify(session.storage, progress=progress)
    report.damage += verify.verify_space_files(session.storage.layout)
    report.damage += _beside(session.storage.layout, report)
    if images and not any(d.file == session.storage.layout.catalog.name for d in report.damage):
        _images(session, report, progress)
    return report


def repair(session: Session, *, embed: bool = True, wait: float = 0.0) -> Repaired:
    """Mend what :meth:`verify` names; see :func:`repair_store`.

    Args:
        embed: embed again what was lost, where the backbone can be loaded.
        wait: seconds to wait for another writer.
    """
    mended = repair.repair(session.path, wait=wait)
    result = Repaired(done=mended.actions, lost=sum(map(len, mended.lost_contents.values())))
    with lock.writer_lock(session.storage.layout.lock, "repair", wait=wait):
        result.done += _set_aside(session.storage.layout)
    for space, contents in mended.lost_contents.items():
        _again(session, space, contents, result, embed=embed)
    _reindex(session, result)
    return result


def backup(
    session: Session,
    target: str | Path, *, link: bool = False, progress: Callable[[CheckProgress], None] = lambda _: None
) -> dict[str, int]:
    """A consistent copy in a new folder, also while another process embeds.

    Args:
        target: a folder that is not there yet, outside of the store.
        link: hard links instead of copies of the vectors: at once, but on the same disk.
        progress: called as it goes on.

    Returns:
        ``{"shards", "bytes"}``.

    Raises:
        StoreExists: something is at ``target``. StoreDamaged: a file is not what was written.
    """
    return copying.backup(session.storage, target, link=link, progress=progress)


def export_all(session: Session, folder: str | Path) -> dict[str, int]:
    """Everything as Parquet files in a new folder, one generation, also while another process writes.

    Every table, every vector of every space bit for bit, heads and checkpoints; :func:`import_store` makes a store
    of it again. Not carried: indexes, which are built again, and the quarantine.

    Returns:
        Rows by table, and ``vectors``, ``files``, ``bytes``.

    Raises:
        StoreExists: something is at ``folder``. StoreDamaged: a vector is not what was written.
    """
    return writing.write_archive(session.storage, Path(folder))


def _again(session: Session, space: str, contents: list[str], result: Repaired, *, embed: bool) -> None:
    """Embed what one space lost."""
    source = MissingVectorsSource(session.storage, contents)
    row = session.storage.space(space)
    if not embed or not len(source):
        result.left.append(
            f"space {row.name}: {len(contents)} contents, {len(source)} items; embed their source again"
        )
        return
    try:
        report = embedding.embed_source(session.storage, source, lambda: session.backbones_on_devices(row), row)
    except (BackboneError, SpaceError, MissingExtra, NoImages) as e:
        result.left.append(f"space {row.name}: {len(source)} items could not be embedded again ({e})")
        return
    result.embedded += report.embedded
    if report.failures:
        result.left.append(f"space {row.name}: {report.failures} files cannot be embedded any more: see `failures`")


def _reindex(session: Session, result: Repaired) -> None:
    """Build again every index that no search can use any more."""
    for row in session.storage.spaces():
        try:
            built = build.repair_index(session.storage, row)
        except QueryError as e:
            result.left.append(f"space {row.name} has no index any more: {e}")
        else:
            if built is not None:
                kind, rows = built.sidecar.kind, built.sidecar.rows
                result.done.append(f"space {row.name}: its index was built again ({kind}, {rows:,} rows)")


def _images(session: Session, report: VerificationReport, progress: Callable[[CheckProgress], None]) -> None:
    """Compare the images with the contents that were embedded."""
    _, rows = session.storage.sql(_IMAGES)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for begin in range(0, len(rows), IMAGES):
            chunk = rows[begin : begin + IMAGES]
            for row, said in zip(chunk, pool.map(_image, chunk), strict=True):
                if said == _ROTTEN:
                    report.damage.append(Damage(row[0], "", said, "bring the file back, or embed it as it is now"))
                elif said:
                    report.changed_images.append(row[0])
            report.images += len(chunk)
            progress(CheckProgress("images", report.images, len(rows)))


_IMAGES = """
SELECT i.uri, i.path, i.content::VARCHAR, i.size, i.mtime_ns FROM items i JOIN contents c USING (content)
WHERE i.present AND c.bytes IS DISTINCT FROM 0 ORDER BY i.item
"""
_ROTTEN = "its size and time are as before, but its bytes are others"


def _image(row: tuple[str, bytes | None, str, int, int]) -> str:
    """What is wrong with one image; "" where nothing is."""
    uri, raw, content, size, mtime_ns = row
    path = item_path(uri, raw)
    try:
        if content_digest(read_file(path)) == content.replace("-", ""):
            return ""
    except ImageError:
        return "gone or unreadable"
    found = stat_file(path)
    if isinstance(found, Failure):
        return "gone or unreadable"
    return _ROTTEN if (found.size, found.mtime_ns) == (size, mtime_ns) else "changed since"


def repair_store(
    path: str | Path, *, embed: bool = True, wait: float = 0.0, open_store: Callable[[], Caring]
) -> Repaired:
    """Mend a store, also one that cannot be opened.

    Args:
        path: its folder.
        embed, wait: as in :meth:`Caring.repair`.
        open_store: opens it once it can be.

    Raises:
        StoreBusy: another process is writing. StoreDamaged: it cannot be mended; restore it from a backup.
    """
    mended = repair.repair(path, wait=wait)
    result = open_store().repair(embed=embed, wait=wait)
    result.done[:0] = mended.actions
    for space, contents in mended.lost_contents.items():
        result.lost += len(contents)
        open_store()._again(space, contents, result, embed=embed)
    return result


def restore(
    source: str | Path, target: str | Path, *, progress: Callable[[CheckProgress], None] = lambda _: None
) -> dict[str, int]:
    """Make a store of a backup, checked on the way; see :meth:`Caring.backup`."""
    return copying.restore(source, target, progress=progress)


def import_store(path: str | Path, folder: str | Path) -> dict[str, int]:
    """Make a store of what :meth:`Caring.export_all` wrote: all of it or nothing.

    Args:
        path: a new folder. folder: the export.

    Returns:
        Rows by table, and ``vectors``.

    Raises:
        StoreExists: something is at ``path``.
        StoreNotFound, NotAStore, StoreTooNew, StoreDamaged: of the export; nothing is made.
    """
    return reading.read_archive(Path(folder), Path(path))


def _beside(at: Layout, report: VerificationReport) -> Iterator[Damage]:
    """Indexes, heads and checkpoints against their sidecars."""
    for path in sorted(at.root.glob("spaces/*/index/*.json")):
        report.sidecars += 1
        try:
            sidecar = json.loads(layout.read_small_json(path))
            file, size, xxh3 = _by(path, sidecar["file"]), int(sidecar["bytes"]), str(sidecar["xxh3"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
            yield Damage(str(path.relative_to(at.root)), "", f"the sidecar cannot be read ({type(e).__name__})")
            continue
        if said := _other(file, size, xxh3):
            yield Damage(str(file.relative_to(at.root)), "", said)
    for path in sorted(at.root.glob("checkpoints/*/checkpoint.json")):
        yield from _checkpoint(at, path, report)
    for folder in sorted(p for p in at.root.glob("heads/*/") if not p.name.startswith(".")):
        report.sidecars += 1
        if said := _head(folder):
            yield Damage(str(folder.relative_to(at.root)), "", said)


def _checkpoint(at: Layout, note: Path, report: VerificationReport) -> Iterator[Damage]:
    """The files of a tuned network against what was noted of them."""
    report.sidecars += 1
    cure = "bring it back from a backup, or tune again and `embedstore drop-space` this one"
    try:
        facts = parse_manifest(layout.read_small_json(note))
        files = [(_by(note, f["file"]), int(f["bytes"]), str(f["xxh3"])) for f in facts["files"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        yield Damage(str(note.relative_to(at.root)), "", f"the note cannot be used ({e or type(e).__name__})", cure)
        return
    for file, size, xxh3 in files:
        if said := _other(file, size, xxh3):
            yield Damage(str(file.relative_to(at.root)), "", said, cure)


def _by(note: Path, name: Any) -> Path:
    """The file of that name beside a sidecar.

    Raises:
        ValueError: it is not a plain name; a stranger's sidecar must not have other files set aside.
    """
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise ValueError("a sidecar names a file beside it")
    return note.parent / name


def _other(path: Path, size: int, xxh3: str) -> str | None:
    """A file that is not what its sidecar says."""
    try:
        if path.stat().st_size != size:
            return f"it has {path.stat().st_size:,} bytes instead of {size:,}"
        with path.open("rb") as f:
            h = xxhash.xxh3_128()
            while block := f.read(1 << 22):
                h.update(block)
    except OSError as e:
        return f"it cannot be read: {e.strerror}"
    return None if h.hexdigest() == xxh3 else "it does not match its checksum"


def _head(folder: Path) -> str:
    """What is wrong with a kept classifier."""
    from embedstore.classify.heads import serialization

    try:
        serialization.load(folder)
    except EmbedstoreError as e:
        return str(e)
    return ""


def _set_aside(at: Layout) -> list[str]:
    """Derived files that are damaged go to the quarantine."""
    done = []
    for damage in list(_beside(at, VerificationReport())):
        if damage.file.startswith("checkpoints/"):
            continue  # nothing can make it again: it stays for whoever has a copy
        path = at.root / damage.file
        kept = layout.quarantine_file(at, path, damage.file.replace("/", "-")) if path.exists() else None
        where = f": it is now {kept}" if kept else ""
        cure = "it is built again" if "index" in path.parts else "fit and keep it again"
        done.append(f"{damage.file}: {damage.what}{where}; {cure}")
    return done
