"""From a labelled folder to a report in one call: make or open the store, embed what is new, probe, draw."""

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
        source: ``train|val/<class>/*.jpg``, ``<class>/*.jpg`` or a manifest. html: where the page goes.
        backbone: of a new store. store: its folder, by default ``SOURCE.store`` beside the source; one that is there
            already is used, and only what is new is embedded.
        head: judged. say: called with each line for the person. options: of the backbone.

    Raises:
        BadBackbone: a new store and no backbone. Everything that embedding and judging raise.
    """
    at = store_path or source.with_name(f"{source.stem if source.is_file() else source.name}.store")
    opened = es.open(at) if at.exists() else _created(at, backbone, options)
    progress(opened.embed(source).summary())
    found = opened.probe("label", head=head)
    curve = opened.curve("label", head=head)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(
        evaluation_page.evaluation_page(found, opened.uris([m.item for m in found.mistakes]), curve=curve),
        encoding="utf-8",
    )
    progress(f"wrote {output}; the vectors are in {at}")
    return opened, found, curve


def _created(at: Path, backbone: str | None, options: Any) -> Store:
    if backbone is None:
        raise BadBackbone(f"{at} does not exist yet; name the backbone it shall have, e.g. --backbone clip")
    return es.create(at, backbone, **options)
