"""Advice before fine-tuning: what it may gain on a label, and the measured comparison of training strategies."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore.classify.data.features import Features
from embedstore.classify.data.sampling import sample_per_class
from embedstore.classify.data.task import require_classes
from embedstore.finetuning import advice
from embedstore.finetuning.advice import DomainDifference, FinetuningAdvice
from embedstore.finetuning.settings import parse_settings, stored_keys
from embedstore.modality import Modality
from embedstore.operations import evaluate, finetune
from embedstore.operations.session import Session
from embedstore.space import Recipe
from embedstore.storage import lock
from embedstore.storage.queries.finetuning import image_files
from embedstore.storage.spaces import RecipeSpace, SpaceRecord

if TYPE_CHECKING:
    from embedstore.backbones.trainable import TrainableBackbone
    from embedstore.finetuning.run import FinetuneJob
    from embedstore.finetuning.strategies import StrategyComparison

_TIMED_ITEMS = 8


def advise(session: Session, label: str, *, space: str | None, where: str | None, seed: int) -> FinetuningAdvice:
    """Recommend a strategy; see :meth:`embedstore.Store.advise`."""
    record = session.space(space)

    def measure() -> FinetuningAdvice:
        data = require_classes(evaluate.features(session, label, where=where, space=record.key), "advise")
        return advice.advise(data, label, _domain_difference(session, record, data, seed), seed=seed)

    return session.recorded("advise", record, {"label": label, "where": where, "seed": seed}, measure)


def compare_strategies(
    session: Session,
    label: str,
    *,
    labels_per_class: Sequence[int],
    last_layers: str,
    plot_path: str | Path | None,
    where: str | None,
    space: str | None,
    progress: Any,
    options: Mapping[str, Any],
) -> StrategyComparison:
    """Train with every strategy; see :meth:`embedstore.Store.compare_strategies`."""
    from embedstore.finetuning import plots, strategies, task
    from embedstore.finetuning.kept_strategies import StrategyFile
    from embedstore.finetuning.publish import FinetuneRequest

    record = task.check_tunable(session.space(space))
    task.check_augmentation(record.space, parse_settings(dict(options)))
    plots.require_matplotlib()

    def train() -> StrategyComparison:
        request = FinetuneRequest(record, label, where, parse_settings(dict(options)))
        job, run_folder = finetune.make_job(session, request)
        plan = strategies.StrategyPlan(
            job,
            lambda random: session.load_any(_random_weights(record.recipe) if random else record.recipe),
            sample_per_class,
            labels_per_class,
            last_layers,
        )
        folder = run_folder.with_name(f"{run_folder.name}-{_digest(last_layers)}")
        folder.mkdir(parents=True, exist_ok=True)
        with lock.writer_lock(folder / "LOCK", f"compare strategies on {label}", wait=None):
            kept = StrategyFile(folder / "strategies.json")
            comparison = strategies.compare_strategies(
                plan, label, kept, _seconds_per_item(session, record, job), progress
            )
        shutil.rmtree(folder, ignore_errors=True)
        return comparison

    settings = {"label": label, "where": where, "budgets": list(labels_per_class), "last": last_layers}
    comparison = session.recorded("compare_strategies", record, settings | stored_keys(dict(options)), train)
    if plot_path is not None:
        plots.draw_comparison(comparison, Path(plot_path))
    return comparison


def _seconds_per_item(session: Session, record: RecipeSpace, job: FinetuneJob) -> float:
    """Return how long the network of a space takes for one item, measured on some that will be trained on."""
    import torch

    from embedstore.finetuning.task import readable_rows

    backbone: TrainableBackbone = session.load_any(record.recipe)
    dataset = job.dataset(backbone)
    rows = readable_rows(dataset, job.split.train[:_TIMED_ITEMS])
    if not len(rows):
        return 0.0
    inputs = backbone.network_input(dataset.evaluation_batch(rows.tolist()))
    with torch.inference_mode():
        backbone.features(inputs[:1])  # the first call also allocates
        begin = time.perf_counter()
        backbone.features(inputs)
    return (time.perf_counter() - begin) / len(rows)


def _digest(text: str) -> str:
    """Return eight hexadecimal digits of a text, for the name of a folder."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _domain_difference(session: Session, record: SpaceRecord, data: Features, seed: int) -> DomainDifference:
    """Measure how different the images are from those that the backbone was trained on."""
    from embedstore.finetuning.domain_difference import UNKNOWN, DomainImages, measure_domain

    if not isinstance(record, RecipeSpace) or record.space.modality is not Modality.IMAGE:
        return UNKNOWN
    images = DomainImages(data, lambda items: image_files(session.storage, items), seed)
    random = _random_weights(record.recipe)
    return measure_domain(record.space, images, lambda: session.backbone(record.key), lambda: session.load(random))


def _random_weights(recipe: Recipe) -> Recipe:
    """Return the recipe of the same network with random weights."""
    return replace(recipe, weights=None, random_init=True, parent=None)
