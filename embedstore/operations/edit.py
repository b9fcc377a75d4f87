"""Change what is stored: delete, purge, edit, rename, compact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.operations.results import ChangedItems, Compaction, PurgedItems, TableEdit
from embedstore.operations.session import Session
from embedstore.replicas.state import forget_held_rows
from embedstore.reports.progress import Progress, message_progress
from embedstore.search.index import build
from embedstore.sources.edit_tables import write_edits
from embedstore.sources.table_options import TableOptions
from embedstore.storage import compact, item_changes, table_edits
from embedstore.storage import purge as purging
from embedstore.storage.derived_files import delete_derived
from embedstore.storage.inbox.register import end_plans
from embedstore.storage.item_changes import ItemSelection
from embedstore.storage.purge import PurgePlan
from embedstore.storage.sql import utc_now
from embedstore.storage.thumbnail_cache import ThumbnailCache
from embedstore.storage.writer import Writer
from embedstore.temporary import temporary_folder
from embedstore.wording import counted


def delete(session: Session, where: str | None, items: Sequence[int] | None, *, wait: float) -> ChangedItems:
    """Delete items; see :meth:`embedstore.Store.delete`."""
    selection = ItemSelection(where, items)
    settings = {"where": where, "items": items}
    return ChangedItems(**write(session, "delete", settings, wait, lambda w: item_changes.delete(w, selection)))


def purge(session: Session, where: str | None, items: Sequence[int] | None, *, wait: float) -> PurgedItems:
    """Remove contents for good; see :meth:`embedstore.Store.purge`."""
    from embedstore.classify.purged_heads import delete_heads, heads_that_remember

    selection = ItemSelection(where, items)
    storage = session.storage
    started = utc_now()
    with storage.writer("purge", wait=wait) as writer:
        writer.notify(end_plans(writer))  # they name files, and results hold vectors
        plan = purging.plan_purge(storage, selection)
        heads = heads_that_remember(storage, _purged_vectors(session, plan), plan.texts)
        delete_heads(writer, heads)  # first: an interrupted purge is run again
        counts = purging.purge(writer, selection)
        writer.notify(forget_held_rows(storage))
        delete_derived(storage.layout.words)
        ThumbnailCache(storage.layout.thumbnails).remove(text.replace("-", "") for text in plan.texts)
        sheets = purging.delete_augmentation_sheets(storage.layout)
        writer.record_run("purge", None, {}, counts | {"heads": len(heads)}, started)  # no text of what was purged
    return PurgedItems(**counts, heads=[head.name for head in heads], sheets=sheets)


def _purged_vectors(session: Session, plan: PurgePlan) -> dict[str, NDArray[np.float32]]:
    """Return the vectors that a purge will remove, by key of the space."""
    out = {}
    for key, (shards, rows) in plan.rows.items():
        reader = session.storage.vector_reader(session.space(key).space)
        out[key] = reader.read_float32(reader.positions(shards, rows))
    return out


def edit(
    session: Session,
    assignments: Mapping[str, str],
    where: str | None,
    items: Sequence[int] | None,
    *,
    create_columns: bool,
    wait: float,
) -> ChangedItems:
    """Set columns to SQL expressions; see :meth:`embedstore.Store.edit`."""
    selection = ItemSelection(where, items)
    settings = {"set": dict(assignments), "where": where, "items": items}
    counts = write(
        session,
        "edit",
        settings,
        wait,
        lambda w: item_changes.edit(w, assignments, selection, create_columns=create_columns),
    )
    return ChangedItems(**counts)


def edit_from_table(session: Session, table: Any, *, key: str | None, options: TableOptions, wait: float) -> TableEdit:
    """Set columns from a table; see :meth:`embedstore.Store.edit_from_table`."""
    options = replace(options, known_types=session.storage.filled_columns())
    with temporary_folder() as folder:
        edits = write_edits(table, folder / "edits.parquet", options, key=key)
        settings = {"table": edits.rows.name}
        counts = write(session, "edit", settings, wait, lambda w: table_edits.edit_from_table(w, edits.rows))
    unknown = (
        [f"{counted(counts['unknown'], 'row names', 'rows name')} an item that the store does not have"]
        if counts["unknown"]
        else []
    )
    return TableEdit(**counts, notices=(*edits.notices, *unknown))


def rename(session: Session, old: str, new: str, *, wait: float) -> ChangedItems:
    """Give items another uri; see :meth:`embedstore.Store.rename`."""
    settings = {"old": old, "new": new}
    return ChangedItems(**write(session, "rename", settings, wait, lambda w: item_changes.rename(w, old, new)))


def compact_store(session: Session, *, wait: float, progress: Progress) -> Compaction:
    """Merge vector files and wipe unused vectors; see :meth:`embedstore.Store.compact`."""
    with message_progress(progress) as callback:

        def merge(writer: Writer) -> dict[str, int]:
            return compact.compact(session.storage, writer, progress=lambda n: callback(f"{counted(n, 'row')} written"))

        counts = write(session, "compact", {}, wait, merge)
        rebuilt = []
        for space in session.storage.spaces():
            if not build.indexes_match_shards(session.storage, space):  # an old index still holds wiped vectors
                index = build.rebuild_index(session.storage, space, progress=callback, wait=wait)
                rebuilt += [index.sidecar.file] if index else []
    return Compaction(**counts, indexes=rebuilt)


def write(
    session: Session, operation: str, settings: dict[str, Any], wait: float, work: Callable[[Writer], dict[str, int]]
) -> dict[str, int]:
    """Do some work as the writer and record it as a run if it succeeds."""
    started = utc_now()
    with session.storage.writer(operation, wait=wait) as writer:
        counts = work(writer)
        writer.record_run(operation, None, {k: v for k, v in settings.items() if v is not None}, counts, started)
    return counts
