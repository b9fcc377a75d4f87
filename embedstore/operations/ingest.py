"""Embed images and import vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from embedstore.backbones.runtimes.runtime import Tower, parse_runtime
from embedstore.errors import BadOption
from embedstore.modality import Modality
from embedstore.operations import cluster
from embedstore.operations.label_conflicts import note_label_conflicts
from embedstore.operations.session import Session
from embedstore.operations.watch import WatchedSource, Watcher, watch
from embedstore.pipeline import import_vectors
from embedstore.pipeline.distributed import plan_parts as plans
from embedstore.pipeline.distributed.engine import Engine, EngineOptions
from embedstore.pipeline.distributed.plan_parts import PlanOptions, PlanReport
from embedstore.pipeline.import_vectors import ImportOptions, ImportReport
from embedstore.pipeline.read_order import ReadOrder, parse_read_order
from embedstore.pipeline.report import EmbedReport
from embedstore.pipeline.run import EmbedJob, EmbedOptions, embed_source
from embedstore.reports.progress import Progress, embedding_progress
from embedstore.sources.annotations.options import AnnotationOptions
from embedstore.sources.open import open_source
from embedstore.sources.parts.options import PartOptions
from embedstore.sources.skip_rules import SkipRules
from embedstore.sources.source import Source
from embedstore.sources.store_items import StoreItemsSource
from embedstore.sources.table_options import TableOptions
from embedstore.storage.inbox.bucket import Bucket
from embedstore.storage.spaces import SpaceRecord


@dataclass(frozen=True)
class SourceOptions:
    """How a source is read; the attributes are options of :meth:`embedstore.Store.embed`.

    Attributes:
        labels_from: where labels come from.
        splits_from: where splits come from.
        table: how a manifest is read.
        annotations: which annotations are read.
        rules: which names are skipped.
    """

    labels_from: str | None
    splits_from: str | None
    table: TableOptions
    annotations: AnnotationOptions
    rules: SkipRules

    def open(self, session: Session, source: Any, modality: Modality) -> Source:
        """Return the source that a user names, for a space of a modality.

        Raises:
            BadOption: if a column of texts is named for a space of another modality, or pages and frames are for one of
                another than images.
        """
        check_text_column(self.table.text_column, modality)
        if self.rules.parts != PartOptions() and modality is not Modality.IMAGE:
            raise BadOption(
                f"--pages, --every and --key-frames are for a space of images, and this one is of {modality.plural}; "
                "leave them out, or name a space of images with --space"
            )
        return open_source(
            source,
            label_rule=self.labels_from,
            split_rule=self.splits_from,
            table=replace(self.table, known_types=session.storage.filled_columns()),
            annotations=self.annotations,
            exclude=[str(session.path)],
            rules=replace(self.rules, modality=modality),
            listings=session.storage.layout.listings,
        )


def check_text_column(column: str | None, modality: Modality) -> None:
    """Check that a column of texts is named for a space of texts only.

    Raises:
        BadOption: if it is named for another.
    """
    if column is not None and modality is not Modality.TEXT:
        raise BadOption(
            f"--text-column is for a space of texts, and this one is of {modality.plural}; name one with --space, "
            "or a backbone of texts with --backbone"
        )


def plan_parts(
    session: Session,
    source: Any,
    *,
    reading: SourceOptions,
    space: str | None,
    parts: int | None,
    replace_plan: bool,
    inbox: str | None,
    wait: float,
    progress: Progress,
) -> PlanReport:
    """Plan an embedding run in parts; see :meth:`embedstore.Store.plan_parts`."""
    bucket = Bucket.parse(inbox) if inbox else None
    options, record = PlanOptions(parts, replace=replace_plan, wait=wait, bucket=bucket), session.space(space)
    opened = reading.open(session, source, record.space.modality)
    with embedding_progress(progress) as callback:
        return plans.plan_parts(session.storage, opened, record, options, callback)


def embed(
    session: Session,
    source: Any,
    *,
    labels_from: str | None,
    splits_from: str | None,
    table: TableOptions,
    annotations: AnnotationOptions,
    rules: SkipRules,
    space: str | None,
    batch_size: int | None,
    threads: int | None,
    order: str,
    runtime: str | None,
    engine: EngineOptions,
    watcher: Watcher | None,
    poll: float | None,
    wait: float,
    progress: Progress,
) -> EmbedReport:
    """Embed a source, and watch it if there is a watcher; see :meth:`embedstore.Store.embed`."""
    record = session.space(space)
    reading = SourceOptions(labels_from, splits_from, table, annotations, rules)

    def open_now() -> Source:
        return reading.open(session, source, record.space.modality)

    options = EmbedOptions(
        batch_size=batch_size,
        threads=threads,
        runtime=parse_runtime(runtime) if runtime else session.options.runtime,
        decoder=session.options.decoder,
        wait=wait,
        order=parse_read_order(order),
        on_cpu=session.computes_on_cpu,
    )
    if options.order is not ReadOrder.SCAN and engine.engine is not Engine.LOCAL:
        raise BadOption("order is for the local engine: parts on a cluster are read in no order; leave out order")

    def embed_now() -> EmbedReport:
        with embedding_progress(progress) as callback:
            if engine.engine is not Engine.LOCAL:
                return cluster.embed(session, EmbedJob(session.storage, open_now(), record, options, callback), engine)
            report = embed_source(
                session.storage,
                open_now(),
                lambda: session.backbones_on_devices(record),
                record,
                options=options,
                progress=callback,
            )
        _note_text_tower(session, record)
        note_label_conflicts(session, "label")
        return report

    if watcher is not None:
        return watch(WatchedSource(source, open_now, embed_now, poll), watcher)
    if poll is not None:
        raise BadOption("poll is for watch; without it a source is embedded once")
    return embed_now()


def _note_text_tower(session: Session, record: SpaceRecord) -> None:
    """Let the text tower be exported at the end of this process if the network is loaded anyway."""
    is_exported = record.space.text and record.space.modality is Modality.IMAGE
    if is_exported and session.loaded_backbone(record.key) is not None:
        session.eager_towers.add((record.key, Tower.TEXT))


def reembed(session: Session, space: str | None, *, wait: float, progress: Progress) -> EmbedReport:
    """Embed the items of the store into one of its spaces; see :meth:`embedstore.Store.reembed`."""
    record = session.space(space)
    options = EmbedOptions(
        runtime=session.options.runtime,
        decoder=session.options.decoder,
        wait=wait,
        on_cpu=session.computes_on_cpu,
    )
    with embedding_progress(progress) as callback:
        return embed_source(
            session.storage,
            StoreItemsSource(session.storage, modality=record.space.modality),
            lambda: session.backbones_on_devices(record),
            record,
            options=options,
            progress=callback,
        )


def add_vectors(
    session: Session,
    vectors: str | Path | NDArray[Any],
    table: Any,
    *,
    options: TableOptions,
    space: str,
    unit_norm: bool | None,
    dtype: str | None,
    wait: float,
) -> ImportReport:
    """Import precomputed vectors; see :meth:`embedstore.Store.add_vectors`."""
    return import_vectors.add_vectors(
        session.storage,
        vectors,
        table,
        table_options=replace(options, known_types=session.storage.filled_columns()),
        options=ImportOptions(space, unit=unit_norm, dtype=dtype, wait=wait),
    )
