"""From a labeled folder to a report in one call: create or open the store, embed what is new, probe, write a page."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import embedstore as es
from embedstore.classify.evaluation import Evaluation
from embedstore.classify.evaluation.learning_curve import LearningCurve
from embedstore.classify.heads import make_head
from embedstore.errors import BadBackbone, BadOption, UnknownColumn, did_you_mean
from embedstore.reports import evaluation_page
from embedstore.sources.manifest import is_manifest
from embedstore.sources.open import open_source
from embedstore.sources.table_options import TableOptions
from embedstore.storage import durable_files
from embedstore.storage.column_names import find_item_column
from embedstore.storage.disk_errors import output_errors
from embedstore.store import Store

TEXT_BACKBONE = "minilm"  # 23 million parameters: on ten topics of WordNet it scores 0.82
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class FolderReport:
    """The parts of a report on a folder.

    Attributes:
        store: the open store.
        evaluation: the evaluation of the head.
        curve: the curve of the head, over labels per class.
    """

    store: Store
    evaluation: Evaluation
    curve: LearningCurve


def folder_report(
    source: Path,
    output: Path,
    *,
    backbone: str | None = None,
    store_path: Path | None = None,
    label: str = "label",
    table: Mapping[str, Any] = NO_OPTIONS,
    head: str = "logistic",
    progress: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> FolderReport:
    """Embed a labeled folder, manifest or table of texts, and write a report on its label.

    Args:
        source: ``train|val/<class>/*.jpg``, ``<class>/*.jpg``, a manifest, or a table with a column of texts.
        output: the HTML page to write.
        backbone: the backbone of a new store; by default MiniLM for a table of texts.
        store_path: the folder of the store, by default ``SOURCE.store`` next to the source; an existing store is used,
            and only what is new is embedded.
        label: the column to predict.
        table: how a table is read, as for :meth:`embedstore.Store.embed`: ``text_column``, ``uri_column``, ``root`` and
            ``encoding``.
        head: the head to evaluate.
        progress: called with one line per step.
        **options: the options of the backbone, as for :func:`embedstore.create`.

    Raises:
        BadBackbone: if the store does not exist and no backbone is named.
        BadOption: if no store is named and the source is the root of the file system.
        UnknownHead: if there is no such head.
        UnknownColumn: if the store does not exist and the table has no column to predict; nothing is embedded then.
        OutputError: if the page cannot be written.
    """
    make_head(head)  # an unknown name is refused before a long run
    path = store_path or _default_store(source)
    if path.exists():
        store = es.open(path)
    else:
        _require_label(source, label, table)
        store = _create(path, backbone or _default_backbone(table), options)
    embedded = store.embed(source, **table)
    for line in (embedded.summary(), *embedded.notices):
        progress(line)
    evaluation = cast("Evaluation", store.probe(label, head=head, task="classification"))
    curve = store.learning_curve(label, head=head, task="classification")
    uris = store.item_uris([m.item for m in evaluation.mistakes])
    page = evaluation_page.evaluation_page(evaluation, uris, curve=curve)
    with output_errors(output):
        durable_files.write_output(output, page.encode())
    progress(f"wrote {output}; the vectors are in {path}")
    return FolderReport(store, evaluation, curve)


def _default_store(source: Path) -> Path:
    """Return the folder next to the source that has its name and the suffix ``.store``.

    Raises:
        BadOption: if the source has no folder above it.
    """
    absolute = Path(os.path.abspath(source))  # noqa: PTH100 - Path.absolute keeps "..", resolve follows links
    if not absolute.name:
        raise BadOption(f"{source} has no folder next to it for the store; name one with --store")
    return absolute.with_name(f"{absolute.stem if absolute.is_file() else absolute.name}.store")


def _require_label(source: Path, label: str, table: Mapping[str, Any]) -> None:
    """Check that a table has the column to predict, before a long run; a folder gives the column ``label``.

    Raises:
        UnknownColumn: if it has none.
    """
    if not is_manifest(str(source)):
        return
    opened = open_source(str(source), table=TableOptions(**table))
    columns = [*opened.stated_columns, *opened.columns]
    if find_item_column(label, columns) is None:
        raise UnknownColumn(
            f"{source} has no column {label!r} to predict{did_you_mean(label, columns)}; name one with --label: "
            f"{', '.join(columns)}"
        )


def _default_backbone(table: Mapping[str, Any]) -> str | None:
    """Return the backbone of a new store where the user names none: a small one for texts, none for images."""
    return None if table.get("text_column") is None else TEXT_BACKBONE


def _create(path: Path, backbone: str | None, options: dict[str, Any]) -> Store:
    """Create the store."""
    if backbone is None:
        raise BadBackbone(f"{path} does not exist yet; name the backbone of the new store, e.g. --backbone clip")
    return es.create(path, backbone, **options)
