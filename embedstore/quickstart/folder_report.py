"""From a labeled folder to a report in one call: create or open the store, embed, fit a probe, write the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

import embedstore as es
from embedstore.classify.evaluation import Evaluation
from embedstore.classify.evaluation.learning_curve import LearningCurve
from embedstore.errors import BadBackbone
from embedstore.reports import evaluation_page
from embedstore.store import BackboneOptions, Store


def folder_report(
    source: Path,
    output: Path,
    *,
    backbone: str | None = None,
    store_path: Path | None = None,
    head: str = "logistic",
    progress: Callable[[str], None] = lambda _: None,
    **options: Unpack[BackboneOptions],
) -> tuple[Store, Evaluation, LearningCurve]:
    """Embed an image folder (or a manifest) whose labels are known, and write a report on its label.

    Args:
        source: ``train|val/<class>/*.jpg``, ``<class>/*.jpg`` or a manifest.
        output: HTML file of the report.
        backbone: of a new store.
        store_path: folder of the store, by default ``SOURCE.store`` next to the source; an existing store is used, and
            only new images are embedded.
        head: name of the head to evaluate.
        progress: called with each line for the user.
        options: of the backbone.

    Raises:
        BadBackbone: if the store does not exist and no backbone is given.
        LabelError: if the labels cannot support the head.
    """
    path = store_path or source.with_name(f"{source.stem if source.is_file() else source.name}.store")
    store = es.open(path) if path.exists() else _create(path, backbone, options)
    progress(store.embed(source).summary())
    evaluation = store.probe("label", head=head)
    curve = store.curve("label", head=head)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(
        evaluation_page.evaluation_page(evaluation, store.uris([m.item for m in evaluation.mistakes]), curve=curve),
        encoding="utf-8",
    )
    progress(f"wrote {output}; the vectors are in {path}")
    return store, evaluation, curve


def _create(path: Path, backbone: str | None, options: Any) -> Store:
    if backbone is None:
        raise BadBackbone(f"{path} does not exist yet, and a new store needs a backbone; add e.g. `--backbone clip`")
    return es.create(path, backbone, **options)
