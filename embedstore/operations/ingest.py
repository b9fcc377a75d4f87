"""Embed images and import vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from embedstore.backbones.runtimes.runtime import parse_runtime
from embedstore.operations.session import Session
from embedstore.pipeline import import_vectors
from embedstore.pipeline.import_vectors import ImportOptions, ImportReport
from embedstore.pipeline.report import EmbedReport
from embedstore.pipeline.run import EmbedOptions, embed_source
from embedstore.reports.progress import Progress, embedding_progress
from embedstore.sources.open import open_source
from embedstore.sources.skip_rules import SkipRules
from embedstore.sources.store_items import StoreItemsSource


def embed(
    session: Session,
    source: str | Path | Sequence[str | Path],
    *,
    labels_from: str | None,
    exclude: Sequence[str],
    hidden: bool,
    space: str | None,
    batch_size: int | None,
    threads: int | None,
    runtime: str | None,
    wait: float,
    progress: Progress,
) -> EmbedReport:
    """Embed a source; see :meth:`embedstore.Store.embed`."""
    record = session.space(space)
    opened = open_source(
        source,
        label_rule=labels_from,
        exclude=[str(session.path)],
        rules=SkipRules(tuple(exclude), hidden),
        listings=session.storage.layout.listings,
    )
    options = EmbedOptions(
        batch_size=batch_size,
        threads=threads,
        runtime=parse_runtime(runtime) if runtime else session.options.runtime,
        decoder=session.options.decoder,
        wait=wait,
    )
    with embedding_progress(progress) as callback:
        return embed_source(
            session.storage,
            opened,
            lambda: session.backbones_on_devices(record),
            record,
            options=options,
            progress=callback,
        )


def reembed(session: Session, space: str | None, *, wait: float, progress: Progress) -> EmbedReport:
    """Embed the images of the store into one of its spaces; see :meth:`embedstore.Store.reembed`."""
    record = session.space(space)
    options = EmbedOptions(runtime=session.options.runtime, decoder=session.options.decoder, wait=wait)
    with embedding_progress(progress) as callback:
        return embed_source(
            session.storage,
            StoreItemsSource(session.storage),
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
    uri_column: str | None,
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
        uri_column=uri_column,
        options=ImportOptions(space, unit=unit_norm, dtype=dtype, wait=wait),
    )
