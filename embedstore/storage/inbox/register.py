"""The one writer registers the results of workers: in any order, any number of times, each in one transaction."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb

from embedstore.errors import StoreDamaged
from embedstore.storage import disk_errors
from embedstore.storage.carry_vectors import carry_imported_vectors
from embedstore.storage.column_names import ITEM_COLUMNS
from embedstore.storage.commit import CommitBatch, FailureRow, RunRecord
from embedstore.storage.inbox.inbox import ATTRIBUTES, MISSING, Inbox, WaitingResult, inboxes
from embedstore.storage.inbox.part_list import PartFile
from embedstore.storage.inbox.part_result import FileOutcome, PartResult
from embedstore.storage.inbox.work_plan import WorkPlan
from embedstore.storage.item_columns import ItemRow
from embedstore.storage.layout import quarantine_file
from embedstore.storage.queries import embedding, runs, shards
from embedstore.storage.queries import inbox as queries
from embedstore.storage.sql import utc_now
from embedstore.storage.writer import Writer


@dataclass
class Registration:
    """What one call registered.

    Attributes:
        parts: parts that were registered now.
        repeated: results of parts that were registered before.
        files: files of the parts that were registered now.
        embedded: files whose content got a new vector.
        reused: files whose content had a vector already.
        renamed: files that are known items under a new name.
        deleted: files whose item was deleted after the plan was made; they are left out.
        failures: files that failed, by reason.
        torn: why a result could not be used, one sentence each; its part has to be done again.
        missing: items whose file does not exist any more; they are marked when the last part is registered.
    """

    parts: int = 0
    repeated: int = 0
    files: int = 0
    embedded: int = 0
    reused: int = 0
    renamed: int = 0
    deleted: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    torn: list[str] = field(default_factory=list)
    missing: int = 0


class Registrar:
    """Registers the results in one inbox, under the writer's lock.

    Args:
        writer: the writer of the store.
        inbox: the inbox.

    Attributes:
        plan: the plan.
        total: what was registered since this object was made.

    Raises:
        PartsError: if there is no plan.
        StoreDamaged: if the plan or one of its files is not what was written.
    """

    def __init__(self, writer: Writer, inbox: Inbox) -> None:
        self.plan: WorkPlan = inbox.read_plan()
        self.total = Registration()
        self._torn_parts: set[int] = set()
        self._writer, self._inbox = writer, inbox
        self._started = utc_now()
        self._attributes = inbox.shared_file(self.plan, ATTRIBUTES)
        missing = inbox.shared_file(self.plan, MISSING)
        with writer.catalog.read() as con:
            self._registered = queries.registered_parts(con, self.plan.id)
            self._finished = queries.is_finished(con, self.plan.id)
            _load_missing(con, missing)
            _check_attributes(con, self._attributes, self.plan)

    @property
    def registered(self) -> int:
        """How many parts are in the catalog."""
        return len(self._registered)

    @property
    def left(self) -> list[int]:
        """The parts that are not in the catalog, ascending."""
        return [n for n in range(1, len(self.plan.parts) + 1) if n not in self._registered]

    def take_torn_parts(self) -> set[int]:
        """Return the parts whose results were torn since the last call: they have to be done again."""
        torn, self._torn_parts = self._torn_parts, set()
        return torn

    def register_waiting(self, *, before: int | None = None) -> int:
        """Register every result that is waiting, and return how many parts are new in the catalog.

        Args:
            before: leave the results of this part and later ones waiting.

        Raises:
            StoreUnreadable: if a result cannot be read now; it is left as it is.
            StoreIOError: if the disk or the server of a bucket fails; what was registered before is kept.
        """
        parts = self.total.parts
        with disk_errors.disk_errors(f"write to {self._inbox.folder}"):
            self._inbox.download_results()
        for waiting in self._inbox.waiting():
            if before is None or waiting.part < before:
                self.register(waiting)
        return self.total.parts - parts

    def register(self, waiting: WaitingResult) -> None:
        """Register one result; one that cannot be used is moved to the quarantine.

        Raises:
            StoreUnreadable: if it cannot be read now; it is left as it is.
            StoreIOError: if the disk is full or fails; what was registered before is kept.
        """
        if waiting.part in self._registered:
            self.total.repeated += 1
        else:
            try:
                result = self._inbox.read_result(self.plan, waiting)
            except StoreDamaged as e:
                with disk_errors.disk_errors(f"register {waiting.path}"):
                    kept = quarantine_file(
                        self._writer.layout, waiting.path, f"{self.plan.space.key}-{waiting.path.name}"
                    )
                    self._inbox.discard(waiting)
                self._torn_parts.add(waiting.part)
                self.total.torn.append(f"{waiting.path.name}: {e}; moved to {kept}, and its part has to be done again")
                return
            self._commit(result)
        with disk_errors.disk_errors(f"register {waiting.path}"):
            self._inbox.set_registered(waiting)

    def finish(self) -> bool:
        """Mark missing items and record the run if every part is registered; then remove the plan.

        Returns:
            Whether the plan is finished.

        Raises:
            StoreIOError: if the disk is full or fails; the next call goes on.
        """
        if self.left:
            return False
        if not self._finished:
            with self._writer.transaction() as con:
                notices = embedding.mark_missing(con) if self.plan.source.covers else []
                self.total.missing = embedding.missing_count(con) if self.plan.source.covers else 0
                settings = {"source": self.plan.source.description, "plan": self.plan.id, "parts": len(self.plan.parts)}
                settings["engine"] = self.plan.engine
                runs.insert_run(con, "embed", self.plan.space.key, settings, self._run_result(), self._started)
            self._writer.notify(notices)
        with disk_errors.disk_errors(f"remove {self._inbox.folder}"):
            self._inbox.remove()
        self._writer.checkpoint()
        return True

    def _run_result(self) -> dict[str, Any]:
        """Return the counts of all parts, under the keys of the table ``runs``."""
        sums: Counter[str] = Counter()
        failed = Counter(self.plan.counts.get("failed", {}))
        for counts in self._registered.values():
            sums.update({name: counts.get(name, 0) for name in ("embedded", "reused", "renamed", "deleted")})
            failed.update(counts.get("failed", {}))
        counts = dict(self.plan.counts)
        return counts | {**sums, "failed": dict(failed), "failures": failed.total(), "missing": self.total.missing}

    def _commit(self, result: PartResult) -> None:
        """Make one result durable, with the record that it is, in one transaction."""
        counts = Registration(parts=1, files=len(result.outcomes))
        batch = self._batch(result, self._inbox.read_list(self.plan, result.part), counts)
        record: dict[str, Any] = {"embedded": counts.embedded, "reused": counts.reused, "renamed": counts.renamed}
        record |= {"deleted": counts.deleted, "failed": dict(counts.failures), "files": counts.files}
        settings = {"plan": self.plan.id, "part": result.part, "parts": len(self.plan.parts)}
        carry_imported_vectors(self._writer, batch)
        self._writer.commit(
            batch,
            space=self.plan.space,
            decoder=result.decoder,
            attributes=self._attributes,
            run=RunRecord("register", settings, record, utc_now()),
        )
        self._registered[result.part] = record
        self._add(counts)

    def _batch(self, result: PartResult, files: list[PartFile], counts: Registration) -> CommitBatch:
        """Return the rows of a result, as the catalog is now."""
        batch = CommitBatch()
        with self._writer.catalog.read() as con:
            items = queries.items_by_uri(con, [ref.uri for ref, _ in files])
            unknown = [o.content for o, (ref, _) in zip(result.outcomes, files, strict=True) if ref.uri not in items]
            missing = embedding.missing_items_by_content(con, [c for c in unknown if c])
            wanted = {o.content for o in result.outcomes if o.content}
            bare = shards.contents_without_vector(con, self.plan.space.key, sorted(wanted), of_items=False)
            for outcome, file in zip(result.outcomes, files, strict=True):
                _add_file(batch, outcome, file, (items, missing), counts)
            renamed = [row.item for row in batch.items if row.item is not None and not row.keeps_columns]
            embedding.remove_missing_items(con, renamed)
        used = {row.content for row in batch.items}
        new = [n for n, content in enumerate(result.contents) if content in bare and content in used]
        batch.digests = [result.contents[n] for n in new]
        batch.vectors = [result.vectors[n] for n in new] if result.vectors is not None else []
        counts.embedded = len(new)
        counts.reused = len(batch.items) - len(new)
        return batch

    def _add(self, counts: Registration) -> None:
        """Add the counts of one part to the total."""
        total = self.total
        for name in ("parts", "files", "embedded", "reused", "renamed", "deleted"):
            setattr(total, name, getattr(total, name) + getattr(counts, name))
        total.failures.update(counts.failures)


def end_plans(writer: Writer) -> list[str]:
    """Register what is waiting in every inbox, and remove its plan.

    Returns:
        Which plans had parts left, one sentence each.

    Raises:
        StoreDamaged: if a plan cannot be used.
        StoreIOError: if the disk is full or fails.
    """
    notices = []
    for inbox in inboxes(writer.layout):
        registrar = Registrar(writer, inbox)
        registrar.register_waiting()
        if not registrar.finish():
            source = registrar.plan.source.description
            notices.append(
                f"the plan of parts for {source} was removed; plan the rest with `embedstore plan-parts STORE SOURCE`"
            )
            with disk_errors.disk_errors(f"remove {inbox.folder}"):
                inbox.remove()
    return notices


def _add_file(
    batch: CommitBatch,
    outcome: FileOutcome,
    file: PartFile,
    catalog: tuple[dict[str, int], dict[str, list[int]]],
    counts: Registration,
) -> None:
    """Add the row of one file.

    What the source says of an item that exists was applied when the plan was made, and may have been edited since: only
    its content and its file are taken over.
    """
    (items, missing), (ref, planned_item) = catalog, file
    item = items.get(ref.uri)
    if item is None and planned_item is not None:
        counts.deleted += 1  # or renamed by a person
        return
    if outcome.failure is not None:
        batch.failures.append(FailureRow(outcome.failure, item))
        counts.failures[outcome.failure.reason.value] += 1
        return
    if item is not None:
        bare = replace(ref, label=None, split=None, group=None)
        batch.items.append(ItemRow(bare, outcome.content, item, keeps_columns=True))
    else:
        renamed = missing[outcome.content].pop() if missing.get(outcome.content) else None
        counts.renamed += renamed is not None
        batch.items.append(ItemRow(ref, outcome.content, renamed))
    if outcome.image is not None or outcome.content not in batch.content_info:
        batch.content_info[outcome.content] = (ref.size, outcome.image)


def _load_missing(con: duckdb.DuckDBPyConnection, parquet: Path | None) -> None:
    """Make the missing items of a plan a table of this connection."""
    try:
        queries.load_missing(con, parquet)
    except (ValueError, duckdb.Error) as e:
        raise StoreDamaged(
            f"{parquet} cannot be used ({e!s:.80}); run `embedstore plan-parts STORE SOURCE --replace`"
        ) from e


def _check_attributes(con: duckdb.DuckDBPyConnection, parquet: Path | None, plan: WorkPlan) -> None:
    """Require that a file of the user's own columns has the columns that the plan names, and none of ours."""
    if parquet is None:
        return
    try:
        columns = set(queries.parquet_columns(con, parquet))
    except duckdb.Error as e:
        raise StoreDamaged(
            f"{parquet} cannot be read ({e!s:.80}); run `embedstore plan-parts STORE SOURCE --replace`"
        ) from e
    ours = {name for name in columns - {"uri"} if name.lower() in ITEM_COLUMNS}
    if "uri" not in columns or ours or columns - {"uri"} != set(plan.source.columns):
        raise StoreDamaged(
            f"{parquet} has other columns than the plan; run `embedstore plan-parts STORE SOURCE --replace`"
        )
